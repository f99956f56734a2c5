"""All figures of an evaluation's report (`compute_figures`), as JSON (`as_json`) and photo by photo (`photo_rows`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np

from nameplate import __version__
from nameplate.data.dataset import digest
from nameplate.evaluate.calibration import RISKS, Calibration, RiskCoverage, calibrate, risk_coverage
from nameplate.evaluate.comparison import ModelComparison, loss_verdict, verdict
from nameplate.evaluate.evaluator import EvaluationResult
from nameplate.evaluate.metrics import Makes, by_make, skewed_mean
from nameplate.evaluate.metrics import as_json as evaluation_json
from nameplate.evaluate.significance import SEED
from nameplate.model.bundle import Bundle
from nameplate.model.classifier import log_losses
from nameplate.storage import absolute
from nameplate.types import Evaluation, Metric


@dataclass(frozen=True, slots=True)
class EvaluationFigures:
    """The figures of a model, with intervals."""

    evaluation: Evaluation
    log_loss: Metric
    """Its interval reaches further up than down, because a few large losses dominate the mean."""
    calibration: Calibration
    selective: RiskCoverage
    makes: Makes


def compute_figures(result: EvaluationResult) -> EvaluationFigures:
    """Compute every figure of the report from the evaluation of a model."""
    return EvaluationFigures(
        result.evaluation,
        skewed_mean(log_losses(result.probabilities, result.y_true).astype(np.float64), result.groups),
        calibrate(result.confidence, result.right, result.groups),
        risk_coverage(result.confidence, result.right, result.groups),
        by_make(result.y_true, result.y_pred, result.nameplates),
    )


def as_json(
    figures: EvaluationFigures, result: EvaluationResult, bundle: Bundle, against: ModelComparison | None = None
) -> dict[str, object]:
    """The figures as plain data, as `--json` prints them."""
    calibration, selective, makes = figures.calibration, figures.selective, figures.makes
    said = {
        **evaluation_json(figures.evaluation),
        "log_loss_interval": figures.log_loss.interval,
        "ece": calibration.ece.value,
        "ece_interval": calibration.ece.interval,
        "ece_by_chance": calibration.by_chance.value,
        "reliability": [asdict(each) for each in calibration.bins],
        "make_top1": makes.top1.value,
        "make_top1_interval": makes.top1.interval,
        "makes": [asdict(result) for result in makes.results],
        "risk_coverage": {
            "aurc": selective.aurc.value,
            "aurc_interval": selective.aurc.interval,
            "points": [asdict(point) for point in selective.points],
            "within": [
                {"at_most": risk, "answered": None if point is None else asdict(point)}
                for risk, point in zip(RISKS, selective.within, strict=True)
            ],
        },
        "left_out": {
            "trained": result.trained,
            "copies_of_trained": result.leaked,
            "excluded": result.excluded,
            "unreadable": len(result.unreadable),
            "unknown": result.unknown_nameplates,
            "unknown_photos": dict(result.unknown),
            "not_judged": dict(result.lost),
        },
        "judged_though_trained": 0 if result.trained else _overlap(result),
        "bundle": bundle.manifest.name,
        "backbone_sha256": bundle.digest,
        "runtime": result.runtime,
        "temperature": bundle.manifest.temperature_of(result.runtime),
        "data_sha256": digest(result.photos),
        "seed": SEED,
        "version": __version__,
    }
    return said if against is None else said | {"against": _against_json(against)}


def _overlap(result: EvaluationResult) -> int:
    """The number of evaluated photos that trained the model; above 0 only with `include_trained`."""
    return len({photo.sha256 for photo in result.photos} & {photo.sha256 for photo in result.training.photos})


def _against_json(against: ModelComparison) -> dict[str, object]:
    return {
        "other": against.other,
        "photos": against.photos,
        "top1": against.top1.value,
        "other_top1": against.other_top1.value,
        "top1_difference": asdict(against.difference),
        "log_loss": against.log_loss,
        "other_log_loss": against.other_log_loss,
        "log_loss_difference": asdict(against.log_loss_difference),
        "same_nameplates": against.same_nameplates,
        "says": [verdict(against), loss_verdict(against)],
    }


PHOTO_COLUMNS = ("path", "truth", "nameplate", "confidence", "right", "log_loss")


def photo_rows(result: EvaluationResult) -> Iterator[dict[str, object]]:
    """One row for each evaluated photo, with `PHOTO_COLUMNS`."""
    losses = log_losses(result.probabilities, result.y_true)
    for photo, y_true, y_pred, confidence, loss in zip(
        result.photos, result.y_true, result.y_pred, result.confidence, losses, strict=True
    ):
        yield {
            "path": absolute(photo.path),
            "truth": result.nameplates[y_true],
            "nameplate": result.nameplates[y_pred],
            "confidence": f"{confidence:.6f}",
            "right": int(y_true == y_pred),
            "log_loss": f"{loss:.6f}",
        }

"""`train_head`: a head on frozen embeddings, from labelled photos to a bundle, in seconds, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nameplate.datasets.sources import Dataset
from nameplate.datasets.splits import folds
from nameplate.errors import DataError
from nameplate.evaluation.calibration import MIN_CALIBRATION, fit_temperatures
from nameplate.evaluation.golden import with_golden
from nameplate.evaluation.metrics import evaluate
from nameplate.evaluation.verdicts import with_verdicts
from nameplate.fit.parts import Parts, photos_csv, split_parts
from nameplate.fit.record import data_record, metrics_record, versions
from nameplate.models.bundle import SCHEMA, Bfloat16Check, Bundle, Manifest, save_bundle
from nameplate.models.collection import Embedded, Progress, embed_photos, still_there
from nameplate.models.head import Head, fit_head, probabilities
from nameplate.models.index import make_index
from nameplate.models.known import Known, fit_known, own_distances
from nameplate.models.model import Model
from nameplate.models.runtime import MAX_BFLOAT16_COST
from nameplate.models.verdict import Thresholds
from nameplate.storage import writing
from nameplate.types import Evaluation, HeadRecipe, Photo

BFLOAT16_PHOTOS = 2000
"""Held-out photos, at most, on which bfloat16 is held against float32."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What `train_head` made."""

    bundle: Bundle
    evaluation: Evaluation | None
    """On the held-out photos; None where none were held out."""
    photos: int
    """Photos trained on."""
    unreadable: tuple[tuple[str, str], ...]
    """Photos that could not be read, and why."""
    runtime: str
    copies: int
    """Photos that are copies of another one."""
    parts: Parts
    """Which photos trained, which judged, and which did neither."""


def train_head(
    dataset: Dataset,
    target: Path,
    *,
    model: Model,
    recipe: HeadRecipe | None = None,
    index: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda *_: None,
) -> Trained:
    """Embed, split, fit, calibrate, measure, write.

    Args:
        dataset: labelled photos. Where the data itself has parts, its validation (or test) part is held out.
        target: the bundle's folder.
        model: gives the backbone; its own head is not looked at.
        recipe: how to train.
        index: put small pictures of the photos that train into the bundle, for `nameplate explain`.
        overwrite: replace a bundle that is there.
        progress: see `Progress`.

    Raises:
        DataError: fewer than two nameplates with readable photos to train on.
        NameplateError: `target` is there already, is written by another run, or cannot be written.
    """
    with writing(target):
        return _train_head(dataset, target, model, recipe or HeadRecipe(), index, overwrite, progress)


def _train_head(
    dataset: Dataset,
    target: Path,
    model: Model,
    recipe: HeadRecipe,
    index: bool,
    overwrite: bool,
    progress: Progress,
) -> Trained:
    embedded = embed_photos(dataset.photos, model, progress)
    parts = split_parts(dataset, embedded, recipe.holdout, recipe.seed, progress)
    photos, groups, classes = parts.photos, parts.groups, parts.classes
    nameplates, train, held = parts.nameplates, parts.train, parts.held
    head = _fit(embedded, photos, classes, train, groups, model, recipe, progress)
    exact = _exact(embedded, photos, held, model, progress)
    check = _bfloat16_check(embedded, classes, head, exact)
    if check is not None and check.cost > MAX_BFLOAT16_COST:  # then it will run, and is judged, in float32
        measured = replace(model.bundle, manifest=replace(model.bundle.manifest, bfloat16=check))
        plain = Model(measured, replace(model.settings, runtime="onnxruntime"))
        return _train_head(dataset, target, plain, recipe, index, overwrite, progress)
    computed = {embedded.runtime: (_logits(embedded.embeddings[held], head), classes[held])}
    if exact is not None:
        computed[exact.runtime] = _logits(exact.embeddings, head), classes[exact.places]
    temperatures = fit_temperatures(computed)
    head = replace(head, temperature=temperatures.get(embedded.runtime, head.temperature))
    judged = evaluate(_chances(embedded.embeddings[held], head), classes[held], nameplates) if held.any() else None
    known = fit_known(embedded.embeddings[train], classes[train], model.bundle.known)
    manifest = Manifest(
        schema=SCHEMA,
        name=target.name,
        nameplates=nameplates,
        ids=parts.ids,
        preprocess=model.bundle.manifest.preprocess,
        embedding=model.bundle.manifest.embedding,
        temperature=head.temperature,
        files={},
        temperatures=temperatures,
        bfloat16=check or model.bundle.manifest.bfloat16,
        provenance=_provenance(parts, recipe, head, judged, embedded.runtime, model),
    )
    manifest = _with_verdicts(manifest, embedded, classes, train, held, head, known, model)
    manifest = with_golden(manifest, model.bundle.backbone, head.weight, head.bias)
    chosen = [photo for photo, there in zip(photos, train, strict=True) if there]
    bundle = save_bundle(
        target,
        manifest,
        model.bundle.backbone,
        (head.weight, head.bias),
        photos_csv(photos, groups),
        known,
        index=make_index(chosen, embedded.embeddings[train], model.settings.threads) if index else None,
        overwrite=overwrite,
    )
    return Trained(bundle, judged, int(train.sum()), parts.unreadable, embedded.runtime, parts.copies, parts)


def _fit(
    embedded: Embedded,
    photos: Sequence[Photo],
    classes: NDArray[np.int64],
    train: NDArray[np.bool_],
    groups: NDArray[np.int64],
    model: Model,
    recipe: HeadRecipe,
    progress: Progress,
) -> Head:
    chosen = [photo for photo, there in zip(photos, train, strict=True) if there]
    mirrored = embed_photos(chosen, model, progress, mirror=True) if recipe.mirror else None
    return fit_recipe(chosen, embedded.embeddings[train], mirrored, classes[train], groups[train], recipe, progress)


def fit_recipe(
    photos: Sequence[Photo],
    embeddings: NDArray[np.float32],
    mirrored: Embedded | None,
    classes: NDArray[np.int64],
    groups: NDArray[np.int64],
    recipe: HeadRecipe,
    progress: Progress = lambda *_: None,
) -> Head:
    """Fit a head as a recipe says, in folds that part no copies.

    Args:
        photos: N labelled photos with their digests.
        embeddings: float32 N×D.
        mirrored: the same photos embedded mirrored, to train on as well; some may be missing.
        classes: int64 (N,).
        groups: int64 (N,), photos of one group stay together.
        recipe: folds, seed, balance.
        progress: see `Progress`.

    Returns:
        The head; the first N rows of its `out_of_fold` are of the photos as they are.

    Raises:
        DataError: all photos are in one fold.
    """
    fold = folds([str(p.label) for p in photos], [str(p.sha256) for p in photos], groups, recipe.folds, recipe.seed)
    if len(np.unique(fold)) < 2:
        raise DataError(
            "Cross-validation needs two groups of photos and two folds or more; "
            f"here all {len(photos):,} photos to train on are in one."
        )
    if mirrored is not None:
        there = still_there(photos, mirrored)
        embeddings = np.concatenate([embeddings, mirrored.embeddings])
        classes, fold = np.concatenate([classes, classes[there]]), np.concatenate([fold, fold[there]])
    return fit_head(embeddings, classes, fold, balanced=recipe.balanced, progress=lambda a, b: progress("fit", a, b))


def _with_verdicts(
    manifest: Manifest,
    embedded: Embedded,
    classes: NDArray[np.int64],
    train: NDArray[np.bool_],
    held: NDArray[np.bool_],
    head: Head,
    known: Known,
    model: Model,
) -> Manifest:
    """Thresholds from held-out photos where there are enough.

    Else what heads of other folds say of the training photos is taken besides, to tell unknown cars by. Sets of
    nameplates are not cut by that: these heads knew fewer photos, and are less sure than the one that is kept.
    """
    theirs = Thresholds() if model.bundle.known is None else model.bundle.manifest.thresholds
    chances, truths = _chances(embedded.embeddings[held], head), classes[held]
    near, cars = known.distances(embedded.embeddings[held])
    odds = known.no_car_odds(embedded.embeddings[held])
    if held.sum() >= MIN_CALIBRATION or head.out_of_fold is None:
        return with_verdicts(manifest, chances, truths, (near, cars), theirs.far, theirs.no_car, odds)
    trained = embedded.embeddings[train]
    of_folds = probabilities(head.out_of_fold[: len(trained)], head.temperature)  # mirrored copies come after
    chances, truths = np.concatenate([chances, of_folds]), np.concatenate([truths, classes[train]])
    near = np.concatenate([near, own_distances(known, trained, classes[train])])
    cars = np.concatenate([cars, known.distances(trained)[1]])
    found = with_verdicts(manifest, chances, truths, (near, cars), theirs.far, theirs.no_car)
    return replace(found, thresholds=replace(found.thresholds, nameplate=None, make=None))


def _logits(embeddings: NDArray[np.float32], head: Head) -> NDArray[np.float32]:
    return embeddings @ head.weight + head.bias


def _chances(embeddings: NDArray[np.float32], head: Head) -> NDArray[np.float32]:
    return probabilities(_logits(embeddings, head), head.temperature)


@dataclass(frozen=True, slots=True)
class _Exact:
    """Held-out photos once more, in float32."""

    runtime: str
    embeddings: NDArray[np.float32]
    places: NDArray[np.int64]
    """int64 (N,): which photos these are."""


def _exact(
    embedded: Embedded, photos: Sequence[Photo], held: NDArray[np.bool_], model: Model, progress: Progress
) -> _Exact | None:
    """Float32 embeddings to hold bfloat16 against; None where it did not run in bfloat16."""
    if not embedded.runtime.endswith("bf16") or not held.any():
        return None
    chosen = np.flatnonzero(held)[:: -(-int(held.sum()) // BFLOAT16_PHOTOS)]
    again = [photos[i] for i in chosen]
    exact = embed_photos(
        again, model.with_settings(runtime="openvino"), lambda _, a, b: progress("check bfloat16", a, b)
    )
    return _Exact(exact.runtime, exact.embeddings, chosen[still_there(again, exact)])


def _bfloat16_check(
    embedded: Embedded, classes: NDArray[np.int64], head: Head, exact: _Exact | None
) -> Bfloat16Check | None:
    """What bfloat16 costs this head, on its held-out photos."""
    if exact is None:
        return None

    def right(embeddings: NDArray[np.float32]) -> float:
        return float((_logits(embeddings, head).argmax(1) == classes[exact.places]).mean())

    return Bfloat16Check(len(exact.places), right(exact.embeddings), right(embedded.embeddings[exact.places]))


def _provenance(
    parts: Parts,
    recipe: HeadRecipe,
    head: Head,
    judged: Evaluation | None,
    runtime: str,
    model: Model,
) -> dict[str, object]:
    parent = model.bundle.manifest
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "recipe": {"name": "head", **asdict(recipe), "C": head.strength},
        "cross_validation": {str(c): {"top1": a, "log_loss": b} for c, (a, b) in head.cross_validated.items()},
        "metrics": metrics_record(judged),
        "data": data_record(parts),
        "runtime": runtime,
        "backbone": parent.provenance.get("backbone", parent.name),
        "versions": versions("numpy", "onnxruntime", "pillow", "scipy", "simplejpeg"),
    }

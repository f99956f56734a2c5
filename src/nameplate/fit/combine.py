"""Several bundles as one: heads stacked, backbones side by side, calibrated on photos that trained none of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from nameplate.evaluate.calibration import fit_temperatures
from nameplate.evaluate.metrics import evaluate
from nameplate.evaluate.thresholds import with_verdicts
from nameplate.fit.finalize import Calibrated
from nameplate.fit.held_out import HeldOutPredictions
from nameplate.model.bundle import SCHEMA, Bfloat16Check, Bundle, Manifest
from nameplate.model.classifier import probabilities
from nameplate.model.ood import MahalanobisDetector, WhiteningTransform
from nameplate.runtime.onnx_join import join_backbones
from nameplate.types import Floats

ASIDE = 1e9
"""Scale of the dimensions of other backbones in the detector of one: their part of a distance is then nothing."""


def combined(bundles: Sequence[Bundle], scales: Sequence[float], name: str) -> Bundle:
    """One bundle whose logits are the sum of the members' logits, each times its scale; not calibrated yet.

    The detector of unknown cars is that of the first member.

    Args:
        bundles: members that `check_members` accepts.
        scales: the factor of each member's logits: its weight divided by its temperature.
        name: the name of the new bundle.
    """
    first = bundles[0].manifest
    different: dict[str, Bundle] = {}
    for bundle in bundles:
        different.setdefault(bundle.digest, bundle)
    width = {digest: bundle.manifest.embedding for digest, bundle in different.items()}
    starts = dict(zip(width, np.cumsum([0, *width.values()])[:-1].tolist(), strict=True))
    weight = np.zeros((sum(width.values()), len(first.nameplates)), np.float32)
    bias = np.zeros(len(first.nameplates), np.float32)
    for bundle, scale in zip(bundles, scales, strict=True):
        assert bundle.weight is not None
        assert bundle.bias is not None
        columns = [bundle.manifest.nameplates.index(each) for each in first.nameplates]
        rows = slice(starts[bundle.digest], starts[bundle.digest] + width[bundle.digest])
        weight[rows] += np.float32(scale) * bundle.weight[:, columns]
        bias += np.float32(scale) * bundle.bias[columns]
    alone = len(different) == 1
    backbone = bundles[0].backbone if alone else join_backbones([each.backbone for each in different.values()])
    manifest = Manifest(
        schema=SCHEMA,
        name=name,
        nameplates=first.nameplates,
        ids=first.ids,
        preprocess=first.preprocess,
        embedding=len(weight),
        temperature=1.0,
        files={},
        bfloat16=_worst([bundle.manifest.bfloat16 for bundle in bundles]),
        makes=first.makes,
        fields=first.fields,
    )
    return Bundle(manifest, backbone, weight, bias, None, _detector(bundles, len(weight)))


def _worst(checks: Sequence[Bfloat16Check | None]) -> Bfloat16Check | None:
    """The check of the member that bfloat16 costs most; None where it was not measured of every member."""
    found = [check for check in checks if check is not None]
    return max(found, key=lambda check: check.cost) if len(found) == len(checks) else None


def _detector(bundles: Sequence[Bundle], width: int) -> MahalanobisDetector | None:
    """The detector of the first member for embeddings of all backbones, which come after its own."""
    own = bundles[0].ood_detector
    if own is None:
        return None
    classes = _mean_of_classes(bundles)
    further = width - bundles[0].manifest.embedding
    transform = own.whitening
    wide = WhiteningTransform(
        np.pad(transform.mean, (0, further)),
        np.pad(transform.scale, (0, further), constant_values=ASIDE),
        np.pad(transform.directions, ((0, further), (0, 0))),
        transform.shares,
    )
    cars = own.backbone_class_means
    # The bias of the gate is its last number, so that the further dimensions come before it.
    gate = None if own.gate is None else np.concatenate([own.gate[:-1], np.zeros(further), own.gate[-1:]])
    return MahalanobisDetector(
        wide,
        np.pad(classes, ((0, 0), (0, further))),
        None if cars is None else np.pad(cars, ((0, 0), (0, further))),
        None if gate is None else gate.astype(np.float32),
    )


def _mean_of_classes(bundles: Sequence[Bundle]) -> Floats:
    """The class means of the first member; the mean over members whose means lie in the same whitened space."""
    first = bundles[0]
    assert first.ood_detector is not None
    found = []
    for bundle in bundles:
        known = bundle.ood_detector
        if known is not None and bundle.digest == first.digest and _same(known, first.ood_detector):
            order = [bundle.manifest.nameplates.index(name) for name in first.manifest.nameplates]
            found.append(known.class_means[order])
    means: Floats = np.mean(found, axis=0, dtype=np.float32)
    return means


def _same(one: MahalanobisDetector, two: MahalanobisDetector) -> bool:
    first, second = one.whitening, two.whitening
    return bool(
        np.array_equal(first.mean, second.mean)
        and np.array_equal(first.scale, second.scale)
        and np.array_equal(first.directions, second.directions)
    )


def calibrated_on(draft: Bundle, found: HeldOutPredictions | None, first: Bundle) -> Calibrated:
    """Fit the temperature and choose the thresholds of an ensemble.

    Args:
        draft: from `combined`.
        found: predictions of photos that trained no member; None where there are none. The thresholds for unknown cars
            are then those of the first member, and there are no others.
        first: the member whose detector the draft has.
    """
    own = first.manifest.thresholds
    # Distances are divided by the number of dimensions, of which the detector uses only its own.
    share = first.manifest.embedding / draft.manifest.embedding
    far = None if own.far is None else own.far * share
    if found is None:
        thresholds = replace(
            own, far=far, middle=own.middle * share, spread=own.spread * share, nameplate=None, make=None, photos=0
        )
        return Calibrated(
            replace(draft, manifest=replace(draft.manifest, thresholds=thresholds)), None, _no_probs(draft)
        )
    temperature = fit_temperatures({"": (found.logits, found.classes)}).get("", 1.0)
    manifest = replace(draft.manifest, temperature=temperature)
    probs = probabilities(found.logits, temperature)
    distances = None
    if found.distances is not None and draft.ood_detector is not None:
        distances = found.distances[0] * np.float32(share), found.distances[1] * np.float32(share)
    odds = found.odds if distances is not None else None
    manifest = with_verdicts(manifest, probs, found.classes, distances, far, own.no_car, odds)
    evaluation = evaluate(probs, found.classes, manifest.nameplates, found.groups)
    return Calibrated(replace(draft, manifest=manifest), evaluation, probs)


def _no_probs(draft: Bundle) -> Floats:
    return np.zeros((0, len(draft.manifest.nameplates)), np.float32)

"""`train_head`: a head on frozen embeddings, from labelled photos to a bundle, in seconds, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nameplate.data.dataset import Dataset
from nameplate.data.split import folds
from nameplate.errors import DataError
from nameplate.fit.finalize import (
    BFLOAT16_RUNTIME,
    HeldOut,
    OutOfFold,
    RuntimeEmbeddings,
    bfloat16_check,
    calibrate_bundle,
    finalize,
)
from nameplate.fit.run import data_record, versions
from nameplate.fit.split import Split, photos_csv, split_parts
from nameplate.model.bundle import SCHEMA, Bfloat16Check, Bundle, Manifest
from nameplate.model.classifier import Head, fit_head
from nameplate.model.embeddings import DatasetEmbeddings, Progress, embed_photos, still_readable
from nameplate.model.model import Model
from nameplate.model.neighbours import make_index
from nameplate.model.ood import fit_detector
from nameplate.model.runtime_choice import MAX_BFLOAT16_COST
from nameplate.model.verdict import Thresholds
from nameplate.storage import writing
from nameplate.types import Evaluation, Floats, HeadRecipe, Photo

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
    parts: Split
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
    recipe = recipe or HeadRecipe()
    with writing(target):
        fitted = _fit(dataset, model, recipe, progress)
        check = bfloat16_check((fitted.head.weight, fitted.head.bias), fitted.held_out)
        if check is not None and check.cost > MAX_BFLOAT16_COST:
            # The bundle will then run in float32, so it is fitted and judged on float32's embeddings.
            fitted = _fit(dataset, _in_float32(model, check), recipe, progress)
        parts, embedded = fitted.parts, fitted.embedded
        calibrated = calibrate_bundle(_draft(target.name, fitted), fitted.held_out, fitted.out_of_fold)
        bundle = finalize(
            target,
            calibrated,
            _provenance(fitted, recipe),
            index=_index(fitted) if index else None,
            overwrite=overwrite,
        )
    trained = int(parts.train.sum())
    return Trained(bundle, calibrated.evaluation, trained, parts.unreadable, embedded.runtime, parts.copies, parts)


@dataclass(frozen=True, slots=True, eq=False)
class _Fitted:
    """A head, fitted on the embeddings of one model's backbone."""

    model: Model
    embedded: DatasetEmbeddings
    """The photos that can be read, in the order of `parts`."""
    parts: Split
    head: Head
    held_out: HeldOut

    @property
    def trained(self) -> Floats:
        """Embeddings of the photos that trained the head, float32 N×D."""
        return self.embedded.embeddings[self.parts.train]

    @property
    def out_of_fold(self) -> OutOfFold | None:
        """What cross-validation said of the photos that trained the head; None where it could not be done."""
        if self.head.out_of_fold is None:
            return None
        logits = self.head.out_of_fold[: len(self.trained)]  # rows of the mirrored copies come after
        return OutOfFold(self.trained, logits, self.parts.classes[self.parts.train])


def _fit(dataset: Dataset, model: Model, recipe: HeadRecipe, progress: Progress) -> _Fitted:
    """Embed the photos, split them, and fit the head on those that train."""
    # Which photos will train is not known yet, so some that do not are embedded mirrored in vain: decoding all of
    # them again took longer.
    embedded = embed_photos(dataset.photos, model, progress, also_mirrored=recipe.mirror)
    parts = split_parts(dataset, embedded, recipe.holdout, recipe.seed, progress)
    train = parts.train
    chosen = _training_photos(parts)
    mirrored = embed_photos(chosen, model, progress, mirror=True) if recipe.mirror else None
    classes, groups = parts.classes[train], parts.groups[train]
    head = fit_recipe(chosen, embedded.embeddings[train], mirrored, classes, groups, recipe, progress)
    return _Fitted(model, embedded, parts, head, _held_out(embedded, parts, model, progress))


def _in_float32(model: Model, check: Bfloat16Check) -> Model:
    """The same model, run in float32, whose bundle says what bfloat16 was found to cost."""
    measured = replace(model.bundle, manifest=replace(model.bundle.manifest, bfloat16=check))
    return Model(measured, replace(model.settings, runtime="onnxruntime"))


def _held_out(embedded: DatasetEmbeddings, parts: Split, model: Model, progress: Progress) -> HeldOut:
    """The held-out photos; where bfloat16 embedded them, `BFLOAT16_PHOTOS` of them in float32 as well."""
    places = np.flatnonzero(parts.held)
    found = [RuntimeEmbeddings(embedded.runtime, embedded.embeddings[places], places)]
    if embedded.runtime == BFLOAT16_RUNTIME and len(places):
        chosen = places[:: -(-len(places) // BFLOAT16_PHOTOS)]
        again = [parts.photos[place] for place in chosen]
        exact = embed_photos(
            again, model.with_settings(runtime="openvino"), lambda _, a, b: progress("check bfloat16", a, b)
        )
        found.append(RuntimeEmbeddings(exact.runtime, exact.embeddings, chosen[still_readable(again, exact)]))
    return HeldOut(tuple(found), parts.classes)


def _training_photos(parts: Split) -> list[Photo]:
    return [photo for photo, trains in zip(parts.photos, parts.train, strict=True) if trains]


def _draft(name: str, fitted: _Fitted) -> Bundle:
    """The bundle before it is calibrated."""
    parent, parts, head = fitted.model.bundle, fitted.parts, fitted.head
    manifest = Manifest(
        schema=SCHEMA,
        name=name,
        nameplates=parts.nameplates,
        ids=parts.ids,
        preprocess=parent.manifest.preprocess,
        embedding=parent.manifest.embedding,
        temperature=head.temperature,
        files={},
        bfloat16=parent.manifest.bfloat16,
        # `far` and `no_car` are the backbone's own; without the distances that they cut, they mean nothing
        thresholds=Thresholds() if parent.ood_detector is None else parent.manifest.thresholds,
    )
    known = fit_detector(fitted.trained, parts.classes[parts.train], parent.ood_detector)
    table = photos_csv(parts.photos, parts.groups)
    return Bundle(manifest, parent.backbone, head.weight, head.bias, table, known)


def _index(fitted: _Fitted) -> bytes:
    return make_index(_training_photos(fitted.parts), fitted.trained, fitted.model.settings.threads)


def fit_recipe(
    photos: Sequence[Photo],
    embeddings: Floats,
    mirrored: DatasetEmbeddings | None,
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
        there = still_readable(photos, mirrored)
        embeddings = np.concatenate([embeddings, mirrored.embeddings])
        classes, fold = np.concatenate([classes, classes[there]]), np.concatenate([fold, fold[there]])
    return fit_head(embeddings, classes, fold, balanced=recipe.balanced, progress=lambda a, b: progress("fit", a, b))


def _provenance(fitted: _Fitted, recipe: HeadRecipe) -> dict[str, object]:
    parent, head = fitted.model.bundle.manifest, fitted.head
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "recipe": {"name": "head", **asdict(recipe), "C": head.strength},
        "cross_validation": {str(c): {"top1": a, "log_loss": b} for c, (a, b) in head.cross_validated.items()},
        "metrics": None,
        "data": data_record(fitted.parts),
        "runtime": fitted.embedded.runtime,
        "backbone": parent.provenance.get("backbone", parent.name),
        "versions": versions("numpy", "onnxruntime", "pillow", "scipy", "simplejpeg"),
    }

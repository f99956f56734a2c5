"""Fits a linear classifier on frozen embeddings: from labelled photos to a bundle, in seconds and without torch."""

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
from nameplate.fit.run import data_record, licence_record, versions
from nameplate.fit.split import Split, photos_csv, split_photos
from nameplate.model.bundle import SCHEMA, Bfloat16Check, Bundle, Manifest
from nameplate.model.classifier import Head, fit_head
from nameplate.model.embeddings import DatasetEmbeddings, Progress, embed_photos, still_readable
from nameplate.model.model import Model
from nameplate.model.neighbours import make_index
from nameplate.model.ood import fit_detector
from nameplate.model.runtime_choice import MAX_BFLOAT16_COST
from nameplate.model.verdict import Thresholds
from nameplate.storage import writing
from nameplate.types import Evaluation, Floats, HeadRecipe, Photo, Preprocess, html_table

BFLOAT16_PHOTOS = 2000
"""Largest number of held-out photos on which bfloat16 is compared with float32."""


@dataclass(frozen=True, slots=True)
class Trained:
    """The result of `train_head`."""

    bundle: Bundle
    evaluation: Evaluation | None
    """Metrics on the held-out photos; None where none were held out."""
    photos: int
    """Number of training photos."""
    unreadable: tuple[tuple[str, str], ...]
    """Path and reason of each photo that could not be read."""
    runtime: str
    """The runtime that computed the embeddings."""
    copies: int
    """Number of photos that are copies of another photo."""
    split: Split
    """Which photos trained, which were held out, and which were neither."""

    def _repr_html_(self) -> str:
        head = (f"{self.bundle.manifest.name}: trained on {self.photos:,} photos", self.runtime)
        return html_table(head, [] if self.evaluation is None else self.evaluation.table)


def train_head(
    dataset: Dataset | Split,
    target: Path,
    *,
    model: Model,
    recipe: HeadRecipe | None = None,
    index: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda *_: None,
) -> Trained:
    """Embed the photos, split them, fit a classifier, calibrate and evaluate it, and write the bundle.

    Args:
        dataset: labelled photos. Where the data itself has parts, its validation (or test) part is held out. Or photos
            that are split already, as those of a fold are.
        target: the bundle's folder.
        model: gives the backbone; its own classifier is not used.
        recipe: how to train; None takes the defaults.
        index: whether to put the neighbour index of the training photos into the bundle, for `nameplate explain`.
        overwrite: whether to replace a bundle that is at `target`.
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
            # The bundle will then run in float32, so that it is fitted and evaluated on float32 embeddings.
            fitted = _fit(dataset, _in_float32(model, check), recipe, progress)
        split, embedded = fitted.split, fitted.embedded
        calibrated = calibrate_bundle(_draft(target.name, fitted), fitted.held_out, fitted.out_of_fold)
        bundle = finalize(
            target,
            calibrated,
            _provenance(fitted, recipe),
            index=_index(fitted) if index else None,
            overwrite=overwrite,
        )
    trained = int(split.train.sum())
    return Trained(bundle, calibrated.evaluation, trained, split.unreadable, embedded.runtime, split.copies, split)


@dataclass(frozen=True, slots=True, eq=False)
class _Fitted:
    """A linear classifier, fitted on the embeddings of one model's backbone."""

    model: Model
    embedded: DatasetEmbeddings
    """The photos that can be read, in the order of `split`."""
    split: Split
    head: Head
    held_out: HeldOut

    @property
    def trained(self) -> Floats:
        """Embeddings of the training photos, float32 N×D."""
        return self.embedded.embeddings[self.split.train]

    @property
    def out_of_fold(self) -> OutOfFold | None:
        """The cross-validated logits of the training photos; None where cross-validation was not possible."""
        if self.head.out_of_fold is None:
            return None
        logits = self.head.out_of_fold[: len(self.trained)]  # the rows of the mirrored photos follow
        return OutOfFold(self.trained, logits, self.split.classes[self.split.train])


def _fit(dataset: Dataset | Split, model: Model, recipe: HeadRecipe, progress: Progress) -> _Fitted:
    """Embed the photos, split them where they are not, and fit the classifier on the training photos."""
    # The split needs the embeddings, so that held-out photos are embedded mirrored as well. That costs less than
    # decoding the training photos a second time.
    embedded = embed_photos(dataset.photos, model, progress, also_mirrored=recipe.mirror)
    if isinstance(dataset, Split):
        split = dataset.only(still_readable(dataset.photos, embedded), embedded.unreadable)
    else:
        split = split_photos(dataset, embedded, recipe.holdout, recipe.seed, progress)
    train = split.train
    chosen = _training_photos(split)
    mirrored = embed_photos(chosen, model, progress, mirror=True) if recipe.mirror else None
    classes, groups = split.classes[train], split.groups[train]
    head = fit_recipe(chosen, embedded.embeddings[train], mirrored, classes, groups, recipe, progress)
    return _Fitted(model, embedded, split, head, _held_out(embedded, split, model, progress))


def _in_float32(model: Model, check: Bfloat16Check) -> Model:
    """The same model in float32; its bundle records the measured cost of bfloat16."""
    measured = replace(model.bundle, manifest=replace(model.bundle.manifest, bfloat16=check))
    return Model(measured, replace(model.settings, runtime="onnxruntime"))


def _held_out(embedded: DatasetEmbeddings, split: Split, model: Model, progress: Progress) -> HeldOut:
    """Embeddings of the held-out photos; where they are in bfloat16, `BFLOAT16_PHOTOS` of them in float32 as well."""
    indices = np.flatnonzero(split.holdout)
    found = [RuntimeEmbeddings(embedded.runtime, embedded.embeddings[indices], indices)]
    if embedded.runtime == BFLOAT16_RUNTIME and len(indices):
        chosen = indices[:: -(-len(indices) // BFLOAT16_PHOTOS)]
        again = [split.photos[i] for i in chosen]
        exact = embed_photos(
            again, model.with_settings(runtime="openvino"), lambda _, a, b: progress("check bfloat16", a, b)
        )
        found.append(RuntimeEmbeddings(exact.runtime, exact.embeddings, chosen[still_readable(again, exact)]))
    return HeldOut(tuple(found), split.classes)


def _training_photos(split: Split) -> list[Photo]:
    """The training photos in the order of the split."""
    return [photo for photo, trains in zip(split.photos, split.train, strict=True) if trains]


def _draft(name: str, fitted: _Fitted) -> Bundle:
    """The bundle before calibration."""
    parent, split, head = fitted.model.bundle, fitted.split, fitted.head
    manifest = Manifest(
        schema=SCHEMA,
        name=name,
        nameplates=split.nameplates,
        ids=split.ids,
        preprocess=_preprocess(fitted.model),
        embedding=parent.manifest.embedding,
        temperature=head.temperature,
        files={},
        bfloat16=parent.manifest.bfloat16,
        # `far` and `no_car` belong to the backbone. Without the detector, whose distances they cut, they mean nothing.
        thresholds=Thresholds() if parent.ood_detector is None else parent.manifest.thresholds,
    )
    known = fit_detector(fitted.trained, split.classes[split.train], parent.ood_detector)
    table = photos_csv(split.photos, split.groups)
    return Bundle(manifest, parent.backbone, head.weight, head.bias, table, known)


def _preprocess(model: Model) -> Preprocess:
    """The preprocessing of the photos that the head was fitted on, which is what its bundle must do."""
    backbone = model.bundle.manifest.preprocess
    return replace(backbone, locate="none") if model.settings.cars == "whole" else backbone


def _index(fitted: _Fitted) -> bytes:
    """The neighbour index of the training photos, as a file."""
    return make_index(_training_photos(fitted.split), fitted.trained, fitted.model.settings.threads)


def fit_recipe(
    photos: Sequence[Photo],
    embeddings: Floats,
    mirrored: DatasetEmbeddings | None,
    classes: NDArray[np.int64],
    groups: NDArray[np.int64],
    recipe: HeadRecipe,
    progress: Progress = lambda *_: None,
) -> Head:
    """Fit a linear classifier with cross-validation; copies of a photo share a fold.

    Args:
        photos: the N labelled photos with their digests.
        embeddings: float32 N×D.
        mirrored: embeddings of the mirrored photos, which train as well; some photos may be missing.
        classes: int64 (N,).
        groups: int64 (N,); photos of one group share a fold.
        recipe: gives the folds, the seed and the balancing.
        progress: see `Progress`.

    Returns:
        The classifier; the first N rows of its `out_of_fold` belong to the photos that are not mirrored.

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
        there = still_readable(photos, mirrored)  # a photo may have vanished since it was first read
        embeddings = np.concatenate([embeddings, mirrored.embeddings])
        classes, fold = np.concatenate([classes, classes[there]]), np.concatenate([fold, fold[there]])
    return fit_head(embeddings, classes, fold, balanced=recipe.balanced, progress=lambda a, b: progress("fit", a, b))


def _provenance(fitted: _Fitted, recipe: HeadRecipe) -> dict[str, object]:
    """What bundle.json records of the training; its keys are read by other versions, and must not change."""
    parent, head = fitted.model.bundle.manifest, fitted.head
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "recipe": {"name": "head", **asdict(recipe), "C": head.strength},
        "cross_validation": {str(c): {"top1": a, "log_loss": b} for c, (a, b) in head.cross_validated.items()},
        "metrics": None,
        "data": data_record(fitted.split),
        "runtime": fitted.embedded.runtime,
        "backbone": parent.provenance.get("backbone", parent.name),
        **licence_record([fitted.model.bundle]),
        "versions": versions("numpy", "onnxruntime", "pillow", "scipy", "simplejpeg"),
    }

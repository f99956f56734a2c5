"""Measures whether further photos help: trains models with and without them, and compares the models.

BASE is the data set at hand and EXTRA the further photos. The folder of an experiment holds:

settings.json       what decides the results; only an experiment with equal settings is resumed
seeds/              one file for each complete seed
runs/               two runs for each seed, if the recipe trains networks
extra.csv           the photos that were added, under BASE's nameplates: `nameplate train BASE OUT/extra.csv`
taken-out.csv       the photos of EXTRA that were not added, with the reasons
suspects.csv        added photos that look like another nameplate
extra-data.json     the verdict and all figures behind it
index.html          the report
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from nameplate.audit.inspect import inspect
from nameplate.data import read_dataset
from nameplate.data.cleaning import not_there, read_excluded, read_relabelled, relabelled, without
from nameplate.data.dataset import Dataset
from nameplate.defaults import SEEDS
from nameplate.errors import DataError, UsageError
from nameplate.experiments.further import ClassMap, Cleaning, clean, map_classes, nothing_maps
from nameplate.experiments.result import Experiment, write_extra_page, write_result
from nameplate.experiments.verdict import Material, SeedResult, give_verdict, load_seed, save_seed
from nameplate.fit.recipe import Recipe
from nameplate.fit.run import EVALUATION_RUNTIME, versions
from nameplate.fit.split import Split, split_photos
from nameplate.model.embeddings import DatasetEmbeddings, Progress, embed_photos
from nameplate.model.model import Model
from nameplate.storage import absolute, is_free, nfc, sha256, whole_file, working_in
from nameplate.types import HeadRecipe, Photo

SETTINGS = "settings.json"
"""The file of the settings."""
SCHEMA = 1
"""Version of the format of the files; an experiment of another version is not resumed."""


@dataclass(frozen=True, slots=True)
class Design:
    """How an experiment is carried out."""

    recipe: Recipe | HeadRecipe
    """How to train; its seed is the first seed of the experiment."""
    seeds: int = SEEDS
    """Number of seeds: for each, one model is trained with and one without the further photos."""
    class_map: dict[str, str] | None = None
    """Class of EXTRA → nameplate of BASE, where the names do not match; "" leaves the class out."""


def read_both(
    base: Path,
    extra: Path,
    names: Path | None = None,
    exclude: Path | None = None,
    layout: str = "auto",
    progress: Progress = lambda *_: None,
    relabel: Path | None = None,
) -> tuple[Dataset, Dataset]:
    """Read BASE and EXTRA, both with the same options.

    Raises:
        DataError: one of them is no data set, or none of the photos that `exclude` or `relabel` lists is in them.
    """
    ours, further = (
        read_dataset(source, names=names, layout=layout, progress=lambda done, total: progress("unpack", done, total))
        for source in (base, extra)
    )
    if relabel is not None:
        ours, further = _relabelled(ours, further, relabel)
    if exclude is None:
        return ours, further
    excluded = read_excluded(exclude)
    left = tuple(_without(dataset, excluded) for dataset in (ours, further))
    if excluded and not any(dataset.excluded for dataset in left):
        raise DataError(f"None of the {len(excluded):,} photos that '{exclude}' names is in the data.")
    missing = not_there(excluded, exclude, ours.photos, further.photos)
    return replace(left[0], notes=(*left[0].notes, *missing)), left[1]


def extra_data(
    base: Dataset,
    extra: Dataset,
    folder: Path,
    design: Design,
    *,
    model: Model,
    progress: Progress = lambda *_: None,
    say: Callable[[str], None] = lambda _: None,
) -> Experiment:
    """Clean EXTRA, train with and without it, evaluate all models on the same photos of BASE, and give a verdict.

    Args:
        base: the data set at hand. The models are evaluated on its validation part; where it has none, on its test
            part; where it has neither, on what the recipe's `holdout` and `seed` hold out. EXTRA does not affect this.
        extra: the further photos; its parts are ignored.
        folder: the folder for the results. An experiment with equal settings is resumed there.
        design: how to train, how many seeds, and which classes correspond.
        model: its backbone embeds the photos, to find copies and, with a `HeadRecipe`, to train on.
        progress: see `Progress`.
        say: called with a short text where there is nothing to count.

    Raises:
        DataError: no class of EXTRA is in BASE, no photo of EXTRA is left, or BASE has no photos to evaluate on.
        UsageError: there are fewer than `SEEDS` seeds, the class map has an unknown name, or `folder` holds something
            else.
    """
    if design.seeds < SEEDS:
        raise UsageError(f"{design.seeds} seeds cannot tell a difference from chance; give {SEEDS} or more.")
    _refuse_folder(folder)
    with working_in(folder):
        return _extra_data(base, extra, folder, design, model, progress, say)


def _extra_data(
    base: Dataset,
    extra: Dataset,
    folder: Path,
    design: Design,
    model: Model,
    progress: Progress,
    say: Callable[[str], None],
) -> Experiment:
    """`extra_data`, within the lock on the folder."""
    recipe = design.recipe
    mapped, classes = _mapped(base, extra, design.class_map)
    mirror = isinstance(recipe, HeadRecipe) and recipe.mirror
    embedded = embed_photos([*base.photos, *mapped], model, progress, also_mirrored=mirror)  # one call, so one runtime
    ours = _of_base(base, embedded)
    split = split_photos(base, ours, recipe.holdout, recipe.seed, progress)
    mapped, classes = _trainable(mapped, classes, split.nameplates)
    # The audit sees both data sets together, so that it finds copies across them.
    together = replace(base, photos=(*base.photos, *mapped))
    findings = inspect(together, model, shortcuts=False, progress=progress).findings
    cleaning = clean(_read_of(mapped, embedded), split.photos, findings)
    evaluation = evaluation_indices(split)
    material = _material(base, split, cleaning, evaluation)
    settings = _settings(split, cleaning, recipe, model)
    _claim(folder, settings)
    results = _seed_results(material, embedded, folder, design, model, progress, say)
    verdict = give_verdict(
        results,
        [str(photo.label) for photo in material.evaluation],
        split.groups[evaluation],
        dict(Counter(str(photo.label) for photo in material.extra)),
        split.nameplates,
    )
    made = Experiment(
        verdict=verdict,
        classes=classes,
        cleaning=cleaning,
        refused=(*base.refused, *extra.refused, *split.left_out),
        unreadable=ours.unreadable,
        base={"photos": len(split.photos), "trained": len(material.train), "sha256": split.digest},
        extra={"photos": len(extra.photos), "added": len(material.extra), "sha256": _digest(material.extra)},
        settings=settings,
        seeds=tuple(result.seed for result in results),
        versions=versions("numpy", "onnxruntime", "pillow", "scipy", "simplejpeg"),
        runtime=embedded.runtime if isinstance(recipe, HeadRecipe) else _evaluation_runtime(model),
        made=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_result(folder, made)
    write_extra_page(folder, made)
    return made


def evaluation_indices(split: Split) -> NDArray[np.int64]:
    """The indices of the photos to evaluate on, int64: the validation part, or the test part where there is none.

    Copies of training photos are left out.

    Raises:
        DataError: there are no such photos.
    """
    validation = np.array([photo.split == "validation" for photo in split.photos])
    chosen = split.holdout & validation if (split.holdout & validation).any() else split.holdout
    if not chosen.any():
        raise DataError(
            "BASE has no photos to evaluate on. Give it a validation part, more photos, or a larger --holdout."
        )
    return np.flatnonzero(chosen)


def _relabelled(ours: Dataset, further: Dataset, relabel: Path) -> tuple[Dataset, Dataset]:
    """Both data sets with the labels of a table, which may name photos of either or of both."""
    named = read_relabelled(relabel).keys()
    concerned = [any(nfc(absolute(photo.path)) in named for photo in each.photos) for each in (ours, further)]
    if not any(concerned):
        return relabelled(ours, relabel), further  # says which photos are missing
    first, second = (
        relabelled(each, relabel) if its_own else each for each, its_own in zip((ours, further), concerned, strict=True)
    )
    return first, second


def _without(dataset: Dataset, excluded: set[str]) -> Dataset:
    """A data set without the excluded photos."""
    kept = tuple(without(dataset.photos, excluded))
    return replace(dataset, photos=kept, excluded=len(dataset.photos) - len(kept))


def _mapped(base: Dataset, extra: Dataset, given: dict[str, str] | None) -> tuple[list[Photo], ClassMap]:
    """The photos of EXTRA under the nameplates of BASE, and how the classes were matched."""
    found = map_classes(extra.nameplates, base.nameplates, given)
    photos = [
        photo.with_(label=found.mapped[str(photo.label)], split="train")
        for photo in extra.photos
        if str(photo.label) in found.mapped
    ]
    if not photos:
        raise nothing_maps(found, base.nameplates)
    return photos, found


def _trainable(photos: Sequence[Photo], classes: ClassMap, nameplates: Sequence[str]) -> tuple[list[Photo], ClassMap]:
    """The photos whose nameplate has training photos in BASE.

    Other nameplates are left out: a model without EXTRA could not know them, so that the two models would have
    different classes.
    """
    mapped = {name: to for name, to in classes.mapped.items() if to in nameplates}
    unmapped = (*classes.unmapped, *(name for name in classes.mapped if name not in mapped))
    left = [photo for photo in photos if photo.label in nameplates]
    return left, replace(classes, mapped=mapped, unmapped=unmapped)


def _of_base(base: Dataset, embedded: DatasetEmbeddings) -> DatasetEmbeddings:
    """The embeddings of BASE, which are the first rows of all embeddings; unreadable photos have no rows."""
    paths = {photo.path for photo in base.photos}
    bad = tuple({path: (path, why) for path, why in embedded.unreadable if path in paths}.values())
    end = len(base.photos) - len(bad)
    if not end:
        raise DataError(
            f"None of BASE's {len(base.photos):,} photos can be read; the first, '{bad[0][0]}': {bad[0][1]}."
        )
    return DatasetEmbeddings(
        embedded.photos[:end], embedded.embeddings[:end], embedded.hashes[:end], bad, embedded.runtime
    )


def _read_of(photos: Sequence[Photo], embedded: DatasetEmbeddings) -> list[Photo]:
    """The photos with their digests and sizes. Unreadable ones stay as they are: a finding reports them later."""
    read = {photo.path: photo for photo in embedded.photos}
    return [read.get(photo.path, photo).with_(label=photo.label, split=photo.split) for photo in photos]


def _material(base: Dataset, split: Split, cleaning: Cleaning, evaluation: NDArray[np.int64]) -> Material:
    if not cleaning.kept:
        why = ", ".join(f"{count:,}× {reason}" for reason, count in cleaning.counts.items()) or "no class is left"
        raise DataError(f"Nothing of EXTRA is left to add: {why}.")
    return Material(
        train=tuple(photo for photo, train in zip(split.photos, split.train, strict=True) if train),
        extra=cleaning.kept,
        evaluation=tuple(split.photos[i].with_(split="validation") for i in evaluation),
        nameplates=split.nameplates,
        ids=base.ids,
    )


def _settings(split: Split, cleaning: Cleaning, recipe: Recipe | HeadRecipe, model: Model) -> dict[str, object]:
    kind = "head" if isinstance(recipe, HeadRecipe) else recipe.name
    return {
        "schema": SCHEMA,
        "recipe": {"name": kind, **msgspec.to_builtins(recipe)},
        "backbone": {"name": model.bundle.manifest.name, "sha256": model.bundle.digest},
        "base": split.digest,
        "extra": _digest(cleaning.kept),
    }


def _digest(photos: Iterable[Photo]) -> str:
    """SHA-256 of the photos and their labels, in any order."""
    return sha256("\n".join(sorted(f"{photo.sha256} {photo.label}" for photo in photos)).encode())


def _refuse_folder(folder: Path) -> None:
    if not is_free(folder) and not (folder / SETTINGS).is_file():
        raise UsageError(f"'{folder}' is there and is no experiment of this kind. Choose another --output.")


def _claim(folder: Path, settings: dict[str, object]) -> None:
    """Write the settings, or refuse a folder with different ones: its seeds belong to other data or another recipe."""
    content, file = msgspec.json.encode(settings), folder / SETTINGS
    if not file.is_file():
        with whole_file(file) as temporary:
            temporary.write_bytes(content)
    elif file.read_bytes() != content:
        raise UsageError(
            f"'{folder}' holds an experiment on other photos, or by another recipe. Choose another --output."
        )


def _seed_results(
    material: Material,
    embedded: DatasetEmbeddings,
    folder: Path,
    design: Design,
    model: Model,
    progress: Progress,
    say: Callable[[str], None],
) -> list[SeedResult]:
    """The answers of both models of every seed. Seeds that are complete are read from their files."""
    recipe, seeds = design.recipe, design.seeds
    done = {seed: load_seed(folder, seed) for seed in range(recipe.seed, recipe.seed + seeds)}
    if None in done.values():  # embedding mirrored photos takes time, which complete seeds do not need
        train = _trainer(material, embedded, folder, recipe, model, progress, say)
        for i, seed in enumerate(done):
            if done[seed] is None:
                done[seed] = result = train(seed)
                save_seed(folder, result)
            progress("seeds", i + 1, seeds)
    return [result for result in done.values() if result is not None]


def _trainer(
    material: Material,
    embedded: DatasetEmbeddings,
    folder: Path,
    recipe: Recipe | HeadRecipe,
    model: Model,
    progress: Progress,
    say: Callable[[str], None],
) -> Callable[[int], SeedResult]:
    """The function that trains and evaluates both models of a seed."""
    if isinstance(recipe, HeadRecipe):
        from nameplate.experiments.heads import ProbeTrainer

        return ProbeTrainer(material, embedded, model, recipe, progress).train_seed
    from nameplate.experiments.networks import NetworkTrainer  # imports torch

    runtime, threads = _evaluation_runtime(model), model.settings.threads
    return NetworkTrainer(
        material, folder, recipe, runtime=runtime, threads=threads, progress=progress, say=say
    ).train_seed


def _evaluation_runtime(model: Model) -> str:
    """The runtime for all networks of an experiment: with `auto`, one might use bfloat16 and another not."""
    return EVALUATION_RUNTIME if model.settings.runtime == "auto" else model.settings.runtime

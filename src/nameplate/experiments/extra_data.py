"""`extra_data`: do further photos help? From two data sets to a verdict.

settings.json       what the experiment is of: a job goes on only with the same
seeds/              a file for each seed that is done
runs/               with a recipe that trains networks: two runs a seed
extra.csv           the photos that were added, under BASE's nameplates: `nameplate train BASE OUT/extra.csv`
taken-out.csv       the photos that were not, and why
suspects.csv        added photos that look like another nameplate
extra-data.json     the verdict, and all that it rests on
index.html          the page
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
from nameplate.data.dataset import Dataset, not_there, read_excluded, without
from nameplate.defaults import SEEDS
from nameplate.errors import DataError, UsageError
from nameplate.experiments.further import ClassMap, Cleaning, clean, map_classes, nothing_maps
from nameplate.experiments.result import Experiment, write_extra_page, write_result
from nameplate.experiments.verdict import Material, SeedResult, give_verdict, load_seed, save_seed
from nameplate.fit.recipe import Recipe
from nameplate.fit.run import JUDGED_BY, versions
from nameplate.fit.split import Split, split_parts
from nameplate.model.embeddings import DatasetEmbeddings, Progress, embed_photos
from nameplate.model.model import Model
from nameplate.storage import is_free, sha256, whole_file, working_in
from nameplate.types import HeadRecipe, Photo

SETTINGS = "settings.json"
"""What the folder's experiment is of."""
SCHEMA = 1
"""Version of the experiment's files: seeds of another are not gone on with."""


@dataclass(frozen=True, slots=True)
class Design:
    """How the experiment is made."""

    recipe: Recipe | HeadRecipe
    """How to train; its seed is the first one."""
    seeds: int = SEEDS
    """Models to train with and without the further photos, each."""
    class_map: dict[str, str] | None = None
    """Class of EXTRA → nameplate of BASE, where names alone do not tell; "" leaves the class out."""


def read_both(
    base: Path,
    extra: Path,
    names: Path | None = None,
    exclude: Path | None = None,
    layout: str = "auto",
    progress: Progress = lambda *_: None,
) -> tuple[Dataset, Dataset]:
    """Read BASE and EXTRA, each in the same layout.

    Raises:
        DataError: one of them is no data set, or nothing that `exclude` names is in either.
    """
    ours, further = (
        read_dataset(source, names=names, layout=layout, progress=lambda done, total: progress("unpack", done, total))
        for source in (base, extra)
    )
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
    """Clean EXTRA, train with and without it on the same judging photos, and say whether it helps.

    Args:
        base: what there is. Its own validation part judges, else its test part, else what the recipe's `holdout` and
            `seed` hold out: EXTRA has no say in it.
        extra: what might be added; parts that it has are passed over.
        folder: for the results. A job of the same settings goes on there.
        design: how to train, how often, and which classes are the same.
        model: its backbone embeds the photos, to find copies and, with a `HeadRecipe`, to train on.
        progress: see `Progress`.
        say: called with what is being done when nothing can be counted.

    Raises:
        DataError: no class of EXTRA is one of BASE's, nothing of EXTRA is left, or nothing of BASE can judge.
        UsageError: fewer than `SEEDS` seeds, the class map names what is not there, or `folder` holds
            something else.
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
    recipe = design.recipe
    mapped, classes = _mapped(base, extra, design.class_map)
    embedded = embed_photos([*base.photos, *mapped], model, progress)  # together: so by one runtime
    ours = _of_base(base, embedded)
    parts = split_parts(base, ours, recipe.holdout, recipe.seed, progress)
    mapped, classes = _trainable(mapped, classes, parts.nameplates)
    together = replace(base, photos=(*base.photos, *mapped))
    findings = inspect(together, model, shortcuts=False, progress=progress).findings
    cleaning = clean(_read_of(mapped, embedded), parts.photos, findings)
    judging = judging_places(parts)
    material = _material(base, parts, cleaning, judging)
    settings = _settings(parts, cleaning, recipe, model)
    _claim(folder, settings)
    trials = _trials(material, embedded, folder, design, model, progress, say)
    verdict = give_verdict(
        trials,
        [str(photo.label) for photo in material.judging],
        parts.groups[judging],
        dict(Counter(str(photo.label) for photo in material.extra)),
        parts.nameplates,
    )
    made = Experiment(
        verdict=verdict,
        classes=classes,
        cleaning=cleaning,
        refused=(*base.refused, *extra.refused, *parts.left_out),
        unreadable=ours.unreadable,
        base={"photos": len(parts.photos), "trained": len(material.train), "sha256": parts.digest},
        extra={"photos": len(extra.photos), "added": len(material.extra), "sha256": _digest(material.extra)},
        settings=settings,
        seeds=tuple(trial.seed for trial in trials),
        versions=versions("numpy", "onnxruntime", "pillow", "scipy", "simplejpeg"),
        runtime=embedded.runtime if isinstance(recipe, HeadRecipe) else _judged_by(model),
        made=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_result(folder, made)
    write_extra_page(folder, made)
    return made


def judging_places(parts: Split) -> NDArray[np.int64]:
    """Which photos judge: the validation part, where there is none the test part; copies of training photos do not.

    Raises:
        DataError: none does.
    """
    validation = np.array([photo.split == "validation" for photo in parts.photos])
    held = parts.held & validation if (parts.held & validation).any() else parts.held
    if not held.any():
        raise DataError(
            "BASE holds out no photos to judge on. Give it a validation part, more photos, or a larger --holdout."
        )
    return np.flatnonzero(held)


def _without(dataset: Dataset, excluded: set[str]) -> Dataset:
    kept = tuple(without(dataset.photos, excluded))
    return replace(dataset, photos=kept, excluded=len(dataset.photos) - len(kept))


def _mapped(base: Dataset, extra: Dataset, given: dict[str, str] | None) -> tuple[list[Photo], ClassMap]:
    """EXTRA's photos under BASE's nameplates."""
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
    """Less the nameplates of which BASE has nothing to train on: without them it would be another question."""
    mapped = {name: to for name, to in classes.mapped.items() if to in nameplates}
    unmapped = (*classes.unmapped, *(name for name in classes.mapped if name not in mapped))
    left = [photo for photo in photos if photo.label in nameplates]
    return left, replace(classes, mapped=mapped, unmapped=unmapped)


def _of_base(base: Dataset, embedded: DatasetEmbeddings) -> DatasetEmbeddings:
    """The first photos are BASE's, less those that cannot be read."""
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
    """Photos with what reading told of them; those that cannot be read as they are, for the findings to tell."""
    read = {photo.path: photo for photo in embedded.photos}
    return [read.get(photo.path, photo).with_(label=photo.label, split=photo.split) for photo in photos]


def _material(base: Dataset, parts: Split, cleaning: Cleaning, judging: NDArray[np.int64]) -> Material:
    if not cleaning.kept:
        why = ", ".join(f"{count:,}× {reason}" for reason, count in cleaning.counts.items()) or "no class is left"
        raise DataError(f"Nothing of EXTRA is left to add: {why}.")
    return Material(
        train=tuple(photo for photo, train in zip(parts.photos, parts.train, strict=True) if train),
        extra=cleaning.kept,
        judging=tuple(parts.photos[place].with_(split="validation") for place in judging),
        nameplates=parts.nameplates,
        ids=base.ids,
    )


def _settings(parts: Split, cleaning: Cleaning, recipe: Recipe | HeadRecipe, model: Model) -> dict[str, object]:
    kind = "head" if isinstance(recipe, HeadRecipe) else recipe.name
    return {
        "schema": SCHEMA,
        "recipe": {"name": kind, **msgspec.to_builtins(recipe)},
        "backbone": {"name": model.bundle.manifest.name, "sha256": model.bundle.digest},
        "base": parts.digest,
        "extra": _digest(cleaning.kept),
    }


def _digest(photos: Iterable[Photo]) -> str:
    return sha256("\n".join(sorted(f"{photo.sha256} {photo.label}" for photo in photos)).encode())


def _refuse_folder(folder: Path) -> None:
    if not is_free(folder) and not (folder / SETTINGS).is_file():
        raise UsageError(f"'{folder}' is there and is no experiment of this kind. Choose another --output.")


def _claim(folder: Path, settings: dict[str, object]) -> None:
    """Keep seeds of other data or another recipe from being taken for these."""
    said, file = msgspec.json.encode(settings), folder / SETTINGS
    if not file.is_file():
        with whole_file(file) as temporary:
            temporary.write_bytes(said)
    elif file.read_bytes() != said:
        raise UsageError(
            f"'{folder}' holds an experiment on other photos, or by another recipe. Choose another --output."
        )


def _trials(
    material: Material,
    embedded: DatasetEmbeddings,
    folder: Path,
    design: Design,
    model: Model,
    progress: Progress,
    say: Callable[[str], None],
) -> list[SeedResult]:
    """The answers of both models of every seed; a seed that an earlier job finished is read."""
    recipe, seeds = design.recipe, design.seeds
    done = {seed: load_seed(folder, seed) for seed in range(recipe.seed, recipe.seed + seeds)}
    if None in done.values():
        train = _trainer(material, embedded, folder, recipe, model, progress, say)
        for place, seed in enumerate(done):
            if done[seed] is None:
                done[seed] = trial = train(seed)
                save_seed(folder, trial)
            progress("seeds", place + 1, seeds)
    return [trial for trial in done.values() if trial is not None]


def _trainer(
    material: Material,
    embedded: DatasetEmbeddings,
    folder: Path,
    recipe: Recipe | HeadRecipe,
    model: Model,
    progress: Progress,
    say: Callable[[str], None],
) -> Callable[[int], SeedResult]:
    if isinstance(recipe, HeadRecipe):
        from nameplate.experiments.heads import Heads

        return Heads(material, embedded, model, recipe, progress).trial
    from nameplate.experiments.networks import Networks

    runtime, threads = _judged_by(model), model.settings.threads
    return Networks(material, folder, recipe, runtime=runtime, threads=threads, progress=progress, say=say).trial


def _judged_by(model: Model) -> str:
    """The runtime of all networks of an experiment: left to each, one might choose bfloat16 and another not."""
    return JUDGED_BY if model.settings.runtime == "auto" else model.settings.runtime

"""A head trained with and without further photos, on most of the photos, others for each seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nameplate.data.split import folds
from nameplate.errors import DataError
from nameplate.evaluate.evaluator import same_picture
from nameplate.experiments.verdict import Material, SeedAnswers, SeedResult
from nameplate.model.classifier import fit_head, probabilities
from nameplate.model.embeddings import DatasetEmbeddings, Progress, embed_photos
from nameplate.model.model import Model
from nameplate.types import Floats, HeadRecipe, Photo

Places = NDArray[np.int64]

LEFT_OUT = 0.1
"""Share of the training photos that a seed does without."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Training photos, embedded: BASE's first, then EXTRA's."""

    photos: tuple[Photo, ...]
    base: int
    """How many of them are BASE's."""
    embeddings: Floats
    """N×D."""
    mirrored: Floats
    """N×D of the mirror images, a row of NaN where there is none."""
    classes: Places
    """(N,): 0 … C-1."""
    groups: Places
    """(N,): copies and adverts."""


class Heads:
    """Trains both heads of a seed.

    A head is a convex fit: on the same photos it comes out the same, so a seed must vary the photos. Each seed leaves
    out a tenth of them, drawn at random, and folds the rest anew; both heads of a seed do without the same photos of
    BASE. More is not left out, nor drawn with replacement, since a smaller BASE gains more from EXTRA: measured,
    docs/extra-data.md.
    """

    def __init__(
        self, material: Material, embedded: DatasetEmbeddings, model: Model, recipe: HeadRecipe, progress: Progress
    ) -> None:
        places = {photo.path: place for place, photo in enumerate(embedded.photos)}
        train = [places[photo.path] for photo in (*material.train, *material.extra)]
        photos = (*material.train, *material.extra)
        self.recipe, self.material = recipe, material
        self.judging = embedded.embeddings[[places[photo.path] for photo in material.judging]]
        rows = DatasetEmbeddings(photos, embedded.embeddings[train], embedded.hashes[train], (), embedded.runtime)
        self.rows = Rows(
            photos,
            len(material.train),
            embedded.embeddings[train],
            _mirrored(photos, embedded.embeddings[train], model, progress, wanted=recipe.mirror),
            np.array([material.nameplates.index(str(photo.label)) for photo in photos], np.int64),
            same_picture(rows, progress),
        )

    def trial(self, seed: int) -> SeedResult:
        """Both heads of one seed, and what they say."""
        rows, everyone = self.rows, np.arange(len(self.rows.photos))
        ours = draw(everyone[: rows.base], rows.classes, rows.groups, np.random.default_rng([seed, 0]))
        further = draw(everyone[rows.base :], rows.classes, rows.groups, np.random.default_rng([seed, 1]))
        return SeedResult(seed, self._answers(ours, seed), self._answers(np.concatenate([ours, further]), seed))

    def _answers(self, drawn: Places, seed: int) -> SeedAnswers:
        rows = self.rows
        photos, groups = [rows.photos[i] for i in drawn], rows.groups[drawn]
        fold = folds([str(p.label) for p in photos], [str(p.sha256) for p in photos], groups, self.recipe.folds, seed)
        if len(np.unique(fold)) < 2:
            raise DataError(
                "Cross-validation needs two groups of photos and two folds or more; "
                f"here all {len(drawn):,} photos to train on are in one."
            )
        there = np.isfinite(rows.mirrored[drawn]).all(1)
        head = fit_head(
            np.concatenate([rows.embeddings[drawn], rows.mirrored[drawn][there]]),
            np.concatenate([rows.classes[drawn], rows.classes[drawn][there]]),
            np.concatenate([fold, fold[there]]),
            balanced=self.recipe.balanced,
        )
        probs = probabilities(self.judging @ head.weight + head.bias, head.temperature)
        return SeedAnswers.of(probs, self.material.nameplates, [str(photo.label) for photo in self.material.judging])


def draw(places: Places, classes: Places, groups: Places, random: np.random.Generator) -> Places:
    """Leave out each group of photos with the chance `LEFT_OUT`, but never all of a class; int64 (M,), sorted.

    Args:
        places: int64, the photos to draw from: places in `classes` and `groups`.
        classes: int64 (N,).
        groups: int64 (N,), photos of one group stay or go together.
        random: what draws.
    """
    kept = [np.zeros(0, np.int64)]
    for number in np.unique(classes[places]):
        members = places[classes[places] == number]
        distinct = np.unique(groups[members])
        stays = random.random(len(distinct)) >= LEFT_OUT
        stays[random.integers(len(distinct))] |= not stays.any()
        kept.append(members[np.isin(groups[members], distinct[stays])])
    return np.sort(np.concatenate(kept))


def _mirrored(photos: Sequence[Photo], plain: Floats, model: Model, progress: Progress, *, wanted: bool) -> Floats:
    """Embeddings of the mirror images; a photo may vanish while a long job goes on."""
    if not wanted:
        return np.full_like(plain, np.nan)
    found = embed_photos(photos, model, progress, mirror=True)
    rows = {photo.path: row for photo, row in zip(found.photos, found.embeddings, strict=True)}
    nothing = np.full(plain.shape[1], np.nan, np.float32)
    return np.stack([rows.get(photo.path, nothing) for photo in photos])

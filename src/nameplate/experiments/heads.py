"""Trains linear classifiers with and without further photos; each seed draws other training photos."""

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

Indices = NDArray[np.int64]

LEFT_OUT = 0.1
"""Share of the training photos that each seed leaves out."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The training photos with their embeddings: first those of BASE, then those of EXTRA."""

    photos: tuple[Photo, ...]
    base: int
    """Number of photos of BASE."""
    embeddings: Floats
    """float32 N×D."""
    mirrored: Floats
    """float32 N×D of the mirrored photos; a row of NaN where a photo has no mirrored embedding."""
    classes: Indices
    """int64 (N,): 0 … C-1."""
    groups: Indices
    """int64 (N,): copies of one image, or photos of one advert, have the same number."""


class ProbeTrainer:
    """Trains both linear classifiers of a seed.

    The fit is convex: the same photos always give the same classifier, so a seed must vary the photos. Each seed leaves
    out a random tenth of them and makes new folds. Both classifiers of a seed leave out the same photos of BASE. No
    larger share is left out, and photos are not drawn with replacement, because a smaller BASE gains more from EXTRA
    (measured in docs/extra-data.md).
    """

    def __init__(
        self, material: Material, embedded: DatasetEmbeddings, model: Model, recipe: HeadRecipe, progress: Progress
    ) -> None:
        index_of = {photo.path: i for i, photo in enumerate(embedded.photos)}
        train = [index_of[photo.path] for photo in (*material.train, *material.extra)]
        photos = (*material.train, *material.extra)
        self.recipe, self.material = recipe, material
        self.evaluation = embedded.embeddings[[index_of[photo.path] for photo in material.evaluation]]
        rows = DatasetEmbeddings(photos, embedded.embeddings[train], embedded.hashes[train], (), embedded.runtime)
        self.rows = Rows(
            photos,
            len(material.train),
            embedded.embeddings[train],
            _mirrored(photos, embedded.embeddings[train], model, progress, wanted=recipe.mirror),
            np.array([material.nameplates.index(str(photo.label)) for photo in photos], np.int64),
            same_picture(rows, progress),
        )

    def train_seed(self, seed: int) -> SeedResult:
        """Train both classifiers of a seed, and evaluate them."""
        rows, everyone = self.rows, np.arange(len(self.rows.photos))
        ours = draw(everyone[: rows.base], rows.classes, rows.groups, np.random.default_rng([seed, 0]))
        further = draw(everyone[rows.base :], rows.classes, rows.groups, np.random.default_rng([seed, 1]))
        return SeedResult(seed, self._answers(ours, seed), self._answers(np.concatenate([ours, further]), seed))

    def _answers(self, drawn: Indices, seed: int) -> SeedAnswers:
        rows = self.rows
        photos, groups = [rows.photos[i] for i in drawn], rows.groups[drawn]
        fold = folds([str(p.label) for p in photos], [str(p.sha256) for p in photos], groups, self.recipe.folds, seed)
        if len(np.unique(fold)) < 2:
            raise DataError(
                "Cross-validation needs two groups of photos and two folds or more; "
                f"here all {len(drawn):,} photos to train on are in one."
            )
        there = np.isfinite(rows.mirrored[drawn]).all(1)  # mirrored photos follow, in the folds of their originals
        head = fit_head(
            np.concatenate([rows.embeddings[drawn], rows.mirrored[drawn][there]]),
            np.concatenate([rows.classes[drawn], rows.classes[drawn][there]]),
            np.concatenate([fold, fold[there]]),
            balanced=self.recipe.balanced,
        )
        probs = probabilities(self.evaluation @ head.weight + head.bias, head.temperature)
        return SeedAnswers.of(probs, self.material.nameplates, [str(photo.label) for photo in self.material.evaluation])


def draw(indices: Indices, classes: Indices, groups: Indices, random: np.random.Generator) -> Indices:
    """Leave out each group of photos with the probability `LEFT_OUT`, but never all groups of a class.

    Args:
        indices: int64, the photos to draw from, as indices in `classes` and `groups`.
        classes: int64 (N,).
        groups: int64 (N,); photos of one group are kept or left out together.
        random: the random generator.

    Returns:
        The indices of the kept photos, int64 (M,), ascending.
    """
    kept = [np.zeros(0, np.int64)]
    for number in np.unique(classes[indices]):
        members = indices[classes[indices] == number]
        distinct = np.unique(groups[members])
        stays = random.random(len(distinct)) >= LEFT_OUT
        # Where all groups would go, a random one stays. It is drawn in any case, so that later draws do not change.
        stays[random.integers(len(distinct))] |= not stays.any()
        kept.append(members[np.isin(groups[members], distinct[stays])])
    return np.sort(np.concatenate(kept))


def _mirrored(photos: Sequence[Photo], plain: Floats, model: Model, progress: Progress, *, wanted: bool) -> Floats:
    """Embeddings of the mirrored photos, float32 N×D; a row of NaN where a photo can no longer be read."""
    if not wanted:
        return np.full_like(plain, np.nan)
    found = embed_photos(photos, model, progress, mirror=True)
    rows = {photo.path: row for photo, row in zip(found.photos, found.embeddings, strict=True)}
    nothing = np.full(plain.shape[1], np.nan, np.float32)
    return np.stack([rows.get(photo.path, nothing) for photo in photos])

"""Trains networks with and without further photos, as ordinary runs that can be resumed. This module imports torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from nameplate.data.dataset import Dataset
from nameplate.errors import DataError
from nameplate.experiments.verdict import Material, SeedAnswers, SeedResult
from nameplate.fit.recipe import Recipe
from nameplate.fit.run import RUN
from nameplate.model.embeddings import Progress, embed_photos
from nameplate.model.model import Model
from nameplate.train.finetune import fine_tune, start
from nameplate.types import Photo

RUNS = "runs"
"""The subfolder with the runs of each seed."""


class NetworkTrainer:
    """Trains both networks of a seed like `nameplate train`, with the number of epochs of the recipe.

    The seed decides the order of the photos, the augmentation, the mixing and the dropout. With more photos an epoch
    has more steps; that is part of the effect of further photos.
    """

    def __init__(
        self,
        material: Material,
        folder: Path,
        recipe: Recipe,
        *,
        runtime: str,
        threads: int | None,
        progress: Progress,
        say: Callable[[str], None],
    ) -> None:
        self.material, self.folder, self.recipe = material, folder, recipe
        self.runtime, self.threads, self.progress, self.say = runtime, threads, progress, say

    def train_seed(self, seed: int) -> SeedResult:
        """Train both networks of a seed, and evaluate them."""
        runs, material = self.folder / RUNS / f"seed-{seed}", self.material
        return SeedResult(
            seed,
            self._answers(runs / "without", material.train, seed),
            self._answers(runs / "with", (*material.train, *material.extra), seed),
        )

    def _answers(self, run: Path, train: tuple[Photo, ...], seed: int) -> SeedAnswers:
        if not (run / RUN).is_file():
            dataset = Dataset((*train, *self.material.evaluation), self.material.nameplates, self.material.ids)
            recipe = replace(self.recipe, seed=seed, keep_best=False)  # the evaluation photos must not choose the epoch
            start(lambda: dataset, run, recipe, threads=self.threads, progress=self.progress)
        self.say(f"seed {seed}, {run.name} the further photos")
        fine_tune(run, say=self.say)
        return self._evaluate(Model.load(run, runtime=self.runtime, threads=self.threads))

    def _evaluate(self, model: Model) -> SeedAnswers:
        """Evaluate a bundle on the photos of the experiment, including those that the run itself left out as copies."""
        evaluation = self.material.evaluation
        embedded = embed_photos(evaluation, model, self.progress)
        if embedded.unreadable:
            path, why = embedded.unreadable[0]
            raise DataError(
                f"Cannot read the evaluation photo '{path}' any more: {why}. Restore it and run the command again."
            )
        probs = model.probabilities(embedded.embeddings, embedded.runtime)
        return SeedAnswers.of(probs, model.nameplates, [str(photo.label) for photo in evaluation])

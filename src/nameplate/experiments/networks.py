"""A network trained by a recipe with and without further photos: real runs, which can be gone on with. Needs torch."""

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
"""The folder inside the experiment's that holds the runs of each seed."""


class Networks:
    """Trains both networks of a seed, as `nameplate train` would, with the epochs of the recipe.

    The seed draws the order of the photos, their augmentation, mixing and dropout. More photos are more steps an
    epoch: that, too, is what adding them does.
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

    def trial(self, seed: int) -> SeedResult:
        """Both networks of one seed, and what they say."""
        runs, material = self.folder / RUNS / f"seed-{seed}", self.material
        return SeedResult(
            seed,
            self._answers(runs / "without", material.train, seed),
            self._answers(runs / "with", (*material.train, *material.extra), seed),
        )

    def _answers(self, run: Path, train: tuple[Photo, ...], seed: int) -> SeedAnswers:
        if not (run / RUN).is_file():
            dataset = Dataset((*train, *self.material.judging), self.material.nameplates, self.material.ids)
            recipe = replace(self.recipe, seed=seed, keep_best=False)  # who judges must not choose
            start(lambda: dataset, run, recipe, threads=self.threads, progress=self.progress)
        self.say(f"seed {seed}, {run.name} the further photos")
        fine_tune(run, say=self.say)
        return self._judge(Model.load(run, runtime=self.runtime, threads=self.threads))

    def _judge(self, model: Model) -> SeedAnswers:
        """By the bundle, on the same photos for every run, whatever the run itself took for copies."""
        judging = self.material.judging
        embedded = embed_photos(judging, model, self.progress)
        if embedded.unreadable:
            path, why = embedded.unreadable[0]
            raise DataError(f"'{path}' judges and can no longer be read: {why}. Put it back and run the command again.")
        probs = model.probabilities(embedded.embeddings, embedded.runtime)
        return SeedAnswers.of(probs, model.nameplates, [str(photo.label) for photo in judging])

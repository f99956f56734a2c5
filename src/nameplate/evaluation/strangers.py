"""Verdicts judged: what becomes of photos that the model knows, and of photos of what it does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from nameplate.datasets import list_photos
from nameplate.datasets.listing import Tell
from nameplate.errors import BundleError
from nameplate.evaluation.judge import Judged
from nameplate.evaluation.metrics import wilson
from nameplate.evaluation.open_set import Separation, separation
from nameplate.models.collection import Progress, embed_photos
from nameplate.models.model import Model
from nameplate.models.verdict import strangeness, with_flaws
from nameplate.photos.quality import Quality, flaws
from nameplate.types import Metric, Prediction, Verdict

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sorted:
    """What verdicts known photos get, and how far these are right."""

    verdicts: dict[Verdict, int]
    """Photos of each."""
    right: Metric | None
    """Share of the answers that are right; None where there are none."""
    held: Metric
    """Share of all known photos whose set of nameplates holds the truth; that of one not kept is empty for this."""
    kept_held: Metric | None
    """The same share of those that were kept (answer or unsure)."""
    size: float
    """Mean size of the sets of those that were kept."""
    makes: Metric | None
    """Share of right makes, where the nameplate was unsure and the make was not."""


@dataclass(frozen=True, slots=True)
class Strangers:
    """What becomes of photos of one source that the model does not know."""

    source: str
    verdicts: dict[Verdict, int]
    near: Separation
    """By the score that tells unknown cars."""
    far: Separation
    """By the score that tells what is no car."""

    def as_json(self) -> dict[str, object]:
        """As `--json` shows it."""
        return asdict(self)


def sort_known(model: Model, judged: Judged) -> Sorted:
    """Verdicts of the photos that a model was judged on."""
    found = _predictions(model, judged.embeddings, judged.probabilities, judged.qualities)
    truths = [judged.nameplates[place] for place in judged.truths]
    kept = [(p, truth) for p, truth in zip(found, truths, strict=True) if p.verdict in ("answer", "unsure")]
    holds = [truth in p.candidates for p, truth in kept]
    answers = [p.nameplate == truth for p, truth in kept if p.verdict == "answer"]
    make_of = dict(zip(model.nameplates, model.makes, strict=True))
    makes = [p.make == make_of[truth] for p, truth in kept if p.verdict == "unsure" and p.make is not None]
    return Sorted(
        _count(found),
        _share(answers),
        wilson(sum(holds), len(found)),
        _share(holds),
        float(np.mean([len(p.candidates) for p, _ in kept])) if kept else 0.0,
        _share(makes),
    )


def sort_strangers(
    model: Model,
    judged: Judged,
    source: Path,
    progress: Progress = lambda *_: None,
    tell: Tell = lambda _: None,
) -> Strangers:
    """Verdicts of photos that a model does not know, and how well its scores tell them from those it was judged on.

    Args:
        model: with what verdicts need.
        judged: the known photos.
        source: a folder, a table or a zip of photos; labels are not looked at.
        progress: see `Progress`.
        tell: called with each entry of the source that is left out.

    Raises:
        BundleError: the bundle does not say where its cars lie.
        DataError: there are no photos, or none can be read.
    """
    known = model.bundle.known
    if known is None:
        raise BundleError(
            f"'{model.bundle.manifest.name}' cannot tell strangers: it was made before Nameplate had verdicts. "
            "Train it again."
        )
    photos = list_photos(source, tell)
    embedded = embed_photos(photos, model, lambda step, a, b: progress(f"{step} {source.name}", a, b))
    chances = model.probabilities(embedded.embeddings, embedded.runtime)
    found = _predictions(model, embedded.embeddings, chances, embedded.qualities)
    near, far = zip(
        _scores(model, judged.embeddings, judged.probabilities),
        _scores(model, embedded.embeddings, chances),
        strict=True,
    )
    verdicts = _count(found) | ({"unreadable": len(embedded.unreadable)} if embedded.unreadable else {})
    return Strangers(str(source), verdicts, separation(*near), separation(*far))


def _scores(model: Model, embeddings: Floats, chances: Floats) -> tuple[Floats, Floats]:
    assert model.bundle.known is not None
    near, cars = model.bundle.known.distances(embeddings)
    margin = model.car_margin(embeddings)
    return strangeness(near, chances, model.bundle.manifest.thresholds), cars if margin is None else margin


def _predictions(model: Model, embeddings: Floats, chances: Floats, qualities: Sequence[Quality]) -> list[Prediction]:
    """The verdict of each photo; without qualities none is called poor."""
    measured: Sequence[Quality | None] = qualities or [None] * len(chances)
    each = zip(chances, embeddings, measured, strict=True)
    return [with_flaws(model.judged("", row, embedding), flaws(quality)) for row, embedding, quality in each]


def _count(found: list[Prediction]) -> dict[Verdict, int]:
    counts = Counter(prediction.verdict for prediction in found)
    return {verdict: counts[verdict] for verdict in get_args(Verdict) if counts[verdict]}


def _share(right: list[bool]) -> Metric | None:
    return wilson(sum(right), len(right)) if right else None

"""False accepts and false rejects of `verify`, on adverts made from photos that trained nothing.

    python benchmarks/verify.py CARS196 [--interiors FOLDER]

An advert is some held-out photos of one nameplate, with a true claim or a wrong one, half of the wrong ones being of
the same make. All thresholds are chosen on one half of the held-out photos, the adverts are made from the other,
and that is done for several halvings. With --interiors each advert has one photo of that folder besides.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nameplate.datasets import list_photos, read_dataset
from nameplate.evaluation.judge import Judged, judge
from nameplate.evaluation.verdicts import with_verdicts
from nameplate.models.model import Model
from nameplate.types import DEFAULT_BUNDLE, Prediction

RATES = (0.01, 0.05)
PHOTOS = (1, 2, 3)
Answer = tuple[Prediction, NDArray[np.float32] | None]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default=DEFAULT_BUNDLE)
    parser.add_argument("--interiors", type=Path, default=None)
    parser.add_argument("--halvings", type=int, default=10)
    parser.add_argument("--adverts", type=int, default=300, help="of each number of photos, in each halving")
    arguments = parser.parse_args()
    model = Model.load(arguments.model)
    judged = judge(model, read_dataset(arguments.data))
    interiors = [photo.path for photo in list_photos(arguments.interiors)] if arguments.interiors else []
    besides = list(model.answers(interiors))
    counts: Counter[tuple[int, float, str, str]] = Counter()
    for seed in range(arguments.halvings):
        random = np.random.default_rng(seed)
        chosen = random.permutation(len(judged.truths)) < len(judged.truths) // 2
        halved = chosen_on(model, judged, chosen)
        answers: list[Answer] = [
            (halved.judged("", judged.probabilities[i], judged.embeddings[i]), judged.probabilities[i])
            for i in range(len(judged.truths))
        ]
        for photos in PHOTOS:
            for _ in range(arguments.adverts):
                count(counts, halved, judged, answers, besides, ~chosen, photos, random)
    report(counts)


def chosen_on(model: Model, judged: Judged, chosen: NDArray[np.bool_]) -> Model:
    """The model with thresholds of these photos alone."""
    assert model.bundle.known is not None
    distances = model.bundle.known.distances(judged.embeddings[chosen])
    far = model.bundle.manifest.thresholds.far
    manifest = with_verdicts(model.bundle.manifest, judged.probabilities[chosen], judged.truths[chosen], distances, far)
    return Model(replace(model.bundle, manifest=manifest), model.settings)


def count(
    counts: Counter[tuple[int, float, str, str]],
    model: Model,
    judged: Judged,
    answers: list[Answer],
    besides: list[Answer],
    usable: NDArray[np.bool_],
    photos: int,
    random: np.random.Generator,
) -> None:
    """Make one advert, and verify its true claim and two wrong ones."""
    pools = [np.flatnonzero(usable & (judged.truths == place)) for place in range(len(model.nameplates))]
    place = int(random.choice([i for i, pool in enumerate(pools) if len(pool) >= photos]))
    shown = [answers[i] for i in random.choice(pools[place], photos, replace=False)]
    if besides:
        shown.append(besides[random.integers(len(besides))])
    names, makes = model.nameplates, model.makes
    alike = [n for n, make in zip(names, makes, strict=True) if make == makes[place] and n != names[place]]
    unlike = [n for n, make in zip(names, makes, strict=True) if make != makes[place]]
    claims = {"true": names[place], "other make": str(random.choice(unlike))}
    if alike:
        claims["same make"] = str(random.choice(alike))
    for rate in RATES:
        for kind, claimed in claims.items():
            counts[photos, rate, kind, model.judge_claim(claimed, shown, rate=rate).verdict] += 1


def report(counts: Counter[tuple[int, float, str, str]]) -> None:
    """The table."""
    print("photos  rate   true: accept unsure reject   wrong accepted: of all  other make  same make")
    for photos in PHOTOS:
        for rate in RATES:

            def share(kind: str, verdict: str, photos: int = photos, rate: float = rate) -> float:
                of_kind = sum(n for key, n in counts.items() if key[:3] == (photos, rate, kind))
                return 100 * counts[photos, rate, kind, verdict] / max(1, of_kind)

            true = [share("true", verdict) for verdict in ("accept", "unsure", "reject")]
            other, same = share("other make", "accept"), share("same make", "accept")
            print(
                f"{photos:6}  {100 * rate:3.0f} %        {true[0]:5.1f}  {true[1]:5.1f}  {true[2]:5.1f}"
                f"                    {(other + same) / 2:5.2f} %     {other:5.2f} %    {same:5.2f} %"
            )


if __name__ == "__main__":
    main()

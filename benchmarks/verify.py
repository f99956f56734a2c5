"""Measures false accepts and false rejects of `verify`, on adverts that are made of held-out photos.

    python benchmarks/verify.py CARS196 [--interiors FOLDER]

An advert is some held-out photos of one nameplate, with a true claim or a wrong one, half of the wrong ones being of
the same make. All thresholds are chosen on one half of the held-out photos, the adverts are made from the other,
and that is done for several halvings. With --interiors each advert has one photo of that folder besides. The most alike
wrong claim is the other nameplate that the photos of the chosen half are taken for most. A mixed advert has photos of
what it claims, and one that is answered as a nameplate of another make.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nameplate.data import list_photos, read_dataset
from nameplate.defaults import DEFAULT_BUNDLE
from nameplate.evaluate.evaluator import EvaluationResult, evaluate_model
from nameplate.evaluate.thresholds import with_verdicts
from nameplate.model.model import Model
from nameplate.types import Floats, Prediction

RATES = (0.01, 0.05)
PHOTOS = (1, 2, 3)
Answer = tuple[Prediction, "Floats | None"]


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
    judged = evaluate_model(model, read_dataset(arguments.data))
    interiors = [photo.path for photo in list_photos(arguments.interiors)] if arguments.interiors else []
    besides = list(model.answers(interiors))
    mixed: Counter[tuple[float, str]] = Counter()
    counts: Counter[tuple[int, float, str, str]] = Counter()
    for seed in range(arguments.halvings):
        random = np.random.default_rng(seed)
        chosen = random.permutation(len(judged.y_true)) < len(judged.y_true) // 2
        halved = chosen_on(model, judged, chosen)
        answers: list[Answer] = [
            (halved.decide("", judged.probabilities[i], judged.embeddings[i]), judged.probabilities[i])
            for i in range(len(judged.y_true))
        ]
        for photos in PHOTOS:
            for _ in range(arguments.adverts):
                count(counts, halved, judged, answers, besides, chosen, photos, random)
        for _ in range(arguments.adverts):
            count_mixed(mixed, halved, judged, answers, ~chosen, random)
    report(counts, mixed)


def chosen_on(model: Model, judged: EvaluationResult, chosen: NDArray[np.bool_]) -> Model:
    """The model with thresholds of these photos alone."""
    assert model.bundle.ood_detector is not None
    distances = model.bundle.ood_detector.distances(judged.embeddings[chosen])
    theirs = model.bundle.manifest.thresholds
    manifest = with_verdicts(
        model.bundle.manifest,
        judged.probabilities[chosen],
        judged.y_true[chosen],
        distances,
        theirs.far,
        theirs.no_car,
        model.bundle.ood_detector.non_car_log_odds(judged.embeddings[chosen]),
    )
    return Model(replace(model.bundle, manifest=manifest), model.settings)


def count(
    counts: Counter[tuple[int, float, str, str]],
    model: Model,
    judged: EvaluationResult,
    answers: list[Answer],
    besides: list[Answer],
    chosen: NDArray[np.bool_],
    photos: int,
    random: np.random.Generator,
) -> None:
    """Make one advert, and verify its true claim and three wrong ones."""
    pools = [np.flatnonzero(~chosen & (judged.y_true == place)) for place in range(len(model.nameplates))]
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
    like = judged.probabilities[chosen & (judged.y_true == place)]
    if len(like):
        means = like.mean(0)
        means[place] = -1
        claims["most alike"] = names[int(means.argmax())]
    for rate in RATES:
        for kind, claimed in claims.items():
            counts[photos, rate, kind, model.judge_claim(claimed, shown, rate=rate).verdict] += 1


def count_mixed(
    counts: Counter[tuple[float, str]],
    model: Model,
    judged: EvaluationResult,
    answers: list[Answer],
    usable: NDArray[np.bool_],
    random: np.random.Generator,
) -> None:
    """Make one advert of a photo of the claimed nameplate and one that is answered, rightly, as another make."""
    first = int(random.choice(np.flatnonzero(usable)))
    claimed = int(judged.y_true[first])
    others = [
        i
        for i in np.flatnonzero(usable).tolist()
        if answers[i][0].verdict == "answer"
        and model.nameplates[judged.y_true[i]] == answers[i][0].nameplate
        and model.makes[judged.y_true[i]] != model.makes[claimed]
    ]
    shown = [answers[first], answers[int(random.choice(others))]]
    for rate in RATES:
        counts[rate, model.judge_claim(model.nameplates[claimed], shown, rate=rate).verdict] += 1


def report(counts: Counter[tuple[int, float, str, str]], mixed: Counter[tuple[float, str]]) -> None:
    """The tables."""
    print("photos  rate   true: accept unsure reject   wrong accepted: of all  other make  same make  most alike")
    for photos in PHOTOS:
        for rate in RATES:

            def share(kind: str, verdict: str, photos: int = photos, rate: float = rate) -> float:
                of_kind = sum(n for key, n in counts.items() if key[:3] == (photos, rate, kind))
                return 100 * counts[photos, rate, kind, verdict] / max(1, of_kind)

            true = [share("true", verdict) for verdict in ("accept", "unsure", "reject")]
            other, same, alike = (share(kind, "accept") for kind in ("other make", "same make", "most alike"))
            print(
                f"{photos:6}  {100 * rate:3.0f} %        {true[0]:5.1f}  {true[1]:5.1f}  {true[2]:5.1f}"
                f"                    {(other + same) / 2:5.2f} %     {other:5.2f} %    {same:5.2f} %"
                f"     {alike:5.2f} %"
            )
    print("\none photo of the claimed car, one of another make: accepted, unsure, rejected")
    for rate in RATES:
        of_rate = [mixed[rate, verdict] for verdict in ("accept", "unsure", "reject")]
        print(f"{100 * rate:3.0f} %  " + "  ".join(f"{100 * count / sum(of_rate):5.1f} %" for count in of_rate))


if __name__ == "__main__":
    main()

"""Simulates how often each interval contains the true value, and how often each test is significant without an effect.

    python benchmarks/simulations.py [--repeats 2000] [--only paired seeds]

It prints the tables of docs/statistics.md. An interval should contain the true value in 95 %, a test without an effect
be significant in at most 5 %, and a test with the promised number of photos be significant in 80 % or more. With 2,000
repeats a share of 95 % is known to ±1 point.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nameplate.evaluate.calibration import calibrate, curve, risk_coverage
from nameplate.evaluate.metrics import evaluate, mean_of_shares, share, skewed_mean
from nameplate.evaluate.ood import separation
from nameplate.evaluate.significance import paired
from nameplate.types import Doubles, Floats, Metric

Random = np.random.Generator
ENDLESS = 1_000_000
"""Photos that stand for endless ones."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table."""

    what: str
    photos: str
    share: float
    """Share of the repeats in which the interval contains the true value, or the test is significant."""
    repeats: int
    width: float = float("nan")
    """Mean width of the interval."""

    @property
    def error(self) -> float:
        """Three binomial standard errors of a share of 95 % or 5 %."""
        return float(3 * np.sqrt(0.05 * 0.95 / self.repeats))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--only", nargs="+", choices=list(ALL), default=list(ALL))
    arguments = parser.parse_args()
    for name in arguments.only:
        print(f"\n{name}\n\n| figure and case | photos | % | mean width |\n| --- | --- | --- | --- |", flush=True)
        for row in ALL[name](np.random.default_rng(0), arguments.repeats):
            width = "" if np.isnan(row.width) else f"{row.width:.3f}"
            print(f"| {row.what} | {row.photos} | {100 * row.share:.1f} | {width} |", flush=True)


def held(what: str, photos: str, truth: float, draw: Callable[[], Metric], repeats: int) -> Row:
    """How often an interval contains the true value."""
    found = [draw() for _ in range(repeats)]
    inside = np.mean([each.low - 1e-12 <= truth <= each.high + 1e-12 for each in found])
    return Row(what, photos, float(inside), repeats, float(np.mean([each.high - each.low for each in found])))


def top1(random: Random, repeats: int) -> Iterator[Row]:
    """Shares of photos, each its own or with copies that fare alike."""
    for photos in (20, 200, 1000):

        def alone(count: int = photos) -> Metric:
            return share(np.asarray(random.random(count) < 0.9))

        yield held("top-1 0.9", f"{photos}", 0.9, alone, repeats)
    for pictures in (20, 200, 1000):

        def copied(count: int = pictures) -> Metric:
            groups = np.repeat(np.arange(count), random.geometric(1 / 3, count))
            return share((random.random(count) < 0.9)[groups], groups)

        yield held("top-1 0.9, three copies of each on average", f"{pictures} pictures", 0.9, copied, repeats)


def confusions(random: Random, classes: int, skill: float) -> Doubles:
    """Probability of each answer for each truth, C×C; some classes are harder than others."""
    right = 1 / (1 + np.exp(-skill - random.normal(size=classes)))
    probs = random.dirichlet(np.full(classes, 0.3), classes)
    np.fill_diagonal(probs, 0)
    probs *= ((1 - right) / probs.sum(1))[:, None]
    np.fill_diagonal(probs, right)
    return probs


def macro_f1(random: Random, repeats: int) -> Iterator[Row]:
    """Few photos a class, as many of each or very different numbers, and a model that is nearly always right."""
    for skill, even in ((2.0, True), (2.0, False), (4.0, True)):
        probs = confusions(np.random.default_rng(1), 20, skill)
        ends = probs.cumsum(1)
        for few in (2, 5, 20):
            spread = np.exp(0.8 * np.random.default_rng(2).normal(size=20))
            counts = np.full(20, few) if even else np.maximum(1, np.round(few * spread)).astype(np.int64)
            weighted = probs * counts[:, None]
            truth = float((2 * np.diag(weighted) / (weighted.sum(0) + weighted.sum(1))).mean())
            y_true = np.repeat(np.arange(20), counts)

            def draw(y_true: NDArray[np.int64] = y_true, ends: Doubles = ends) -> Metric:
                named = (random.random(len(y_true))[:, None] > ends[y_true]).sum(1).clip(0, 19)
                return evaluate(np.eye(20, dtype=np.float32)[named], y_true, [str(c) for c in range(20)]).macro_f1

            how = "as many of each class" if even else "unlike numbers of photos a class"
            yield held(f"macro-F1 {truth:.2f}, {how}", f"{few} a class", truth, draw, repeats)


def margins(random: Random, mean: float, deviation: float, photos: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Calibrated confidences, and whether the answers are right."""
    confidence = 1 / (1 + np.exp(-random.normal(mean, deviation, photos)))
    return confidence.astype(np.float32), random.random(photos) < confidence


def log_loss(random: Random, repeats: int) -> Iterator[Row]:
    """Losses of usual models: many small, few large; and one that is seldom and then surely wrong."""
    for mean, deviation in ((2.0, 2.5), (4.0, 2.5)):
        truth = float(np.log1p(np.exp(-random.normal(mean, deviation, 5 * ENDLESS))).mean())
        for photos in (50, 200, 1000):

            def draw(mean: float = mean, deviation: float = deviation, photos: int = photos) -> Metric:
                return skewed_mean(np.log1p(np.exp(-random.normal(mean, deviation, photos))))

            yield held(f"log-loss {truth:.2f}", f"{photos}", truth, draw, repeats)

    def seldom(photos: int) -> Doubles:
        usual = random.random(photos) < 0.95
        return np.log1p(np.exp(-np.where(usual, random.normal(7, 2, photos), random.normal(-2, 3, photos))))

    truth = float(seldom(5 * ENDLESS).mean())
    for photos in (50, 200, 1000):
        yield held(
            f"log-loss {truth:.2f}, one of 20 surely wrong",
            f"{photos}",
            truth,
            lambda n=photos: skewed_mean(seldom(n)),  # type: ignore[misc]
            repeats,
        )


def aurc(random: Random, repeats: int) -> Iterator[Row]:
    """Good and very good confidences."""
    for mean, deviation in ((2.0, 1.5), (4.0, 2.0), (5.0, 1.5)):
        truth = float(curve(*margins(random, mean, deviation, 2 * ENDLESS))[1].mean())
        for photos in (50, 200, 1000):

            def draw(mean: float = mean, deviation: float = deviation, photos: int = photos) -> Metric:
                return risk_coverage(*margins(random, mean, deviation, photos)).aurc

            yield held(f"AURC {truth:.3f}", f"{photos}", truth, draw, repeats)


def ece(random: Random, repeats: int) -> Iterator[Row]:
    """Confidences that boast."""
    logits = random.normal(2.2, 1.8, ENDLESS)
    for boast in (1.5, 2.5):
        truth = float(np.abs(1 / (1 + np.exp(-logits)) - 1 / (1 + np.exp(-boast * logits))).mean())
        for photos in (100, 300, 1000):

            def draw(boast: float = boast, photos: int = photos) -> Metric:
                margin = random.normal(2.2, 1.8, photos)
                right = random.random(photos) < 1 / (1 + np.exp(-margin))
                return calibrate((1 / (1 + np.exp(-boast * margin))).astype(np.float32), right).ece

            yield held(f"ECE {truth:.3f}", f"{photos}", truth, draw, max(1, repeats // 5))


STRANGERS: dict[str, tuple[float, float]] = {
    "hard": (1.0, 1.0),
    "usual": (3.0, 1.0),
    "easy": (4.5, 1.0),
    "wide": (6.0, 4.0),
}
"""Mean and standard deviation of the scores of OOD photos; those of known photos are 0 and 1."""
COUNTS = ((50, 50), (50, 400), (300, 100), (1000, 1000))


def auroc(random: Random, repeats: int) -> Iterator[Row]:
    """Known photos and OOD photos at several distances."""
    return _separations(random, repeats, lambda known, ood: separation(known, ood).auroc, auroc_of)


def false_accepts(random: Random, repeats: int) -> Iterator[Row]:
    """The share that passes where 95 % of the known photos do."""
    return _separations(random, repeats, lambda known, ood: separation(known, ood).false_accepts, false_accepts_of)


def auroc_of(mean: float, deviation: float) -> float:
    """Of endless photos."""
    from scipy.stats import norm

    return float(norm.cdf(mean / np.hypot(1, deviation)))


def false_accepts_of(mean: float, deviation: float) -> float:
    """Of endless photos."""
    from scipy.stats import norm

    return float(norm.cdf((norm.ppf(0.95) - mean) / deviation))


def _separations(
    random: Random,
    repeats: int,
    figure: Callable[[Doubles, Doubles], Metric],
    truth: Callable[[float, float], float],
) -> Iterator[Row]:
    for name, (mean, deviation) in STRANGERS.items():
        for known, ood in COUNTS:

            def draw(known: int = known, ood: int = ood, mean: float = mean, deviation: float = deviation) -> Metric:
                return figure(random.normal(size=known), random.normal(mean, deviation, ood))

            true = truth(mean, deviation)
            yield held(f"{name}, truth {true:.3f}", f"{known} known, {ood} not", true, draw, repeats)


def aliases(random: Random, repeats: int) -> Iterator[Row]:
    """The mean of two classes' shares."""
    for first, second in ((0.5, 0.5), (0.6, 0.8), (0.3, 0.95)):
        for few, many in ((5, 100), (20, 200), (60, 900), (20, 20)):

            def draw(first: float = first, second: float = second, few: int = few, many: int = many) -> Metric:
                hits = int(random.binomial(few, first)), int(random.binomial(many, second))
                return mean_of_shares(hits, (few, many))

            true = (first + second) / 2
            yield held(f"shares {first} and {second}", f"{few} and {many}", true, draw, repeats)


def gains_of(
    random: Random, pictures: int, better: float, worse: float, copies: int = 1
) -> tuple[Doubles, NDArray[np.int64]]:
    """Gains of −1, 0, 1, and the pictures that they are of; copies fare half alike."""
    groups = np.repeat(np.arange(pictures), random.geometric(1 / copies, pictures))
    alike, own = random.random(pictures)[groups], random.random(len(groups))
    luck = np.where(random.random(len(groups)) < 0.5, alike, own) if copies > 1 else alike
    return np.where(luck < better, 1.0, np.where(luck < better + worse, -1.0, 0.0)), groups


def pairs(random: Random, repeats: int) -> Iterator[Row]:
    """Two methods with one run each: coverage, false positives, and how often test and interval disagree."""
    apart: list[bool] = []
    for copies in (1, 3):
        for better, worse in ((0.05, 0.05), (0.15, 0.15), (0.12, 0.04)):
            for photos in (15, 50, 200) if copies > 1 else (30, 200, 1000):
                found = [
                    paired(np.zeros(len(gains)), gains, groups)
                    for gains, groups in (gains_of(random, photos, better, worse, copies) for _ in range(repeats))
                ]
                case = f"+{100 * better:.0f} % −{100 * worse:.0f} %{', three copies' if copies > 1 else ''}"
                size = f"{photos} pictures" if copies > 1 else f"{photos}"
                seen = iter([each.difference for each in found])
                yield held(f"difference, {case}", size, better - worse, lambda seen=seen: next(seen), repeats)  # type: ignore[misc]
                if better == worse:
                    yield Row(
                        f"told of nothing, {case}", size, float(np.mean([each.significant for each in found])), repeats
                    )
                apart += [each.significant != (not each.difference.low <= 0 <= each.difference.high) for each in found]
    yield Row("test and interval disagree", "all of these", float(np.mean(apart)), len(apart))


def losses(random: Random, repeats: int) -> Iterator[Row]:
    """The difference of two log-losses on the same photos."""
    truth = float(np.mean(_losses(random, 5 * ENDLESS)))
    for photos in (50, 200, 1000):

        def draw(photos: int = photos) -> Metric:
            return paired(np.zeros(photos), _losses(random, photos)).difference

        yield held("log-loss difference", f"{photos}", truth, draw, repeats)


def _losses(random: Random, photos: int) -> Doubles:
    margin = random.normal(2.5, 2.5, photos)
    return np.log1p(np.exp(-margin - random.normal(0.1, 0.7, photos))) - np.log1p(np.exp(-margin))


def runs_of(random: Random, photos: int, unlike: float, gain: float, seeds: int = 3) -> tuple[Doubles, Doubles]:
    """Seeds × N, right or wrong without and with; seeds are unlike by so much, and photos of one ease."""
    ease = random.normal(size=photos)
    ways = (each + unlike * random.normal(size=(seeds, 1)) for each in (0.0, gain))
    without, with_ = ((ease + way + 0.6 * random.normal(size=(seeds, photos)) > -1).astype(float) for way in ways)
    return without, with_


def seeds(random: Random, repeats: int) -> Iterator[Row]:
    """extra-data's verdict: seeds that are alike, unlike, very unlike."""
    for number in (3, 5):
        for unlike in (0.0, 0.2, 0.8):
            for photos in (60, 200, 1000):
                told = [paired(*runs_of(random, photos, unlike, 0.0, number)).significant for _ in range(repeats)]
                yield Row(
                    f"told of nothing, {number} seeds unlike by {unlike}", f"{photos}", float(np.mean(told)), repeats
                )


def promises(random: Random, repeats: int) -> Iterator[Row]:
    """Whether as many photos as promised tell a difference of the size seen."""
    for better, worse in ((8, 5), (12, 8), (25, 15), (3, 0)):
        seen = np.r_[np.ones(better), -np.ones(worse), np.zeros(100 - better - worse)]
        number = paired(np.zeros(100), seen).photos_to_tell or 0

        told = [
            paired(np.zeros(number), gains_of(random, number, better / 100, worse / 100)[0]).significant
            for _ in range(repeats // 2)
        ]
        case = f"one run, +{better} −{worse} of 100 seen"
        yield Row(case, f"{number} promised", float(np.mean(told)), repeats // 2)
    for unlike, gain in ((0.02, 0.12), (0.01, 0.06), (0.0, 0.03)):
        yield promise_of_seeds(random, unlike, gain, repeats // 2)


def promise_of_seeds(random: Random, unlike: float, gain: float, repeats: int) -> Row:
    """Three seeds whose gains differ by so much (a standard deviation, as a share), photos by 0.3, and both by 0.2.

    What is seen of 200 photos is what is true: the promise is of the size seen.
    """
    number = paired(*_crossed(random, 200, unlike, gain, exact=True)).photos_to_tell or 0
    told = [paired(*_crossed(random, number, unlike, gain)).significant for _ in range(repeats if number else 0)]
    return Row(
        f"three seeds, ±{unlike} each, +{gain}", f"{number} promised", float(np.mean(told)) if told else 0.0, repeats
    )


def _crossed(
    random: Random, photos: int, unlike: float, gain: float, *, exact: bool = False
) -> tuple[Doubles, Doubles]:
    of_photos, of_runs = random.normal(size=(1, photos)), random.normal(size=(3, 1))
    both = random.normal(size=(3, photos))
    if exact:  # drawn parts have their spread and none of each other's
        both = both - both.mean(0) - both.mean(1, keepdims=True) + both.mean()
        both *= np.sqrt(2 * (photos - 1) / (3 * photos)) / both.std()
        of_photos = (of_photos - of_photos.mean()) / of_photos.std(ddof=1)
        of_photos *= np.sqrt(1 + (0.2 / 0.3) ** 2 / 3)  # the mean of three runs shows both
        of_runs = (of_runs - of_runs.mean()) / of_runs.std(ddof=1)
        of_runs *= np.sqrt(1 + (0.2**2 / photos) / max(unlike, 1e-9) ** 2)
    gains = gain + 0.3 * of_photos + max(unlike, 1e-9) * of_runs + 0.2 * both
    return np.zeros_like(gains), gains


def pilots(random: Random, repeats: int) -> Iterator[Row]:
    """The same in truth: the size seen by a first look of 300 photos is uncertain itself."""
    for better, worse in ((0.06, 0.04), (0.08, 0.04)):
        told = []
        for _ in range(repeats // 2):
            first = paired(np.zeros(300), gains_of(random, 300, better, worse)[0])
            if first.significant or first.photos_to_tell is None or first.photos_to_tell > 100_000:
                continue
            number = first.photos_to_tell
            told.append(paired(np.zeros(number), gains_of(random, number, better, worse)[0]).significant)
        case = f"+{100 * better:.0f} % −{100 * worse:.0f} % in truth, not told of 300"
        yield Row(case, "as many as promised then", float(np.mean(told)), len(told))


ALL: dict[str, Callable[[Random, int], Iterator[Row]]] = {
    "top-1": top1,
    "macro-F1": macro_f1,
    "log-loss": log_loss,
    "AURC": aurc,
    "ECE": ece,
    "AUROC": auroc,
    "false-accepts": false_accepts,
    "aliases": aliases,
    "paired": pairs,
    "losses": losses,
    "seeds": seeds,
    "promises": promises,
    "pilots": pilots,
}

if __name__ == "__main__":
    main()

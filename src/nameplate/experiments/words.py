"""A verdict in words: the same on the page and in the terminal."""

from __future__ import annotations

from nameplate.experiments.verdict import ClassVerdict, Verdict
from nameplate.types import Metric

FEW = 6
"""Nameplates that a sentence lists."""


def headline(verdict: Verdict) -> str:
    """`Helps`, with what it is said of."""
    return {
        "helps": "The further photos help",
        "hurts": "The further photos hurt",
        "cannot be told": "Whether they help cannot be told",
    }[verdict.word]


def how_to_tell(verdict: Verdict) -> str:
    """What a difference of this size would take to be told; nothing where it is told."""
    enough = verdict.enough
    if verdict.word != "cannot be told":
        return ""
    if enough is None:
        return "Both ways name as many photos rightly: there is no difference that more photos could tell."
    size, photos = f"{100 * abs(verdict.top1.difference.value):.2g} points", _round(enough.photos)
    more = _round(max(1, enough.photos - verdict.photos))
    seeds = f", and {_round(enough.seeds)} seeds" if enough.seeds > len(verdict.without) else ""
    return (
        f"To tell a difference of {size} takes about {photos} photos to judge on, {more} more than there are{seeds}. "
        "If it is no larger, it may not matter."
    )


def about_classes(verdict: Verdict) -> str:
    """Which nameplates gain or lose."""
    gain, lose = _of(verdict, "helps"), _of(verdict, "hurts")
    told = [text for text in (_listed(gain, "gain"), _listed(lose, "lose")) if text]
    rest = len(verdict.per_class) - len(gain) - len(lose)
    if not told:
        return f"For none of the {rest:,} nameplates alone can it be told."
    return f"{'; '.join(told)}.{f' For the other {rest:,} it cannot be told.' if rest else ''}"


def points(difference: Metric) -> str:
    """`+6.3 points (95 % interval +3.1 … +9.5)`."""
    value, low, high = (f"{100 * part:+.1f}".replace("-", "−") for part in (difference.value, *difference.interval))
    return f"{value} points (95 % interval {low} … {high})"


def chance(p: float) -> str:
    """`p = 0.031`, `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def _of(verdict: Verdict, word: str) -> list[ClassVerdict]:
    found = [each for each in verdict.per_class if each.word == word]
    return sorted(found, key=lambda each: -abs(each.difference.value))


def _listed(found: list[ClassVerdict], verb: str) -> str:
    names = [f"{each.nameplate} ({100 * each.difference.value:+.0f})".replace("(-", "(−") for each in found[:FEW]]
    more = f" and {len(found) - FEW:,} more" if len(found) > FEW else ""
    return f"{', '.join(names)}{more} {verb + 's' if len(found) == 1 else verb}" if found else ""


def _round(photos: int) -> str:
    """To two figures: no such number is known better."""
    scale = 10 ** max(0, len(str(photos)) - 2)
    return f"{round(photos / scale) * scale:,}"

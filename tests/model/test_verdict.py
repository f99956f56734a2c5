"""Verdicts, with their candidates and makes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nameplate.model.verdict import (
    COVERAGE,
    Thresholds,
    car_margin,
    make_probabilities,
    model_indices,
    ood_score,
    prediction_set,
    with_flaws,
    with_model,
    with_verdict,
)
from nameplate.types import Fields, Prediction, Verdict

NAMES = ("BMW 1", "BMW 3", "Audi A4", "Audi A6")
MAKES = ("BMW", "BMW", "Audi", "Audi")
CUT = Thresholds(photos=100, nameplate=0.1, make=0.2, middle=1.0, spread=0.25, near=3.0, far=2.0)


def _judged(probs: list[float], near: float = 1.0, far: float = 1.0, cut: Thresholds = CUT) -> Prediction:
    row = np.array(probs, np.float32)
    plain = Prediction("a.jpg", NAMES[int(row.argmax())], float(row.max()))
    return with_verdict(plain, row, NAMES, MAKES, cut, (np.array([near], np.float32), np.array([far], np.float32)))


def test_one_candidate_gives_the_verdict_answer() -> None:
    found = _judged([0.94, 0.03, 0.02, 0.01])
    assert (found.verdict, found.candidates, found.make) == ("answer", ("BMW 1",), "BMW")
    assert found.make_confidence == pytest.approx(0.97)


def test_several_candidates_of_one_make_give_the_make() -> None:
    found = _judged([0.5, 0.45, 0.03, 0.02])
    assert (found.verdict, found.candidates) == ("unsure", ("BMW 1", "BMW 3"))
    assert found.make == "BMW"
    assert found.make_confidence == pytest.approx(0.95)


def test_candidates_of_two_makes_give_no_make() -> None:
    found = _judged([0.4, 0.05, 0.35, 0.2])
    assert (found.verdict, found.candidates) == ("unsure", ("BMW 1", "Audi A4", "Audi A6"))
    assert (found.make, found.make_confidence) == (None, None)


YEARS = ("Audi S4 Sedan 2007", "Audi S4 Sedan 2012", "audi_s4", "Audi S5 Coupe 2012", "Saab")
OF = ("Audi", "Audi", "Audi", "Audi", "Saab")
FIELDS = (
    Fields("S4", "Sedan", "2007"),
    Fields("S4", "Sedan", "2012"),
    Fields("s4"),
    Fields("S5", "Coupe"),
    Fields(None),
)


def _modelled(*candidates: str, make: str | None = "Audi") -> Prediction:
    plain = Prediction("a.jpg", candidates[0], candidates=candidates, make=make)
    probs = np.array([0.4, 0.3, 0.1, 0.15, 0.05], np.float32)
    return with_model(plain, probs, YEARS, OF, FIELDS, model_indices(OF, FIELDS))


def test_candidates_of_one_model_give_the_model_and_what_they_agree_on() -> None:
    found = _modelled("Audi S4 Sedan 2007", "Audi S4 Sedan 2012")
    assert (found.model, found.body, found.years) == ("S4", "Sedan", None)
    assert found.model_confidence == pytest.approx(0.8)  # with what another source calls the same
    found = _modelled("Audi S4 Sedan 2012")
    assert (found.model, found.body, found.years) == ("S4", "Sedan", "2012")
    found = _modelled("Audi S4 Sedan 2012", "audi_s4")
    assert (found.model, found.body, found.years) == ("S4", None, None)


@pytest.mark.parametrize(
    ("candidates", "make"),
    [
        (("Audi S4 Sedan 2007", "Audi S5 Coupe 2012"), "Audi"),  # of two models
        (("Audi S4 Sedan 2007",), None),  # the make is not certain enough
        (("Saab",), "Saab"),  # a make alone
    ],
)
def test_else_there_is_no_model(candidates: tuple[str, ...], make: str | None) -> None:
    found = _modelled(*candidates, make=make)
    assert (found.model, found.model_confidence, found.body, found.years) == (None, None, None, None)


def test_a_bundle_without_fields_gives_no_model() -> None:
    plain = Prediction("a.jpg", "Audi S4", candidates=("Audi S4",), make="Audi")
    assert with_model(plain, np.ones(1, np.float32), ["Audi S4"], ["Audi"], (), model_indices(["Audi"], ())) == plain


def test_far_from_all_cars_is_not_a_car_at_any_confidence() -> None:
    found = _judged([1.0, 0, 0, 0], near=9, far=2.1)
    assert (found.verdict, found.candidates, found.make) == ("not a car", (), None)
    assert found.nameplate == "BMW 1"  # still told, for who wants it


def test_far_from_its_nameplates_alone_is_an_unknown_car() -> None:
    assert _judged([1.0, 0, 0, 0], near=1.76, far=1).verdict == "unknown car"
    assert _judged([1.0, 0, 0, 0], near=1.74, far=1).verdict == "answer"
    assert _judged([0.25] * 4, near=1.5, far=1).verdict == "unknown car"  # undecided counts as well


def test_without_a_threshold_there_is_no_such_verdict() -> None:
    blind = Thresholds()
    assert _judged([0.96, 0.02, 0.01, 0.01], near=99, far=99, cut=blind).verdict == "answer"
    assert _judged([0.7, 0.26, 0.03, 0.01], cut=blind).candidates == ("BMW 1", "BMW 3")
    assert _judged([0.96, 0.02, 0.01, 0.01], near=99, far=99, cut=Thresholds(far=50)).verdict == "not a car"


@given(st.lists(st.floats(0.001, 1), min_size=2, max_size=30), st.floats(0, 1))
def test_a_set_is_never_empty_and_holds_the_most_probable_first(weights: list[float], least: float) -> None:
    probs = np.array(weights, np.float32) / np.float32(sum(weights))
    found = prediction_set(probs, least)
    assert found[0] == int(probs.argmax())
    assert [probs[i] for i in found] == sorted((probs[i] for i in found), reverse=True)
    assert all(probs[i] >= np.float32(least) for i in found[1:])
    assert all(probs[i] < np.float32(least) for i in set(range(len(probs))) - set(found))
    own = prediction_set(probs, None)
    assert probs[own].sum() >= COVERAGE - 1e-4 or len(own) == len(probs)


def test_makes_are_summed() -> None:
    names, probs = make_probabilities(np.array([[0.1, 0.2, 0.3, 0.4]], np.float32), MAKES)
    assert names == ["BMW", "Audi"]
    assert probs[0].tolist() == pytest.approx([0.3, 0.7])


def test_the_ood_score_grows_with_distance_and_with_uncertainty() -> None:
    sure, torn = np.array([[1, 0]], np.float32), np.array([[0.5, 0.5]], np.float32)
    assert ood_score(np.array([1.5], np.float32), sure, CUT)[0] == pytest.approx(2)
    assert ood_score(np.array([1.5], np.float32), torn, CUT)[0] == pytest.approx(2 + np.log(2))


def test_impossible_thresholds_are_refused() -> None:
    assert CUT.usable
    assert Thresholds().usable
    for wrong in (
        Thresholds(spread=0),
        Thresholds(near=float("nan")),
        Thresholds(far=float("inf")),
        Thresholds(nameplate=1.5),
        Thresholds(coverage=-1),
    ):
        assert not wrong.usable, wrong


def test_a_gate_says_what_is_no_car_and_its_own_nameplates_are_cars_whatever_it_says() -> None:
    cut = replace(CUT, no_car=0.5)
    near, cars = np.array([1.2, 1.2, 1.6, 1.6], np.float32), np.full(4, 9.0, np.float32)
    odds = np.array([0.4, 0.6, 0.4, 0.6], np.float32)
    margin = car_margin((near, cars), odds, cut)
    assert margin is not None
    assert (margin > 0).tolist() == [False, False, False, True]  # nearer than 1 + 0.25: one of its own
    assert car_margin((near, cars), None, cut) == pytest.approx(cars - 2)  # a bundle without a gate: by distance
    unchosen = replace(Thresholds(), no_car=0.5)
    assert (np.asarray(car_margin((near, cars), odds, unchosen)) > 0).tolist() == [False, True, False, True]
    assert car_margin((near, cars), None, Thresholds()) is None


def test_the_verdict_depends_on_the_car_margin() -> None:
    row = np.array([1.0, 0, 0, 0], np.float32)
    distances = np.array([1.6], np.float32), np.array([1.0], np.float32)
    plain = Prediction("a.jpg", NAMES[0], 1.0)
    for odds, verdict in ((0.6, "not a car"), (0.4, "answer")):
        found = with_verdict(
            plain, row, NAMES, MAKES, replace(CUT, no_car=0.5), distances, np.array([odds], np.float32)
        )
        assert found.verdict == verdict
    assert not Thresholds(no_car=float("nan")).usable


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        ("answer", "answer"),
        ("unsure", "unsure"),
        ("unknown car", "poor photo"),
        ("not a car", "not a car"),
        ("unreadable", "unreadable"),
    ],
)
def test_only_flawed_photos_of_unknown_cars_are_poor_photos(verdict: Verdict, expected: Verdict) -> None:
    told = Prediction("a.jpg", "BMW 1", 0.9, (("BMW 1", 0.9),), verdict=verdict, candidates=("BMW 1",), make="BMW")
    assert with_flaws(told, ()) == told
    found = with_flaws(told, ("dark", "blurred"))
    assert found == replace(told, verdict=expected, flaws=("dark", "blurred"))
    assert found.flawed == "too dark and too blurred"

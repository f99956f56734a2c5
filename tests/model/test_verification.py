"""Claims: how they are matched to nameplates, and how they are decided."""

from __future__ import annotations

import unicodedata
from dataclasses import replace

import pytest

from nameplate.errors import UsageError
from nameplate.model.verification import (
    MOST_PHOTOS,
    RATES,
    ClaimThresholds,
    UnknownClaimError,
    Verified,
    check_rate,
    decide,
    read_claim,
    unreadable_claim,
)
from nameplate.types import PixelBox, Prediction

NAMES = ("BMW X5 SUV 2007", "BMW X6 SUV 2012", "Audi S4 Sedan 2007", "Audi S4 Sedan 2012", "Лада Приора", "Лада Калина")
MAKES = ("BMW", "BMW", "Audi", "Audi", "Лада", "Лада")
CUT = ClaimThresholds(
    100,
    tuple(tuple(0.9 - 0.1 * place for place in range(len(RATES))) for _ in range(MOST_PHOTOS)),
    tuple(tuple(0.01 + 0.01 * place for place in range(len(RATES))) for _ in range(MOST_PHOTOS)),
)


def _photo(verdict: str = "answer") -> Prediction:
    return Prediction("a.jpg", NAMES[0], 0.9, verdict=verdict)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("claimed", "meant", "whole"),
    [
        ("bmw x5 suv 2007", NAMES[:1], False),
        ("BMW", NAMES[:2], True),
        ("audi s4", NAMES[2:4], True),
        ("Audi 2012", NAMES[3:4], False),
        ("приора", NAMES[4:5], False),
        ("ЛАДА", NAMES[4:6], True),
    ],
)
def test_a_claim_means_all_nameplates_that_have_its_words(claimed: str, meant: tuple[str, ...], whole: bool) -> None:
    found = read_claim(claimed, NAMES, MAKES)
    assert (found.nameplates, found.whole_make) == (meant, whole)


def test_a_claim_is_matched_in_any_unicode_form() -> None:
    names = ("Хёндай Солярис", unicodedata.normalize("NFD", "Йети"))
    for claimed in ("Хёндай", "йети"):
        for form in ("NFC", "NFD"):
            found = read_claim(unicodedata.normalize(form, claimed), names, ("Хёндай", "Шкода"))
            assert len(found.nameplates) == 1


@pytest.mark.parametrize("claimed", ["Audi S5 Sedan 2007", "BMW X", "", "  ", "***"])
def test_an_unknown_claim_is_an_error_that_helps(claimed: str) -> None:
    with pytest.raises(UsageError, match="knows no nameplate"):
        read_claim(claimed, NAMES, MAKES)


def test_the_nearest_nameplate_is_named() -> None:
    with pytest.raises(UsageError, match="Did you mean 'Audi S4 Sedan 2007'"):
        read_claim("Audi S5 Sedan 2007", NAMES, MAKES)


def test_the_score_is_the_mean_over_photos_that_show_a_car() -> None:
    claim = read_claim("bmw x5", NAMES, MAKES)
    photos = [(_photo(), 0.9), (_photo("not a car"), 0.0), (_photo("unreadable"), None), (_photo("unsure"), 0.7)]
    found = decide(claim, photos, CUT, 0.01)
    assert found.score == pytest.approx(0.8)
    assert found.verdict == "accept"
    assert [score for _, score in found.photos] == [0.9, None, None, 0.7]


def test_a_detail_that_passes_for_an_unknown_car_does_not_count_beside_a_known_one() -> None:
    claim = read_claim("bmw x5", NAMES, MAKES)
    found = decide(claim, [(_photo("unknown car"), 0.0), (_photo(), 0.9)], CUT, 0.01)
    assert found.verdict == "accept"
    assert found.score == pytest.approx(0.9)
    assert [score for _, score in found.photos] == [None, 0.9]


@pytest.mark.parametrize(("score", "verdict"), [(0.61, "accept"), (0.5, "unsure"), (0.05, "unsure"), (0.03, "reject")])
def test_verdicts_at_one_percent(score: float, verdict: str) -> None:
    assert decide(read_claim("bmw x5", NAMES, MAKES), [(_photo(), score)], CUT, 0.01).verdict == verdict


def test_a_higher_rate_accepts_more_and_a_rate_between_is_between() -> None:
    accept = [CUT.at(1, rate)[0] for rate in (0.001, 0.01, 0.03, 0.05)]
    assert accept == sorted(accept, reverse=True)
    assert accept[2] == pytest.approx(0.5 - 0.1 * 0.44, abs=0.01)
    with pytest.raises(UsageError, match=r"from 0\.001 to 0\.2"):
        check_rate(0.5)
    with pytest.raises(UsageError):
        check_rate(float("nan"))


def test_no_photo_of_a_car_is_unsure() -> None:
    claim = read_claim("bmw x5", NAMES, MAKES)
    assert decide(claim, [(_photo("not a car"), 0.9)], CUT).reason == "no photo shows a car"
    nothing = decide(claim, [(_photo("unreadable"), None)], CUT)
    assert (nothing.verdict, nothing.score, nothing.reason) == ("unsure", None, "no photo can be read")


def test_cars_that_the_model_does_not_know_are_not_accepted() -> None:
    claim = read_claim("bmw x5", NAMES, MAKES)
    assert decide(claim, [(_photo("unknown car"), 0.99)], CUT).verdict == "unsure"
    assert decide(claim, [(_photo("unknown car"), 0.99), (_photo("unknown car"), 0.99)], CUT).verdict == "unsure"
    assert decide(claim, [(_photo("unknown car"), 0.001)], CUT).verdict == "reject"


def test_without_thresholds_the_probability_itself_decides() -> None:
    claim = read_claim("bmw x5", NAMES, MAKES)
    verdicts = [decide(claim, [(_photo(), score)], None, 0.05).verdict for score in (0.96, 0.5, 0.04)]
    assert verdicts == ["accept", "unsure", "reject"]


def test_thresholds_of_another_form_are_refused() -> None:
    assert CUT.usable
    assert not ClaimThresholds(1, CUT.accept[:2], CUT.reject).usable
    assert not ClaimThresholds(1, tuple(row[:3] for row in CUT.accept), CUT.reject).usable
    assert not ClaimThresholds(1, tuple((float("nan"),) * len(RATES) for _ in CUT.accept), CUT.reject).usable


GOLF = Prediction("golf.jpg", "VW Golf", 0.99, verdict="answer", candidates=("VW Golf",), make="VW")


@pytest.mark.parametrize("other", [GOLF, replace(GOLF, verdict="unsure", nameplate=NAMES[0])])
def test_a_photo_that_is_surely_another_car_is_never_accepted_and_named(other: Prediction) -> None:
    claim = read_claim("bmw x5", NAMES, MAKES)
    found = decide(claim, [(_photo(), 0.99), (_photo(), 0.99), (other, 0.001)], CUT, 0.01)
    assert (found.verdict, found.code) == ("unsure", "another car")
    assert "'golf.jpg' shows" in found.reason
    assert "VW" in found.reason
    many = decide(claim, [(_photo(), 0.99), *[(other, 0.001)] * 5], CUT, 0.01)
    assert many.reason.count("'golf.jpg' shows") == 3
    assert many.reason.endswith("and 2 more show other cars")
    rejected = decide(claim, [(_photo(), 0.02), (other, 0.0)], CUT, 0.01)
    assert (rejected.verdict, rejected.code) == ("reject", "another car")


def test_a_large_car_of_another_make_beside_the_claimed_one_makes_unsure() -> None:
    claim = read_claim("bmw x5", NAMES, MAKES)

    def advert(main_box: PixelBox | None, other: Prediction) -> Verified:
        main = replace(_photo(), photo="street.jpg", box=main_box)
        scene = replace(main, cars=(main, other))
        return decide(claim, [(_photo(), 0.99), (scene, 0.99)], CUT, 0.01)

    box, near, far = PixelBox(0, 0, 100, 100), PixelBox(100, 0, 200, 30), PixelBox(100, 0, 200, 20)
    found = advert(box, replace(GOLF, box=near))
    assert (found.verdict, found.code) == ("unsure", "another car")
    assert "'street.jpg' shows VW Golf too" in found.reason
    for other in (
        replace(GOLF, box=far),  # in the background
        replace(GOLF, box=near, verdict="unsure"),
        replace(GOLF, box=near, nameplate=NAMES[1], make="BMW"),
    ):
        assert advert(box, other).verdict == "accept"
    assert advert(None, replace(GOLF, box=near)).verdict == "accept"  # the main car fills the photo
    rejected = replace(_photo(), box=box, cars=(replace(_photo(), box=box), replace(GOLF, box=near)))
    assert decide(claim, [(rejected, 0.0)], CUT, 0.01).verdict == "reject"


def test_a_photo_that_may_show_the_claimed_car_is_not_against_the_claim() -> None:
    claim = read_claim("bmw", NAMES, MAKES)
    unsure = replace(GOLF, verdict="unsure", make="BMW", nameplate=NAMES[1])
    open_make = replace(GOLF, verdict="unsure", make=None)
    other_bmw = replace(GOLF, nameplate=NAMES[1], make="BMW")
    for photo in (unsure, open_make, other_bmw):
        assert decide(claim, [(_photo(), 0.99), (photo, 0.7)], CUT, 0.01).code == "score"
    x5 = read_claim("bmw x5", NAMES, MAKES)
    photos = [(_photo(), 0.99), (_photo(), 0.99)]
    assert decide(x5, [*photos, (other_bmw, 0.2)], CUT, 0.01).verdict == "accept"  # a sister that it may be
    assert decide(x5, [*photos, (other_bmw, 0.001)], CUT, 0.01).code == "another car"
    assert decide(x5, [*photos, (GOLF, 0.2)], CUT, 0.01).code == "another car"


def test_codes_say_why() -> None:
    claim = read_claim("bmw x5", NAMES, MAKES)
    assert decide(claim, [(_photo("not a car"), 0.9)], CUT).code == "no car"
    assert decide(claim, [(_photo("unreadable"), None)], CUT).code == "unreadable"
    assert decide(claim, [(_photo("unknown car"), 0.99)], CUT).code == "unknown car"
    unknown = unreadable_claim("Lada", [_photo()], "it knows none")
    assert (unknown.verdict, unknown.code) == ("unsure", "unknown claim")
    with pytest.raises(UnknownClaimError):
        read_claim("Lada", NAMES[:2], MAKES[:2])


@pytest.mark.parametrize(
    ("claimed", "names"),
    [
        ("niva", ("5_niva", "6_priora")),
        ("Лада-Калина", NAMES),
        (unicodedata.normalize("NFD", "Хёндай"), ("Хёндай Солярис", "Лада")),
        ("Хёндай", (unicodedata.normalize("NFD", "Хёндай Солярис"), "Лада")),
    ],
)
def test_words_are_letters_and_digits_in_one_unicode_form(claimed: str, names: tuple[str, ...]) -> None:
    assert len(read_claim(claimed, names, names).nameplates) == 1


def test_accepting_takes_more_than_either_quantile() -> None:
    crossed = ClaimThresholds(100, CUT.reject, CUT.accept, {"alike": CUT.accept})
    assert crossed.at(1, 0.01) == CUT.at(1, 0.01)
    assert crossed.at(1, 0.01, "alike")[0] == pytest.approx(0.6)
    with pytest.raises(UsageError, match=r"wrong claims of the kind 'random'.*mixed, alike"):
        check_rate(0.01, "random", crossed)
    with pytest.raises(UsageError, match="Unknown wrong claims 'odd'"):
        check_rate(0.01, "odd")  # type: ignore[arg-type]
    assert not ClaimThresholds(1, CUT.accept, CUT.reject, {"odd": CUT.accept}).usable
    assert not ClaimThresholds(1, CUT.accept, CUT.reject, {"alike": CUT.accept[:1]}).usable


def test_the_share_that_passes_is_interpolated_from_the_quantiles() -> None:
    assert CUT.passed(1, 0.6) == {"mixed": 0.01}
    assert CUT.passed(1, 0.95) == {"mixed": 0.001}
    assert CUT.passed(1, 0.0) == {"mixed": 0.2}


def test_a_poor_photo_neither_accepts_nor_rejects_a_claim() -> None:
    claim = read_claim("bmw x5", NAMES, MAKES)
    poor = replace(_photo("poor photo"), flaws=("dark",))
    for chance in (0.0, 1.0):
        found = decide(claim, [(poor, chance), (poor, chance)], CUT, 0.01)
        assert (found.verdict, found.code, found.score) == ("unsure", "poor photo", None)
        assert found.reason == "no photo is good enough to judge by: too dark"
    beside = decide(claim, [(_photo(), 0.9), (poor, 0.0)], CUT, 0.01)
    assert (beside.verdict, beside.code) == ("accept", "score")
    assert [score for _, score in beside.photos] == [0.9, None]
    mixed = [(poor, 0.0), (_photo("not a car"), 0.0), (_photo("unreadable"), None)]
    assert decide(claim, mixed, CUT, 0.01).code == "poor photo"
    flawed_answer = replace(_photo(), flaws=("dark",))
    assert decide(claim, [(flawed_answer, 0.9)], CUT, 0.01).verdict == "accept"

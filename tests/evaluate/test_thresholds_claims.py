"""Thresholds of claims: they keep the rates that they were chosen for."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from nameplate.evaluate.thresholds import choose_claims, draw_adverts
from nameplate.model.verification import MOST_PHOTOS, RATES
from nameplate.types import Floats

MAKES = tuple(f"make {i // 4}" for i in range(20))
OF = np.arange(20) // 4


def _answers(count: int, seed: int) -> tuple[Floats, NDArray[np.int64]]:
    """A model that takes nameplates for others of their make."""
    random = np.random.default_rng(seed)
    y_true = random.integers(0, 20, count)
    logits = random.normal(size=(count, 20)) * 1.5
    logits += 2.5 * (OF[y_true][:, None] == OF) + 2.5 * (y_true[:, None] == np.arange(20))
    probs = np.exp(logits)
    return (probs / probs.sum(1, keepdims=True)).astype(np.float32), y_true


@pytest.mark.parametrize("photos", [1, 2, 4])
def test_new_adverts_are_wrongly_accepted_and_rejected_at_the_chosen_rates(photos: int) -> None:
    claims, make_claims = choose_claims(*_answers(2000, 0), MAKES)
    assert claims is not None
    assert make_claims is not None
    fresh = draw_adverts(*_answers(4000, 1), OF, photos)
    assert fresh is not None
    for rate in (0.01, 0.05, 0.1):
        quantile = claims.accept[photos - 1][RATES.index(rate)]
        assert np.mean(fresh.wrong > quantile) == pytest.approx(rate, rel=0.5, abs=0.004)
        assert np.mean(fresh.wrong > claims.at(photos, rate)[0]) <= 1.5 * rate + 0.004
        for kind, scores in fresh.lies.items():
            if rate == 0.05:
                among = claims.lies[kind][photos - 1][RATES.index(rate)]
                assert np.mean(scores > among) == pytest.approx(rate, rel=0.6, abs=0.006), kind
    passed = {kind: np.mean(scores > claims.at(photos, 0.05)[0]) for kind, scores in fresh.lies.items()}
    assert passed["random"] < passed["same-make"] < passed["alike"]
    rejected = np.mean(fresh.true < claims.reject[photos - 1][RATES.index(0.05)])
    assert rejected == pytest.approx(0.05, rel=0.5)


def test_a_wrong_claim_gains_nothing_where_true_ones_score_higher() -> None:
    """The budget of false accepts is not spent where hardly a true claim scores so low."""
    claims, _ = choose_claims(*_answers(2000, 0), MAKES)
    fresh = draw_adverts(*_answers(4000, 1), OF, 3)
    assert claims is not None
    assert fresh is not None
    accept, reject = claims.at(3, 0.1)
    quantile = claims.accept[2][RATES.index(0.1)]
    assert accept == claims.reject[2][RATES.index(0.1)] > quantile == reject
    assert np.mean(fresh.wrong > accept) < 0.5 * np.mean(fresh.wrong > quantile)
    assert np.mean(fresh.true > accept) == pytest.approx(0.9, abs=0.03)


def test_the_stated_shares_hold_on_new_adverts() -> None:
    claims, _ = choose_claims(*_answers(4000, 0), MAKES)
    fresh = draw_adverts(*_answers(4000, 1), OF, 2)
    assert claims is not None
    assert fresh is not None
    accept, _ = claims.at(2, 0.02)
    stated = claims.passed(2, accept)
    assert set(stated) == {"mixed", "random", "same-make", "alike"}
    for kind, scores in fresh.lies.items():
        assert stated[kind] == pytest.approx(max(0.001, np.mean(scores > accept)), rel=0.6, abs=0.004), kind
    assert stated["random"] < stated["mixed"] < stated["alike"]


def test_more_photos_separate_claims_better() -> None:
    claims, _ = choose_claims(*_answers(2000, 0), MAKES)
    assert claims is not None
    missed = []
    for photos in range(1, MOST_PHOTOS + 1):
        fresh = draw_adverts(*_answers(4000, 1), OF, photos)
        assert fresh is not None
        missed.append(np.mean(fresh.true <= claims.accept[photos - 1][RATES.index(0.05)]))
    assert missed == sorted(missed, reverse=True)
    assert missed[-1] < missed[0] / 3


def test_too_few_photos_choose_no_thresholds() -> None:
    probs, y_true = _answers(49, 0)
    assert choose_claims(probs, y_true, MAKES) == (None, None)
    one_make = choose_claims(*_answers(100, 0), ("Lada",) * 20)
    assert one_make[0] is not None
    assert one_make[1] is None


def test_where_every_nameplate_is_a_make_wrong_claims_are_of_others() -> None:
    probs, y_true = _answers(300, 0)
    drawn = draw_adverts(probs, y_true, np.arange(20), 2)
    assert drawn is not None
    assert len(drawn.same_make) == 0
    assert len(drawn.wrong) == len(drawn.true)
    assert draw_adverts(probs[:5], y_true[:5], OF, 4) is None

"""Thresholds of claims: they keep the rates that they were chosen for."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from nameplate.evaluation.claims import choose_claims, draw_adverts
from nameplate.models.claim import MOST_PHOTOS, RATES

MAKES = tuple(f"make {i // 4}" for i in range(20))
OF = np.arange(20) // 4


def _answers(count: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A model that takes nameplates for others of their make."""
    random = np.random.default_rng(seed)
    truths = random.integers(0, 20, count)
    logits = random.normal(size=(count, 20)) * 1.5
    logits += 2.5 * (OF[truths][:, None] == OF) + 2.5 * (truths[:, None] == np.arange(20))
    chances = np.exp(logits)
    return (chances / chances.sum(1, keepdims=True)).astype(np.float32), truths


@pytest.mark.parametrize("photos", [1, 2, 4])
def test_fresh_adverts_are_accepted_and_rejected_wrongly_as_often_as_asked(photos: int) -> None:
    claims, make_claims = choose_claims(*_answers(2000, 0), MAKES)
    assert claims is not None
    assert make_claims is not None
    fresh = draw_adverts(*_answers(4000, 1), OF, photos)
    assert fresh is not None
    for rate in (0.01, 0.05, 0.1):
        accept, _ = claims.at(photos, rate)
        assert np.mean(fresh.wrong > accept) == pytest.approx(rate, rel=0.5, abs=0.004)
    assert np.mean(fresh.same_make > claims.at(photos, 0.05)[0]) > np.mean(fresh.other > claims.at(photos, 0.05)[0])
    rejected = np.mean(fresh.true < claims.reject[photos - 1][RATES.index(0.05)])
    assert rejected == pytest.approx(0.05, rel=0.5)


def test_more_photos_tell_more() -> None:
    claims, _ = choose_claims(*_answers(2000, 0), MAKES)
    assert claims is not None
    missed = []
    for photos in range(1, MOST_PHOTOS + 1):
        fresh = draw_adverts(*_answers(4000, 1), OF, photos)
        assert fresh is not None
        missed.append(np.mean(fresh.true <= claims.at(photos, 0.05)[0]))
    assert missed == sorted(missed, reverse=True)
    assert missed[-1] < missed[0] / 3


def test_too_little_chooses_nothing() -> None:
    chances, truths = _answers(49, 0)
    assert choose_claims(chances, truths, MAKES) == (None, None)
    one_make = choose_claims(*_answers(100, 0), ("Lada",) * 20)
    assert one_make[0] is not None
    assert one_make[1] is None


def test_where_every_nameplate_is_a_make_wrong_claims_are_of_others() -> None:
    chances, truths = _answers(300, 0)
    drawn = draw_adverts(chances, truths, np.arange(20), 2)
    assert drawn is not None
    assert len(drawn.same_make) == 0
    assert len(drawn.wrong) == len(drawn.true)
    assert draw_adverts(chances[:5], truths[:5], OF, 4) is None

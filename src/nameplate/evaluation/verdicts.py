"""`with_verdicts`: a bundle's manifest with all that its verdicts need, from photos that trained nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nameplate.datasets.names import makes_of
from nameplate.evaluation.claims import choose_claims
from nameplate.evaluation.thresholds import choose
from nameplate.models.bundle import Manifest

Floats = NDArray[np.float32]


def with_verdicts(
    manifest: Manifest,
    probabilities: Floats,
    truths: NDArray[np.int64],
    distances: tuple[Floats, Floats] | None,
    far: float | None = None,
    no_car: float | None = None,
    odds: Floats | None = None,
) -> Manifest:
    """Choose makes and thresholds.

    Args:
        manifest: of the bundle to be.
        probabilities: float32 N×C, calibrated; N may be 0.
        truths: int64 (N,).
        distances: `Known.distances` of these photos; None where the bundle has no `Known`.
        far: the backbone's own threshold of "not a car", where it has one.
        no_car: the same of its gate.
        odds: `Known.no_car_odds` of these photos, where there is a gate.
    """
    makes = makes_of(manifest.nameplates)
    claims, make_claims = choose_claims(probabilities, truths, makes)
    thresholds = choose(probabilities, truths, makes, distances, far, no_car, odds)
    return replace(manifest, makes=makes, thresholds=thresholds, claims=claims, make_claims=make_claims)

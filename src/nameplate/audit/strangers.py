"""`strangeness`: how unlike the rest of a data set each photo is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nameplate.models.head import class_means

SHRINKAGE = 1.0
"""Variance that is added in every standardised direction: 1,600 of them cannot be known from as many photos."""
STRANGE = 4.0
"""Strangeness from which a photo is named: at most one in a hundred of those that belong (docs/audit.md)."""
UNLIKE_CLASS = 3.0
"""Strangeness beside the photos of its own class from which one is named: an odd side, a detail, a wreck."""


def strangeness(embeddings: NDArray[np.float32], chances: NDArray[np.float32] | None = None) -> NDArray[np.float64]:
    """The photo's Mahalanobis distance from the distribution of the data set's other photos, squared; where there are
    heads, plus how little they know what to name it.

    Each photo is held against a distribution that it is no part of, since with about as many photos as numbers each one
    makes the direction that it lies in: with the distance d from that of all n photos it is d / (1 - d/n) (R. Cook,
    S. Weisberg, "Residuals and Influence in Regression", 1982, section 2.2). The first part is told in interquartile
    ranges above the median, the second in nats of entropy: what is no car is far away from all cars, and no nameplate
    suits it (as the "far" outliers of J. Ren et al., "A Simple Fix to Mahalanobis Distance for Improving Near-OOD
    Detection", 2021).

    Args:
        embeddings: float32 N×D.
        chances: float32 N×C, out-of-fold probabilities.
    """
    rows = (embeddings - embeddings.mean(0)).astype(np.float64)
    rows /= np.maximum(rows.std(0), 1e-6)
    covariance = rows.T @ rows / len(rows)
    half = np.linalg.cholesky(covariance + SHRINKAGE * np.eye(len(covariance)))
    distance = (_solve_lower(half, rows.T) ** 2).sum(0)
    distance /= np.maximum(1 - distance / len(rows), 1e-9)
    low, middle, high = np.quantile(distance, [0.25, 0.5, 0.75])
    strange = (distance - middle) / max(high - low, 1e-9)
    if chances is not None:
        strange -= (chances * np.log(np.maximum(chances, 1e-9))).sum(1)
    return np.asarray(strange)


def unlike_class(embeddings: NDArray[np.float32], classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """`strangeness` of how each photo differs from the mean of the other photos of its class, float64 (N,).

    Args:
        embeddings: float32 N×D.
        classes: int64 (N,); of a class of one photo nothing is known, so it is not strange.
    """
    counts = np.bincount(classes)
    without_itself = (counts / np.maximum(counts - 1, 1))[classes, None].astype(np.float32)
    strange = strangeness((embeddings - class_means(embeddings, classes)[classes]) * without_itself)
    return np.where(counts[classes] > 1, strange, -np.inf)


def _solve_lower(half: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.linalg import solve_triangular

    return np.asarray(solve_triangular(half, columns, lower=True, overwrite_b=True))

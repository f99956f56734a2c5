"""`MahalanobisDetector`: where the cars lie that a model was trained on, and how far away from them a photo is.

Mahalanobis' distance to the nearest nameplate's mean (K. Lee et al., "A Simple Unified Framework for Detecting
Out-of-Distribution Samples and Adversarial Attacks", 2018), with a covariance that a bundle can carry: each number's
own variance, and the few directions along which photos of one nameplate vary otherwise than that.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nameplate.model.classifier import class_means
from nameplate.types import Floats

RANK = 64
"""Directions that are kept: 32 to 256 gave the same figures (docs/experiments.md, 2026-11-23)."""
CLASS_MEAN_SHRINKAGE = 10
"""Photos' worth of the mean variance that each number's own is mixed with, so that none is taken for a constant."""
LEAST_SHARE = 1e-4
"""Of the variance of all photos, that those of one nameplate have at least."""
LEAST_REST = 0.3
"""Variance, after scaling, along all but the kept directions: fewer photos than numbers show none there."""


@dataclass(frozen=True, slots=True)
class WhiteningTransform:
    """A linear map of embeddings under which photos of one nameplate spread about alike in all directions."""

    mean: Floats
    """D."""
    scale: Floats
    """D, > 0."""
    directions: Floats
    """D×K, orthonormal columns of what is scaled."""
    shares: Floats
    """K: what is taken off along each direction."""

    def __call__(self, embeddings: Floats) -> Floats:
        """float32 N×D → float32 N×D."""
        rows: Floats = (embeddings - self.mean) / self.scale
        along = (rows @ self.directions) * self.shares
        return (rows - along @ self.directions.T).astype(np.float32, copy=False)


@dataclass(frozen=True)  # no slots: lengths are kept
class MahalanobisDetector:
    """What a bundle knows of its cars beside their names."""

    space: WhiteningTransform
    centres: Floats
    """C×D: the mean of each nameplate's training photos, mapped."""
    cars: Floats | None = None
    """M×D: those of the nameplates that the backbone was trained on; None where they are the same."""
    gate: Floats | None = None
    """D+1, weights and bias: the log-odds that a photo shows no whole car, from its embedding, learned on photos of
    cars and of other things; None where none were at hand."""

    @property
    def tensors(self) -> dict[str, NDArray[Any]]:
        """As they are stored: what is large as float16."""
        exact = {"mean": self.space.mean, "scale": self.space.scale, "shares": self.space.shares}
        large = {"directions": self.space.directions, "centres": self.centres}
        if self.cars is not None:
            large["cars"] = self.cars
        if self.gate is not None:
            exact["gate"] = self.gate
        return exact | {name: np.ascontiguousarray(part, np.float16) for name, part in large.items()}

    @classmethod
    def of(cls, tensors: dict[str, NDArray[Any]], embedding: int, nameplates: int) -> Self:
        """From what is stored.

        Args:
            tensors: as `tensors` gives them.
            embedding: D.
            nameplates: C.

        Raises:
            KeyError: one is missing.
            ValueError: shapes do not fit, or a number is not finite.
        """
        parts = {
            name: tensors[name].astype(np.float32) for name in ("mean", "scale", "directions", "shares", "centres")
        }
        cars, gate = (tensors[name].astype(np.float32) if name in tensors else None for name in ("cars", "gate"))
        rank = parts["shares"].size
        shapes = {
            "mean": (embedding,),
            "scale": (embedding,),
            "directions": (embedding, rank),
            "shares": (rank,),
            "centres": (nameplates, embedding),
        }
        for name, shape in shapes.items():
            if parts[name].shape != shape:
                raise ValueError(f"'{name}' is {parts[name].shape}, not {shape}")
        if cars is not None and (cars.ndim != 2 or cars.shape[1] != embedding or not len(cars)):
            raise ValueError(f"'cars' is {cars.shape}, not M×{embedding}")
        if gate is not None and gate.shape != (embedding + 1,):
            raise ValueError(f"'gate' is {gate.shape}, not {(embedding + 1,)}")
        optional = [part for part in (cars, gate) if part is not None]
        if not all(np.isfinite(part).all() for part in (*parts.values(), *optional)):
            raise ValueError("a number is not finite")
        if not (parts["scale"] > 0).all():
            raise ValueError("a scale is not above 0")
        space = WhiteningTransform(parts["mean"], parts["scale"], parts["directions"], parts["shares"])
        return cls(space, parts["centres"], cars, gate)

    def distances(self, embeddings: Floats) -> tuple[Floats, Floats]:
        """How far photos are from the nearest of its nameplates, and from the nearest car, its own or the backbone's.

        Args:
            embeddings: float32 N×D.

        Returns:
            Two of float32 (N,): squared Mahalanobis distances over D, about 1 for a photo that belongs.
        """
        mapped = self.space(embeddings)
        near = _nearest(mapped, self.centres, self.lengths[0])
        if self.cars is None:
            return near, near
        return near, np.minimum(near, _nearest(mapped, self.cars, self.lengths[1]))

    def no_car_odds(self, embeddings: Floats) -> Floats | None:
        """Log-odds that photos show no whole car: float32 N×D → float32 (N,); None where there is no `gate`."""
        if self.gate is None:
            return None
        found: Floats = embeddings @ self.gate[:-1] + self.gate[-1]
        return found

    @cached_property
    def lengths(self) -> tuple[Floats, Floats]:
        """Squared lengths of the centres and of the cars, which every distance needs."""
        cars = self.centres if self.cars is None else self.cars
        return (self.centres**2).sum(1), (cars**2).sum(1)


def _nearest(mapped: Floats, centres: Floats, lengths: Floats) -> Floats:
    """Squared distance of N×D rows to the nearest of C×D centres of squared lengths (C,), over D; float32 (N,)."""
    found: Floats = np.maximum(_squared(mapped, centres, lengths).min(1), 0) / mapped.shape[1]
    return found


def _squared(mapped: Floats, centres: Floats, lengths: Floats) -> Floats:
    """Squared distances of N×D rows to C×D centres of squared lengths (C,); float32 N×C."""
    found: Floats = (mapped**2).sum(1)[:, None] + (lengths - 2 * (mapped @ centres.T))
    return found


def fit_whitening(embeddings: Floats, classes: NDArray[np.int64]) -> WhiteningTransform:
    """The map for training photos.

    Args:
        embeddings: float32 N×D.
        classes: int64 (N,).
    """
    within = embeddings - class_means(embeddings, classes)[classes]
    variances = (within**2).mean(0)
    # photos that do not differ within their nameplates (one each, say) tell nothing of how they vary
    mean_variance = max(float(variances.mean()), LEAST_SHARE * float(embeddings.var(0).mean()), 1e-12)
    spread = np.sqrt(
        (len(within) * variances + CLASS_MEAN_SHRINKAGE * mean_variance) / (len(within) + CLASS_MEAN_SHRINKAGE)
    )
    scaled = (within / spread).astype(np.float64)
    values, vectors = np.linalg.eigh(scaled.T @ scaled / len(scaled))
    values, vectors = values[::-1], vectors[:, ::-1]  # largest first
    freedom = len(scaled) - len(np.unique(classes))
    kept = min(RANK, len(values) - 1, max(0, freedom - 1))
    rest = max(float(values[kept:].mean()), 1e-6 if freedom >= len(values) else LEAST_REST)
    shares = 1 - np.sqrt(rest / np.maximum(values[:kept], rest))
    return WhiteningTransform(
        embeddings.mean(0).astype(np.float32),
        (spread * np.sqrt(rest)).astype(np.float32),
        np.ascontiguousarray(vectors[:, :kept], np.float32),
        shares.astype(np.float32),
    )


def fit_known(
    embeddings: Floats, classes: NDArray[np.int64], parent: MahalanobisDetector | None = None
) -> MahalanobisDetector:
    """What training photos tell.

    Args:
        embeddings: float32 N×D.
        classes: int64 (N,), 0 … C-1, each of them there.
        parent: what the backbone's own bundle knows; its map and its gate are used, and its cars are the cars.
    """
    if parent is None:
        space, cars, gate = fit_whitening(embeddings, classes), None, None
    else:
        space, cars, gate = parent.space, parent.centres if parent.cars is None else parent.cars, parent.gate
    found = MahalanobisDetector(space, class_means(space(embeddings), classes), cars, gate)
    return MahalanobisDetector.of(found.tensors, embeddings.shape[1], len(found.centres))  # as exactly as it is stored


def own_distances(known: MahalanobisDetector, embeddings: Floats, classes: NDArray[np.int64]) -> Floats:
    """`MahalanobisDetector.distances` to the nearest nameplate for the very photos that made the centres, each photo taken out of
    its own; float32 (N,). A photo that is alone in its class is as far from it as from nothing: infinity there.
    """
    mapped = known.space(embeddings)
    counts = np.bincount(classes, minlength=len(known.centres)).astype(np.float32)
    squared = _squared(mapped, known.centres, known.lengths[0])
    rows = np.arange(len(classes))
    own = squared[rows, classes]
    with np.errstate(divide="ignore", invalid="ignore"):
        squared[rows, classes] = np.where(
            counts[classes] > 1, own * (counts[classes] / (counts[classes] - 1)) ** 2, np.inf
        )
    found: Floats = np.maximum(squared.min(1), 0) / mapped.shape[1]
    return found

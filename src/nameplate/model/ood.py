"""Out-of-distribution (OOD) detection: how far a photo is from the cars that a model was trained on.

The score is the Mahalanobis distance to the nearest nameplate's mean (K. Lee et al., "A Simple Unified Framework for
Detecting Out-of-Distribution Samples and Adversarial Attacks", 2018). A full covariance would be D×D numbers, too many
for a bundle. So it is approximated by the variance of each dimension and the few directions along which photos of one
nameplate vary more than that.
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
"""Number of directions kept; 32 to 256 gave the same results (docs/experiments.md, 2026-11-23)."""
CLASS_MEAN_SHRINKAGE = 10
"""The variance of each dimension is shrunk towards the mean variance as if so many further photos had shown the mean.
Otherwise a dimension that happens to be constant in a few photos would get an infinite weight."""
LEAST_SHARE = 1e-4
"""Least variance within nameplates, as a share of the variance of all photos."""
LEAST_REST = 0.3
"""Least variance, after scaling, along the directions that are not kept, where there are fewer photos than dimensions:
such photos show no variance along most directions."""


@dataclass(frozen=True, slots=True)
class WhiteningTransform:
    """A linear map of embeddings after which photos of one nameplate vary about equally in all directions."""

    mean: Floats
    """float32 (D,)."""
    scale: Floats
    """float32 (D,), above 0."""
    directions: Floats
    """float32 D×K: orthonormal columns, in scaled embeddings."""
    shares: Floats
    """float32 (K,): the share of each direction's coordinate that is removed, because photos vary more along it."""

    def __call__(self, embeddings: Floats) -> Floats:
        """float32 N×D → float32 N×D."""
        rows: Floats = (embeddings - self.mean) / self.scale
        along = (rows @ self.directions) * self.shares
        return (rows - along @ self.directions.T).astype(np.float32, copy=False)


@dataclass(frozen=True)  # without slots, because a cached property needs a dict
class MahalanobisDetector:
    """Distances of embeddings to the cars that a bundle knows; stored in its known.safetensors."""

    whitening: WhiteningTransform
    class_means: Floats
    """float32 C×D: the mean of each nameplate's training photos, whitened. The file calls it `centres`."""
    backbone_class_means: Floats | None = None
    """float32 M×D: the same for the nameplates that the backbone was trained on; None where they are the same ones.
    The file calls it `cars`: what is near one of them is a car, even if this head does not know its nameplate."""
    gate: Floats | None = None
    """float32 (D+1,): weights and bias of a logistic regression on the embedding, which gives the log-odds that a photo
    shows no whole car. It was trained on photos of cars and of other things; None where there were none."""

    @property
    def tensors(self) -> dict[str, NDArray[Any]]:
        """The tensors of known.safetensors; the large ones are float16."""
        exact = {"mean": self.whitening.mean, "scale": self.whitening.scale, "shares": self.whitening.shares}
        large = {"directions": self.whitening.directions, "centres": self.class_means}
        if self.backbone_class_means is not None:
            large["cars"] = self.backbone_class_means
        if self.gate is not None:
            exact["gate"] = self.gate
        return exact | {name: np.ascontiguousarray(part, np.float16) for name, part in large.items()}

    @classmethod
    def of(cls, tensors: dict[str, NDArray[Any]], embedding: int, nameplates: int) -> Self:
        """The detector of stored tensors.

        Args:
            tensors: name → array, as in `tensors`.
            embedding: D.
            nameplates: C.

        Raises:
            KeyError: one is missing.
            ValueError: a shape is wrong, a number is not finite, or a scale is not above 0.
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
        transform = WhiteningTransform(parts["mean"], parts["scale"], parts["directions"], parts["shares"])
        return cls(transform, parts["centres"], cars, gate)

    def distances(self, embeddings: Floats) -> tuple[Floats, Floats]:
        """Distances to the nearest nameplate of this bundle, and to the nearest car that it or its backbone knows.

        Args:
            embeddings: float32 N×D.

        Returns:
            Two arrays float32 (N,): squared Mahalanobis distances divided by D, about 1 for a photo of a known car.
        """
        mapped = self.whitening(embeddings)
        near = _nearest(mapped, self.class_means, self.lengths[0])
        if self.backbone_class_means is None:
            return near, near
        return near, np.minimum(near, _nearest(mapped, self.backbone_class_means, self.lengths[1]))

    def non_car_log_odds(self, embeddings: Floats) -> Floats | None:
        """Log-odds that photos show no whole car: float32 N×D → float32 (N,); None without `gate`."""
        if self.gate is None:
            return None
        found: Floats = embeddings @ self.gate[:-1] + self.gate[-1]
        return found

    @cached_property
    def lengths(self) -> tuple[Floats, Floats]:
        """Squared norms of `class_means` and of `backbone_class_means`, which every distance needs."""
        cars = self.class_means if self.backbone_class_means is None else self.backbone_class_means
        return (self.class_means**2).sum(1), (cars**2).sum(1)


def _nearest(mapped: Floats, means: Floats, lengths: Floats) -> Floats:
    """Squared distance of N×D rows to the nearest of C×D means with squared norms (C,), divided by D; float32 (N,)."""
    # Rounding can make a squared distance slightly negative, hence the maximum.
    found: Floats = np.maximum(_squared(mapped, means, lengths).min(1), 0) / mapped.shape[1]
    return found


def _squared(mapped: Floats, means: Floats, lengths: Floats) -> Floats:
    """Squared distances of N×D rows to C×D means with squared norms (C,); float32 N×C."""
    found: Floats = (mapped**2).sum(1)[:, None] + (lengths - 2 * (mapped @ means.T))
    return found


def fit_whitening(embeddings: Floats, classes: NDArray[np.int64]) -> WhiteningTransform:
    """Estimate the whitening transform from training photos.

    Args:
        embeddings: float32 N×D.
        classes: int64 (N,).
    """
    within = embeddings - class_means(embeddings, classes)[classes]
    variances = (within**2).mean(0)
    # Photos that do not differ within their nameplate (one photo of each, say) show no variance, hence the floor.
    mean_variance = max(float(variances.mean()), LEAST_SHARE * float(embeddings.var(0).mean()), 1e-12)
    spread = np.sqrt(
        (len(within) * variances + CLASS_MEAN_SHRINKAGE * mean_variance) / (len(within) + CLASS_MEAN_SHRINKAGE)
    )
    scaled = (within / spread).astype(np.float64)
    values, vectors = np.linalg.eigh(scaled.T @ scaled / len(scaled))
    values, vectors = values[::-1], vectors[:, ::-1]  # largest first
    # Each class mean takes one degree of freedom from the photos.
    freedom = len(scaled) - len(np.unique(classes))
    kept = min(RANK, len(values) - 1, max(0, freedom - 1))
    rest = max(float(values[kept:].mean()), 1e-6 if freedom >= len(values) else LEAST_REST)
    # Along a kept direction the standard deviation shrinks from sqrt(value) to sqrt(rest), that of all others.
    shares = 1 - np.sqrt(rest / np.maximum(values[:kept], rest))
    return WhiteningTransform(
        embeddings.mean(0).astype(np.float32),
        (spread * np.sqrt(rest)).astype(np.float32),
        np.ascontiguousarray(vectors[:, :kept], np.float32),
        shares.astype(np.float32),
    )


def fit_detector(
    embeddings: Floats, classes: NDArray[np.int64], parent: MahalanobisDetector | None = None
) -> MahalanobisDetector:
    """Fit a detector on training photos.

    Args:
        embeddings: float32 N×D.
        classes: int64 (N,), 0 … C-1, with at least one photo of each.
        parent: the detector of the bundle that the backbone comes from. Its whitening transform and its gate are taken
            over, and its nameplates are the backbone's.
    """
    if parent is None:
        transform, cars, gate = fit_whitening(embeddings, classes), None, None
    else:
        transform, gate = parent.whitening, parent.gate
        cars = parent.class_means if parent.backbone_class_means is None else parent.backbone_class_means
    found = MahalanobisDetector(transform, class_means(transform(embeddings), classes), cars, gate)
    # A round trip through the stored form, so that thresholds are fitted on the float16 numbers that will be loaded.
    return MahalanobisDetector.of(found.tensors, embeddings.shape[1], len(found.class_means))


def leave_one_out_distances(detector: MahalanobisDetector, embeddings: Floats, classes: NDArray[np.int64]) -> Floats:
    """Distances of training photos to the nearest nameplate, as if each photo had not trained the detector.

    Each photo is removed from the mean of its own class, which moves away from it: a mean of n photos moves by
    d / (n - 1), so the distance d grows by n / (n - 1).

    Args:
        detector: fitted on these photos.
        embeddings: float32 N×D.
        classes: int64 (N,).

    Returns:
        float32 (N,), see `MahalanobisDetector.distances`. The distance to its own class is infinite for a photo that is
        alone in it.
    """
    mapped = detector.whitening(embeddings)
    counts = np.bincount(classes, minlength=len(detector.class_means)).astype(np.float32)
    squared = _squared(mapped, detector.class_means, detector.lengths[0])
    rows = np.arange(len(classes))
    own = squared[rows, classes]
    with np.errstate(divide="ignore", invalid="ignore"):
        squared[rows, classes] = np.where(
            counts[classes] > 1, own * (counts[classes] / (counts[classes] - 1)) ** 2, np.inf
        )
    found: Floats = np.maximum(squared.min(1), 0) / mapped.shape[1]
    return found

"""The linear classifier (head): multinomial logistic regression on embeddings, fitted in seconds without torch.

Embeddings are first whitened by the covariance within classes, shrunk towards a multiple of the identity (as in
regularised discriminant analysis, J. Friedman, JASA 84, 1989). In that space a plain ridge penalty suits dimensions of
very different scale, and the solver needs few steps. Dimensions are not standardised before: those that vary little
say little. The map is linear, so the head on disk is one D×C matrix and a bias. Measured: docs/experiments.md,
2026-11-22 and 2026-11-28.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nameplate.types import Floats

CLASSIFIER_SHRINKAGE = 0.3
"""Weight of the identity in the covariance for whitening."""
STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Candidates for C, the inverse of the ridge penalty, from the strongest penalty on. Each fit starts from the one
before."""
ONE_PHOTO_STRENGTH = 0.1
"""C where most classes have photos in a single fold (one photo each, say), so that cross-validation cannot choose."""
FIRST_STEPS, NEXT_STEPS = 40, 15
"""Most L-BFGS steps at the first strength, and at each further one, which starts from the solution before."""
TOLERANCE = 1e-6
"""The fit ends when a step lowers the objective by a smaller share."""
MEMORY, MAX_HALVINGS = 8, 20
"""Number of steps that L-BFGS remembers, and most halvings of a step that does not descend enough."""
TEMPERATURES = (0.05, 20.0)
"""Bounds of the calibration temperature."""
TEMPERATURE_PRIOR = 2.0
"""Weight of (log T)² beside the summed log-loss: a normal prior on log T about 0 whose standard deviation is ½."""


@dataclass(frozen=True, slots=True)
class Head:
    """A fitted head."""

    weight: Floats
    """float32 D×C."""
    bias: Floats
    """float32 (C,)."""
    temperature: float
    """Calibrates the logits."""
    strength: float
    """The C that cross-validation chose."""
    cross_validated: dict[float, tuple[float, float]]
    """C → (top-1, calibrated log-loss) in cross-validation."""
    out_of_fold: Floats | None = None
    """float32 N×C: logits of each row at the chosen C, by a head that its fold did not train; None without
    cross-validation."""


def fit_head(
    embeddings: Floats,
    classes: NDArray[np.int64],
    folds: NDArray[np.int64],
    *,
    balanced: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Head:
    """Fit a head; choose its regularisation and temperature by cross-validation.

    Args:
        embeddings: float32 N×D.
        classes: int64 (N,), 0 … C-1, with at least one row of each.
        folds: int64 (N,), the cross-validation fold of each photo. Rows that are copies of one photo
            (its mirror image) must share its fold.
        balanced: whether every class has the same weight, however many photos it has.
        progress: called with the number of fits done and of all fits.

    Returns:
        The head at the strength with the least calibrated log-loss, fitted on all rows. If most classes have rows in a
        single fold, cross-validation is impossible, and the head has `ONE_PHOTO_STRENGTH` and temperature 1.
    """
    # With most classes in one fold, each held-out fold has classes that no training row shows.
    if _in_two_folds(classes, folds) < 0.5:
        return fit_at(embeddings, classes, ONE_PHOTO_STRENGTH, balanced=balanced)
    steps = len(np.unique(folds)) * len(STRENGTHS) + 1
    report = progress or (lambda *_: None)
    found = cross_validate(embeddings, classes, folds, balanced=balanced, progress=lambda done, _: report(done, steps))
    report(steps, steps)
    strength, temperature = found.strength, found.temperature
    head = fit_at(embeddings, classes, strength, temperature=temperature, scores=found.scores, balanced=balanced)
    return replace(head, out_of_fold=found.logits)


@dataclass(frozen=True, slots=True)
class CrossValidated:
    """Predictions of heads for photos that did not train them."""

    logits: Floats
    """float32 N×C: each row by a head that its fold did not train. Divide by `temperature`."""
    temperature: float
    """Calibrates the logits."""
    strength: float
    """The C with the least calibrated log-loss."""
    scores: dict[float, tuple[float, float]]
    """C → (top-1, calibrated log-loss)."""


def cross_validate(
    embeddings: Floats,
    classes: NDArray[np.int64],
    folds: NDArray[np.int64],
    *,
    balanced: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> CrossValidated:
    """Out-of-fold logits at the best of `STRENGTHS`; the arguments are those of `fit_head`."""
    numbers = np.unique(folds)
    paths: list[list[Floats]] = []
    count = int(classes.max()) + 1
    for place, fold in enumerate(numbers):
        train, test = folds != fold, folds == fold
        paths.append(_path((embeddings[train], classes[train]), (embeddings[test], classes[test]), count, balanced))
        if progress:
            progress((place + 1) * len(STRENGTHS), len(numbers) * len(STRENGTHS))
    order = np.concatenate([np.flatnonzero(folds == fold) for fold in numbers])
    scores: dict[float, tuple[float, float]] = {}
    temperatures: dict[float, float] = {}
    # A fold's path ends where its loss rises, so only strengths that every fold reached can be compared.
    for number, strength in enumerate(STRENGTHS[: min(map(len, paths))]):
        logits = np.concatenate([path[number] for path in paths])
        temperatures[strength] = fit_temperature(logits, classes[order])
        scores[strength] = (
            float((logits.argmax(1) == classes[order]).mean()),
            log_loss(probabilities(logits, temperatures[strength]), classes[order]),
        )
    strength = min(scores, key=lambda c: scores[c][1])
    # The logits are in the order of the folds; this brings them back into that of the rows.
    best = np.empty((len(classes), count), np.float32)
    best[order] = np.concatenate([path[STRENGTHS.index(strength)] for path in paths])
    return CrossValidated(best, temperatures[strength], strength, scores)


def _in_two_folds(classes: NDArray[np.int64], folds: NDArray[np.int64]) -> float:
    """Share of the classes that have rows in at least two folds."""
    pairs = np.unique(np.stack([classes, folds]), axis=1)
    return float((np.bincount(pairs[0])[np.unique(classes)] > 1).mean())


def fit_at(
    embeddings: Floats,
    classes: NDArray[np.int64],
    strength: float,
    *,
    temperature: float = 1.0,
    scores: dict[float, tuple[float, float]] | None = None,
    balanced: bool = False,
) -> Head:
    """Fit a head on all rows at one of `STRENGTHS`; temperature and cross-validation scores are copied into it."""
    scaling = _Scaling(embeddings, classes)
    scaled, fitted = scaling(embeddings), None
    # The weaker strengths are fitted first, so that the result is that of the path in cross-validation.
    for step in STRENGTHS[: STRENGTHS.index(strength) + 1]:
        fitted = minimise(fitted, scaled, classes, int(classes.max()) + 1, step, balanced)
    assert fitted is not None
    weight, bias = scaling.unfold(fitted[:-1], fitted[-1])
    return Head(weight, bias, temperature, strength, scores or {})


def _path(
    train: tuple[Floats, NDArray[np.int64]],
    test: tuple[Floats, NDArray[np.int64]],
    count: int,
    balanced: bool,
) -> list[Floats]:
    """Logits of the test rows at each strength, up to the first one at which the log-loss rises."""
    scaling = _Scaling(*train)
    scaled, scaled_test, classes = scaling(train[0]), scaling(test[0]), train[1]
    logits: list[Floats] = []
    losses: list[float] = []
    fitted = None
    for strength in STRENGTHS:
        fitted = minimise(fitted, scaled, classes, count, strength, balanced)
        logits.append(scaled_test @ fitted[:-1] + fitted[-1])
        losses.append(log_loss(probabilities(logits[-1], fit_temperature(logits[-1], test[1])), test[1]))
        if losses[-1] > min(losses):
            break
    return logits


class _Scaling:
    """Whitens embeddings by the shrunk covariance within classes: N×D → N×D."""

    def __init__(self, embeddings: Floats, classes: NDArray[np.int64]) -> None:
        self.mean = embeddings.mean(0)
        # One scale for all dimensions, so that a network's unit does not matter; all photos can be the same one.
        spread = float(np.sqrt(embeddings.var(0).mean())) + 1e-6
        scaled = (embeddings - self.mean) / spread
        within = scaled - class_means(scaled, classes)[classes]
        self.matrix: Floats = (whitening(within) / spread).astype(np.float32)

    def __call__(self, embeddings: Floats) -> Floats:
        scaled: Floats = (embeddings - self.mean) @ self.matrix
        return scaled

    def unfold(self, weight: Floats, bias: Floats) -> tuple[Floats, Floats]:
        """The head for embeddings that are not scaled, from a head for scaled ones."""
        # ((x - mean) M) W + b = x (M W) + (b - mean M W): so a bundle needs no scaling of its own.
        plain = self.matrix @ weight
        return plain.astype(np.float32), (bias - self.mean @ plain).astype(np.float32)


def class_means(rows: Floats, classes: NDArray[np.int64]) -> Floats:
    """Mean of the rows of each class, 0 … the largest class: float32 C×D; zeros for a class without rows."""
    means = np.zeros((int(classes.max()) + 1, rows.shape[1]), np.float32)
    np.add.at(means, classes, rows)
    means /= np.maximum(np.bincount(classes, minlength=len(means)), 1)[:, None]
    return means


def whitening(within: Floats, shrinkage: float = CLASSIFIER_SHRINKAGE) -> Floats:
    """A D×D matrix T for which T Tᵀ is the inverse of the shrunk covariance of N×D rows."""
    rows, size = within.shape
    few = rows < size  # then the rows span fewer than D directions, and the N×N matrix is faster to decompose
    # Both products have the same eigenvalues above 0.
    values, vectors = np.linalg.eigh((within @ within.T if few else within.T @ within) / rows)
    level = max(float(values.sum()) / size, 1e-6)
    scale = np.sqrt((1 - shrinkage) * np.maximum(values, 0) + shrinkage * level)
    if not few:
        return np.asarray(vectors / scale, np.float32)
    # Directions of almost no variance are noise of the decomposition, and count as not spanned.
    spanned = values > 1e-6 * max(float(values.max()), 1e-6)
    directions = within.T @ (vectors[:, spanned] / np.sqrt(values[spanned] * rows))
    rest = 1 / np.sqrt(shrinkage * level)  # the scale of all directions that the rows do not span
    return np.asarray((directions * (1 / scale[spanned] - rest)) @ directions.T + rest * np.eye(size), np.float32)


def minimise(
    start: Floats | None,
    scaled: Floats,
    classes: NDArray[np.int64],
    count: int,
    strength: float,
    balanced: bool,
) -> Floats:
    """Minimise strength · Σ log-loss + ½‖W‖², beginning at `start`; returns (D+1)×C with the bias in the last row."""
    rows, size = scaled.shape
    weights = np.ones(rows, np.float32)
    if balanced:
        frequency = np.bincount(classes, minlength=count)
        weights = (rows / (np.count_nonzero(frequency) * frequency[classes])).astype(np.float32)
    everyone = np.arange(rows)

    def objective(flat: Floats) -> tuple[float, Floats]:
        head = flat.reshape(size + 1, count)
        logits = scaled @ head[:-1] + head[-1]
        logits -= logits.max(1, keepdims=True)  # against overflow of the exponential
        true = logits[everyone, classes]
        probs = np.exp(logits, out=logits)
        total = probs.sum(1)
        # The loss is summed in float64: near the minimum its steps are smaller than the resolution of a large float32
        # sum.
        loss = strength * float(np.dot(weights, (np.log(total) - true).astype(np.float64)))
        probs *= (weights / total)[:, None]
        probs[everyone, classes] -= weights
        slope = np.empty((size + 1, count), np.float32)
        np.matmul(scaled.T, probs, out=slope[:-1])
        slope[-1] = probs.sum(0)
        slope *= np.float32(strength)
        slope[:-1] += head[:-1]
        return loss + 0.5 * float(np.vdot(head[:-1], head[:-1])), slope.ravel()

    begin = np.zeros((size + 1) * count, np.float32) if start is None else start.ravel()
    return _minimise(objective, begin, FIRST_STEPS if start is None else NEXT_STEPS).reshape(size + 1, count)


def _minimise(objective: Callable[[Floats], tuple[float, Floats]], at: Floats, steps: int) -> Floats:
    """L-BFGS with backtracking, in float32 (J. Nocedal, S. Wright, "Numerical Optimization", 2006, 7.5).

    The solvers of scikit-learn and SciPy work in float64 and with bounds, and take four times as long
    (docs/decisions/0004-own-solver.md).
    """
    history: deque[tuple[Floats, Floats, float]] = deque(maxlen=MEMORY)
    value, slope = objective(at)
    for _ in range(steps):
        step = -_times_inverse_hessian(slope, history)
        descent, length = float(np.vdot(slope, step)), 1.0
        for _ in range(MAX_HALVINGS):
            new_at = at + np.float32(length) * step
            new_value, new_slope = objective(new_at)
            # Armijo's condition: the value falls by at least a small part of what the slope promises.
            if new_value <= value + 1e-4 * length * descent:
                break
            length /= 2
        else:
            break
        moved, turned = new_at - at, new_slope - slope
        # Only a step of positive curvature keeps the approximate Hessian positive definite.
        if (curvature := float(np.vdot(moved, turned))) > 0:
            history.append((moved, turned, curvature))
        gain = value - new_value
        at, value, slope = new_at, new_value, new_slope
        if gain <= TOLERANCE * abs(value):
            break
    return at


def _times_inverse_hessian(slope: Floats, history: Sequence[tuple[Floats, Floats, float]]) -> Floats:
    """The two-loop recursion of L-BFGS; without a history, the gradient normalised to length 1."""
    if not history:
        return slope / max(float(np.linalg.norm(slope)), 1e-12)
    result, shares = slope.copy(), []
    for moved, turned, curvature in reversed(history):
        share = np.float32(np.vdot(moved, result) / curvature)
        result -= share * turned
        shares.append(share)
    _, turned, curvature = history[-1]
    # The initial Hessian of each step is scaled by the latest curvature (Nocedal and Wright, 7.20).
    result *= np.float32(curvature / np.vdot(turned, turned))
    for (moved, turned, curvature), share in zip(history, reversed(shares), strict=True):
        result += (share - np.float32(np.vdot(turned, result) / curvature)) * moved
    return result


def probabilities(logits: Floats, temperature: float) -> Floats:
    """Softmax of logits / temperature; float32 N×C."""
    scaled = logits / np.float32(temperature)
    # The softmax does not change when a row is shifted, and the exponential cannot overflow at 0 or below.
    scaled -= scaled.max(1, keepdims=True)
    np.exp(scaled, out=scaled)
    scaled /= scaled.sum(1, keepdims=True)
    return scaled


def log_losses(probs: Floats, classes: NDArray[np.int64]) -> Floats:
    """Negative logarithm of the true class's probability for each row; float32 (N,)."""
    return np.asarray(-np.log(np.maximum(probs[np.arange(len(classes)), classes], 1e-12)), np.float32)


def log_loss(probs: Floats, classes: NDArray[np.int64]) -> float:
    """Mean of `log_losses`."""
    return float(log_losses(probs, classes).mean())


def fit_temperature(logits: Floats, classes: NDArray[np.int64]) -> float:
    """The temperature that calibrates logits (C. Guo et al., "On Calibration of Modern Neural Networks", 2017).

    It minimises the summed log-loss plus `TEMPERATURE_PRIOR` · (log T)². Without the second term, a few photos that are
    all classified correctly give T → 0, which makes the model certain of everything, photos of unknown cars included.
    With a thousand photos the penalty has no visible effect (docs/statistics.md).

    Args:
        logits: float32 N×C, of photos that did not train the head.
        classes: int64 (N,), their true classes.
    """
    from scipy.optimize import minimize_scalar  # imported late: it is slow to load, and only fitting needs it

    def penalised(log_t: float) -> float:
        loss = log_loss(probabilities(logits, float(np.exp(log_t))), classes)
        return len(classes) * loss + TEMPERATURE_PRIOR * log_t**2

    low, high = np.log(TEMPERATURES)
    found = minimize_scalar(penalised, bounds=(low, high), method="bounded")
    return float(np.exp(found.x))

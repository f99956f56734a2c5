"""The linear head, compared with scikit-learn's logistic regression."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from nameplate.model import classifier as room
from nameplate.model.classifier import (
    CLASSIFIER_SHRINKAGE,
    Head,
    fit_at,
    fit_head,
    fit_temperature,
    log_loss,
    probabilities,
    whitening,
)
from nameplate.types import Floats

Classes = NDArray[np.int64]


def photos(count: int, size: int, classes: int, seed: int = 0, apart: float = 1.0) -> tuple[Floats, Classes]:
    """Embeddings like ours: correlated, on unlike scales, far from zero."""
    random = np.random.default_rng(seed)
    y_true = np.arange(count) % classes
    centres = np.random.default_rng(99).normal(size=(classes, size)) * apart
    mixed = (centres[y_true] + random.normal(size=(count, size))) @ np.random.default_rng(98).normal(size=(size, size))
    scales = np.geomspace(0.3, 3, size)
    return (mixed * scales + 3 * scales).astype(np.float32), y_true


def thirds(count: int, seed: int = 0) -> Classes:
    return np.random.default_rng(seed).permutation(np.arange(count) % 3)


def named(head: Head, embeddings: Floats) -> Classes:
    answers: Classes = (embeddings @ head.weight + head.bias).argmax(1)
    return answers


def converged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "FIRST_STEPS", 3000)
    monkeypatch.setattr(room, "TOLERANCE", 1e-9)


def objective(weight: Floats, bias: Floats, rows: Floats, classes: Classes, strength: float) -> float:
    logits = (rows @ weight + bias).astype(np.float64)
    probs = np.exp(logits - logits.max(1, keepdims=True))
    loss = -np.log(probs[np.arange(len(rows)), classes] / probs.sum(1)).sum()
    return float(strength * loss + 0.5 * np.square(weight).sum())


@pytest.mark.parametrize("strength", [0.003, 0.1, 1.0])
@pytest.mark.parametrize("balanced", [False, True])
def test_the_converged_solver_agrees_with_scikit_learn(
    strength: float, balanced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    converged(monkeypatch)
    random = np.random.default_rng(1)
    rows = random.normal(size=(400, 20)).astype(np.float32)
    classes = np.minimum(random.geometric(0.4, 400) - 1, 4)
    rows[:, :5] += 1.5 * np.eye(5, dtype=np.float32)[classes]
    ours = room.minimise(None, rows, classes, 5, strength, balanced)
    theirs = LogisticRegression(C=strength, max_iter=5000, tol=1e-8, class_weight="balanced" if balanced else None).fit(
        rows.astype(np.float64), classes
    )
    mine = probabilities(rows @ ours[:-1] + ours[-1], 1.0)
    other = theirs.predict_proba(rows)
    assert (mine.argmax(1) == other.argmax(1)).mean() >= 0.99
    assert np.abs(mine - other).max() < 5e-3
    if not balanced:
        best = objective(theirs.coef_.T, theirs.intercept_, rows, classes, strength)
        assert objective(ours[:-1], ours[-1], rows, classes, strength) == pytest.approx(best, rel=1e-5)


def test_the_steps_of_a_fit_come_close_to_convergence() -> None:
    """With the few steps of real use, from the strength before, as a fit does."""
    embeddings, classes = photos(600, 48, 8, apart=0.6)
    scaled = room._Scaling(embeddings, classes)(embeddings)
    fitted = None
    for strength in room.STRENGTHS[:4]:
        fitted = room.minimise(fitted, scaled, classes, 8, strength, False)
    assert fitted is not None
    theirs = LogisticRegression(C=0.1, max_iter=5000, tol=1e-8).fit(scaled.astype(np.float64), classes)
    best = objective(theirs.coef_.T, theirs.intercept_, scaled, classes, 0.1)
    assert objective(fitted[:-1], fitted[-1], scaled, classes, 0.1) < best * 1.02


def test_the_head_agrees_with_scikit_learn_on_the_same_scaling() -> None:
    """The scaling undone, the head on raw embeddings is the one that was fitted on scaled ones."""
    embeddings, classes = photos(600, 48, 8, apart=0.6)
    fresh, y_true = photos(800, 48, 8, seed=5, apart=0.6)
    head = fit_head(embeddings, classes, thirds(600))
    scaling = room._Scaling(embeddings, classes)
    theirs = LogisticRegression(C=head.strength, max_iter=5000, tol=1e-8)
    theirs.fit(scaling(embeddings).astype(np.float64), classes)
    assert (named(head, fresh) == theirs.predict(scaling(fresh))).mean() >= 0.99
    ours = log_loss(probabilities(fresh @ head.weight + head.bias, 1.0), y_true)
    assert ours == pytest.approx(log_loss(theirs.predict_proba(scaling(fresh)), y_true), abs=0.01)
    assert 0.5 < (named(head, fresh) == y_true).mean() < 1


def test_the_scaling_evens_out_the_variance_within_classes() -> None:
    embeddings, classes = photos(4000, 12, 3)
    scaled = room._Scaling(embeddings, classes)(embeddings)
    within = np.concatenate([rows - rows.mean(0) for rows in (scaled[classes == c] for c in range(3))])
    raw = np.concatenate([rows - rows.mean(0) for rows in (embeddings[classes == c] for c in range(3))])
    values, plain = (np.linalg.eigvalsh(np.cov(rows.T)) for rows in (within, raw))
    assert plain[-1] / plain[-4] > 5
    assert values[-1] / values[-4] < 2  # the directions that vary most do so about equally
    assert values[-1] == pytest.approx(1 / (1 - CLASSIFIER_SHRINKAGE), rel=0.2)


def test_the_unit_of_the_embedding_does_not_matter() -> None:
    embeddings, classes = photos(300, 24, 4, apart=0.6)
    fresh, _ = photos(200, 24, 4, seed=5, apart=0.6)
    plain = fit_at(embeddings, classes, 0.1)
    for unit in (1e-3, 1e3):
        head = fit_at(embeddings * np.float32(unit), classes, 0.1)
        logits = (fresh * np.float32(unit)) @ head.weight + head.bias
        assert logits == pytest.approx(fresh @ plain.weight + plain.bias, abs=0.02)


def test_dimensions_that_hardly_vary_are_not_blown_up() -> None:
    """Few photos, and many dimensions of faint noise beside those that tell the classes apart."""
    random = np.random.default_rng(3)
    centres = random.normal(size=(10, 20))

    def drawn(count: int) -> tuple[Floats, Classes]:
        classes = np.arange(count) % 10
        strong = centres[classes] + 0.7 * random.normal(size=(count, 20))
        return np.concatenate([strong, 0.02 * random.normal(size=(count, 600))], 1).astype(np.float32), classes

    head = fit_at(*drawn(30), 0.1)
    fresh, y_true = drawn(2000)
    assert (named(head, fresh) == y_true).mean() > 0.75


def test_the_head_is_float32_of_one_matrix_and_a_bias() -> None:
    embeddings, classes = photos(90, 16, 3)
    head = fit_head(embeddings, classes, thirds(90))
    assert (head.weight.shape, head.bias.shape) == ((16, 3), (3,))
    assert head.weight.dtype == head.bias.dtype == np.float32
    assert np.isfinite(head.weight).all()
    assert head.strength in room.STRENGTHS
    assert head.strength in head.cross_validated
    assert (named(head, embeddings) == classes).mean() > 0.95


def test_the_chosen_strength_is_the_one_of_least_log_loss() -> None:
    embeddings, classes = photos(200, 32, 4, apart=0.3)
    head = fit_head(embeddings, classes, thirds(200))
    losses = {strength: loss for strength, (_, loss) in head.cross_validated.items()}
    assert len(losses) >= 2
    assert losses[head.strength] == min(losses.values())


def test_two_classes() -> None:
    embeddings, classes = photos(60, 8, 2)
    fresh, y_true = photos(200, 8, 2, seed=7)
    head = fit_head(embeddings, classes, thirds(60))
    assert head.weight.shape == (8, 2)
    assert (named(head, fresh) == y_true).mean() > 0.9


@pytest.mark.parametrize("lonely", [0, 1, 3])
@pytest.mark.parametrize("balanced", [False, True])
def test_a_class_of_one_photo_is_kept_and_does_no_harm(lonely: int, balanced: bool) -> None:
    """Its fold leaves it out whole: also the last class, which nothing but its own row shows to be there."""
    embeddings, classes = photos(120, 12, 4, apart=2)
    keep = (classes != lonely) | (np.arange(120) == np.flatnonzero(classes == lonely)[0])
    embeddings, classes = embeddings[keep], classes[keep]
    head = fit_head(embeddings, classes, thirds(len(classes)), balanced=balanced)
    assert head.weight.shape == (12, 4)
    assert np.isfinite(head.weight).all()
    assert (named(head, embeddings) == classes).mean() > 0.98
    if balanced:  # else its rarity may speak against it
        assert named(head, embeddings)[classes == lonely] == lonely


def test_every_class_of_one_photo() -> None:
    embeddings, _ = photos(6, 12, 6, apart=3)
    head = fit_head(embeddings, np.arange(6), np.arange(6) % 3)
    assert np.isfinite(head.weight).all()
    assert (named(head, embeddings) == np.arange(6)).all()


def test_features_that_never_change_change_nothing() -> None:
    embeddings, classes = photos(150, 10, 3)
    still = np.concatenate([embeddings, np.full((150, 3), 7, np.float32), np.zeros((150, 2), np.float32)], 1)
    head = fit_head(still, classes, thirds(150))
    assert np.isfinite(head.weight).all()
    assert np.isfinite(head.bias).all()
    assert (named(head, still) == named(fit_head(embeddings, classes, thirds(150)), embeddings)).mean() > 0.98


def test_embeddings_that_are_all_alike_give_the_shares_of_the_classes() -> None:
    classes = np.arange(90) % 3 % 2  # two thirds 0, one third 1
    head = fit_head(np.ones((90, 4), np.float32), classes, np.arange(90) // 3 % 3)
    found = probabilities(np.ones((1, 4), np.float32) @ head.weight + head.bias, 1.0)
    assert found[0] == pytest.approx([2 / 3, 1 / 3], abs=0.02)


def test_balancing_removes_the_effect_of_class_frequency() -> None:
    random = np.random.default_rng(0)
    classes = (np.arange(600) % 12 == 0).astype(np.int64)
    embeddings = (random.normal(size=(600, 6)) + classes[:, None] * 0.6).astype(np.float32)
    plain = fit_head(embeddings, classes, thirds(600))
    even = fit_head(embeddings, classes, thirds(600), balanced=True)

    def odds(head: Head) -> float:  # of the rare class, half way between the two
        logits = np.full((1, 6), 0.3, np.float32) @ head.weight + head.bias
        return float(logits[0, 1] - logits[0, 0])

    assert odds(plain) == pytest.approx(-np.log(11), abs=0.6)
    assert odds(even) == pytest.approx(0, abs=0.6)
    rare = classes == 1
    assert (named(even, embeddings)[rare] == 1).mean() > (named(plain, embeddings)[rare] == 1).mean() + 0.3


def test_copies_in_one_fold_do_not_inflate_figures_and_in_two_they_would() -> None:
    """Labels by lot, every photo there twice: nothing can be learnt but the copies themselves."""
    random = np.random.default_rng(0)
    embeddings = np.repeat(random.normal(size=(90, 120)), 2, axis=0).astype(np.float32)
    embeddings += 0.01 * random.normal(size=embeddings.shape).astype(np.float32)
    classes = np.repeat(random.permutation(np.arange(90) % 3), 2)
    together, apart = np.repeat(thirds(90), 2), np.tile([0, 1], 90)
    honest = fit_head(embeddings, classes, together).cross_validated
    leaking = fit_head(embeddings, classes, apart).cross_validated
    assert max(top1 for top1, _ in honest.values()) < 0.5
    assert max(top1 for top1, _ in leaking.values()) > 0.9


def test_out_of_fold_logits_are_those_of_heads_that_did_not_see_the_fold() -> None:
    rows, classes = photos(120, 8, 4, apart=0.4)
    fold = thirds(120)
    head = fit_head(rows, classes, fold)
    assert head.out_of_fold is not None
    for number in range(3):
        seen = fold != number
        blind = fit_at(rows[seen], classes[seen], head.strength)
        np.testing.assert_allclose(head.out_of_fold[~seen], rows[~seen] @ blind.weight + blind.bias, atol=1e-3)
    assert head.cross_validated[head.strength][0] == (head.out_of_fold.argmax(1) == classes).mean()


@pytest.mark.parametrize("count", [30, 3])
def test_with_classes_in_one_fold_nothing_is_chosen(count: int) -> None:
    embeddings, classes = photos(count, 4, 3, apart=5.0)
    head = fit_head(embeddings, classes, classes)  # a fold a class, as with one photo each
    assert head.cross_validated == {}
    assert (head.strength, head.temperature) == (room.ONE_PHOTO_STRENGTH, 1.0)
    assert ((embeddings @ head.weight + head.bias).argmax(1) == classes).mean() > 0.9


def test_the_folds_may_have_any_numbers() -> None:
    embeddings, classes = photos(90, 8, 3)
    plain, other = thirds(90), thirds(90) * 7 + 5
    assert fit_head(embeddings, classes, plain).cross_validated == fit_head(embeddings, classes, other).cross_validated


def test_the_same_photos_give_the_same_bytes() -> None:
    embeddings, classes = photos(300, 64, 10)
    first, second = (fit_head(embeddings.copy(), classes, thirds(300)) for _ in range(2))
    assert first.weight.tobytes() == second.weight.tobytes()
    assert first.bias.tobytes() == second.bias.tobytes()
    assert (first.temperature, first.cross_validated) == (second.temperature, second.cross_validated)


def test_the_photos_given_are_not_changed() -> None:
    embeddings, classes = photos(60, 8, 3)
    before = embeddings.copy()
    fit_head(embeddings, classes, thirds(60))
    assert np.array_equal(embeddings, before)


def test_progress_rises_to_its_end() -> None:
    seen: list[tuple[int, int]] = []
    embeddings, classes = photos(60, 8, 3)
    fit_head(embeddings, classes, thirds(60), progress=lambda done, all_: seen.append((done, all_)))
    done = [pair[0] for pair in seen]
    assert done == sorted(done)
    assert seen[-1][0] == seen[-1][1]


@settings(max_examples=25, deadline=None)
@given(st.floats(0.1, 10), st.integers(0, 1000))
def test_a_known_temperature_is_found(temperature: float, seed: int) -> None:
    """Truths drawn from a softmax; logits that were then made so many times too sure."""
    random = np.random.default_rng(seed)
    calibrated = (2 * random.normal(size=(8000, 6))).astype(np.float32)
    probs = probabilities(calibrated, 1.0)
    y_true = (random.random((8000, 1)) < probs.cumsum(1)).argmax(1)
    assert fit_temperature(calibrated * np.float32(temperature), y_true) == pytest.approx(temperature, rel=0.1)


def test_the_temperature_stays_within_its_bounds() -> None:
    low, high = room.TEMPERATURES
    classes = np.arange(300_000) % 3
    sure = np.eye(3, dtype=np.float32)[classes]
    assert low <= fit_temperature(sure, classes) < 0.1
    assert fit_temperature(sure, (classes + 1) % 3) == pytest.approx(high, rel=0.01)


def test_a_few_photos_all_classified_correctly_do_not_make_the_head_certain() -> None:
    classes = np.arange(30) % 3
    sure = np.eye(3, dtype=np.float32)[classes]
    found = fit_temperature(sure, classes)
    steps = np.linspace(np.log(room.TEMPERATURES[0]), np.log(room.TEMPERATURES[1]), 4001)
    summed = [30 * log_loss(probabilities(sure, float(np.exp(t))), classes) + 2 * t**2 for t in steps]
    assert found == pytest.approx(float(np.exp(steps[int(np.argmin(summed))])), rel=0.01)
    assert found > 0.2


@given(st.integers(1, 5), st.floats(0.05, 20), st.floats(-1e4, 1e4))
def test_probabilities_sum_to_one_however_large_the_logits(rows: int, temperature: float, shift: float) -> None:
    logits = np.random.default_rng(0).normal(size=(rows, 7)).astype(np.float32) * 100
    before = logits.copy()
    found = probabilities(logits + np.float32(shift), temperature)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert found.sum(1) == pytest.approx(np.ones(rows), abs=1e-5)
    assert np.array_equal(logits, before)


@pytest.mark.parametrize("rows", [6, 40, 79, 80, 81, 300])
def test_whitening_inverts_the_shrunk_covariance_for_few_rows_and_for_many(rows: int) -> None:
    random = np.random.default_rng(rows)
    within = (random.normal(size=(rows, 80)) * random.uniform(0.1, 3, 80)).astype(np.float32)
    covariance = within.T @ within / rows
    shrunk = (1 - CLASSIFIER_SHRINKAGE) * covariance + CLASSIFIER_SHRINKAGE * np.trace(covariance) / 80 * np.eye(80)
    matrix = whitening(within)
    assert matrix.dtype == np.float32
    np.testing.assert_allclose(matrix @ matrix.T @ shrunk, np.eye(80), atol=2e-3)

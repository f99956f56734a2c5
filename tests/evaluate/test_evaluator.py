"""Which mistakes are shown, and which training photos beside them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from nameplate.evaluate.evaluator import surest_mistakes, worst_pairs
from tests.evaluate.answers import judged


def test_the_most_confident_mistakes_come_first_with_their_nearest_training_photos() -> None:
    found = judged()
    mistakes = surest_mistakes(found, 1000)
    assert len(mistakes) == int((~found.right).sum()) > 3
    assert [each.confidence for each in mistakes] == sorted((each.confidence for each in mistakes), reverse=True)
    assert surest_mistakes(found, 2) == mistakes[:2]
    known, paths = found.training, [photo.path for photo in found.training.photos]
    for each in mistakes:
        place = [photo.path for photo in found.photos].index(each.photo)
        assert (each.truth, each.named) == (found.photos[place].label, found.nameplates[found.y_pred[place]])
        for path, name in ((each.like_truth, each.truth), (each.like_named, each.named)):
            assert path is not None
            assert known.photos[paths.index(path)].label == name
            cosine = known.embeddings @ found.embeddings[place] / np.linalg.norm(known.embeddings, axis=1)
            others = [cosine[i] for i, photo in enumerate(known.photos) if photo.label == name]
            assert cosine[paths.index(path)] == max(others)


def test_a_photo_is_not_its_own_neighbour() -> None:
    found = judged()
    itself = replace(
        found, training=replace(found.training, photos=found.photos, columns=found.y_true, embeddings=found.embeddings)
    )
    assert all(each.like_truth not in (None, each.photo) for each in surest_mistakes(itself, 5))


def test_without_training_photos_there_are_no_neighbours() -> None:
    mistakes = surest_mistakes(judged(taught=False), 5)
    assert mistakes
    assert all(each.like_truth is each.like_named is None for each in mistakes)


def test_a_pair_counts_both_ways() -> None:
    found = judged(skill=1.0)
    pairs = worst_pairs(found, 1000)
    wrong = [
        (p.label, found.nameplates[n]) for p, n, r in zip(found.photos, found.y_pred, found.right, strict=True) if not r
    ]
    counts = Counter(wrong)
    for pair in pairs:
        assert pair.first_as_second == counts[pair.first, pair.second]
        assert pair.second_as_first == counts[pair.second, pair.first]
        assert {pair.example.truth, pair.example.named} == {pair.first, pair.second}
    assert sum(pair.first_as_second + pair.second_as_first for pair in pairs) == len(wrong)
    totals = [pair.first_as_second + pair.second_as_first for pair in pairs]
    assert totals == sorted(totals, reverse=True)


def test_without_mistakes_there_are_neither() -> None:
    found = judged(skill=50.0)
    assert (surest_mistakes(found, 5), worst_pairs(found, 5)) == ((), ())

"""`same_picture`: which photos are copies of one picture: the one answer for split, folds and figures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nameplate.datasets.copies import SAME, candidate_pairs, likenesses
from nameplate.datasets.duplicates import groups
from nameplate.models.collection import Embedded, Progress
from nameplate.models.look import look_at
from nameplate.models.runtime import available_cpus
from nameplate.photos.align import SIDE


def same_picture(embedded: Embedded, progress: Progress = lambda *_: None) -> NDArray[np.int64]:
    """The number of each photo's group: copies of one picture, and groups that the data gives.

    Copies are files of the same bytes, photos whose perceptual hashes are near, and those that `audit` would call so:
    alike by hash or embedding, and one picture under the best crop, straight or mirrored.

    Args:
        embedded: the photos, read.
        progress: see `Progress`.

    Returns:
        int64 of shape (N,).
    """
    digests = [str(photo.sha256) for photo in embedded.photos]
    pairs = candidate_pairs(digests, embedded.hashes, embedded.embeddings)
    places, rows = np.unique(pairs, return_inverse=True)  # what has no candidate is not opened
    photos = [embedded.photos[place] for place in places]
    looks = look_at(photos, available_cpus(), lambda done, of: progress("look for copies", done, of))
    flat = np.zeros((SIDE, SIDE), np.uint8)  # like nothing: of a photo that vanished meanwhile
    greys = np.stack([flat, *(look.grey if look else flat for look in looks)])
    likeness = likenesses(rows.reshape(-1, 2) + 1, greys, lambda done, of: progress("compare copies", done, of))
    given = [photo.group for photo in embedded.photos]
    return groups(digests, embedded.hashes, given, pairs[likeness >= SAME])

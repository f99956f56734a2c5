"""Write the golden arrays of test_preprocess.py: `python -m tests.images.make_golden`.

They say what a model was trained on. Where they change, every bundle in use answers differently.
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from nameplate.images import preprocess
from nameplate.types import Fit, Interpolation, Preprocess

GOLDEN = Path(__file__).parent / "golden" / "preprocess.npz"
CASES = [
    Preprocess(height=12, width=16, fit=fit, interpolation=interpolation)
    for fit in get_args(Fit)
    for interpolation in get_args(Interpolation)
]


def wide() -> NDArray[np.uint8]:
    """A picture of whole-number arithmetic alone: 29×53, with slopes and hard edges."""
    y, x = np.mgrid[:29, :53]
    return np.stack([x * 4, y * 8, (x * y) % 256 * ((x // 7 + y // 5) % 2)], axis=-1).astype(np.uint8)


def name(case: Preprocess, turned: bool) -> str:
    """The array's name in the file."""
    return f"{'tall' if turned else 'wide'}-{case.fit}-{case.interpolation}"


def main() -> None:
    """Write them."""
    photo = wide()
    arrays = {}
    for case in CASES:
        arrays[name(case, False)] = preprocess(photo, case)
        arrays[name(case, True)] = preprocess(photo.transpose(1, 0, 2), case)
    np.savez_compressed(GOLDEN, allow_pickle=False, **arrays)


if __name__ == "__main__":
    main()

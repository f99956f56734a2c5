"""Measures how closely a model in one file agrees with `identify`, run as docs/export.md tells users to run it.

    nameplate export cars196 --onnx cars.onnx --with-resize
    python benchmarks/one_file.py cars.onnx PHOTOS... [--model cars196] [--most 1000]

The file gets photos as Pillow decodes them, at full size; `identify` decodes JPEGs by libjpeg-turbo, at a reduced scale
where they are large. The agreement therefore includes the decoders, which `nameplate export` leaves out of its own
comparison.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from nameplate.data.dataset import list_photos
from nameplate.defaults import DEFAULT_BUNDLE
from nameplate.fit.parity import LARGEST_GAP
from nameplate.model.model import Model
from nameplate.runtime.ort import open_session
from nameplate.runtime.select import available_cpus


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("file", type=Path)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--model", default=DEFAULT_BUNDLE)
    parser.add_argument("--most", type=int, default=1000, help="Photos of each source, evenly spread.")
    arguments = parser.parse_args()
    model = Model.load(arguments.model, runtime="onnxruntime")
    session = open_session(arguments.file.read_bytes(), available_cpus(), "file")
    print("| photos | read | same nameplate | largest difference | above the gate | median | file, s | identify, s |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for source in arguments.photos:
        listed = [photo.path for photo in list_photos(source)]
        chosen = np.unique(np.linspace(0, len(listed) - 1, min(arguments.most, len(listed))).round().astype(int))
        gaps, same, seconds = [], 0, [0.0, 0.0]
        for place in chosen:
            begun = time.perf_counter()
            [(_, expected)] = list(model.answers([listed[place]]))
            seconds[1] += time.perf_counter() - begun
            if expected is None:
                continue
            begun = time.perf_counter()
            with Image.open(listed[place]) as image:
                pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
            probs = session.run(["probabilities"], {"photo": pixels})[0][0]
            seconds[0] += time.perf_counter() - begun
            gaps.append(float(np.abs(probs - expected).max()))
            same += int(probs.argmax() == expected.argmax())
        above = sum(gap > LARGEST_GAP for gap in gaps)
        print(
            f"| {source.name} | {len(gaps):,} | {same:,} | {max(gaps):.4f} | {above} | {np.median(gaps):.1e} | "
            f"{seconds[0]:.0f} | {seconds[1]:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

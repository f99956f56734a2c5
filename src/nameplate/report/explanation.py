"""The explanation of a photo: a page or a PNG (`write_explanation`), and the heat maps on it (`heat_map`)."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw

from nameplate.errors import PhotoError
from nameplate.images.decode import decode
from nameplate.images.transforms import Box, Pixels
from nameplate.model.cam import SHOWN, Case, Explanation, frame_of_part, upsample
from nameplate.model.model import Model
from nameplate.model.neighbours import THUMBNAIL_LIMITS, Neighbour
from nameplate.model.verification import HeatMap
from nameplate.report.page import thumbnail_uri, write_page
from nameplate.storage import whole_file
from nameplate.types import Floats, PixelBox, Preprocess

# Heat maps over photos: red is evidence for a nameplate, blue against it; the box marks the strongest evidence for it.

COLOURS = "coolwarm"
"""A diverging colour map with perceptually even steps: K. Moreland, "Diverging Color Maps for Scientific
Visualization", 2009."""
STRONGEST = 0.8
"""Opacity of the colour over the photo where the evidence is strongest."""
GREYED = 0.75
"""How far the photo's own colours are desaturated, so that none is mistaken for evidence."""
GAP = 8
"""Distance between two maps, in pixels."""


def heat_scale(explanation: Explanation) -> float:
    """Return the evidence that gets the strongest colour. All maps of a photo share it, to be comparable."""
    cases = [case for case in (explanation.predicted, explanation.claimed) if case is not None]
    return max(float(np.abs(case.evidence).max()) for case in cases) or 1.0


def heat_map(explanation: Explanation, case: Case, size: Preprocess, longest: int) -> Pixels:
    """Draw the evidence over a photo that is resized to the given longest side; uint8 H×W×3.

    Args:
        explanation: gives the photo.
        case: gives the evidence.
        size: how the photo became the model's picture.
        longest: in pixels.
    """
    photo = shown(explanation.pixels, longest)
    height, width = photo.shape[:2]
    grey = np.asarray(Image.fromarray(photo).convert("L"), np.float32)[..., None]
    ground = GREYED * grey + (1 - GREYED) * photo
    heat = _laid_out(case.evidence, height, width, size, explanation.part) / heat_scale(explanation)
    colour = 255 * matplotlib.colormaps[COLOURS]((heat.clip(-1, 1) + 1) / 2)[..., :3]
    share = STRONGEST * np.abs(heat).clip(0, 1)[..., None]
    image = Image.fromarray(np.asarray((1 - share) * ground + share * colour).round().clip(0, 255).astype(np.uint8))
    _draw_box(image, case, width / explanation.width, height / explanation.height)
    return np.asarray(image)


def side_by_side(explanation: Explanation, size: Preprocess, longest: int) -> bytes:
    """Return a PNG with the map of the predicted nameplate and, to its right, of the claimed one if any."""
    cases = [case for case in (explanation.predicted, explanation.claimed) if case is not None]
    maps = [heat_map(explanation, case, size, longest) for case in cases]
    height, width = maps[0].shape[:2]
    sheet = Image.new("RGB", (len(maps) * (width + GAP) - GAP, height), "white")
    for place, pixels in enumerate(maps):
        sheet.paste(Image.fromarray(pixels), (place * (width + GAP), 0))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def shown(photo: Pixels, longest: int) -> Pixels:
    """Resize a photo to the given longest side. Small photos are enlarged, since a map needs room."""
    scale = longest / max(photo.shape[:2])
    size = max(1, round(photo.shape[1] * scale)), max(1, round(photo.shape[0] * scale))
    return np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS))


def _laid_out(grid: Floats, height: int, width: int, size: Preprocess, part: Box) -> Floats:
    """Resize the evidence to where a height×width photo is covered by the model input of a part; zero elsewhere."""
    left, top, right, bottom = (round(side) for side in frame_of_part(width, height, size, part))
    drawn = upsample(grid, max(1, bottom - top), max(1, right - left))
    heat = np.zeros((height, width), np.float32)
    inner = drawn[max(0, -top) : height - top, max(0, -left) : width - left]
    down, across = max(0, top), max(0, left)
    heat[down : down + inner.shape[0], across : across + inner.shape[1]] = inner
    return heat


def _draw_box(image: Image.Image, case: Case, across: float, down: float) -> None:
    """Draw the region on a shown photo, which may be one pixel wide or high."""
    if case.region is None:
        return
    left, top, right, bottom = case.region
    box = left * across, top * down, right * across - 1, bottom * down - 1
    pen = ImageDraw.Draw(image)
    for inset, colour, pixels in ((0, "black", 4), (1, "white", 2)):
        x0, y0, x1, y1 = box[0] + inset, box[1] + inset, box[2] - inset, box[3] - inset
        pen.rectangle([x0, y0, max(x0, x1), max(y0, y1)], outline=colour, width=pixels)


SUFFIXES = (".html", ".htm", ".png")


def write_explanation(explanation: Explanation, model: Model, target: Path) -> None:
    """Write a page, or only the maps if the name ends in .png.

    Raises:
        NameplateError: it cannot be written.
    """
    size = model.bundle.manifest.preprocess
    if target.suffix.lower() == ".png":
        with whole_file(target) as temporary:
            temporary.write_bytes(side_by_side(explanation, size, SHOWN))
        return

    def drawn(case: Case) -> tuple[Case, str]:
        return case, thumbnail_uri(heat_map(explanation, case, size, SHOWN), SHOWN)

    claimed = explanation.claimed
    other = claimed is not None and claimed.nameplate != explanation.predicted.nameplate
    write_page(
        target,
        "explain.html",
        explanation=explanation,
        name=Path(explanation.photo).name,
        model=model.bundle.manifest.name,
        nameplates=len(model.nameplates),
        photo=thumbnail_uri(shown(explanation.pixels, SHOWN), SHOWN),
        cases=[drawn(case) for case in (explanation.predicted, claimed if other else None) if case is not None],
        agreed=claimed is not None and not other,
        nearest=[(neighbour, _picture(neighbour)) for neighbour in explanation.nearest or ()],
    )


def _picture(neighbour: Neighbour) -> str | None:
    """Return the neighbour's thumbnail as a data URI, decoded under limits; None if it cannot be decoded."""
    try:
        decode(neighbour.thumbnail, limits=THUMBNAIL_LIMITS)
    except PhotoError:
        return None
    return f"data:image/jpeg;base64,{base64.b64encode(neighbour.thumbnail).decode()}"


def as_json(explanation: Explanation) -> dict[str, object]:
    """Return what `explain --json` prints."""
    named, claimed = explanation.predicted, explanation.claimed
    rows, columns = named.evidence.shape
    return {
        "photo": explanation.photo,
        "width": explanation.width,
        "height": explanation.height,
        "title": explanation.title,
        "nameplate": named.nameplate,
        "confidence": named.confidence,
        "verdict": explanation.verdict,
        "hot_region": _box(named),
        "claimed": None if claimed is None else claimed.nameplate,
        "claimed_confidence": None if claimed is None else claimed.confidence,
        "claimed_hot_region": None if claimed is None else _box(claimed),
        "map": {"height": rows, "width": columns},
        "nearest": None
        if explanation.nearest is None
        else [{"path": n.path, "nameplate": n.nameplate, "similarity": n.similarity} for n in explanation.nearest],
    }


def heat_json(explanation: Explanation, size: Preprocess) -> HeatMap:
    """Return the heat map of the predicted nameplate for an answer in JSON; `png` is bytes.

    Args:
        explanation: of the photo.
        size: how the photo became the model's picture.
    """
    named = explanation.predicted
    pixels = heat_map(explanation, named, size, SHOWN)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    region = None if named.region is None else PixelBox(*named.region)
    evidence = named.evidence.tolist()
    return HeatMap(named.nameplate, region, explanation.width, explanation.height, evidence, buffer.getvalue())


def _box(case: Case) -> dict[str, int] | None:
    return None if case.region is None else dict(zip(("left", "top", "right", "bottom"), case.region, strict=True))

"""`write_explanation`: a photo explained, as a page or as a picture."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from nameplate.errors import PhotoError
from nameplate.models.answer_json import HeatMap, Region
from nameplate.models.explain import SHOWN, Case, Explanation
from nameplate.models.index import PICTURE_LIMITS, Neighbour
from nameplate.models.model import Model
from nameplate.photos.decode import decode
from nameplate.reports.heat import heat_map, shown, side_by_side
from nameplate.reports.page import thumbnail_uri, write_page
from nameplate.storage import whole_file
from nameplate.types import Preprocess

SUFFIXES = (".html", ".htm", ".png")


def write_explanation(explanation: Explanation, model: Model, target: Path) -> None:
    """Write a page, or where the name ends in .png the maps alone; whole.

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
    other = claimed is not None and claimed.nameplate != explanation.named.nameplate
    write_page(
        target,
        "explain.html",
        explanation=explanation,
        name=Path(explanation.photo).name,
        model=model.bundle.manifest.name,
        nameplates=len(model.nameplates),
        photo=thumbnail_uri(shown(explanation.pixels, SHOWN), SHOWN),
        cases=[drawn(case) for case in (explanation.named, claimed if other else None) if case is not None],
        agreed=claimed is not None and not other,
        nearest=[(neighbour, _picture(neighbour)) for neighbour in explanation.nearest or ()],
    )


def _picture(neighbour: Neighbour) -> str | None:
    """The neighbour's small picture, decoded under limits before it is shown; None where it is none."""
    try:
        decode(neighbour.picture, limits=PICTURE_LIMITS)
    except PhotoError:
        return None
    return f"data:image/jpeg;base64,{base64.b64encode(neighbour.picture).decode()}"


def as_json(explanation: Explanation) -> dict[str, object]:
    """What `explain --json` says."""
    named, claimed = explanation.named, explanation.claimed
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
    """The heat map of the named nameplate, for an answer in JSON; `png` is bytes.

    Args:
        explanation: of the photo.
        size: how the photo became the model's picture.
    """
    named = explanation.named
    pixels = heat_map(explanation, named, size, SHOWN)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    region = None if named.region is None else Region(*named.region)
    evidence = named.evidence.tolist()
    return HeatMap(named.nameplate, region, explanation.width, explanation.height, evidence, buffer.getvalue())


def _box(case: Case) -> dict[str, int] | None:
    return None if case.region is None else dict(zip(("left", "top", "right", "bottom"), case.region, strict=True))

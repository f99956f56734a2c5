"""`write_page`: a template and its data → one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from nameplate.errors import PhotoError
from nameplate.images.decode import decode
from nameplate.storage import whole_file

THUMBNAIL = 240
"""Longest side of a photo on a page, in pixels."""


def write_page(target: Path, template: str, **data: object) -> None:
    """Fill a template of `reports/templates` and write it whole; every value is escaped."""
    environment = Environment(
        loader=PackageLoader("nameplate.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["percent"] = lambda share: f"{100 * share:.1f} %"
    text = environment.get_template(template).render(**data)
    with whole_file(target) as temporary:
        temporary.write_text(text, "utf-8", errors="backslashreplace")  # a file's name need not be UTF-8


def png_uri(png: bytes) -> str:
    """A PNG as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def light_and_dark(draw: Callable[[bool], bytes]) -> dict[bool, str]:
    """A plot for light pages (False) and for dark ones (True), as data URIs; `draw` is told whether it is dark."""
    return {dark: png_uri(draw(dark)) for dark in (False, True)}


def file_thumbnail_uri(path: str, longest: int = THUMBNAIL) -> str | None:
    """`thumbnail_uri` of a file; None where it cannot be read."""
    try:
        return thumbnail_uri(decode(path, at_least=(longest, longest)), longest)
    except PhotoError:
        return None


def thumbnail_uri(photo: NDArray[np.uint8], longest: int = THUMBNAIL) -> str:
    """A photo, made small (its longest side in pixels), as a JPEG data URI."""
    image = Image.fromarray(photo)
    image.thumbnail((longest, longest))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"

"""Render a template to one self-contained HTML file (`write_page`), with images as data URIs."""

from __future__ import annotations

import base64
import html
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
from nameplate.types import percent

THUMBNAIL = 240
"""Longest side of a photo on a page, in pixels."""


def write_page(target: Path, template: str, **data: object) -> None:
    """Fill a template of `report/templates` and write the page; every value is escaped."""
    write_html(target, fill(template, **data))


def write_html(target: Path, text: str) -> None:
    """Write a page that `fill` made, whole."""
    with whole_file(target) as temporary:
        temporary.write_text(text, "utf-8", errors="backslashreplace")  # the name of a file need not be valid UTF-8


def in_notebook(page: str, height: int = 720) -> str:
    """Return a page as a frame for `_repr_html_`, so that its styles do not reach the notebook around it."""
    return (
        f'<iframe srcdoc="{html.escape(page)}" sandbox="allow-popups" loading="lazy" '
        f'style="width: 100%; height: {height}px; border: 1px solid #8884"></iframe>'
    )


def fill(template: str, **data: object) -> str:
    """Fill a template of `report/templates` and return the page; every value is escaped."""
    environment = Environment(
        loader=PackageLoader("nameplate.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["percent"] = percent
    return environment.get_template(template).render(**data)


def png_uri(png: bytes) -> str:
    """Return a PNG as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def light_and_dark(draw: Callable[[bool], bytes]) -> dict[bool, str]:
    """Return a plot for light and for dark pages as data URIs; `draw` takes whether the page is dark."""
    return {dark: png_uri(draw(dark)) for dark in (False, True)}


def file_thumbnail_uri(path: str, longest: int = THUMBNAIL) -> str | None:
    """Return the `thumbnail_uri` of a file; None if it cannot be read."""
    try:
        return thumbnail_uri(decode(path, at_least=(longest, longest)), longest)
    except PhotoError:
        return None


def thumbnail_uri(photo: NDArray[np.uint8], longest: int = THUMBNAIL) -> str:
    """Return a photo, reduced to the given longest side in pixels, as a JPEG data URI."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg(photo, longest)).decode()}"


def jpeg(photo: NDArray[np.uint8], longest: int) -> bytes:
    """Return a photo, reduced to the given longest side in pixels, as the bytes of a JPEG."""
    image = Image.fromarray(photo)
    image.thumbnail((longest, longest))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()

"""Figures as part of a page: drawings where they are small, otherwise images of bounded size."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST_DRAWING = 100_000  # bytes: beyond it an image is smaller, and shown sooner
LARGEST_IMAGE = 200_000  # bytes; four of them and their tables stay well below 1.5 MB
RESOLUTIONS = (150, 120, 96, 72, 48)  # dots per inch: the first is sharp on paper


def picture(figure: Figure) -> str:
    """A figure as an address that holds it: a drawing (SVG) if it is small, otherwise a PNG."""
    drawing = _drawing(figure)
    if len(drawing) <= LARGEST_DRAWING:
        return _address("image/svg+xml", drawing)
    for resolution in RESOLUTIONS:
        image = _image(figure, resolution)
        if len(image) <= LARGEST_IMAGE:
            break
    return _address("image/png", image)


def _drawing(figure: Figure) -> bytes:
    import matplotlib

    # the same figure gives the same bytes: without the date, and with names that are not random
    with matplotlib.rc_context({"svg.hashsalt": "gradiometer"}):
        return _saved(figure, "svg", metadata={"Date": None})


def _image(figure: Figure, resolution: int) -> bytes:
    """A PNG of 256 colours: a third of the size, and hardly to be told from one of all colours."""
    from PIL import Image

    written = io.BytesIO()
    with Image.open(io.BytesIO(_saved(figure, "png", dpi=resolution))) as image:
        image.convert("RGB").quantize(256).save(written, format="png", optimize=True)
    return written.getvalue()


def _saved(figure: Figure, kind: str, **options: Any) -> bytes:
    from gradiometer.plots.canvas import without_glyph_warnings

    written = io.BytesIO()
    with without_glyph_warnings():
        figure.savefig(written, format=kind, **{"dpi": RESOLUTIONS[0], **options})
    return written.getvalue()


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"

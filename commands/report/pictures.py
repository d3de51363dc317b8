"""Pictures of run folders, small enough to stand in a page."""

from __future__ import annotations

import io
import warnings
from base64 import b64encode
from pathlib import Path

from PIL import Image

_AS_IT_IS = 64_000  # bytes
_MAX_WIDTH = 1080  # dots, as wide as the page
_MAX_FILE_BYTES, _MAX_PICTURE_PIXELS = 50_000_000, 40_000_000  # bytes, pixels: more is no gallery


def data_uri(path: Path) -> str | None:
    """Turn a PNG file into the source of an ``<img>``.

    Args:
        path: The file, which is not trusted.

    Returns:
        A ``data:`` address: of the file where it is small, of a smaller WebP where it is not; None where it is no PNG
        file or too large to be looked at.
    """
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            return None
        content = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is looked at right below
            picture = Image.open(io.BytesIO(content), formats=("PNG",))
        if picture.width * picture.height > _MAX_PICTURE_PIXELS:
            return None
        picture.load()
        if len(content) <= _AS_IT_IS:
            return f"data:image/png;base64,{b64encode(content).decode()}"
        picture.thumbnail((_MAX_WIDTH, picture.height))
        file = io.BytesIO()
        picture.convert("RGB").save(file, "WEBP", quality=75)
    except Exception:  # a file that is made to break its reader may raise anything
        return None
    return f"data:image/webp;base64,{b64encode(file.getvalue()).decode()}"

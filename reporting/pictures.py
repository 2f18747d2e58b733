"""Pictures within a page: embedded as data URIs, and small ones for the UI."""

import base64
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from artifacts.files import write_atomically

_EMBEDDED = re.compile(r"data:image/png;base64,[A-Za-z0-9+/=]*")
WIDTH, COLOURS = 600, 64  # of a picture in the UI


def data_uri(picture: bytes) -> str:
    """Return a PNG as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(picture).decode()


def cover(page: Path, picture: bytes) -> int:
    """Put a PNG in the place of every one that a page embeds; return how many there were."""
    if not page.is_file():
        return 0
    text = page.read_text(encoding="utf-8", errors="replace")
    text, covered = _EMBEDDED.subn(data_uri(picture), text)
    write_atomically(page, text)
    return covered


def small(picture: Path) -> bytes:
    """Return a PNG of at most WIDTH pixels and COLOURS colours."""
    from PIL import Image

    with Image.open(picture) as opened:
        shown = opened.convert("RGBA")
    shown.thumbnail((WIDTH, 10 * WIDTH))
    file = io.BytesIO()
    palette = shown.quantize(COLOURS, method=Image.Quantize.FASTOCTREE)
    palette.save(file, format="PNG", optimize=True)
    return file.getvalue()


def fitting(pictures: Mapping[str, Path], most: int) -> tuple[dict[str, str], list[str]]:
    """Return small pictures as addresses by title, and the titles for which there is no room.

    Args:
        pictures: PNG files by title, the most important first.
        most: characters that the addresses may have together.
    """
    shown: dict[str, str] = {}
    left_out: list[Any] = []
    for title, path in pictures.items():
        address = data_uri(small(path))
        if len(address) <= most:
            shown[title] = address
            most -= len(address)
        else:
            left_out.append(title)
    return shown, left_out

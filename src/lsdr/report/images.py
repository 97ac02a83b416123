"""Pictures as data: URIs, so that the page needs no other file."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

_LARGEST_FILE = 600_000
_LARGEST_SIDE = 1024


@dataclass(frozen=True)
class Picture:
    """An image to show."""

    uri: str
    width: int
    height: int
    caption: str
    alt: str


def picture(path: Path, caption: str, alt: str, notes: list[str]) -> Picture | None:
    """Load an image file; large ones are shrunk. None if it is missing, or broken (then also a note).

    Args:
        path: The file.
        caption: Shown under it.
        alt: Read out in its place.
        notes: Receives what went wrong.
    """
    if not path.exists():
        return None
    try:
        with Image.open(path) as image:
            image.load()
            kind = image.format or "PNG"
            size = image.size
            content = path.read_bytes()
            if len(content) > _LARGEST_FILE or kind not in ("PNG", "JPEG", "WEBP", "GIF"):
                small = image.convert("RGB")
                small.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
                buffer = io.BytesIO()
                small.save(buffer, "JPEG", quality=88)
                content, kind, size = buffer.getvalue(), "JPEG", small.size
                caption = f"{caption} (shrunk; the file is sharper)"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        notes.append(f"{'/'.join(path.parts[-4:])} is not a readable image ({error}).")
        return None
    uri = f"data:image/{kind.lower()};base64,{base64.b64encode(content).decode()}"
    return Picture(uri, *size, caption, alt)

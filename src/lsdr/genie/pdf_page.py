"""The picture of a PDF's page, with a quotation marked in it."""

import io
import re
from pathlib import Path
from typing import Any

from lsdr.genie.limits import MAX_BYTES, PICTURE_SIDE
from lsdr.genie.problem import UnreadableError
from lsdr.genie.readers.clean import clean
from lsdr.genie.readers.pdf import PDFIUM, open_pdf

_MARK = (255, 226, 89)
_EDGE = (176, 112, 0)
_PAD = 2
# A quotation that runs on to another page is marked where at least so many letters of it are on this one.
_LEAST = 8
# Spaces, hyphens and control characters: what the text of a document has otherwise than the page.
_LOOSE = re.compile("[\\s\x00-\x1f\x7f-\x9f\\-\ufffe]+")


def _squeeze(text: str) -> str:
    return _LOOSE.sub("", clean(text))


def _find(page: str, quote: str) -> tuple[int, int] | None:
    """Where the quotation is on the page: all of it, its beginning at the page's end or its end at the beginning."""
    if not quote:
        return None
    at = page.find(quote)
    if at >= 0:
        return at, at + len(quote)
    for size in range(min(len(page), len(quote)) - 1, _LEAST - 1, -1):
        if page.endswith(quote[:size]):
            return len(page) - size, len(page)
        if page.startswith(quote[-size:]):
            return 0, size
    return None


def _boxes(page: Any, quote: str) -> list[tuple[float, float, float, float]]:
    """The boxes of the quotation's lines, in points: left, bottom, right, top."""
    import pypdfium2.raw as raw

    text = page.get_textpage()
    try:
        letters: list[str] = []
        places: list[int] = []
        for place in range(text.count_chars()):
            code = raw.FPDFText_GetUnicode(text, place)
            letter = _squeeze(chr(code)) if 0 < code < 0x110000 else ""
            letters.append(letter)
            places.extend([place] * len(letter))
        found = _find("".join(letters), _squeeze(quote))
        if found is None:
            return []
        first, last = places[found[0]], places[found[1] - 1]
        return [text.get_rect(k) for k in range(text.count_rects(first, last - first + 1))]
    finally:
        text.close()


def page_image(path: str | Path, page: int, width: int = 900, highlight: str | None = None) -> bytes:
    """A page as a PNG picture.

    Args:
        path: The PDF.
        page: Its page, from 1.
        width: Pixels across; less where the page is so long that its height would pass 4,000.
        highlight: A quotation to mark, as it is in the document's text. It is found whatever its spaces and line
            ends; one that goes on over the page's end is marked as far as it is here. One that is not here marks
            nothing.

    Returns:
        The PNG's bytes.

    Raises:
        UnreadableError: If the PDF cannot be opened, or the page not be drawn.
        ValueError: If there is no such page, or the width is not from 1 to 4,000.
    """
    from PIL import Image, ImageChops, ImageDraw
    from pypdfium2 import PdfiumError

    path = Path(path)
    if not 1 <= width <= PICTURE_SIDE:
        raise ValueError(f"width is from 1 to {PICTURE_SIDE} pixels, not {width}")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UnreadableError(path.name, f"is too large: more than {MAX_BYTES:,} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableError(path.name, f"cannot be opened: {error.strerror or error}") from error
    with PDFIUM:
        pdf = open_pdf(path.name, data)
        try:
            if not 1 <= page <= len(pdf):
                raise ValueError(f"{path.name} has pages 1 to {len(pdf)}, not {page}")
            try:
                sheet = pdf[page - 1]
                across, along = sheet.get_size()
                # A millionth less, for the sides are rounded up.
                scale = min((width - 1e-6) / across, (PICTURE_SIDE - 1e-6) / along)
                bitmap = sheet.render(scale=scale, may_draw_forms=False)
                picture = bitmap.to_pil().convert("RGB")
                points = bitmap.get_posconv(sheet)
                corners = [
                    (*points.to_bitmap(left, bottom), *points.to_bitmap(right, top))
                    for left, bottom, right, top in (_boxes(sheet, highlight) if highlight else [])
                ]
                bitmap.close()
                sheet.close()
            except (PdfiumError, ZeroDivisionError) as error:
                raise UnreadableError(path.name, f"has a broken page {page}: it cannot be drawn") from error
        finally:
            pdf.close()
    marks = Image.new("RGB", picture.size, "white")
    draw = ImageDraw.Draw(marks)
    for x0, y0, x1, y1 in corners:
        box = (min(x0, x1) - _PAD, min(y0, y1) - _PAD, max(x0, x1) + _PAD, max(y0, y1) + _PAD)
        # An edge too, so that the mark is not one of colour alone.
        draw.rectangle(box, fill=_MARK, outline=_EDGE)
    out = io.BytesIO()
    ImageChops.multiply(picture, marks).save(out, "PNG")
    return out.getvalue()

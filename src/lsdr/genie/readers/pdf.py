"""PDF: the text of each page, as PDFium reads it."""

import re
import threading
from typing import Any

from lsdr.genie.document import Document
from lsdr.genie.limits import MAX_BYTES, PDF_PAGES
from lsdr.genie.problem import UnreadableError
from lsdr.genie.readers.clean import clean
from lsdr.genie.readers.hyphens import join_cut_words

# PDFium may be called by one thread at a time; whoever calls it holds this.
PDFIUM = threading.Lock()
# What fonts without a table of letters give: control characters, private ones, and the mark of what is none.
_NO_LETTER = re.compile("[\x01-\x08\x0b\x0e-\x1f\x7f-\x9f\ue000-\uf8ff\ufffd]")
_CONTROL = re.compile("[\x01-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_MOST_NO_LETTERS = 0.3


def open_pdf(name: str, data: bytes) -> Any:
    """A `pypdfium2.PdfDocument`, to be opened, used and closed under `PDFIUM`.

    Raises:
        UnreadableError: If it is encrypted, or no PDF.
    """
    import pypdfium2
    import pypdfium2.raw

    try:
        return pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if error.err_code == pypdfium2.raw.FPDF_ERR_PASSWORD:
            raise UnreadableError(name, "is encrypted: save it without its password and add it again") from error
        if error.err_code == pypdfium2.raw.FPDF_ERR_SECURITY:
            raise UnreadableError(name, "is encrypted in a way that cannot be read: save it without") from error
        raise UnreadableError(name, "is broken or not a PDF: no PDF reader can be expected to open it") from error


def _page(pdf: Any, index: int) -> str | None:
    """The text of a page, None if the page cannot be read."""
    import pypdfium2

    try:
        page = pdf[index]
        try:
            text = page.get_textpage()
            try:
                return str(text.get_text_range())
            finally:
                text.close()
        finally:
            page.close()
    except pypdfium2.PdfiumError:
        return None


def _listed(pages: list[int]) -> str:
    first = ", ".join(map(str, pages[:8])) + (" ..." if len(pages) > 8 else "")
    return f"page {first}" if len(pages) == 1 else f"pages {first}"


def _problems(pages: list[str | None]) -> list[str]:
    broken = [number for number, page in enumerate(pages, 1) if page is None]
    blank = [number for number, page in enumerate(pages, 1) if page is not None and not page.strip()]
    garbled = [
        number
        for number, page in enumerate(pages, 1)
        if page and len(_NO_LETTER.findall(page)) > _MOST_NO_LETTERS * len(page)
    ]
    sentences = []
    if broken:
        sentences.append(f"{len(broken)} of {len(pages)} pages are broken and were left out ({_listed(broken)})")
    if blank:
        sentences.append(f"{len(blank)} of {len(pages)} pages hold no text: blank, or scanned ({_listed(blank)})")
    if garbled:
        sentences.append(
            f"the text of {len(garbled)} of {len(pages)} pages is garbled: their fonts do not say which letters they "
            f"draw ({_listed(garbled)})"
        )
    return sentences


def read_pdf(name: str, data: bytes) -> Document:
    r"""A PDF: each page's text, ended by ``\f`` and a newline.

    Words cut by a hyphen at a line's end are put together (`join_cut_words`).

    Raises:
        UnreadableError: If it is encrypted, broken, without text on any page, or too large.
    """
    with PDFIUM:
        pdf = open_pdf(name, data)
    try:
        with PDFIUM:
            count = len(pdf)
        if count == 0:
            raise UnreadableError(name, "is broken: it has no pages")
        if count > PDF_PAGES:
            raise UnreadableError(name, f"is too large: {count:,} pages, of at most {PDF_PAGES:,}")
        raw: list[str | None] = []
        size = 0
        for index in range(count):
            with PDFIUM:  # page by page, so that a picture for someone else need not wait for the whole document
                raw.append(_page(pdf, index))
            size += len(raw[-1] or "")
            if size > MAX_BYTES:
                raise UnreadableError(name, f"is too large: more than {MAX_BYTES:,} characters by page {index + 1}")
    finally:
        with PDFIUM:
            pdf.close()
    problems = _problems(raw)
    # PDFium ends lines with \r\n; control characters are left from fonts, and the form feed is kept for pages' ends.
    cleaned = [_CONTROL.sub("", clean(page or "")) for page in raw]
    if not any(page.strip() for page in cleaned):
        raise UnreadableError(
            name, f"holds no text on its {count} pages: it looks scanned; recognise its text (OCR) and add it again"
        )
    pages, starts, at = join_cut_words(cleaned), [], 0
    for page in pages:
        starts.append(at)
        at += len(page) + 2
    return Document(name, "pdf", "".join(f"{page}\f\n" for page in pages), tuple(starts), tuple(problems))

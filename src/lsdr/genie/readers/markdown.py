"""Markdown: read as it is written, so that a quotation and its line are the file's own."""

from lsdr.genie.document import Document
from lsdr.genie.readers.text import read_text


def read_markdown(name: str, data: bytes) -> Document:
    """A Markdown file, marks included.

    Raises:
        UnreadableError: If the bytes are no text, or there is none.
    """
    return read_text(name, data, "markdown")

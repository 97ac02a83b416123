"""Notebooks: their cells, and what they printed."""

import json
import re
from typing import Any

from lsdr.genie.document import Document
from lsdr.genie.problem import UnreadableError
from lsdr.genie.readers.clean import clean
from lsdr.genie.readers.text import decode

# How terminals write colour.
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def _joined(value: Any) -> str:
    """A notebook keeps text as one string or as a list of lines."""
    if isinstance(value, list):
        return "".join(line for line in value if isinstance(line, str))
    return value if isinstance(value, str) else ""


def _printed(output: Any) -> str:
    """The text of an output; pictures and HTML are left out."""
    if not isinstance(output, dict):
        return ""
    data = output.get("data")
    # "text" is where format 3 had what is "data" now, and where both have what was printed.
    text = _joined(data.get("text/plain")) if isinstance(data, dict) else _joined(output.get("text"))
    return _COLOUR.sub("", text)


def _cells(book: Any) -> list[Any]:
    sheets = book.get("worksheets")
    books = [book, *(sheets if isinstance(sheets, list) else [])]
    return [
        cell
        for each in books
        if isinstance(each, dict) and isinstance(each.get("cells"), list)
        for cell in each["cells"]
        if isinstance(cell, dict)
    ]


def read_notebook(name: str, data: bytes) -> Document:
    """A Jupyter notebook (formats 3 and 4): each cell's source and printed text, an empty line between.

    Lines count in this text, not in the file, which nobody reads.

    Raises:
        UnreadableError: If it is no notebook, or has no text.
    """
    source, problems = decode(name, data)
    try:
        book = json.loads(source)
    except (ValueError, RecursionError) as error:
        raise UnreadableError(name, f"is broken: a notebook is JSON, and this is none ({error})") from error
    if not isinstance(book, dict) or not (isinstance(book.get("cells"), list) or "worksheets" in book):
        raise UnreadableError(name, "is JSON, but no notebook: it has no cells")
    parts: list[str] = []
    for cell in _cells(book):
        parts.append(_joined(cell.get("source", cell.get("input"))))
        outputs = cell.get("outputs")
        parts.extend(map(_printed, outputs if isinstance(outputs, list) else []))
    text = "\n\n".join(kept for part in parts if (kept := clean(part).strip("\n")).strip())
    if not text:
        raise UnreadableError(name, "holds no text: its cells are empty")
    return Document(name, "notebook", f"{text}\n", problems=problems)

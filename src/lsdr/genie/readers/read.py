"""Any file as a document."""

import importlib
import os
from collections.abc import Iterable
from pathlib import Path

from lsdr.genie.document import Document
from lsdr.genie.limits import MAX_BYTES
from lsdr.genie.problem import Problem, UnreadableError

# Suffix to kind; and where each kind's reader is: libraries are loaded for the first file that needs them.
SUFFIXES = {
    ".txt": "text",
    ".text": "text",
    ".log": "text",
    ".rst": "text",
    ".tex": "text",
    ".csv": "text",
    ".tsv": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".pdf": "pdf",
    ".docx": "docx",
    ".ipynb": "notebook",
    ".py": "python",
}
_READERS = {
    "text": ("text", "read_text"),
    "markdown": ("markdown", "read_markdown"),
    "html": ("html", "read_html"),
    "pdf": ("pdf", "read_pdf"),
    "docx": ("docx", "read_docx"),
    "notebook": ("notebook", "read_notebook"),
    "python": ("docstrings", "read_docstrings"),
}


def _bytes(name: str, source: bytes | Path) -> bytes:
    try:
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        if size > MAX_BYTES:
            raise UnreadableError(name, f"is too large: {size:,} bytes, of at most {MAX_BYTES:,}")
        if isinstance(source, bytes):
            return source
        if not source.is_file():
            raise UnreadableError(name, "is not a file")
        return source.read_bytes()
    except OSError as error:
        raise UnreadableError(name, f"cannot be opened: {error.strerror or error}") from error


def read(name: str | Path, data: bytes | Path | None = None) -> Document:
    r"""Read one file, by its suffix.

    Args:
        name: What the document is called; its suffix says what kind it is.
        data: Its bytes, or where they are; None: the name is the path.

    Returns:
        The document. Its text is never empty, but for a Python file without docstrings.

    Raises:
        UnreadableError: With a sentence saying why: no such file, empty, too large, of a kind not read, encrypted,
            scanned, broken, or packed to unpack to too much.

    Example:
        >>> read("notes.md", b"# Title\r\n\r\nWords.").text
        '# Title\n\nWords.'
    """
    kind = SUFFIXES.get(Path(name).suffix.lower())
    if kind is None:
        raise UnreadableError(str(name), f"is of a kind that is not read; these are: {', '.join(SUFFIXES)}")
    content = _bytes(str(name), Path(name) if data is None else data)
    if not content:
        raise UnreadableError(str(name), "is empty: it has no bytes")
    module, function = _READERS[kind]
    reader = getattr(importlib.import_module(f"lsdr.genie.readers.{module}"), function)
    document: Document = reader(str(name), content)
    return document


def _walk(folder: Path, refused: list[Problem]) -> Iterable[Path]:
    inside = folder.resolve()
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for each in sorted(folders + files):
            path = Path(here) / each
            if each.startswith(".") or (path.suffix.lower() not in SUFFIXES and not path.is_symlink()):
                continue
            if path.is_symlink() and not path.resolve().is_relative_to(inside):
                refused.append(Problem(str(path), f"is a link out of {folder}: add what it points to by itself"))
            elif path.suffix.lower() in SUFFIXES and path.is_file():
                yield path


def expand(paths: Iterable[str | Path], refused: list[Problem] | None = None) -> list[Path]:
    """The files that are meant: files as they are, folders recursively.

    Of folders only files of the kinds that are read are taken, in the order of their names; hidden ones (a leading
    dot) are left out, folders that are links are not entered, and links out of the folder are refused.

    Args:
        paths: Files and folders; one that is not there is kept, for `read` to say so.
        refused: Links out of the folder are added to it.

    Returns:
        Each file once, in the order of `paths`.
    """
    refused = [] if refused is None else refused
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        found.update(dict.fromkeys(_walk(path, refused) if path.is_dir() else [path]))
    return list(found)

"""Python files: their docstrings, each under what it documents."""

import ast
import codecs
import io
import tokenize
import warnings

from lsdr.genie.document import Document
from lsdr.genie.limits import PYTHON_BYTES
from lsdr.genie.problem import UnreadableError
from lsdr.genie.readers.clean import clean
from lsdr.genie.readers.text import decode, read_text

_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _source(name: str, data: bytes) -> tuple[str, tuple[str, ...]]:
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        if codecs.lookup(encoding).name != "utf-8":  # the file says so in its first two lines
            return clean(data.decode(encoding)), ()
    except (SyntaxError, LookupError, UnicodeError):
        pass
    return decode(name, data)


def _kept(tree: ast.Module) -> set[int]:
    """The numbers of the lines of docstrings and of the signatures above them."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if not isinstance(node, _Documented) or ast.get_docstring(node, clean=False) is None:
            continue
        text = node.body[0]
        first = text.lineno if isinstance(node, ast.Module) else node.lineno
        lines.update(range(first, (text.end_lineno or text.lineno) + 1))
    return lines


def read_docstrings(name: str, data: bytes) -> Document:
    """A Python file with every line empty but those of docstrings and of the signatures they belong to.

    So a quotation and its line are the file's own. The file is parsed, never run. One that is not Python 3 is read
    as it is written.

    Raises:
        UnreadableError: If the bytes are no text, or there is none, or too much.
    """
    if len(data) > PYTHON_BYTES:
        raise UnreadableError(name, f"is too large: {len(data):,} bytes of Python, of at most {PYTHON_BYTES:,}")
    source, problems = _source(name, data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the file's own odd escapes
            # A form feed is a line's end to nobody but str.splitlines, so lines are cut at newlines alone.
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        plain = read_text(name, data, "python")
        what = f"line {error.lineno}" if isinstance(error, SyntaxError) else "nested too deep"
        return Document(
            name, "python", plain.text, problems=(*plain.problems, f"is not Python 3 ({what}): all of it was read")
        )
    kept = _kept(tree)
    if not kept:
        return Document(name, "python", "", problems=(*problems, "holds no docstrings"))
    lines = source.split("\n")
    text = "\n".join(line if number in kept else "" for number, line in enumerate(lines, 1))
    return Document(name, "python", f"{text.rstrip()}\n", problems=problems)

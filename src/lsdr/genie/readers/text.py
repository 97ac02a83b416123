"""Text of any encoding."""

import codecs
import io

from lsdr.genie.document import Document
from lsdr.genie.problem import UnreadableError
from lsdr.genie.readers.clean import clean

# The longer marks first: the UTF-32 one begins like the UTF-16 one.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# What a file begins with that is no text, whatever it is called.
_MAGIC = (
    (b"%PDF-", "a PDF"),
    (b"PK\x03\x04", "a ZIP archive (a .docx is one too)"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document"),
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x7fELF", "a program"),
    (b"SQLite format 3\x00", "an SQLite database"),
)
_SAMPLE = 1 << 16
_NAMED = 5
# Control characters that no text has: all but tab, newline, vertical tab, form feed, return and escape.
_CONTROL = bytes([*range(1, 9), *range(14, 27), *range(28, 32), 127])
_MOST_CONTROL = 0.02
_MOST_NUL = 0.1


def _wide(sample: bytes) -> str | None:
    """UTF-16 or UTF-32 without a mark, known by where its zero bytes are."""
    if len(sample) < 4 or 0 not in sample:
        return None
    zeros = [sample[k::4].count(0) / len(sample[k::4]) for k in range(4)]
    if min(zeros[2:]) > 0.9 and zeros[0] < 0.1:
        return "utf-32-le"
    if min(zeros[:2]) > 0.9 and zeros[3] < 0.1:
        return "utf-32-be"
    even, odd = (zeros[0] + zeros[2]) / 2, (zeros[1] + zeros[3]) / 2
    # Latin text: one of the two bytes is zero nearly always, the other never.
    if odd > 0.3 and even < 0.02:
        return "utf-16-le"
    if even > 0.3 and odd < 0.02:
        return "utf-16-be"
    return None


def _western(line: bytes) -> str:
    try:
        return line.decode("cp1252")
    except UnicodeDecodeError:  # five bytes have no meaning there; in Latin-1 each has one
        return line.decode("latin-1")


def _mixed(data: bytes) -> tuple[str, int, list[int]]:
    """Lines that are UTF-8 as UTF-8, the others as Windows-1252; how many the others are, and where the first are."""
    out, count, first = io.StringIO(newline=""), 0, []
    for number, line in enumerate(io.BytesIO(data), 1):
        try:
            out.write(line.decode("utf-8"))
        except UnicodeDecodeError:
            out.write(_western(line))
            count += 1
            if count <= _NAMED:
                first.append(number)
    return out.getvalue(), count, first


def decode(name: str, data: bytes) -> tuple[str, tuple[str, ...]]:
    """The text of bytes in an encoding found out, and what was not certain about it.

    A byte-order mark decides; else UTF-16 and UTF-32 are known by their zero bytes; else each line is UTF-8, or
    Windows-1252 where it cannot be (Latin-1 where it cannot be that either), so that files put together from both
    are read whole.

    Raises:
        UnreadableError: If the bytes are no text.
    """
    for magic, what in _MAGIC:
        if data.startswith(magic):
            raise UnreadableError(name, f"is not text: it is {what}; give the file its own suffix")
    sample = data[:_SAMPLE]
    mark, wide = next((each for each in _MARKS if data.startswith(each[0])), (b"", _wide(sample)))
    if wide is not None and wide != "utf-8":
        text = data[len(mark) :].decode(wide, errors="replace")
        lost = text.count("\ufffd")
        if lost > 0.1 * len(text) + 1:
            raise UnreadableError(name, f"is not text: it looks like {wide.upper()}, but {lost} characters are none")
        return clean(text), ((f"{lost} characters are damaged and shown as \ufffd",) if lost else ())
    control = len(sample) - len(sample.translate(None, _CONTROL))
    zeros = data.count(0)
    if control > _MOST_CONTROL * len(sample) or zeros > _MOST_NUL * len(data):
        raise UnreadableError(name, "is not text: it is full of control characters")
    problems: list[str] = []
    if zeros:
        problems.append(f"{zeros} NUL characters were left out")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text, count, lines = _mixed(data)
        first = ", ".join(map(str, lines)) + (" ..." if count > _NAMED else "")
        problems.append(
            f"{count} lines are not UTF-8 and were read as Windows-1252 (lines {first}): save the file as UTF-8 if "
            f"letters look wrong"
        )
    return clean(text), tuple(problems)


def read_text(name: str, data: bytes, kind: str = "text") -> Document:
    """A text or Markdown file as it is written: lines are the file's own.

    Raises:
        UnreadableError: If the bytes are no text, or there is none.
    """
    text, problems = decode(name, data)
    if not text.strip():
        raise UnreadableError(name, "holds no text: only blank lines and invisible characters")
    return Document(name, kind, text, problems=problems)

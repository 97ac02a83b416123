"""DOCX: the paragraphs, tables and notes of a Word document."""

import io
import zipfile
from typing import Any

from lsdr.genie.document import Document
from lsdr.genie.limits import DOCX_FILES, DOCX_RATIO, DOCX_UNPACKED_BYTES, DOCX_XML_BYTES, MAX_BYTES
from lsdr.genie.problem import UnreadableError
from lsdr.genie.readers.clean import clean

_OLD_OFFICE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_NOTES = (("footnotes", "Footnotes"), ("endnotes", "Endnotes"))
# A small file may pack well by chance.
_RATIO_FROM = 1024**2
# What is not in the text as it stands: deleted and moved words, fields' codes, and copies for older programs.
_LEFT_OUT = frozenset(
    [f"{_W}{tag}" for tag in ("del", "moveFrom", "delText", "instrText", "pPr", "rPr", "tblPr", "sectPr", "sdtPr")]
    + ["{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"]
)
_WRITTEN = {f"{_W}tab": "\t", f"{_W}br": "\n", f"{_W}cr": "\n", f"{_W}noBreakHyphen": "-"}


def _check(name: str, data: bytes) -> None:
    """Refuse what would unpack to too much, before anything is unpacked."""
    if data.startswith(_OLD_OFFICE):
        raise UnreadableError(
            name, "is encrypted, or of an older format (.doc): save it as .docx without a password and add it again"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = archive.infolist()
    except Exception as error:  # a damaged table of contents fails as whatever its bytes happen to mean
        raise UnreadableError(
            name, "is broken or not a Word document: it is no ZIP archive that can be read"
        ) from error
    unpacked = sum(each.file_size for each in files)
    if len(files) > DOCX_FILES:
        raise UnreadableError(name, f"holds {len(files):,} files, of at most {DOCX_FILES:,}")
    if unpacked > DOCX_UNPACKED_BYTES:
        raise UnreadableError(name, f"would unpack to {unpacked:,} bytes, of at most {DOCX_UNPACKED_BYTES:,}")
    # Files may share their packed bytes, so the whole is compared with the archive itself.
    if unpacked > _RATIO_FROM and unpacked > DOCX_RATIO * len(data):
        raise UnreadableError(
            name, f"would unpack to {unpacked / len(data):,.0f} times its size, of at most {DOCX_RATIO}: a ZIP bomb"
        )
    for each in files:
        if each.flag_bits & 1:
            raise UnreadableError(name, "is encrypted: save it without its password and add it again")
        if each.filename.lower().endswith((".xml", ".rels")) and each.file_size > DOCX_XML_BYTES:
            raise UnreadableError(
                name, f"is too large: {each.filename} has {each.file_size:,} bytes, of at most {DOCX_XML_BYTES:,}"
            )


def _hidden(run: Any) -> bool:
    mark = run.find(f"{_W}rPr/{_W}vanish")
    return mark is not None and mark.get(f"{_W}val") not in ("0", "false", "off")


def _inline(element: Any, notes: dict[str, str]) -> str:
    """The text of a paragraph; a note's number in brackets where it is called."""
    parts: list[str] = []
    stack = [element]
    while stack:
        node = stack.pop()
        if node.tag in _LEFT_OUT or (node.tag == f"{_W}r" and _hidden(node)):
            continue
        if node.tag == f"{_W}t":
            parts.append(node.text or "")
        elif node.tag in _WRITTEN:
            parts.append(_WRITTEN[node.tag])
        elif node.tag in (f"{_W}footnoteReference", f"{_W}endnoteReference"):
            key = f"{node.tag.removeprefix(_W)[:-9]}{node.get(f'{_W}id')}"
            parts.append(f"[{notes.setdefault(key, str(len(notes) + 1))}]")
        else:
            stack.extend(reversed(node))
    return "".join(parts)


def _blocks(element: Any, notes: dict[str, str]) -> list[str]:
    """Paragraphs and tables in their order: a row is a line, its cells parted by tabs."""
    blocks: list[str] = []
    stack = list(reversed(element))
    while stack:
        node = stack.pop()
        if node.tag == f"{_W}p":
            blocks.append(_inline(node, notes))
        elif node.tag == f"{_W}tbl":
            rows = [
                "\t".join(
                    " ".join(part for each in cell.iter(f"{_W}p") if (part := " ".join(_inline(each, notes).split())))
                    for cell in row.iterchildren(f"{_W}tc")
                )
                for row in node.iterchildren(f"{_W}tr")
            ]
            blocks.append("\n".join(rows))
        elif node.tag not in _LEFT_OUT:
            stack.extend(reversed(node))
    return blocks


def _note_blocks(document: Any, notes: dict[str, str]) -> list[str]:
    from docx.oxml.parser import parse_xml

    blocks: list[str] = []
    for kind, title in _NOTES:
        found: list[tuple[int, str]] = []
        for relation in document.part.rels.values():
            if relation.is_external or not relation.reltype.endswith(f"/{kind}"):
                continue
            for note in parse_xml(relation.target_part.blob):
                number = notes.get(f"{kind[:-1]}{note.get(f'{_W}id')}")
                if number is not None:  # the others are the lines that part notes from text
                    found.append((int(number), " ".join(" ".join(_blocks(note, {})).split())))
        if found:
            blocks += [title, *(f"[{number}] {text}" for number, text in sorted(found))]
    return blocks


def read_docx(name: str, data: bytes) -> Document:
    """A Word document: paragraphs with an empty line between, tables as lines of cells, notes at the end.

    Deleted and hidden words, comments, headers and footers are left out; nothing it links to is loaded. Lines count
    in this text: where a page ends is decided by the program that shows it.

    Raises:
        UnreadableError: If it is encrypted, broken, without text, or would unpack to too much.
    """
    _check(name, data)
    import docx

    try:
        document = docx.Document(io.BytesIO(data))
        notes: dict[str, str] = {}
        blocks = _blocks(document.element.body, notes)
        blocks += _note_blocks(document, notes)
    except Exception as error:  # damage comes to light anywhere in python-docx, as whatever is raised at the place
        raise UnreadableError(name, f"is broken or not a Word document ({type(error).__name__})") from error
    text = "\n\n".join(kept for block in blocks if (kept := clean(block).strip("\n")).strip())
    if not text:
        raise UnreadableError(name, "holds no text: pictures are not read")
    if len(text) > MAX_BYTES:
        raise UnreadableError(name, f"is too large: {len(text):,} characters, of at most {MAX_BYTES:,}")
    return Document(name, "docx", f"{text}\n")

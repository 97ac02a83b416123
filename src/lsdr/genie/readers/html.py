"""HTML: what a reader of the page would see, and nothing that it would load."""

import re
from typing import Any

from lsdr.genie.document import Document
from lsdr.genie.limits import HTML_BYTES
from lsdr.genie.problem import UnreadableError
from lsdr.genie.readers.clean import clean
from lsdr.genie.readers.text import decode

_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w-]{1,40})", re.I)
# XHTML may close these at once; HTML would read on to an end that never comes.
_CLOSED = re.compile(r"<(script|style|title|textarea|iframe|noscript)\b([^<>]*)/>", re.I)
_NOT_TEXT = ("script", "style", "noscript", "noframes", "template", "head", "title", "meta", "link", "base", "datalist")
_LOADED = ("iframe", "frame", "object", "embed", "applet", "canvas", "audio", "video", "svg", "select", "textarea")
_UNSEEN = frozenset((*_NOT_TEXT, *_LOADED, "annotation", "annotation-xml"))
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden|(?:font-size|opacity)\s*:\s*0(?![.\d]*[1-9])", re.I)
# Lines of their own, and paragraphs with an empty line around them.
_PARTS = ("address", "article", "aside", "body", "footer", "form", "header", "main", "nav", "section")
_LINES = frozenset((*_PARTS, "div", "tr", "li", "dt", "dd", "caption"))
_LISTS = ("ul", "ol", "dl", "table", "figure", "figcaption", "fieldset", "details", "summary")
_PARAGRAPHS = frozenset((*_LISTS, "p", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "blockquote", "pre"))
_CELLS = frozenset(("td", "th"))
# Pages nested deeper are refused: a tree 200,000 elements deep took minutes to walk, and browsers stop at 512. The
# elements left out of the count have no end, or end where the next one begins.
_DEEPEST = 3000
_TAGS = re.compile(
    r"<(/?)(?!(?:area|base|br|col|embed|hr|img|input|link|meta|source|track|wbr|p|li|dt|dd|t[rdh]|option|tbody|thead|"
    r"tfoot|colgroup)\b)[a-z][^<>/]*(?:/(?!>)[^<>/]*)*(/?)>?",
    re.I,
)
_RAW = re.compile(r"<!--|<script\b|<style\b", re.I)
_RAW_ENDS = {"<!--": re.compile("-->"), "<script": re.compile("</script", re.I), "<style": re.compile("</style", re.I)}
_SPACES = re.compile(r"[ \t\n\f\r]+")


class _Writer:
    """Puts text together as a browser lays it out: spaces run together, blocks on lines of their own."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.lines = 2  # newlines at the end; a text begins as if after an empty line
        self.space = ""

    def block(self, lines: int) -> None:
        if lines:
            self.space = ""
        if self.lines < lines:
            self.parts.append("\n" * (lines - self.lines))
            self.lines = lines

    def write(self, text: str) -> None:
        words = _SPACES.sub(" ", text)
        if words.startswith(" "):
            self.space = self.space or " "
            words = words[1:]
        if not words:
            return
        self.put((self.space if not self.lines else "") + words.rstrip(" "))
        self.space = " " if words.endswith(" ") else ""

    def put(self, text: str) -> None:
        self.parts.append(text)
        self.lines = len(text) - len(text.rstrip("\n"))


def _seen(node: Any) -> bool:
    if node.tag in _UNSEEN:
        return False
    attributes = node.attributes
    return not attributes or ("hidden" not in attributes and not _HIDDEN.search(attributes.get("style") or ""))


def _write(root: Any) -> str:
    """The tree's text, without recursion: hostile pages nest a hundred thousand deep."""
    out, pre = _Writer(), 0
    stack: list[Any] = [root]
    while stack:
        node = stack.pop()
        if not isinstance(node, str) and node is not root and node.next is not None:
            stack.append(node.next)
        tag = node if isinstance(node, str) else node.tag
        lines = 2 if tag in _PARAGRAPHS else 1 if tag in _LINES else 0
        if isinstance(node, str):  # the end of an element
            pre -= tag == "pre"
            if lines:
                out.block(lines)
            elif tag in _CELLS:
                out.space = "\t"
        elif tag == "-text":
            text = node.text_content or ""
            if pre and text:
                out.put(text)
            else:
                out.write(text)
        elif tag == "br":
            out.put("\n")
            out.space = ""
        elif node.is_element_node and _seen(node):
            pre += tag == "pre"
            out.block(lines)
            stack.append(tag)
            if node.child is not None:
                stack.append(node.child)
    return "".join(out.parts)


def _elements(source: str) -> str:
    """The page without comments, scripts and styles, whose text may look like tags."""
    parts, at = [], 0
    while start := _RAW.search(source, at):
        parts.append(source[at : start.start()])
        end = _RAW_ENDS[start[0].lower()].search(source, start.end())
        if end is None:
            return "".join(parts)
        at = end.end()
    return "".join([*parts, source[at:]])


def _depth(source: str) -> int:
    """How deep the elements nest at most, nearly: from the tags alone."""
    depth = deepest = 0
    for tag in _TAGS.finditer(_elements(source)):
        if tag[1]:
            depth = max(0, depth - 1)
        elif not tag[2]:
            depth += 1
            deepest = max(deepest, depth)
    return deepest


def _decode(name: str, data: bytes) -> tuple[str, tuple[str, ...]]:
    """The page's own word for its encoding, where it has one and its bytes agree; else as any text."""
    declared = _CHARSET.search(data[:4096])
    if declared and not data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        encoding = declared[1].decode("ascii").lower()
        # Browsers read both as Windows-1252, and a page that is read as ASCII up to here is not UTF-16.
        encoding = {"iso-8859-1": "cp1252", "ascii": "cp1252", "us-ascii": "cp1252"}.get(encoding, encoding)
        if not encoding.startswith("utf"):
            try:
                return data.decode(encoding), ()
            except (LookupError, UnicodeError):
                pass
    return decode(name, data)


def read_html(name: str, data: bytes) -> Document:
    """A page's text: scripts, styles, comments, forms' values and what is hidden are left out; nothing is loaded.

    Blocks are lines of their own, cells are parted by tabs, preformatted text keeps its spaces. Lines count in this
    text. The title comes first unless a heading repeats it.

    Raises:
        UnreadableError: If the bytes are no text, or nothing of it can be seen.
    """
    from selectolax.lexbor import LexborHTMLParser

    if len(data) > HTML_BYTES:
        raise UnreadableError(name, f"is too large: {len(data):,} bytes of HTML, of at most {HTML_BYTES:,}")
    source, problems = _decode(name, data)
    if source.lstrip().startswith("<?xml") or name.lower().endswith(".xhtml"):
        source = _CLOSED.sub(r"<\1\2></\1>", source)
    if _depth(source) > _DEEPEST:
        raise UnreadableError(name, f"nests its elements more than {_DEEPEST:,} deep, which no page for readers does")
    tree = LexborHTMLParser(source)
    body = clean(_write(tree.body)).strip() if tree.body is not None else ""
    heading = tree.css_first("head > title")
    title = " ".join(clean(heading.text() or "").split()) if heading is not None else ""
    if not body:
        raise UnreadableError(name, "holds no text that can be seen: a page may be one that scripts would fill")
    text = body if not title or title in body[:1000] else f"{title}\n\n{body}"
    return Document(name, "html", f"{text}\n", problems=problems)

"""Words a typesetter cut at the end of a line, put together again."""

import re
from collections import Counter

# PDFium gives this character for a hyphen at a line's end, and swallows the line's end with it.
_SOFT = "\ufffe"
_CUT = re.compile(rf"(?<![\w-])(?P<word>[\w-]*(?:{_SOFT}[\w-]*)+)(?P<rest>[^\s{_SOFT}]*)(?P<space>[ \t]?)")
_WORD = re.compile(r"[\w-]+")


def _hyphen(left: str, right: str, words: Counter[str]) -> str:
    """The hyphen, if the word is written with one; nothing, if it only marked the line's end.

    The document itself decides, by how it writes the word elsewhere; else two parts that are words of their own, a
    capital or a digit after the hyphen, and another hyphen before it speak for keeping it.
    """
    start, end = left.casefold(), right.casefold()
    joined, hyphenated = words[start + end], words[f"{start}-{end}"]
    if joined or hyphenated:
        return "-" if hyphenated > joined else ""
    own_words = words[start] > 0 and words[end] > 0
    return "-" if own_words or "-" in left or not right or not right[0].islower() else ""


def join_cut_words(pages: list[str]) -> list[str]:
    r"""The pages with cut words whole, each on the line where it began, so that lines keep their numbers.

    Example:
        >>> join_cut_words(["A regular\ufffeization of the layer\ufffewise", "layer-wise\nnets"])
        ['A regularization\nof the layer-wise\n', 'layer-wise\nnets']
    """
    if not any(_SOFT in page for page in pages):
        return pages
    # The parts of cut words are no words of their own.
    words = Counter(word.casefold() for page in pages for word in _WORD.findall(_CUT.sub(" ", page)))

    def whole(match: re.Match[str]) -> str:
        first, *others = match["word"].split(_SOFT)
        word = first
        for other in others:
            word += _hyphen(word, other, words) + other
        # Each hyphen swallowed one line's end: it comes after the word, in place of the space there.
        return f"{word}{match['rest']}" + "\n" * len(others)

    return [_CUT.sub(whole, page) if _SOFT in page else page for page in pages]

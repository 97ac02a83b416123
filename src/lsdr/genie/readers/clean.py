"""Text without what cannot be seen."""

import re

# Characters without a width that change how others are read, or hide: NUL, the soft hyphen, zero-width space and
# joiners, marks and overrides of direction, invisible operators, byte-order and annotation marks, and the tags in
# which instructions to a model can be written unseen. FTS5 would cut words at them, and a reader could not see why.
_INVISIBLE = re.compile(
    "[\x00\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]+"
)


def clean(text: str) -> str:
    r"""The text with newlines as ``\n`` and without invisible characters; nothing else is changed.

    Cost: one pass; text that needs no change is not copied.

    Example:
        >>> clean("\ufeffzero\u200bwidth\r\nand a\x00 line")
        'zerowidth\nand a line'
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.isascii():
        return text.replace("\x00", "")
    return _INVISIBLE.sub("", text)

"""Whether the letters of a short form are those of its long form."""

import re

_LEFT_OUT = {
    "a",
    "an",
    "and",
    "as",
    "at",
    "by",
    "de",
    "for",
    "from",
    "in",
    "la",
    "of",
    "on",
    "or",
    "per",
    "the",
    "to",
    "via",
}
_PART = re.compile(r"[^\W_]+")


def initials_match(short: str, long: str) -> bool:
    """Whether a short form is made of the initials of the long form's words, in order and with none left over.

    Articles, prepositions and conjunctions may give their initial or not; the parts of a hyphenated word may give one
    initial together or one each; a word of digits gives all of them; a plural's final s is not an initial.

    Example:
        >>> initials_match("LSDR", "layer-wise spectral decorrelation regularization")
        True
        >>> initials_match("LSDR", "Layer-wise Spectral Normalization for Residual Networks")
        False
        >>> initials_match("GANs", "generative adversarial networks"), initials_match("DoD", "Department of Defense")
        (True, True)
    """
    if re.fullmatch(r".*[A-Z0-9]s", short):
        short = short[:-1]
    wanted = "".join(character for character in short.casefold() if character.isalnum())
    if not wanted:
        return False
    reached = {0}
    for word in long.casefold().split():
        parts = _PART.findall(word)
        if not parts:
            continue
        gives = {_initial(parts[0]), "".join(map(_initial, parts))}
        if word in _LEFT_OUT:
            gives.add("")
        reached = {at + len(given) for at in reached for given in gives if wanted.startswith(given, at)}
        if not reached:
            return False
    return len(wanted) in reached


def _initial(part: str) -> str:
    return part if part.isdigit() else part[0]


def letters_fit(short: str, text: str) -> int | None:
    """Where the shortest long form starts that ends where the text ends, by the source's letter match; else None.

    From the right: each letter or digit of the short form takes the nearest equal one on the left of what the last
    took, and the first one must start a word.

    Source: Schwartz and Hearst (2003), figure 1.

    Example:
        >>> letters_fit("HSF", "the heat shock transcription factor"), letters_fit("HSF", "the shock factor")
        (4, None)
    """
    lower = text.casefold()
    if len(lower) != len(text):
        lower = text.lower() if len(text.lower()) == len(text) else text
    at = len(lower)
    letters = [character for character in short.lower() if character.isalnum()]
    for number in range(len(letters) - 1, -1, -1):
        at = lower.rfind(letters[number], 0, at)
        while number == 0 and at > 0 and lower[at - 1].isalnum():
            at = lower.rfind(letters[number], 0, at)
        if at < 0:
            return None
    space = max(lower.rfind(" ", 0, at), lower.rfind("\n", 0, at))
    return space + 1

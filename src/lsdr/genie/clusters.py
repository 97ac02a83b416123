"""Which expansions are the same one, spelt differently."""

import re

_LEFT_OUT = frozenset(["a", "an", "the", "of", "for", "in", "on", "by", "to", "and", "with", "from", "at"])
_HYPHEN = re.compile(r"(?<=\w)[-‐‑](?=\w)")
_WORD = re.compile(r"[^\W_]+")
_ENDINGS = ("izations", "ization", "ations", "ation", "ators", "ator", "ings", "ing", "ed", "s")


def stem(word: str) -> str:
    """A word without its ending, British spelling made American; crude, and the same for both sides of a comparison.

    Example:
        >>> stem("regularisation"), stem("Regularizing"), stem("networks"), stem("colours")
        ('regular', 'regular', 'network', 'color')
    """
    word = word.casefold()
    word = re.sub(r"is(?=(?:e|ed|es|ing|ation|ations)$)", "iz", word) if len(word) > 5 else word
    word = re.sub(r"(?<=[a-z]{2})our(?=s?$)", "or", word)
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 4 and not word.endswith("ss"):
            word = word[: -len(ending)]
            break
    if len(word) > 5:
        word = re.sub(r"(?:iz|e|y|ie)$", "", word)
    return word


def stems(text: str) -> list[str]:
    """The stems of a text's words, in order, hyphens closed up, articles and prepositions left out.

    Example:
        >>> stems("Layer-wise normalisation of the weights")
        ['layerwiz', 'normal', 'weight']
    """
    return [stem(word) for word in _words(text)]


def same_expansion(first: str, second: str) -> bool:
    """Whether two expansions differ in spelling alone: capitals, hyphens, endings, articles, British spelling, a typo.

    Word by word, and every word has to agree: "layer-wise spectral decorrelation regularization" and "layer-wise
    spectral decomposition regularization" have the same initials and share three words of four, and are two meanings.
    So a share of common words merges nothing.

    Example:
        >>> same_expansion("Layer-wise Spectral Normalization", "layerwise spectral normalisations")
        True
        >>> same_expansion("layer-wise spectral decorrelation", "layer-wise spectral decomposition")
        False
    """
    return any(
        len(left) == len(right) and all(_agree(one, other) for one, other in zip(left, right, strict=True))
        for left in (_words(first), _words(_HYPHEN.sub(" ", first)))
        for right in (_words(second), _words(_HYPHEN.sub(" ", second)))
    )


def _words(text: str) -> list[str]:
    words = (match.group().casefold() for match in _WORD.finditer(_HYPHEN.sub("", text)))
    return [word for word in words if word not in _LEFT_OUT]


def _agree(one: str, other: str) -> bool:
    """Of one stem, or long words of which one has one letter more, less, changed or swapped."""
    if stem(one) == stem(other):
        return True
    if min(len(one), len(other)) < 6 or abs(len(one) - len(other)) > 1 or one[0] != other[0]:
        return False
    at = next((place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), len(one))
    rests = {(one[at + 1 :], other[at:]), (one[at:], other[at + 1 :]), (one[at + 1 :], other[at + 1 :])}
    swapped = one[at : at + 2] == other[at : at + 2][::-1] and one[at + 2 :] == other[at + 2 :]
    return swapped or any(left == right for left, right in rests)

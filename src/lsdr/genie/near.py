"""Words that are spelt almost alike."""

from collections.abc import Iterable
from dataclasses import dataclass

from lsdr.genie.passage import Passage


@dataclass(frozen=True)
class Near:
    """A word of the documents that looks like another.

    Args:
        term: The word, as it is written in `passage`.
        count: In how many passages it is.
        distance: How many letters are wrong, missing, too many, or swapped with their neighbour.
        passage: The first passage it is in.
    """

    term: str
    count: int
    distance: int
    passage: Passage


def distance(one: str, other: str) -> int:
    """Insertions, deletions, substitutions and swaps of neighbours that lead from one word to the other.

    The unrestricted Damerau-Levenshtein distance, a metric. Source: Lowrance and Wagner, "An extension of the
    string-to-string correction problem", J. ACM 22 (1975).

    Example:
        >>> distance("lsdr", "ldsr"), distance("ca", "abc")
        (1, 2)
    """
    far = len(one) + len(other)
    # Row and column -1 are kept at index 0, 0 at index 1.
    table = [[far] * (len(other) + 2) for _ in range(len(one) + 2)]
    for row in range(len(one) + 1):
        table[row + 1][1] = row
    for column in range(len(other) + 1):
        table[1][column + 1] = column
    seen: dict[str, int] = {}
    for row, letter in enumerate(one, start=1):
        match = 0
        for column, against in enumerate(other, start=1):
            above, same = seen.get(against, 0), match
            if letter == against:
                match = column
            table[row + 1][column + 1] = min(
                table[row][column] + (letter != against),
                table[row + 1][column] + 1,
                table[row][column + 1] + 1,
                table[above][same] + (row - above - 1) + 1 + (column - same - 1),
            )
        seen[letter] = row
    return table[-1][-1]


def letters(word: str) -> int:
    """Which letters a word has, as bits: words two edits apart differ in at most four."""
    bits = 0
    for letter in word:
        bits |= 1 << (ord(letter) & 63)
    return bits


def furthest(word: str) -> int:
    """How many edits away a word still looks alike: one for up to four letters, two for longer ones."""
    return 0 if len(word) < 2 else 1 if len(word) < 5 else 2


def alike(word: str, vocabulary: Iterable[tuple[str, int, int]]) -> list[tuple[int, str, int]]:
    """The words of a vocabulary near one word: distance, word, count; itself left out.

    Args:
        word: Case-folded.
        vocabulary: Words with their counts and `letters`.
    """
    limit, bits, length = furthest(word), letters(word), len(word)
    found = []
    for other, count, others in vocabulary:
        if (bits ^ others).bit_count() > 2 * limit or abs(len(other) - length) > limit or other == word:
            continue
        away = distance(word, other)
        if away <= limit:
            found.append((away, other, count))
    return found

from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsdr.genie.index import Index
from lsdr.genie.near import alike, distance, letters

WORDS = st.text("abcd", max_size=6)


@pytest.mark.parametrize(
    ("one", "other", "edits"),
    [("lsdr", "ldsr", 1), ("ca", "abc", 2), ("kitten", "sitting", 3), ("", "ab", 2), ("a", "a", 0), ("ab", "cd", 2)],
)
def test_distance(one, other, edits):
    assert distance(one, other) == distance(other, one) == edits


@settings(max_examples=150, deadline=None)
@given(WORDS, WORDS, WORDS)
def test_distance_is_a_metric_no_larger_than_levenshteins(one, other, third):
    @lru_cache(None)
    def levenshtein(i, j):
        if not i or not j:
            return i + j
        return min(
            levenshtein(i - 1, j) + 1,
            levenshtein(i, j - 1) + 1,
            levenshtein(i - 1, j - 1) + (one[i - 1] != other[j - 1]),
        )

    assert distance(one, other) <= levenshtein(len(one), len(other))
    assert (distance(one, other) == 0) == (one == other)
    assert distance(one, other) <= distance(one, third) + distance(third, other)


@settings(max_examples=50, deadline=None)
@given(st.text("abcdefgh", min_size=2, max_size=7), st.lists(st.text("abcdefgh", min_size=1, max_size=8), max_size=30))
def test_nothing_near_is_left_out(word, vocabulary):
    limit = 1 if len(word) < 5 else 2
    expected = [(distance(word, each), each, 1) for each in vocabulary if 0 < distance(word, each) <= limit]
    assert alike(word, [(each, 1, letters(each)) for each in vocabulary]) == expected


def test_the_original_question(tmp_path):
    text = (
        b"LDSR is an advanced yet slow upscaler.\n\n"
        + b"words " * 40
        + b"\n\nA loser has lsd; the ldr is hdr, lssr too."
    )
    with Index.open(tmp_path / "index.sqlite") as index:
        index.add_bytes("stable.txt", text)
        first, *others = index.near("LSDR")
        assert (first.term, first.count, first.distance, first.passage.line) == ("LDSR", 1, 1, 1)
        assert [each.term for each in others] == ["ldr", "lsd", "lssr"]
        assert index.near("lsdr", limit=1) == [first]
        assert index.near("x") == index.near("") == []
        assert index.near("l.s.d.r")[0] == first
        index.add_bytes("more.txt", b"LSDR itself, and lsdt.")
        assert [each.term for each in index.near("LSDR")] == ["LDSR", "ldr", "lsd", "lsdt", "lssr"]


def test_of_long_words_the_commoner_one_comes_first(tmp_path):
    with Index.open(tmp_path / "index.sqlite") as index:
        index.add_bytes("one.txt", b"diffusion diffuzion")
        index.add_bytes("two.txt", b"diffusion")
        assert [(each.term, each.count) for each in index.near("diffuxion")] == [("diffusion", 2), ("diffuzion", 1)]
        assert index.near("diffusoin")[0].distance == 1

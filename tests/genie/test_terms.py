import sqlite3

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lsdr.genie.terms import STOPWORDS, TOKENIZER, content_terms, term_spans, terms


def index_terms(text):
    connection = sqlite3.connect(":memory:")
    connection.execute(f"CREATE VIRTUAL TABLE t USING fts5(x, tokenize='{TOKENIZER}')")
    connection.execute("CREATE VIRTUAL TABLE v USING fts5vocab(t, instance)")
    connection.execute("INSERT INTO t VALUES (?)", (text,))
    found = [term for (term,) in connection.execute("SELECT term FROM v ORDER BY offset")]
    connection.close()
    return found


# No surrogates (they cannot be stored) and no NUL (readers remove it).
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=40)


@settings(max_examples=150, deadline=None)
@given(TEXTS)
@example("E\u0301cole, e\u0301, \u0301start \u00c9COLE na\u00efve")
@example("Straße İstanbul ΣΊΣΥΦΟΣ שלום مرحبا 数据库 ½ x² a_b")
def test_terms_are_those_of_the_full_text_index(text):
    assert terms(text) == index_terms(text)
    assert [word for _, _, word in term_spans(text)] == terms(text)


@settings(max_examples=50, deadline=None)
@given(TEXTS)
def test_spans_are_in_order_and_hold_their_word(text):
    last = 0
    for start, end, word in term_spans(text):
        assert last <= start < end <= len(text)
        assert terms(text[start:end]) == [word]
        last = end


@settings(max_examples=50, deadline=None)
@given(TEXTS)
def test_a_term_is_a_term_of_itself(text):
    for term in terms(text):
        assert terms(term) == [term]


def test_surrogates_part_words():
    assert terms("a\ud800b") == ["a", "b"]


@pytest.mark.parametrize(
    ("question", "content"),
    [
        ("What's LSDR, and how does LSDR help?", ["lsdr", "help"]),
        ("explain lsdr in stable diffusion", ["lsdr", "stable", "diffusion"]),
        ("who are you?", []),
    ],
)
def test_content_terms(question, content):
    assert content_terms(question) == content


def test_stopwords_are_terms():
    assert all(terms(word) == [word] for word in STOPWORDS)

import itertools
import math
import random

import pytest

from lsdr.genie import search as module
from lsdr.genie.index import Index
from lsdr.genie.terms import terms

RNG = random.Random(5)
VOCABULARY = [f"w{k}" for k in range(60)]
TEXTS = {
    f"{k}.txt": " ".join(RNG.choices(VOCABULARY, weights=[1 / (j + 1) for j in range(60)], k=RNG.randint(5, 90)))
    for k in range(80)
}


def filled(path, names):
    index = Index.open(path)
    for name in names:
        index.add_bytes(name, TEXTS[name].encode())
    return index


def bm25(question, weight):
    documents = {name: terms(text) for name, text in TEXTS.items()}
    average = sum(map(len, documents.values())) / len(documents)
    scores = dict.fromkeys(documents, 0.0)
    for word in terms(question):
        holding = sum(word in each for each in documents.values())
        for name, each in documents.items():
            count = each.count(word)
            saturated = count * 2.2 / (count + 1.2 * (0.25 + 0.75 * len(each) / average))
            scores[name] += weight(len(documents), holding) * saturated
    return {name: round(score, 6) for name, score in scores.items() if score > 0}


def lucene(total, holding):
    return math.log(1 + (total - holding + 0.5) / (holding + 0.5))


def classic(total, holding):
    return max(1e-6, math.log((total - holding + 0.5) / (holding + 0.5)))


@pytest.mark.parametrize(("few", "weight"), [(2000, lucene), (0, classic)])
@pytest.mark.parametrize("question", ["w3 w17", "w0 w1 w2", "w40", "W5, w55; w12?"])
def test_scores_are_bm25(tmp_path, monkeypatch, few, weight, question):
    monkeypatch.setattr(module, "_FEW", few)
    with filled(tmp_path / "index.sqlite", TEXTS) as index:
        found = index.search(question, 100)
    expected = bm25(question, weight)
    assert len(found) == len(expected) > 0
    assert {each.document: each.score for each in found} == pytest.approx(expected, abs=2e-6)
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
    assert all(each.quote == TEXTS[each.document][each.start : each.end] for each in found)


@pytest.mark.parametrize("few", [2000, 0])
def test_results_do_not_depend_on_the_order_of_adding(tmp_path, monkeypatch, few):
    monkeypatch.setattr(module, "_FEW", few)
    monkeypatch.setattr(module, "_BEYOND", 2)
    copies = {f"copy{k}.txt": b"LSDR is not in the documents." for k in range(9)}
    copies |= {f"other{k}.txt": b"LSDR is now in the documents." for k in range(9)}
    found = []
    for number, order in enumerate([sorted(copies), sorted(copies, reverse=True), RNG.sample(sorted(copies), 18)]):
        with Index.open(tmp_path / f"{number}.sqlite") as index:
            for name in order:
                index.add_bytes(name, b"something else that was there before")
            for name in order[::-1]:
                index.add_bytes(name, copies[name])
            found.append([index.search("lsdr documents", limit) for limit in (5, 11, 18, 50)])
            assert index.corpus_hash()
    assert found[0] == found[1] == found[2]
    assert [len(each) for each in found[0]] == [5, 11, 18, 18]
    for shorter, longer in itertools.pairwise(found[0]):
        assert longer[: len(shorter)] == shorter
    assert len({each.quote for each in found[0][0]}) == 1  # level ones are in the order of their hash, then name
    assert [each.document for each in found[0][0]] == sorted(each.document for each in found[0][0])


def test_only_some_documents(tmp_path, monkeypatch):
    with filled(tmp_path / "index.sqlite", TEXTS) as index:
        for few in (2000, 0):
            monkeypatch.setattr(module, "_FEW", few)
            everywhere = index.search("w3 w17", 100)
            some = {each.document for each in everywhere[::3]}
            expected = [each for each in everywhere if each.document in some]
            assert index.search("w3 w17", 100, documents=some) == expected
            assert index.search("w3 w17", documents=[]) == index.search("w3 w17", documents=["none.txt"]) == []


@pytest.mark.parametrize(
    "question",
    ["", "   ", '"', "LSDR (x)", "a AND", "NOT", "w3*", "quote:w3", "^w3", "{w3 w1}: x", "NEAR(w3, 2)", "'; --"],
)
def test_nothing_in_a_question_is_an_operator(tmp_path, question):
    with filled(tmp_path / "index.sqlite", ["0.txt"]) as index:
        index.search(question)
        index.count(question)
        index.near(question)
        index.containing(question)


def test_words_that_say_nothing_are_searched_for_when_there_are_no_others(tmp_path):
    with Index.open(tmp_path / "index.sqlite") as index:
        index.add_bytes("hamlet.txt", b"To be or not to be.")
        index.add_bytes("other.txt", b"A question of noise.")
        assert [each.document for each in index.search("to be or not to be")] == ["hamlet.txt"]
        assert [each.document for each in index.search("what is the noise to be")] == ["other.txt"]
        assert index.search("noise", 0) == []
        assert index.search("noise " + " ".join(f"x{k}" for k in range(5000)))[0].document == "other.txt"

import json

import pytest

from lsdr.genie.audit import audit
from lsdr.genie.document import Document
from lsdr.genie.index import Index
from lsdr.genie.own import own_documents
from lsdr.genie.senses import _PAGES, find_senses, senses_of_document
from lsdr.genie.transcript import Conversation, Turn, read_transcript, write_transcript

MEANINGS = (
    ("Layer-wise Spectral Normalization for Residual Networks", False),
    ("Layer-wise Spectral Discriminator Regularization", True),
    ("layer-wise spectral decorrelation regularization", True),
    ("Layer-wise Spectral Decomposition Regularization", True),
    ("Linear State Drift Rate", True),
    ("Least Squares Difference Reduction", True),
    ("Large Scale Data Representation", True),
)
SMALL = (
    "LSDR works by making every eigenvalue of the process small and keeping each one inside a narrow band around zero."
)
ROOTS = "LSDR slows the time scales down by taking square roots of Hessian entries of an operator that acts on images."


def transcript(answers, question="explain lsdr"):
    return write_transcript(Conversation(tuple(Turn(question, answer) for answer in answers)))


SEVEN = transcript([f"**LSDR**\n\nLSDR ({long}) is a technique. It helps a lot of networks." for long, _ in MEANINGS])


@pytest.fixture
def index(tmp_path):
    with Index.open(tmp_path / "index.sqlite") as opened:
        yield opened


def add(index, **texts):
    for name, text in texts.items():
        index.add_bytes(f"{name}.txt", text.encode())


def test_seven_answers_have_seven_senses_and_no_source(index):
    add(index, talk=SEVEN)
    found = find_senses(index, "lsdr")
    assert [(sense.term, sense.expansion, sense.initials_match) for sense in found] == [
        ("LSDR", *one) for one in MEANINGS
    ]
    for sense in found:
        assert sense.sources == ()
        (said,) = sense.said
        assert said.quote == SEVEN[said.start : said.end] == index.text("talk.txt")[said.start : said.end]
        assert said.line == SEVEN.count("\n", 0, said.start) + 1
        assert sense.expansion in said.quote


def test_a_document_that_says_it_is_a_source(index):
    add(
        index, talk=SEVEN, paper="We use large-scale data representations (LSDRs). Nothing else.", other="No LSDR here."
    )
    first, *rest = find_senses(index, "LSDR")
    assert [passage.document for passage in first.sources] == ["paper.txt"]
    assert [passage.document for passage in first.said] == ["paper.txt", "talk.txt"]
    assert first.initials_match
    assert len(rest) == 6
    assert not any(sense.sources for sense in rest)


def test_senses_of_most_documents_first_whatever_the_order_of_adding(index, tmp_path):
    texts = {
        "a": "LSDR (Least Squares Difference Reduction) is old.",
        "b": "Large Scale Data Representation (LSDR) is new.",
        "c": "LSDR stands for large scale data representation.",
    }
    add(index, **texts)
    found = find_senses(index, "Lsdr")
    assert [(sense.expansion, len(sense.sources)) for sense in found] == [
        ("Large Scale Data Representation", 2),
        ("Least Squares Difference Reduction", 1),
    ]
    with Index.open(tmp_path / "other.sqlite") as other:
        add(other, **dict(reversed(texts.items())))
        assert [sense.expansion for sense in find_senses(other, "Lsdr")] == [sense.expansion for sense in found]
    assert find_senses(index, "unheard") == []


def test_one_expansion_of_two_accounts_is_two_senses_in_a_transcript(index):
    lead = "LSDR (Layer-wise Spectral Decomposition Regularization) is a technique. "
    add(index, talk=transcript([lead + SMALL, lead + ROOTS, lead + SMALL]))
    found = find_senses(index, "lsdr")
    assert [sense.account for sense in found] == [SMALL, ROOTS]
    assert [len(sense.said) for sense in found] == [2, 1]
    assert [sense.page for sense in found] == ["lsdr/how-to/spectral-decomposition.md", "lsdr/how-to/operator.md"]
    # In a document, or for a term that was not asked about, one expansion is one sense.
    text = transcript([lead + SMALL, lead + ROOTS], question="what is new?")
    assert len(senses_of_document(Document("talk", "text", text))) == 1
    assert len(senses_of_document(Document("paper", "text", f"{lead}{SMALL}\n\n{lead}{ROOTS}"))) == 1


def test_each_meaning_that_is_built_has_its_page():
    pages = {sense.expansion: sense.page for sense in senses_of_document(Document("talk", "text", SEVEN))}
    assert pages["Least Squares Difference Reduction"] == "lsdr/how-to/reduce.md"
    assert pages["Linear State Drift Rate"] is None
    assert sum(page is None for page in pages.values()) == 1
    for _, page in _PAGES:
        assert (own_documents() / page.removeprefix("lsdr/")).is_file()


def test_an_audit_lists_what_is_wrong(index):
    add(
        index,
        talk=SEVEN,
        paper="Water boils at 100 degrees Celsius at sea level. LSDR (Least Squares Difference Reduction).",
    )
    conversation = read_transcript(
        SEVEN
        + transcript(["Yes.", "Yes. "], "same?")
        + transcript(
            ["Water boils at 100 degrees Celsius at sea level.", "Water boils at 90 degrees Celsius at sea level."]
        )
    )
    found = audit(conversation, index)
    assert [(one.question, one.turns, one.answers) for one in found.repeated] == [
        ("explain lsdr", (*range(1, 8), 10, 11), 9)
    ]
    (disputed,) = found.disputed
    assert len(disputed.senses) == 7
    assert [len(sense.sources) for sense in disputed.senses] == [0, 0, 0, 0, 0, 1, 0]
    assert [(one.kind, [side.quote for side in one.sides]) for one in found.conflicts] == [
        ("number", [f"Water boils at {degrees} degrees Celsius at sea level." for degrees in (100, 90)])
    ]
    wrong = [one for one in found.unsupported if "boils" in one.claim.quote]
    assert [(one.turn, one.closest.document) for one in wrong] == [(11, "paper.txt")]
    text = write_transcript(conversation)
    assert all(text[one.claim.start : one.claim.end] == one.claim.quote for one in found.unsupported)
    # Supported: the true temperature, and the one sense that the paper gives.
    assert (found.turns, found.claims) == (11, len(found.unsupported) + 2)
    assert json.loads(json.dumps(found.to_json()))["claims"] == found.claims
    assert "LSDR has 7 senses; 6 without a source" in found.to_text()


def test_an_audit_without_documents(index):
    found = audit(read_transcript(SEVEN), index)
    assert len(found.unsupported) == found.claims > 0
    assert "none has a source" in found.to_text()
    assert audit(read_transcript(""), index).claims == 0

import json
from pathlib import Path

import pytest

from lsdr.genie import ask as ask_module
from lsdr.genie.answer import Answer, Sentence
from lsdr.genie.ask import ask
from lsdr.genie.chat import Chat, understand
from lsdr.genie.index import Index
from lsdr.genie.passage import Passage
from lsdr.genie.summary import summarize
from lsdr.genie.terms import terms
from lsdr.genie.verify import exact, verify

STABLE = """# Models

The web page has an img2img tab and a checkpoint merger.

LDSR is an advanced yet slow upscaler, its model and config can be found here.

Stable diffusion draws images from text. It removes noise step by step with a network that was trained on pictures.

# Sampling

The sampler Euler takes 20 steps. Each of the steps predicts the noise that remains in the latent image.
"""

SPECTRA = """# Spectral normalization

Spectral normalization divides each weight matrix by its largest singular value, which power iteration estimates.
It was published in 2018 by Miyato for the discriminator of a generative adversarial network.

# Weight decay

Weight decay shrinks every weight by a constant factor after each step of the optimizer.

# Batch normalization

Batch normalization subtracts the mean of a batch and divides by its standard deviation. The colour of the curve in the
figure shows the learning rate.
"""


def index_of(folder, **texts):
    """An index of texts, each a Markdown document of its name."""
    home = folder / "documents"
    home.mkdir()
    for name, text in texts.items():
        (home / f"{name}.md").write_text(text, encoding="utf-8")
    index = Index.open(folder / "genie.sqlite")
    index.add(sorted(home.iterdir()))
    return index


@pytest.fixture
def index(tmp_path):
    with index_of(tmp_path, stable=STABLE, spectra=SPECTRA) as opened:
        yield opened


def quoted_exactly(index, passages):
    return all(index.text(passage.document)[passage.start : passage.end] == passage.quote for passage in passages)


@pytest.mark.parametrize(
    ("question", "holds"),
    [
        ("What does spectral normalization divide each weight matrix by?", "largest singular value"),
        ("When was spectral normalization published?", "2018"),
        ("What is LDSR?", "advanced yet slow upscaler"),
        ("explain ldsr", "advanced yet slow upscaler"),
        ("How many steps does the sampler Euler take?", "20 steps"),
        ("What shrinks weights?", "constant factor"),
        ("which color has the curve in the figure", "learning rate"),
    ],
)
def test_an_answer_is_the_passage_that_says_it(index, question, holds):
    answer = ask(index, question)
    assert answer.answered
    assert answer.reason == "answered"
    assert holds in " ".join(answer.passages[0].quote.split())
    assert quoted_exactly(index, answer.passages)
    assert answer.standing["kind"] == "cited"


def test_a_passage_has_its_line(index):
    passage = ask(index, "What is LDSR?").passages[0]
    lines = index.text(passage.document).split("\n")
    assert passage.quote.startswith(lines[passage.line - 1])


def test_an_unknown_acronym_is_not_in_the_documents_and_its_spelling_is_suggested(index):
    answer = ask(index, "explain lsdr in stable diffusion")
    assert not answer.answered
    assert answer.reason == "unknown_term"
    assert answer.message == '"lsdr" is not in the documents.'
    assert answer.passages == ()
    first = answer.suggestions[0]
    assert (first.term.lower(), first.instead_of, first.count) == ("ldsr", "lsdr", 1)
    assert "LDSR" in index.text(first.document).split("\n")[first.line - 1]


@pytest.mark.parametrize(
    "question",
    [
        "What is the capital of Atlantis?",
        "What is photosynthesis?",
        "Does VQGAN use weight decay?",
        "What happened to spectral normalization in 1998?",
        "Who was Rollo?",
        "What is quokka normalization?",
        "What is 光谱?",
    ],
)
def test_an_unknown_word_has_no_answer_whatever_else_is_asked(index, question):
    answer = ask(index, question)
    assert not answer.answered
    assert answer.reason == "unknown_term"


def test_weak_evidence_is_closest_passages_and_no_answer(index):
    answer = ask(index, "Does Euler shrink the checkpoint merger by power iteration of a curve?")
    assert not answer.answered
    assert answer.reason == "weak_evidence"
    assert answer.passages
    assert "closest" in answer.message
    assert answer.standing == {"kind": "unsupported", "claims": []}


def test_every_passage_of_an_answer_holds_the_rarest_word_and_most_of_the_question(index):
    answer = ask(index, "What does weight decay shrink after each step?", limit=10)
    assert answer.answered
    assert all({"decay"} <= set(terms(passage.quote)) for passage in answer.passages)


@pytest.mark.parametrize("question", ["", "   ", "???", "what is it?", "\u200b\u202e", "the of and"])
def test_a_question_without_words_is_said_to_be_one(index, question):
    assert ask(index, question).reason == "empty_question"


def test_no_documents(tmp_path):
    with Index.open(tmp_path / "none.sqlite") as empty:
        answer = ask(empty, "What is LDSR?")
    assert (answer.answered, answer.reason, answer.passages) == (False, "no_documents", ())


@pytest.mark.parametrize(
    "question",
    [
        'LDSR (x) AND "',
        "LDSR* NEAR/3 -x:y ^z",
        "col:LDSR'; DROP TABLE documents; --",
        "LDSR \ud800 \x00",
        "ldsr " * 3000,
    ],
)
def test_no_character_of_a_question_has_a_special_meaning(index, question):
    answer = ask(index, question)
    assert answer.question == question
    assert ask(index, "What is LDSR?").answered


def test_the_same_question_has_the_same_answer_whatever_the_order_of_adding(tmp_path):
    texts = {f"copy{number}": SPECTRA for number in range(4)} | {"stable": STABLE}
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    said = []
    for name, order in (("one", sorted(texts)), ("two", sorted(texts, reverse=True))):
        with Index.open(tmp_path / f"{name}.sqlite") as index:
            for document in order:
                path = tmp_path / name / f"{document}.md"
                path.write_text(texts[document], encoding="utf-8")
                index.add([path])
            asked = ("When was spectral normalization published?", "explain lsdr", "power iteration of the image")
            said.append([json.dumps(ask(index, question).to_json()) for question in asked * 2])
    assert said[0] == said[1]
    assert said[0][:3] == said[0][3:]


def test_a_quotation_that_its_document_does_not_have_is_never_returned(index, monkeypatch):
    real = index.search

    def search(query, limit=20, **rest):
        found = real(query, limit, **rest)
        wrong = [Passage(p.document, p.page, p.line, p.start, p.end, p.quote + " invented", p.score) for p in found[:1]]
        return wrong + found[1:]

    monkeypatch.setattr(type(index), "search", lambda self, *given, **rest: search(*given, **rest))
    answer = ask(index, "What is LDSR?")
    assert not any("invented" in passage.quote for passage in answer.passages)


def test_the_limit(index):
    assert len(ask(index, "normalization", limit=1).passages) == 1
    with pytest.raises(ValueError, match="at least 1"):
        ask(index, "normalization", limit=0)


SENSES = """The term LSDR (Layer-wise Spectral Decomposition Regularization) limits the spectrum of each layer.

In hydrology, Least Squares Difference Reduction (LSDR) removes variables one by one.
"""


def test_every_sense_of_a_term_side_by_side(tmp_path):
    with index_of(tmp_path, senses=SENSES, stable=STABLE) as index:
        answer = ask(index, "What does LSDR mean?")
        assert answer.answered
        assert "2 senses" in answer.message
        assert len(answer.senses) == 2
        assert all(sense.sources for sense in answer.senses)
        shown = " ".join(passage.quote for passage in answer.passages)
        assert "Decomposition" in shown
        assert "Reduction" in shown
        assert quoted_exactly(index, answer.passages)


def test_senses_that_only_a_conversation_has_have_no_source(tmp_path):
    turn = "User Query: explain lsdr\nDocument Genie Says:\nLSDR ({}) is a technique.\n"
    text = turn.format("Layer-wise Spectral Decomposition Regularization") + turn.format(
        "Large Scale Data Representation"
    )
    with index_of(tmp_path, talk=text) as index:
        answer = ask(index, "explain lsdr")
        assert not answer.answered
        assert len(answer.senses) == 2
        assert "none of them has a source besides the conversation" in answer.message


def test_json_has_the_keys_in_their_order_and_comes_back(index):
    answer = ask(index, "explain lsdr in stable diffusion")
    saved = json.loads(json.dumps(answer.to_json()))
    assert list(saved)[:5] == ["answered", "reason", "passages", "senses", "suggestions"]
    assert Answer.from_json(saved) == answer
    answer = ask(index, "What is LDSR?")
    saved = json.loads(json.dumps(answer.to_json()))
    assert list(saved["passages"][0]) == ["document", "page", "line", "start", "end", "quote", "score"]
    assert Answer.from_json(saved) == answer
    written = Answer("q", True, "answered", "m", sentences=(Sentence("s", answer.passages, False, "why"),), model="a")
    assert Answer.from_json(json.loads(json.dumps(written.to_json()))) == written


@pytest.mark.parametrize(
    "saved", [None, [], {}, {"reason": "guessed"}, {"reason": "answered"}, {"reason": "answered", "passages": 3}]
)
def test_what_is_not_a_saved_answer_is_refused(saved):
    with pytest.raises(ValueError, match=r"answer|reason"):
        Answer.from_json(saved)


def test_the_answer_in_plain_lines(index):
    assert "Did you mean" in ask(index, "explain lsdr").to_text()
    told = ask(index, "What is LDSR?")
    assert f"{told.passages[0].document}, line {told.passages[0].line}:" in told.to_text()


def test_verify_finds_what_moved_changed_and_went(tmp_path):
    with index_of(tmp_path, stable=STABLE, spectra=SPECTRA, other=STABLE.replace("LDSR", "LDSR2")) as index:
        saved = ask(index, "What is LDSR?").to_json()
        saved["passages"] += ask(index, "What does spectral normalization divide?").to_json()["passages"][:1]
        saved["sentences"] = [
            {"text": "t", "quotations": ask(index, "What is LDSR2?").to_json()["passages"], "kept": True}
        ]
        checked = verify(json.dumps(saved), index)
        assert checked.ok
        assert {each.status for each in checked.quotations} == {"ok"}
        names = {entry.name: Path(tmp_path / "documents" / Path(entry.name).name) for entry in index.documents()}
        for name, path in names.items():
            if "stable" in name:
                path.write_text("A new first line.\n\n" + STABLE, encoding="utf-8")
            if "spectra" in name:
                path.write_text(SPECTRA.replace("largest", "smallest"), encoding="utf-8")
        index.add(sorted(names.values()))
        index.remove(next(name for name in names if "other" in name))
        after = verify(saved, index)
        assert not after.ok
        status = {Path(each.document).stem: each for each in after.quotations}
        assert status["stable"].status == "moved"
        now = status["stable"].now
        assert index.text(status["stable"].document)[now:].startswith(status["stable"].quote)
        assert status["spectra"].status == "changed"
        assert status["other"].status == "document_missing"
        assert json.dumps(after.to_json())


@pytest.mark.parametrize(
    "saved",
    ["", "{", "[]", "{}", '{"passages": 1}', '{"passages": [{"quote": "x"}]}', "[" * 100_000],
)
def test_verify_refuses_what_is_no_answer(index, saved):
    with pytest.raises(ValueError, match=r"saved answer|JSON|quotation"):
        verify(saved, index)


@pytest.mark.parametrize(("start", "quote"), [(-3, "x"), (10**9, "LDSR is"), (0, ""), (-70, "LDSR is")])
def test_a_place_outside_of_the_text_is_not_taken_for_the_quotation(index, start, quote):
    name = next(entry.name for entry in index.documents() if "stable" in entry.name)
    passage = {"document": name, "start": start, "end": start + len(quote), "quote": quote}
    (checked,) = verify({"passages": [passage]}, index).quotations
    assert checked.status != "ok"
    assert exact(index, [Passage(name, None, 1, start, start + len(quote), quote, 0.0)]) == ()


@pytest.mark.parametrize(
    ("question", "history", "understood"),
    [
        ("How slow is it?", ["What is LDSR?"], "How slow is it? (LDSR)"),
        ("and why?", ["What is weight decay?"], "and why? (weight decay)"),
        ("why?", ["What is weight decay?", "How slow is it?"], "why? (weight decay)"),
        ("What about Euler?", ["How many steps has the sampler?"], "What about Euler? (sampler)"),
        ("What is LDSR?", ["What is weight decay?"], "What is LDSR?"),
        ("What is the norm that power iteration estimates?", ["What is LDSR?"], None),
        ("How slow is it?", [], "How slow is it?"),
        ("why?", ["what is it?"], "why?"),
    ],
)
def test_a_follow_up_takes_its_words_from_before(question, history, understood):
    assert understand(question, history) == (understood or question)


def test_a_conversation_shows_what_was_understood_and_can_be_cleared(index):
    chat = Chat(index)
    assert chat.ask("What is LDSR?").understood is None
    follow = chat.ask("How slow is it?")
    assert follow.understood == "How slow is it? (LDSR)"
    assert follow.answered
    assert "slow upscaler" in follow.passages[0].quote
    assert "understood as: How slow is it? (LDSR)" in follow.to_text()
    assert [turn.question for turn in chat.turns] == ["What is LDSR?", "How slow is it?"]
    chat.clear()
    assert chat.ask("How slow is it?").understood is None


def test_a_summary_is_sentences_of_each_document(index):
    summaries = summarize(index, sentences=2)
    assert [summary.document for summary in summaries] == [entry.name for entry in index.documents()]
    for summary in summaries:
        assert 1 <= len(summary.passages) <= 2
        assert quoted_exactly(index, summary.passages)
        assert [passage.start for passage in summary.passages] == sorted(passage.start for passage in summary.passages)
    assert summarize(index, sentences=2) == summaries


def test_a_summary_does_not_say_the_same_thing_twice(tmp_path):
    said = "Spectral normalization divides each weight matrix by its largest singular value."
    with index_of(
        tmp_path, twice=f"{said}\n\n{said}\n\nWeight decay shrinks every weight by a constant factor.\n"
    ) as index:
        (summary,) = summarize(index)
    assert [passage.quote for passage in summary.passages].count(said) == 1
    assert len(summary.passages) == 2


def test_a_summary_of_what_is_not_there(index):
    with pytest.raises(ValueError, match=r"no document nowhere\.txt"):
        summarize(index, ["nowhere.txt"])
    with pytest.raises(ValueError, match="at least 1"):
        summarize(index, sentences=0)


def test_words_beyond_the_limit_are_not_weighed(index):
    long = " ".join(f"word{number}" for number in range(5000))
    assert len(ask(index, long).suggestions) <= 3 * ask_module.MAX_UNKNOWN

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsdr.genie.clusters import same_expansion
from lsdr.genie.expansions import senses_in
from lsdr.genie.initials import initials_match, letters_fit

LONG = "layer-wise spectral decorrelation regularization"


def found(text):
    return [(one.short, one.long, one.initials_match) for one in senses_in(text)]


@pytest.mark.parametrize(
    "text",
    [
        f"LSDR ({LONG}) is one.",
        f"A {LONG} (LSDR) is one.",
        f"lsdr ({LONG}) is one.",
        f"**LSDR** (*{LONG}*) is one.",
        f"LSDR stands for {LONG}.",
        f"LSDR, short for {LONG}, is one.",
        f"LSDR is an acronym for {LONG}.",
        f"LSDR means {LONG} here.",
        f"LSDR, or {LONG}, is one.",
        f"The {LONG}, or LSDR, is one.",
        f"The {LONG}, abbreviated as LSDR, is one.",
        f"- LSDR: {LONG}\n- GPU: the other one\n",
        f"LSDR (i.e., {LONG}) is one.",
        f"LSDR ({LONG}, see below) is one.",
        f"A {LONG} (LSDR; see below) is one.",
        f"A {LONG} [LSDR] is one.",
    ],
)
def test_every_way_to_say_it(text):
    ((short, long, matches),) = found(text)
    assert (short.upper(), long, matches) == ("LSDR", LONG, True)


def test_a_statement_is_a_place_in_the_text():
    text = f"Before. We use {LONG.replace(' ', chr(10))} (LSDR) here."
    (one,) = senses_in(text)
    assert text[one.start : one.end] == f"{LONG.replace(' ', chr(10))} (LSDR)"
    assert one.long == LONG


def test_all_expansions_are_kept():
    text = (
        "LSDR (Large Scale Data Representation, or Least Squares Difference Reduction) is not "
        "Layer-wise Spectral Decomposition Regularization (LSDR). LSDR stands for Low Speed Data Rate or Low Ride."
    )
    assert [long for _, long, _ in found(text)] == [
        "Large Scale Data Representation",
        "Least Squares Difference Reduction",
        "Layer-wise Spectral Decomposition Regularization",
        "Low Speed Data Rate",
        "Low Ride",
    ]


def test_initials_that_do_not_match_are_told():
    assert found("LSDR (Layer-wise Spectral Normalization for Residual Networks) is") == [
        ("LSDR", "Layer-wise Spectral Normalization for Residual Networks", False)
    ]
    # The letters are there, in another order.
    assert found("LSDR (Latent Diffusion Super Resolution)") == [("LSDR", "Latent Diffusion Super Resolution", False)]
    assert found("LSDR stands for something quite different.") == [("LSDR", "something quite different", False)]


def test_the_sources_examples():
    assert found("the heat shock transcription factor (HSF) binds") == [
        ("HSF", "heat shock transcription factor", False)
    ]
    assert found("uptake of 5-hydroxytryptamine (5HT) by") == [("5HT", "5-hydroxytryptamine", False)]
    assert found("an oestrogen containing contraceptive pill (OCP).")[0][1] == "oestrogen containing contraceptive pill"
    assert found("Ensemble-averaged ECG, impedance cardiogram (ICG), the")[0][1] == "impedance cardiogram"


@pytest.mark.parametrize(
    "text",
    [
        "Figure 2 (see the fine print) shows it.",
        "The mean (see below) and the two (one each) of them.",
        "LSDR (used for low and slow data readers) is",
        "A sentence. Long story. Data run (LSDR) is",
        "PDF (portable files, described here)",
        "GAN (x)",
        "IT (the best)",
        "LSDR stands for",
        "(LSDR) ((LSDR)) () (",
        "LSDR, or something else, is",
    ],
)
def test_what_says_nothing(text):
    assert found(text) == []


def test_a_sentence_ends_the_search():
    assert found("Large Scale. Data Representation (LSDR) is") == []


@pytest.mark.parametrize("text", ["(" * 3000, "A" * 30_000, "LSDR (" * 3000, "a b (LSDR) " * 300])
def test_much_of_nothing_says_nothing(text):
    assert found(text) == []


@settings(max_examples=40, deadline=None)
@given(st.text(alphabet="LSDR lsdr()-,.;:or\nİß2", max_size=60))
def test_any_text_gives_places_in_it(text):
    for one in senses_in(text):
        assert 0 <= one.start < one.end <= len(text)
        assert one.short in text[one.start : one.end]
        assert one.initials_match == initials_match(one.short, one.long)


@pytest.mark.parametrize(
    ("short", "long", "expected"),
    [
        ("LSDR", "Large Scale Data Representation", True),
        ("LSDR", "Large Scale Data", False),
        ("LSDR", "Large Scale Data Representation Learning", False),
        ("LWSDR", "Layer-wise Spectral Decorrelation Regularization", True),
        ("CNNs", "convolutional neural networks", True),
        ("DOD", "Department of Defense", True),
        ("DD", "Department of Defense", True),
        ("A4C", "all 4 corners", True),
        ("ΑΒ", "άλφα βήτα", False),
        ("", "nothing", False),
    ],
)
def test_initials(short, long, expected):
    assert initials_match(short, long) is expected


def test_letters_start_at_a_word():
    assert letters_fit("TNF", "some tumor necrosis factor") == 5
    assert letters_fit("XYZ", "tumor necrosis factor") is None
    assert letters_fit("İL", "İnter leukin") in (0, None)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("Layer-wise Spectral Normalization", "layerwise spectral normalisation", True),
        ("the Large-Scale Data Representations", "large scale data representation", True),
        ("layer-wise spectral normalizaton", "layer-wise spectral normalization", True),
        ("layer-wise spectral decorrelation regularization", "layer-wise spectral decomposition regularization", False),
        ("layer-wise spectral discriminator regularization", "layer-wise spectral decorrelation regularization", False),
        ("Large Scale Data Representation", "Least Squares Difference Reduction", False),
        ("supervised learning", "unsupervised learning", False),
        ("intra-layer norm", "inter-layer norm", False),
    ],
)
def test_only_spelling_is_merged(first, second, expected):
    assert same_expansion(first, second) is expected
    assert same_expansion(second, first) is expected

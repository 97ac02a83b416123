import pytest

from lsdr.genie.conflicts import find_conflicts
from lsdr.genie.passage import Passage
from lsdr.genie.quantities import quantities


def passage(document, quote, start=0):
    return Passage(document, None, 1, start, start + len(quote), quote)


def kinds(first, second, *, same=False):
    found = find_conflicts([passage("a", first), passage("a" if same else "b", second, 1000)])
    return [conflict.kind for conflict in found]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("The Eiffel Tower is 330 m high.", "The Eiffel tower is 324 metres high.", ["number"]),
        ("The Eiffel Tower is 330 m high.", "The Eiffel tower is 0.33 km high.", []),
        ("Paris has a population of 2.1 million.", "Paris has a population of 2,145,000.", []),
        ("Paris has a population of 2.1 million.", "Paris has a population of 2,345,000.", ["number"]),
        ("The model has seven parameters.", "The model has 9 parameters.", ["number"]),
        ("The model has seven parameters.", "The model has 7 parameters.", []),
        ("The book costs $5 now.", "The book costs $7 today.", ["number"]),
        ("Accuracy was 91.2% on CIFAR-10.", "Accuracy was 88 % on CIFAR-10.", ["number"]),
        ("The tower was finished in 1889.", "The tower was finished in 1890.", ["date"]),
        ("The tower was finished in 1889.", "The tower was finished on 31 March 1889.", []),
        ("The edition appeared on 12 May 2003.", "The edition appeared on May 14, 2003.", ["date"]),
        ("The edition appeared on 2003-05-12.", "The edition appeared on 12th May 2003.", []),
        ("Spectral norm reduces variance.", "Spectral norm does not reduce variance.", ["negation"]),
        ("Aspirin increases the risk of bleeding.", "Aspirin doesn't increase bleeding risk.", ["negation"]),
        ("It is never not stable in training runs.", "It is stable in training runs.", []),
        ("Is the model stable in training?", "The model is not stable in training.", []),
        ("Dogs like bones.", "The weather was 3 degrees.", []),
        ("The tower is 330 m high.", "The bridge over the river is 324 m long.", []),
    ],
)
def test_two_documents(first, second, expected):
    assert kinds(first, second) == expected
    assert kinds(second, first) == expected


def test_one_document_has_to_be_closer():
    first, second = "The small model of the study has 10 layers.", "The large model of the study has 12 layers."
    assert kinds(first, second) == ["number"]
    assert kinds(first, second, same=True) == []
    assert kinds("The small model has 10 layers.", "The small model has 12 layers.", same=True) == ["number"]


def test_sides_are_exact_places_and_the_order_does_not_matter():
    text = "Something first.\nThe tower is 330 m high. And more."
    one, other = passage("a", text, 50), passage("b", "The tower is 324 m high.")
    (found,) = find_conflicts([other, one])
    assert find_conflicts([one, other, one]) == [found]
    side = found.sides[0]
    assert (side.quote, side.line, side.start) == ("The tower is 330 m high.", 2, 50 + text.index("The tower"))
    assert text[side.start - 50 : side.end - 50] == side.quote
    assert found.subject == "tower high"


def test_quantities():
    found, _ = quantities("On 3 June 1999, 1,234.5 kg and -2e3 s at 5 % in CIFAR-100.")
    assert [(one.unit, one.date if one.unit == "date" else one.value) for one in found] == [
        ("date", (1999, 6, 3)),
        ("gram", 1234500.0),
        ("second", -2000.0),
        ("percent", 5.0),
    ]

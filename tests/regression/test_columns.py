import pytest

from lsdr.regression.columns import Term, column_name, terms_of

COLUMNS = [("area", ""), ("zone", "10"), ("zone", "2"), ("zone", "1"), ("town", "b"), ("town", "a"), ("town", "10")]


def levels(term):
    return [level for _, level in term.columns]


def test_names_of_columns():
    assert column_name(("area", "")) == "area"
    assert column_name(("region", "north")) == "region[north]"


def test_terms_come_in_the_order_asked_for_without_their_reference_level():
    town, area, zone = terms_of(COLUMNS, ["town", "area", "zone"], forced=["area"])
    assert (town.name, levels(town), town.forced) == ("town", ["a", "b"], False)  # "10" < "a" < "b": the first is out
    assert area == Term("area", (("area", ""),), forced=True)
    assert levels(zone) == ["2", "10"]  # as numbers


def test_the_order_of_levels_does_not_depend_on_the_order_of_columns():
    assert terms_of(COLUMNS, ["area", "zone", "town"]) == terms_of(COLUMNS[::-1], ["area", "zone", "town"])


def test_without_an_intercept_the_first_factor_alone_keeps_all_levels():
    area, zone, town = terms_of(COLUMNS, ["area", "zone", "town"], intercept=False)
    assert (levels(area), levels(zone), levels(town)) == ([""], ["1", "2", "10"], ["a", "b"])


def test_a_factor_of_one_level_keeps_it():
    assert terms_of([("town", "a")], ["town"]) == (Term("town", (("town", "a"),)),)


def test_columns_of_a_term_that_is_no_factor_are_kept_as_they_come():
    columns = [("poly", "2"), ("poly", "1"), ("town", "b"), ("town", "a")]
    poly, town = terms_of(columns, ["poly", "town"], factors=["town"])
    assert (levels(poly), levels(town)) == (["2", "1"], ["b"])


@pytest.mark.parametrize(
    ("message", "columns", "order", "forced"),
    [
        ("'town\\[a\\]' belongs to none", [("area", ""), ("town", "a")], ["area"], []),
        ("no value of 'town' has been seen", [("area", "")], ["area", "town"], []),
        ("forced terms must be among.*\\['zone'\\]", [("area", "")], ["area"], ["zone", "area"]),
    ],
)
def test_what_does_not_fit_is_refused(message, columns, order, forced):
    with pytest.raises(ValueError, match=message):
        terms_of(columns, order, forced)

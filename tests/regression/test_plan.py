import pytest

from lsdr.regression.plan import make_plan
from lsdr.regression.sources.open import open_source

TABLE = {
    "price": [1.0, 2.0],
    "area": [50, 70],
    "Rooms": [3, 4],
    "town": ["x", "y"],
    "sold": [True, False],
    "weight": [1.0, 1.0],
    "year": [2020, 2021],
}


@pytest.fixture
def source():
    return open_source(TABLE)


def test_features_are_all_columns_without_another_role(source):
    plan = make_plan(source, "price", weights="weight", fold_column="year", clusters="town")
    assert plan.features == ("area", "Rooms", "sold")
    assert plan.columns == ("area", "Rooms", "sold", "price", "weight", "town", "year")
    assert plan.folds == 2
    assert plan.fold_labels == (2020, 2021)


def test_text_is_a_factor_and_numbers_where_it_is_said(source):
    plan = make_plan(source, "price", features=["town", "year", "area"], categorical=["year"], forced=["area"])
    assert plan.categorical == ("town", "year")
    assert plan.labels == ("year",)
    assert plan.forced == ("area",)


def test_blocks_follow_folds(source):
    assert [make_plan(source, "price", folds=folds).blocks for folds in (2, 3, 5, 12)] == [20, 24, 20, 24]


def test_frequency_needs_weights(source):
    assert make_plan(source, "price", weights="weight", weight_kind="frequency").frequency
    assert not make_plan(source, "price", weight_kind="frequency").frequency


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "prise"}, r"the table has no column 'prise' \(target\); did you mean 'price'\?"),
        ({"features": ["rooms"]}, r"no column 'rooms' \(features\); did you mean 'Rooms'"),
        ({"weights": "w"}, r"no column 'w' \(weights\); it has 'price', 'area'"),
        ({"clusters": "Town"}, r"did you mean 'town'"),
        ({"features": []}, "features is empty"),
        ({"features": "area"}, r"features must be a list of names, got the text 'area': write \['area'\]"),
        ({"features": ["area", "area"]}, "features names 'area' twice"),
        ({"features": ["area", "price"]}, "'price' is the target, so it cannot be one of the features"),
        ({"features": ["area", "weight"], "weights": "weight"}, "'weight' is the weights"),
        ({"features": ["area"], "forced": ["Rooms"]}, "forced names 'Rooms', which is not among the features"),
        ({"categorical": ["areas"]}, r"no column 'areas' \(categorical\); did you mean 'area'"),
        ({"target": "town"}, "column 'town' of the table holds text, but it must hold numbers"),
        ({"weights": "town"}, "column 'town' of the table holds text"),
        ({"folds": 1}, "at least 2 folds, got folds=1"),
        ({"weight_kind": "sampling"}, "weight_kind must be one of 'analytic', 'frequency', got 'sampling'"),
        ({"missing": "impute"}, "missing must be one of 'drop', 'raise', got 'impute'"),
    ],
)
def test_what_does_not_fit_is_said_with_what_to_do(source, options, message):
    with pytest.raises(ValueError, match=message):
        make_plan(source, **({"target": "price"} | options))


def test_a_number_is_no_name(source):
    with pytest.raises(TypeError, match="target must be the name of a column, as text, got 1: write '1'"):
        make_plan(source, 1)


def test_a_fold_column_needs_two_labels():
    source = open_source({"a": [1.0, 2.0], "f": [1, 1], "y": [1.0, 2.0]})
    with pytest.raises(ValueError, match="at least 2 folds, column 'f' has 1"):
        make_plan(source, "y", fold_column="f")


def test_a_fold_column_of_row_numbers_is_refused():
    source = open_source({"a": range(2000), "f": range(2000), "y": range(2000)})
    with pytest.raises(ValueError, match="column 'f' of the table has more than 1000 different values"):
        make_plan(source, "y", fold_column="f")


def test_a_table_of_the_target_alone_has_nothing_to_reduce():
    with pytest.raises(ValueError, match="has no column besides 'y': nothing to reduce"):
        make_plan(open_source({"y": [1.0]}), "y")


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "__index_level_0__"])
def test_a_column_without_a_name_is_a_feature_only_where_it_is_named(name):
    source = open_source({name: [0, 1], "price": [1.0, 2.0], "area": [50, 70]})
    assert make_plan(source, "price").features == ("area",)
    assert make_plan(source, "price").nameless == (name,)
    named = make_plan(source, "price", features=[name])
    assert named.features == (name,)
    assert named.nameless == ()

"""RepresentationEncoder: a transformer by scikit-learn's rules, for tables, images and texts."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_digits, load_wine
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from lsdr.representation.estimator import RepresentationEncoder

TINY = {"steps": 2, "batch_size": 16, "code": 8, "projector": 8}
TEXTS = [
    f"the {colour} {thing} is {size}"
    for colour in ("red", "blue")
    for thing in ("sea", "rose")
    for size in ("big", "old", "far")
]


def table(n=40):
    """Numbers, categories and missing values."""
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "area": generator.normal(size=n),
            "rooms": generator.integers(1, 5, n),
            "street": generator.choice(["gravel", "paved"], n),
            "roof": pd.Categorical(generator.choice(["flat", "hip", "gable"], n)),
            "pool": generator.choice([True, False], n),
        }
    )
    frame.loc[3, "area"] = np.nan
    frame.loc[5, "street"] = None
    return frame


def images(n=30):
    return load_digits().images[:n].astype(np.uint8)


@pytest.fixture(scope="module")
def fitted():
    """An estimator of each modality, with rows of it."""
    rows = {"table": table(), "image": images(), "text": TEXTS}
    return {kind: (RepresentationEncoder(4, **TINY).fit(X), X) for kind, X in rows.items()}


@parametrize_with_checks([RepresentationEncoder(steps=1, batch_size=8, code=4, projector=4)])
def test_scikit_learn_takes_it(estimator, check):
    check(estimator)


@pytest.mark.parametrize("kind", ["table", "image", "text"])
def test_codes_of_every_modality_are_ordered_white_and_finite(kind, fitted):
    encoder, X = fitted[kind]
    assert encoder.modality_ == kind
    codes = encoder.transform(X)
    assert codes.shape == (len(X), 4)
    assert codes.dtype == np.float32
    assert np.isfinite(codes).all()
    assert (np.diff(encoder.correlations_) <= 1e-12).all()
    for k in (1, 3):
        np.testing.assert_array_equal(encoder.transform(X, n_components=k), codes[:, :k])
    wide = encoder.transform(X, n_components=len(encoder.correlations_))
    np.testing.assert_allclose(wide[:, :4], codes, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(encoder.transform(X[5:7]), codes[5:7], rtol=1e-3, atol=1e-4)
    assert encoder.get_feature_names_out().tolist() == [f"representationencoder{place}" for place in range(4)]
    record = encoder.history_[-1]
    assert record["step"] == 2
    assert np.isfinite(record["SpectralObjective/projector"])


def test_what_must_not_matter_is_not_in_the_first_dimensions():
    """Two columns are signal, two are redrawn from view to view: the first codes know the one and not the other."""
    generator = np.random.default_rng(0)
    X = generator.normal(size=(400, 4))

    def redraw(inputs, generator):
        numeric = inputs["numeric"].clone()
        numeric[:, 2:] = torch.randn(numeric[:, 2:].shape, generator=generator)
        return {**inputs, "numeric": numeric}

    encoder = RepresentationEncoder(2, views=[redraw], steps=80, batch_size=64, model="mlp-tiny", learning_rate=3e-3)
    codes = encoder.fit(X).transform(X)
    explained = {
        name: Ridge().fit(codes, X[:, at]).score(codes, X[:, at])
        for name, at in (("signal", slice(2)), ("noise", slice(2, 4)))
    }
    assert explained["signal"] > 0.9
    assert explained["noise"] < 0.05
    assert encoder.correlations_[1] > 0.9


def test_it_repeats_and_leaves_the_global_random_state_alone(fitted):
    first, X = fitted["image"]
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    again = clone(first).fit(X)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    np.testing.assert_array_equal(again.transform(X), first.transform(X))
    other = clone(first).set_params(random_state=1).fit(X)
    assert not np.allclose(other.transform(X), first.transform(X), atol=0.1)


@pytest.mark.parametrize("kind", ["table", "image", "text"])
def test_saved_and_loaded_it_gives_the_same_codes(kind, fitted, tmp_path):
    encoder, X = fitted[kind]
    encoder.save(tmp_path / "encoder")
    assert sorted(path.name for path in (tmp_path / "encoder").iterdir()) == ["encoder.json", "model.safetensors"]
    loaded = RepresentationEncoder.load(tmp_path / "encoder")
    np.testing.assert_array_equal(loaded.transform(X), encoder.transform(X))
    assert loaded.get_params() == encoder.get_params()
    assert loaded.get_feature_names_out().tolist() == encoder.get_feature_names_out().tolist()
    if kind == "table":
        assert loaded.feature_names_in_.tolist() == X.columns.tolist()
        with pytest.raises(ValueError, match="feature names"):
            loaded.transform(X[X.columns[::-1]])


def test_a_folder_without_an_estimator_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"encoder\.json"):
        RepresentationEncoder.load(tmp_path)


def test_a_view_that_is_a_function_cannot_be_saved(fitted, tmp_path):
    encoder = clone(fitted["image"][0]).set_params(views=[lambda inputs: inputs, "noise:0.1"], steps=1)
    encoder.fit(images())
    with pytest.raises(ValueError, match=r"package\.module:function"):
        encoder.save(tmp_path)


def test_users_may_pickle_it(fitted):
    encoder, X = fitted["table"]
    again = pickle.loads(pickle.dumps(encoder))
    np.testing.assert_array_equal(again.transform(X), encoder.transform(X))


def test_tables_with_categories_and_missing_values(fitted):
    encoder, X = fitted["table"]
    changed = X.copy()
    changed["roof"] = changed["roof"].astype(object)
    changed.loc[0, "roof"] = "dome"  # a level that was not there, as if it were missing
    changed.loc[1, "area"] = np.nan
    codes, before = encoder.transform(changed), encoder.transform(X)
    assert np.isfinite(codes).all()
    assert not np.allclose(codes[:2], before[:2])
    np.testing.assert_allclose(codes[2:], before[2:], rtol=1e-5, atol=1e-5)
    missing = X.astype({"roof": object})
    missing.loc[0, "roof"] = None
    np.testing.assert_allclose(encoder.transform(missing)[0], codes[0], rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="feature names"):
        encoder.transform(X.drop(columns="pool"))


def test_a_polars_frame_is_the_same_table(fitted):
    encoder, X = fitted["table"]
    frame = pl.DataFrame({name: X[name].astype(object).where(X[name].notna(), None).tolist() for name in X})
    np.testing.assert_allclose(encoder.transform(frame), encoder.transform(X), rtol=1e-5, atol=1e-5)


def test_constant_columns_are_left_out_and_named():
    X = load_wine().data[:30]
    X = np.column_stack([X, np.ones(30)])
    encoder = RepresentationEncoder(**TINY).fit(X)
    assert [each["kind"] for each in encoder.problems_] == ["constant"]
    assert encoder.encoder_.fields.numeric == tuple(f"x{place}" for place in range(13))
    changed = X.copy()
    changed[:, -1] = 5
    np.testing.assert_array_equal(encoder.transform(changed), encoder.transform(X))


def test_images_in_colour_and_of_any_depth():
    generator = np.random.default_rng(0)
    X = generator.integers(0, 65536, (20, 5, 8, 6)).astype(np.uint16)
    encoder = RepresentationEncoder(2, views="noise:0.1", **TINY).fit(X)
    assert encoder.transform(X).shape == (20, 2)
    assert encoder.encoder_.fields.shape == (5, 8, 6)
    with pytest.raises(ValueError, match="no axis is 5 channels long"):
        encoder.transform(X[:, :4])


def test_texts_may_be_empty_when_they_are_encoded_and_of_any_container(fitted):
    encoder, X = fitted["text"]
    codes = encoder.transform(X)
    for same in (tuple(X), np.array(X), np.array(X, dtype=object), pd.Series(X)):
        np.testing.assert_array_equal(encoder.transform(same), codes)
    assert np.isfinite(encoder.transform(["", "words that were never there", X[0]])).all()


def test_in_pipelines_searches_and_beside_other_columns():
    X, y = load_wine(return_X_y=True, as_frame=True)
    pipeline = make_pipeline(RepresentationEncoder(3, **TINY), LogisticRegression())
    assert cross_val_score(pipeline, X, y, cv=2).shape == (2,)
    search = GridSearchCV(pipeline, {"representationencoder__n_components": [1, 2]}, cv=2).fit(X, y)
    assert search.predict(X).shape == (178,)
    frame = table(24)
    frame["note"] = TEXTS * 2
    both = ColumnTransformer(
        [
            ("note", RepresentationEncoder(2, **TINY), "note"),
            ("rest", RepresentationEncoder(3, **TINY), ["area", "street", "roof"]),
        ]
    )
    both.set_output(transform="pandas")
    codes = both.fit_transform(frame)
    assert codes.shape == (24, 5)
    assert codes.columns[0] == "note__representationencoder0"


def test_data_frames_come_out_with_the_width_of_the_parameter(fitted):
    encoder, X = clone(fitted["table"][0]), fitted["table"][1]
    encoder.fit(X).set_output(transform="pandas")
    codes = encoder.transform(X)
    assert codes.columns.tolist() == [f"representationencoder{place}" for place in range(4)]
    with pytest.raises(ValueError, match="set_params"):
        encoder.transform(X, n_components=2)
    assert encoder.set_params(n_components=2).transform(X).shape == (40, 2)


@pytest.mark.parametrize(
    ("X", "parameters", "error", "message"),
    [
        (csr_matrix(np.eye(20)), {}, TypeError, "Sparse data was passed"),
        (np.eye(20)[:, :1], {}, ValueError, "n_features = 1"),
        (np.ones((20, 4)), {}, ValueError, "x0"),
        (["one text"], {}, ValueError, "n_samples=1"),
        (["", " "], {}, ValueError, "no text"),
        (np.eye(20), {"n_components": 9}, ValueError, "from 1 to 8"),
        (np.eye(20), {"n_components": 2.5}, ValueError, "whole number"),
        (np.eye(20), {"objective": "magic"}, ValueError, "magic"),
        (np.eye(20), {"model": "conv-tiny"}, ValueError, "conv-tiny"),
        (np.eye(20), {"views": "rotation:30"}, ValueError, "rotation"),
        (np.eye(20), {"steps": 0}, ValueError, "steps"),
    ],
)
def test_what_has_no_meaning_is_refused(X, parameters, error, message):
    with pytest.raises(error, match=message):
        RepresentationEncoder(**{**TINY, **parameters}).fit(X)


def test_rows_of_another_modality_are_refused(fitted):
    with pytest.raises(ValueError, match="learned from image data, and X is table data"):
        fitted["image"][0].transform(np.zeros((3, 8)))
    with pytest.raises(ValueError, match="learned from text data"):
        fitted["text"][0].transform(images())


def test_training_that_diverges_says_so():
    with pytest.raises(RuntimeError, match="diverged"):
        RepresentationEncoder(**{**TINY, "steps": 30}, learning_rate=1e30).fit(load_wine().data)

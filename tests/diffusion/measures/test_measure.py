"""A whole measurement: of an optimal denoiser, of a broken one, twice, and of a network that must not notice."""

import math

import pytest
import torch
from torch import nn

from lsdr.diffusion.measures.catalogue import MEASURES
from lsdr.diffusion.measures.config import MeasureConfig
from lsdr.diffusion.measures.measure import measure_run
from lsdr.runs import read_json, write_json

SMALL = MeasureConfig(
    samples=12,
    sampler_steps=4,
    heldout_images=8,
    bands=3,
    train_images=20,
    sensitivity_images=3,
    lyapunov_images=2,
    operator_images=2,
    operator_levels=3,
    batch=5,
)
MODEL_MEASURES = {
    "heldout_loss", "heldout_loss_low_noise", "heldout_loss_mid_noise", "heldout_loss_high_noise",
    "psd_rmse_db", "psd_rmse_low_db", "psd_rmse_mid_db", "psd_rmse_high_db",
    "sensitivity", "lyapunov", "diversity_variance", "nearest_neighbour", "nearest_train", "fid", "kid",
    "operator_largest", "operator_asymmetry", "calibration_gap_db", "grid_artifact_db",
}  # fmt: skip
OPERATOR = {"operator_largest", "operator_asymmetry", "calibration_gap_db"}


def data(count, seed=0, side=8, scale=0.2):
    return scale * torch.randn(count, 1, side, side, generator=torch.Generator().manual_seed(seed))


def run(denoiser, config=SMALL, seed=0, **kwargs):
    return measure_run(
        denoiser,
        train_images=data(40),
        heldout_images=data(10, 1),
        extractor=nn.Flatten(),
        seed=seed,
        config=config,
        **kwargs,
    )


def test_the_optimal_denoiser_of_white_noise_measures_as_the_data(gaussian):
    optimum = gaussian(torch.zeros(1), torch.tensor(0.04))
    sizes = MeasureConfig(samples=200, sampler_steps=60, train_images=400, heldout_images=100, lyapunov_images=1)
    measures, curves, samples = measure_run(
        optimum,
        train_images=data(400),
        heldout_images=data(100, 1),
        extractor=nn.Flatten(),
        weight=torch.ones_like,
        config=sizes,
    )
    assert set(measures) == MODEL_MEASURES
    assert samples.shape == (200, 1, 8, 8)
    assert measures["diversity_variance"] == pytest.approx(1, abs=0.08)
    assert measures["psd_rmse_db"] < 0.4
    assert measures["sensitivity"] == pytest.approx(0.2, rel=0.05)
    assert measures["lyapunov"] == pytest.approx(math.log(0.2) / 60, rel=0.05)
    assert measures["kid"] == pytest.approx(0, abs=1e-3)
    assert measures["nearest_neighbour"] == pytest.approx(measures["nearest_train"], rel=0.05)
    assert measures["operator_asymmetry"] == pytest.approx(0, abs=1e-3)
    assert measures["calibration_gap_db"] < 1
    sigmas = [level["sigma"] for level in curves["operator"]]
    truth = [0.04 / (0.04 + sigma**2) for sigma in sigmas]
    assert len(sigmas) == 5
    assert measures["operator_largest"] == pytest.approx(sum(truth) / 5, rel=1e-3)
    assert measures["grid_artifact_db"] < 2
    assert curves["artifacts"] == []
    assert measures["heldout_loss"] == pytest.approx(sum(curves["heldout_loss_by_sigma"]["loss"]) / 9)
    assert measures["heldout_loss_high_noise"] == pytest.approx(0.04, rel=0.2)
    worse = gaussian(torch.zeros(1), torch.tensor(0.01))
    blurred = measure_run(
        worse, train_images=data(400), heldout_images=data(100, 1), extractor=nn.Flatten(), config=sizes
    )[0]
    assert blurred["sensitivity"] < measures["sensitivity"]
    assert blurred["diversity_variance"] < 0.5
    assert blurred["psd_rmse_db"] == pytest.approx(6, abs=0.5)
    assert blurred["kid"] > measures["kid"]
    assert blurred["fid"] > measures["fid"]


def test_names_are_in_the_catalogue_and_files_hold_them(tiny, tmp_path):
    measures, curves, samples = run(tiny)
    assert set(measures) == MODEL_MEASURES <= set(MEASURES)
    assert all(type(value) is float and math.isfinite(value) for value in measures.values())
    write_json(tmp_path / "curves.json", curves)
    assert read_json(tmp_path / "curves.json") == curves
    assert set(curves["heldout_loss_by_sigma"]) == {"sigma", "loss"}
    samples_too = {"samples", "samples_low", "samples_high"}
    assert set(curves["power_spectrum"]) == {"frequency", "data", "data_low", "data_high"} | samples_too
    assert {len(column) for column in curves["power_spectrum"].values()} == {4}
    assert len(curves["lyapunov"]["exponents"]) == 2
    assert samples.abs().max() <= 1


def test_the_same_seed_measures_the_same_and_another_does_not(tiny):
    first, again, other = run(tiny), run(tiny), run(tiny, seed=1)
    assert first[0] == again[0]
    assert torch.equal(first[2], again[2])
    assert all(first[0][name] != other[0][name] for name in MODEL_MEASURES)


def test_the_size_of_one_measure_leaves_the_others_as_they_were(tiny):
    from dataclasses import replace

    first = run(tiny)[0]
    changed = run(tiny, replace(SMALL, bands=4, sensitivity_images=2, lyapunov_images=0, operator_images=0))[0]
    same = (
        MODEL_MEASURES - {"sensitivity", "lyapunov"} - OPERATOR - {name for name in first if name.startswith("heldout")}
    )
    assert {name: first[name] for name in same} == {name: changed[name] for name in same}
    assert not {"lyapunov", *OPERATOR} & set(changed)


def test_batches_change_nothing(tiny):
    from dataclasses import replace

    whole, parts = run(tiny, replace(SMALL, batch=64))[0], run(tiny)[0]
    for name in MODEL_MEASURES:
        assert whole[name] == pytest.approx(parts[name], rel=1e-2, abs=1e-4), name


def test_measuring_is_invisible(tiny, unchanged):
    same = unchanged(tiny.model)
    run(tiny)
    assert same


def test_labels_condition_the_samples(tiny):
    labels = torch.arange(50) % 3
    zeros = torch.zeros(50, dtype=torch.long)
    given = {"train_labels": labels[:40], "heldout_labels": labels[:10]}
    conditioned = run(tiny, **given)
    single = run(tiny, train_labels=zeros[:40], heldout_labels=zeros[:10])
    assert conditioned[0]["heldout_loss"] != single[0]["heldout_loss"]
    assert not torch.equal(conditioned[2], single[2])
    assert conditioned[0]["lyapunov"] != single[0]["lyapunov"]
    with pytest.raises(ValueError, match="or of neither"):
        run(tiny, train_labels=labels[:40])


def test_a_diverged_model_is_measured_as_far_as_it_can_be(tiny, tmp_path):
    with torch.no_grad():
        tiny.model.last.bias.fill_(math.nan)
    measures, curves, _ = run(tiny)
    assert set(measures) == MODEL_MEASURES
    assert all(math.isnan(value) for value in measures.values())
    assert not {"power_spectrum", "operator", "artifacts"} & set(curves)
    write_json(tmp_path / "measures.json", measures)
    assert read_json(tmp_path / "measures.json")["fid"] is None


def test_stripes_in_the_samples_are_seen(gaussian):
    stripes = 0.6 * torch.cos(torch.pi * torch.arange(8.0)).expand(1, 8, 8)
    striped = gaussian(stripes, torch.tensor(0.04))
    measures, curves, _ = run(striped, SMALL)
    plain = run(gaussian(torch.zeros(1), torch.tensor(0.04)), SMALL)[0]
    assert measures["grid_artifact_db"] > plain["grid_artifact_db"] + 5
    assert any(found["period"] == pytest.approx(2, abs=0.1) for found in curves["artifacts"])


@pytest.mark.parametrize("name", ["mmse_identity", "operator_by_noise", "grid_artifact_db"])
def test_a_measure_that_fails_costs_no_other(tiny, monkeypatch, caplog, name):
    def broken(*args, **kwargs):
        raise RuntimeError("broken on purpose")

    whole = run(tiny)[0]
    monkeypatch.setattr(f"lsdr.diffusion.measures.operator_measures.{name}", broken)
    measures = run(tiny)[0]
    lost = {"grid_artifact_db"} if name == "grid_artifact_db" else OPERATOR
    assert all(math.isnan(measures[each]) for each in lost)
    assert {each: whole[each] for each in MODEL_MEASURES - lost} == {
        each: measures[each] for each in MODEL_MEASURES - lost
    }
    assert "broken on purpose" in caplog.text


def test_too_few_samples_for_artefacts_are_no_failure(tiny):
    from dataclasses import replace

    small = MeasureConfig(**{**vars(replace(SMALL)), "train_images": 10})
    measures = measure_run(
        tiny,
        train_images=data(40, side=4),
        heldout_images=data(10, 1, side=4),
        extractor=nn.Flatten(),
        config=small,
    )[0]
    assert math.isnan(measures["grid_artifact_db"])
    assert math.isfinite(measures["kid"])

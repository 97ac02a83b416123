import math

import pytest

from lsdr.monitor.overtraining import Overtraining

LAYERS = ("down.attn1", "down.attn2", "mid.attn1")


def turn(logits=1.0, size=0.1, directions=0.0, layers=LAYERS):
    values = {}
    for number, layer in enumerate(layers):
        values[f"attention/{layer}/logit_rms"] = (1 + number) * logits
        values[f"attention/{layer}/logit_max"] = 100.0 * logits**3  # not looked at
        values[f"lora/{layer}.to_q/sigma_over_base"] = size
        values[f"lora/{layer}.to_q/new_directions"] = directions
    return values


def events(warn, series):
    return [(event["signal"], event["step"]) for step, values in enumerate(series) for event in warn(values, step)]


def losses(*values):
    return [{"heldout_loss": value} for value in values]


def test_a_held_out_loss_that_rises_above_its_least_is_overtraining():
    warn = Overtraining(rise=0.05, patience=2)
    # A rise within the threshold, one that is over at the next measurement, and one that stays.
    found = events(warn, losses(0.5, 0.4, 0.415, 0.44, 0.39, 0.40, 0.42, 0.43, 0.44, 0.45))
    assert found == [("held_out_loss", 7)]
    warn = Overtraining(rise=0.05, patience=2)
    for step, values in enumerate(losses(0.5, 0.4, 0.44, 0.45)):
        said = warn(values, 100 * step)
    (event,) = said
    assert event["kind"] == "overtraining"
    assert event["value"] == pytest.approx(0.125)
    assert event["threshold"] == 0.05
    assert "12.5% above its least, 0.4 at step 100" in event["message"]


@pytest.mark.parametrize(
    ("signal", "setting", "grown"),
    [
        ("attention_logits", {"logits": 1.5}, {"logits": 1.6}),
        ("size", {"size": 0.8}, {"size": 0.9}),
        ("directions", {"directions": 0.4}, {"directions": 0.5}),
    ],
)
def test_each_signal_of_the_layers_by_itself(signal, setting, grown):
    off = dict.fromkeys(("rise", "logits", "size", "directions"))
    below = {key: value / 1.3 for key, value in grown.items()}
    series = [turn(), turn(**below), turn(**grown), turn(), turn(**grown), turn(**grown), turn(**grown), turn()]
    assert events(Overtraining(**off | setting), series) == [(signal, 5)]
    assert events(Overtraining(**off | setting, patience=1), series) == [(signal, 2)]
    assert events(Overtraining(**off), series) == []


def test_growth_is_the_geometric_mean_over_layers_of_newest_over_first():
    warn = Overtraining(logits=1.2, patience=1)
    warn(turn(), 0)
    doubled = {name: value * (2 if "attn2" in name else 1) for name, value in turn().items()}
    (event,) = warn(doubled, 1)
    assert event["value"] == pytest.approx(2 ** (1 / 3))


def test_a_monitor_that_measures_a_few_layers_at_a_time():
    warn = Overtraining(logits=1.5, patience=1)
    # Each layer's first measurement says nothing, however large; then one of three is too few to go by.
    for step, layer in enumerate(LAYERS):
        assert warn({f"attention/{layer}/logit_rms": 10.0**step}, step) == []
    assert warn({f"attention/{LAYERS[0]}/logit_rms": 9.0}, 3) == []
    (event,) = warn({f"attention/{LAYERS[1]}/logit_rms": 10.0}, 4)
    assert event["value"] == pytest.approx(3.0)  # of the two that are known: 9 and 1


def test_what_is_missing_or_not_finite_is_passed_over():
    warn = Overtraining(patience=2)
    assert warn({}, 0) == []
    assert warn({"heldout_loss": math.nan, "seen_loss": 1.0}, 1) == []
    assert events(warn, losses(0.4, 0.5, math.nan, math.inf)) == []
    # The two kinds of values come at steps of their own: neither breaks the other's row.
    found = [event["signal"] for event in (*warn(turn(), 4), *warn({"heldout_loss": 0.5}, 5))]
    assert found == ["held_out_loss"]


def test_it_comes_to_the_same_when_the_recorded_values_are_given_again():
    series = [turn(1 + 0.1 * step, 0.2 * step, 0.1 * step) | losses(0.3 + 0.01 * step)[0] for step in range(10)]
    whole = events(Overtraining(), series)
    assert {signal for signal, _ in whole} == {"held_out_loss", "attention_logits", "size", "directions"}
    warn = Overtraining()
    before = events(warn, series[:5])
    resumed = Overtraining()
    events(resumed, series[:5])
    after = [(s["signal"], s["step"]) for step in range(5, 10) for s in resumed(series[step], step)]
    assert before + after == whole


@pytest.mark.parametrize("wrong", [{"rise": 0.0}, {"logits": 1.0}, {"size": math.nan}, {"directions": -1.0}])
def test_thresholds_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
        Overtraining(**wrong)
    with pytest.raises(ValueError, match="patience must be"):
        Overtraining(patience=0)

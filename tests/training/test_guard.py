import json
import math

import pytest

from lsdr.training.guard import Guard, Trouble


def fed(guard, count, loss=1.0, norm=2.0):
    for step in range(count):
        assert guard.check(step, loss, norm) is None
    return guard


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_non_finite_value_is_trouble_from_the_first_step(value):
    loss = Guard().check(7, value, 1.0)
    assert (loss.kind, loss.which, loss.step) == ("nonfinite_loss", "loss", 7)
    assert loss.threshold is None
    gradient = Guard().check(7, 1.0, value)
    assert (gradient.kind, gradient.which) == ("nonfinite_gradient", "grad_norm")
    both = Guard().check(7, value, value)
    assert both.kind == "nonfinite_loss"
    assert str(value) in both.message


def test_a_loss_spike_is_over_ten_times_the_median_and_not_at_it():
    guard = fed(Guard(), 20)
    assert guard.check(20, 10.0, 2.0) is None
    assert guard.check(21, 10.001, 2.0) == Trouble("spike", 10.001, 10.0, "loss", 21)


def test_nothing_is_a_spike_before_warm_up():
    guard = fed(Guard(warmup=5), 4)
    assert guard.check(4, 1000.0, 2.0) is None
    assert guard.check(5, 1000.0, 2.0) is not None


def test_a_gradient_spike_is_counted_and_kept_but_is_no_trouble():
    guard = fed(Guard(), 20)
    assert guard.check(20, 1.0, 21.0) is None
    assert guard.gradient_spike == Trouble("spike", 21.0, 20.0, "grad_norm", 20)
    assert guard.spikes == 1
    assert guard.check(21, 1.0, 2.0) is None
    assert guard.gradient_spike is None
    assert guard.spikes == 1


def test_a_step_with_both_spikes_counts_once_and_is_trouble_of_the_loss():
    guard = fed(Guard(), 20)
    assert guard.check(20, 50.0, 50.0).which == "loss"
    assert guard.gradient_spike is None
    assert guard.spikes == 1


def test_steps_in_trouble_do_not_move_the_medians():
    guard = fed(Guard(window=20), 20)
    for step in range(20, 60):
        assert guard.check(step, 100.0, 2.0).threshold == 10.0
    assert guard.check(60, math.nan, 2.0) is not None
    assert guard.state_dict()["losses"][""] == [1.0] * 20


def test_a_lasting_change_of_the_gradients_scale_becomes_normal():
    guard = fed(Guard(window=20), 20)
    for step in range(20, 40):
        assert guard.check(step, 1.0, 100.0) is None
    assert guard.spikes == 10  # until half the window holds the new scale
    assert guard.gradient_spike is None


def test_old_steps_leave_the_window():
    guard = fed(fed(Guard(window=20), 20, loss=100.0), 20, loss=1.0)
    assert guard.check(40, 10.5, 2.0) is not None


def test_an_objective_that_can_be_negative_never_spikes():
    guard = fed(Guard(), 30, loss=-5.0)
    assert guard.check(30, 1e6, 2.0) is None
    assert guard.check(31, math.nan, 2.0) is not None


def test_off_counts_and_never_acts():
    guard = fed(Guard(action="off"), 20)
    assert guard.check(20, 50.0, 2.0) is None
    assert guard.check(21, math.nan, 2.0) is None
    assert guard.spikes == 1
    assert len(guard.state_dict()["losses"][""]) == 20


def test_a_resumed_guard_judges_as_one_that_was_never_stopped():
    values = [(1 + 0.1 * math.sin(k) + 30 * (k % 37 == 36), 2 + math.cos(k) + 90 * (k % 41 == 40)) for k in range(150)]
    whole, first = Guard(window=30), Guard(window=30)
    expected = [whole.check(step, *value) for step, value in enumerate(values)]
    found = [first.check(step, *value) for step, value in enumerate(values[:70])]
    resumed = Guard(window=30)
    resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
    found += [resumed.check(step, *value) for step, value in enumerate(values[70:], start=70)]
    assert found == expected
    assert sum(trouble is not None for trouble in expected) == 4
    assert resumed.state_dict() == whole.state_dict()
    assert resumed.spikes == 7


def test_the_event_is_json_with_the_numbers():
    event = Guard().check(3, math.inf, 1.0).to_event("stop")
    assert event["kind"] == "nonfinite_loss"
    assert event["step"] == 3
    assert event["action"] == "stop"
    assert event["message"] == "the loss is inf"
    spike = Trouble("spike", 31.25, 9.0, "grad_norm", 5).to_event("none")
    assert json.loads(json.dumps(spike)) == {
        "step": 5,
        "kind": "spike",
        "which": "grad_norm",
        "value": 31.25,
        "threshold": 9.0,
        "action": "none",
        "message": "the gradient norm jumped to 31.25, over its threshold of 9",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"action": "halt"}, "action must be one of stop, skip, rollback, off, got 'halt'"),
        ({"factor": 1.0}, "factor must be greater than 1"),
        ({"factor": math.nan}, "factor must be greater than 1"),
        ({"warmup": 0}, "warmup must be between 1 and window=100"),
        ({"warmup": 30, "window": 20}, "warmup must be between 1 and window=20"),
    ],
)
def test_impossible_settings_are_refused(arguments, message):
    # The type checker in the tests may speak first; either way the word is named.
    with pytest.raises(Exception, match="action" if "action" in arguments else message):
        Guard(**arguments)

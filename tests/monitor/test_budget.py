"""The budget, against a clock that the test moves."""

import json
from statistics import mean

import pytest
from torch import nn

from lsdr.monitor import monitor as module
from lsdr.monitor.clock import HostClock
from lsdr.monitor.monitor import Monitor


class Watch:
    """A clock, a model of some layers, and a probe whose measuring takes as long as it is told."""

    def __init__(self, costs, monkeypatch, first=1.0, sizes=None):
        self.now = 0.0
        self.costs, self.first, self.calls, self.seen = costs, first, [], set()
        sizes = sizes or {}
        self.model = nn.ModuleDict({name: nn.Linear(2, sizes.get(name, 2), device="meta") for name in costs})
        monkeypatch.setattr(module, "clock_of", lambda device: HostClock(lambda: self.now))

    def probe(self, only=None):
        watch = self

        class Probe:
            prefix = "p"

            def select(self, model):
                return dict(model.items())

            def narrow(self, names):
                return watch.probe(names)

            def __call__(self, model):
                names = [name for name in watch.costs if only is None or name in only]
                for name in names:
                    watch.now += watch.costs[name] * (1.0 if name in watch.seen else watch.first)
                    watch.seen.add(name)
                watch.calls.append(names)
                return {name: {"x": 1.0} for name in names}

        return Probe()

    def run(self, monitor, steps, step_seconds=0.1, start=0, shares=None):
        for step in range(start, start + steps):
            with monitor.at(step):
                self.now += 0.7 * step_seconds
            self.now += 0.3 * step_seconds
            if shares is not None:
                shares.append(monitor.spent.share)
        with monitor.at(start + steps - 1):  # ends the last step
            pass


def layers(count, seconds):
    return {f"layer{index}": seconds for index in range(count)}


def test_cheap_layers_are_all_measured_in_every_turn(monkeypatch):
    watch = Watch(layers(20, 1e-6), monkeypatch)
    monitor = Monitor(watch.model, [watch.probe()], every=10, budget=0.01)
    watch.run(monitor, 200)
    # The first turn learns what one layer costs; from the second on all of them fit.
    assert [len(call) for call in watch.calls[:3]] == [1, 20, 20]
    assert len(watch.calls) == 20
    assert monitor.spent.turns == 20
    assert monitor.spent.share < 0.01


@pytest.mark.parametrize("budget", [0.05, 0.01, 0.002])
@pytest.mark.parametrize("cost", [1e-3, 5e-3, 0.05])
def test_dear_layers_take_turns_and_stay_under_the_budget(monkeypatch, cost, budget):
    watch = Watch(layers(20, cost), monkeypatch)
    monitor = Monitor(watch.model, [watch.probe()], every=10, budget=budget)
    shares = []
    watch.run(monitor, 5000, step_seconds=0.4, shares=shares)
    assert max(shares[500:]) <= budget
    assert shares[-1] > 0.7 * min(budget, 20 * cost / (10 * 0.4))  # and what may be spent, is
    assert len(watch.seen) == 20
    counts = [sum(name in call for call in watch.calls) for name in watch.costs]
    assert max(counts) - min(counts) <= 1  # round and round
    spent = monitor.spent
    assert spent.seconds == pytest.approx(spent.share * 2000, rel=1e-2)
    assert spent.turns == len(watch.calls)
    assert spent.layers_per_turn == pytest.approx(mean(len(call) for call in watch.calls))


def test_cold_starts_are_spread_over_turns(monkeypatch):
    watch = Watch(layers(50, 1e-4), monkeypatch, first=400.0)  # 0.04 s each the first time, 2 s together
    monitor = Monitor(watch.model, [watch.probe()], every=10, budget=0.2)
    turns = []
    for step in range(5000):
        before = watch.now
        with monitor.at(step):
            watch.now += 0.1
        turns.append(watch.now - before - 0.1)
    assert max(turns) < 3 * 0.1 + 1e-9
    assert watch.seen == set(watch.costs)
    assert len(watch.calls[-1]) == 50  # warm, all fit into one turn
    assert monitor.spent.share < 0.2


def test_a_change_of_the_steps_duration_is_followed(monkeypatch):
    watch = Watch(layers(10, 2e-3), monkeypatch)
    monitor = Monitor(watch.model, [watch.probe()], every=5, budget=0.01)
    watch.run(monitor, 3000, step_seconds=0.5)
    assert len(watch.calls[-1]) == 10  # 2.5 s earn 20 ms a turn
    shares = []
    watch.calls.clear()
    watch.run(monitor, 6000, step_seconds=0.01, start=3000, shares=shares)
    assert max(shares) <= 0.01
    assert max(map(len, watch.calls[5:])) < 10
    assert len(watch.calls) < 1200 / 4  # rarer turns: 50 ms earn 0.4 ms


def test_a_pause_buys_no_burst(monkeypatch):
    watch = Watch(layers(1000, 1e-3), monkeypatch)
    monitor = Monitor(watch.model, [watch.probe()], every=1, budget=0.01)
    watch.run(monitor, 500)
    watch.now += 3600.0
    watch.calls.clear()
    watch.run(monitor, 20, start=500)
    assert sum(map(len, watch.calls)) * 1e-3 < 0.01 * (20 + 12) * 0.1


@pytest.mark.parametrize("size", [1_700_000, 2])  # it looks dear, or it does not
def test_a_layer_dearer_than_any_turn_is_paid_in_instalments_and_starves_no_other(monkeypatch, size):
    watch = Watch({**layers(10, 1e-3), "huge": 0.5}, monkeypatch, sizes={"huge": size})
    monitor = Monitor(watch.model, [watch.probe()], every=10, budget=0.01)
    shares = []
    watch.run(monitor, 5000, shares=shares)
    huge = [number for number, call in enumerate(watch.calls) if "huge" in call]
    assert 3 <= len(huge) <= 10
    assert shares[-1] <= 0.01
    if size > 2:
        assert max(shares[1000:]) <= 0.01
    assert sum("layer3" in call for call in watch.calls) > 40


def test_one_slow_moment_is_forgotten(monkeypatch):
    watch = Watch(layers(5, 1e-3), monkeypatch)
    monitor = Monitor(watch.model, [watch.probe()], every=10, budget=0.01)
    watch.run(monitor, 300)
    watch.costs = layers(5, 0.5)
    watch.run(monitor, 20, start=300)
    watch.costs = layers(5, 1e-3)
    watch.calls.clear()
    watch.run(monitor, 6000, start=320)
    assert monitor.spent.share < 0.01
    assert sum(map(len, watch.calls[-20:])) >= 60


def test_without_a_budget_everything_is_measured_and_the_cost_is_reported(monkeypatch):
    watch = Watch(layers(4, 0.5), monkeypatch)
    monitor = Monitor(watch.model, [watch.probe()], every=10, budget=None)
    watch.run(monitor, 100)
    assert [len(call) for call in watch.calls] == [4] * 10
    assert monitor.spent.share == pytest.approx(2.0, rel=0.02)  # 20 s of 10 s
    assert monitor.spent.seconds == pytest.approx(20.0)


def test_hooks_are_paid_for(monkeypatch):
    """What hooks add to the forward pass is seen by comparing steps that have them with steps that have not."""
    watch = Watch(layers(4, 1e-6), monkeypatch)
    watching = []

    class Hooked:
        prefix = "h"

        def attach(self, model):
            import contextlib

            @contextlib.contextmanager
            def context():
                watching.append(True)
                yield lambda: {"x": 1.0}
                watching.pop()

            return context()

    monitor = Monitor(watch.model, [Hooked()], every=10, budget=0.01)
    turns, shares = 0, []
    for step in range(5000):
        with monitor.at(step):
            watch.now += 0.1 + 0.05 * len(watching)
            turns += len(watching)
        shares.append(monitor.spent.share)
    assert max(shares[1500:]) <= 0.01
    assert turns == pytest.approx(0.008 * 500 / 0.05, rel=0.1)


def test_times_that_become_known_late_are_counted_all_the_same(monkeypatch):
    """A GPU says how long something took when it has got there, steps later."""

    def run(behind):
        watch = Watch(layers(20, 5e-3), monkeypatch)

        class Late(HostClock):
            def between(self, start, end):
                return end - start if watch.now >= end + behind else None

        monkeypatch.setattr(module, "clock_of", lambda device: Late(lambda: watch.now))
        monitor = Monitor(watch.model, [watch.probe()], every=10, budget=0.01)
        watch.run(monitor, 3000)
        watch.now += behind
        monitor._budget.enter()
        return watch, monitor.spent

    (prompt, expected), (late, spent) = run(0.0), run(0.35)
    assert spent.seconds == pytest.approx(5e-3 * sum(map(len, late.calls)))
    assert spent.share == pytest.approx(expected.share, rel=0.05)
    assert spent.share < 0.01
    assert late.seen == prompt.seen == set(late.costs)


def test_a_resumed_run_goes_on_with_the_schedule(monkeypatch):
    def start():
        watch = Watch(layers(20, 5e-3), monkeypatch)
        return watch, Monitor(watch.model, [watch.probe()], every=10, budget=0.01)

    whole, monitor = start()
    whole.run(monitor, 2000)
    calls = len(whole.calls)
    state = json.loads(json.dumps(monitor.state_dict()["numbers"]))
    spent = monitor.spent
    whole.run(monitor, 1000, start=2000)

    resumed, monitor = start()
    monitor.load_state_dict({"numbers": state, "tensors": {}})
    assert monitor.spent == spent
    resumed.run(monitor, 1000, start=2000)
    assert resumed.calls[:20] == whole.calls[calls : calls + 20]
    assert monitor.spent.share < 0.01


def test_a_step_that_fails_counts_for_nothing(monkeypatch):
    watch = Watch(layers(4, 1e-3), monkeypatch)
    monitor = Monitor(watch.model, [watch.probe()], every=1, budget=None)

    def fail():
        with monitor.at(0):
            watch.now += 100.0
            raise KeyError("data")

    with pytest.raises(KeyError):
        fail()
    assert watch.calls == []
    watch.run(monitor, 10)
    assert monitor.spent.share == pytest.approx(0.04, rel=0.01)


@pytest.mark.parametrize(("settings", "message"), [({"budget": 0.0}, "budget"), ({"budget": 2.0}, "budget")])
def test_nonsense_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Monitor(nn.Linear(2, 2), **settings)
    with pytest.raises(ValueError, match="every"):
        Monitor(nn.Linear(2, 2), every=0)

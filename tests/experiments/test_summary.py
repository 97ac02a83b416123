import json

import pytest

from lsdr.experiments.summary import summarize
from lsdr.runs import append_record, read_json, write_json

MEASURES = {
    "heldout_loss": "lower",
    "largest_stable_lr": "higher",
    "sensitivity": "lower",
    "lyapunov": "lower",
    "diversity_variance": None,
    "diverged": "lower",
    "step_seconds": "lower",
    "step_seconds_ratio": "lower",
    "memory_mb": "lower",
    "memory_ratio": "lower",
}


@pytest.fixture
def experiment(tmp_path):
    """Write an experiment: arms map a method to a list of its seeds' measures, or to a status where a run failed."""

    def write(**arms):
        seeds = list(range(len(next(iter(arms.values())))))
        about = {name: {"label": name, "unit": "", "better": better} for name, better in MEASURES.items()}
        methods = [{"name": name} for name in arms]
        write_json(tmp_path / "experiment.json", {"methods": methods, "seeds": seeds, "measures": about})
        for name, runs in arms.items():
            for seed, run in enumerate(runs):
                folder = tmp_path / name / f"seed={seed}"
                if isinstance(run, str):
                    write_json(folder / "status.json", {"status": run})
                elif run is not None:
                    write_json(folder / "status.json", {"status": "finished", "steps": 10})
                    write_json(folder / "measures.json", run)
        summary = summarize(tmp_path)
        assert read_json(tmp_path / "summary.json") == json.loads(json.dumps(summary))
        return summary

    return write


def values(measure, numbers):
    return [{measure: number} for number in numbers]


def find(summary, measure, method="method"):
    return next(c for c in summary["comparisons"] if c["measure"] == measure and c["method"] == method)


BASE = [1.0, 2.0, 3.0, 4.0, 5.0]


def shifted(*shifts):
    return [base + shift for base, shift in zip(BASE, shifts, strict=True)]


def test_effect_is_the_median_of_paired_differences(experiment):
    # Unpaired medians are equal; only pairing finds the difference.
    summary = experiment(
        baseline=values("heldout_loss", BASE), method=values("heldout_loss", shifted(-0.1, -0.2, -0.3, -0.4, -2.0))
    )
    found = find(summary, "heldout_loss")
    assert found["effect"] == pytest.approx(-0.3)
    assert (found["low"], found["high"]) == (pytest.approx(-2.0), pytest.approx(-0.1))
    assert found["baseline"] == 3.0
    assert found["relative"] == pytest.approx(-0.1)
    assert found["pairs"] == 5
    assert found["against"] == "baseline"
    assert found["verdict"] == "better"
    assert found["seeds_needed"] is None
    assert found["reason"] == "the interval over 5 paired seeds excludes zero"


@pytest.mark.parametrize(
    ("measure", "sign", "verdict"),
    [
        ("heldout_loss", 1, "worse"),
        ("heldout_loss", -1, "better"),
        ("largest_stable_lr", 1, "better"),
        ("largest_stable_lr", -1, "worse"),
        ("diversity_variance", 1, "higher"),
        ("diversity_variance", -1, "lower"),
    ],
)
def test_directions(experiment, measure, sign, verdict):
    moved = shifted(*(sign * size for size in (0.1, 0.2, 0.3, 0.4, 0.5)))
    summary = experiment(baseline=values(measure, BASE), method=values(measure, moved))
    assert find(summary, measure)["verdict"] == verdict


def test_one_seed_of_five_against_is_undecided(experiment):
    summary = experiment(
        baseline=values("heldout_loss", BASE), method=values("heldout_loss", shifted(-0.1, -0.2, -0.3, -0.4, 0.1))
    )
    found = find(summary, "heldout_loss")
    assert found["verdict"] == "no difference shown"
    assert found["low"] < 0 < found["high"]
    assert found["seeds_needed"] > 5
    assert found["reason"] == (
        f"the interval over 5 paired seeds includes zero; about {found['seeds_needed']} would show the observed effect"
    )


@pytest.mark.parametrize(
    ("pairs", "text"),
    [
        (1, "1 paired seed; 5 are needed before an interval can exclude chance"),
        (2, "2 paired seeds; 5 are needed before an interval can exclude chance"),
        (4, "4 paired seeds; 5 are needed before an interval can exclude chance"),
    ],
)
def test_fewer_than_five_pairs_show_nothing(experiment, pairs, text):
    summary = experiment(
        baseline=values("heldout_loss", BASE[:pairs]), method=values("heldout_loss", [-9.0, -8.0, -7.0, -6.0][:pairs])
    )
    found = find(summary, "heldout_loss")
    assert found["verdict"] == "no difference shown"
    assert found["reason"].startswith(text)
    assert summary["chance_verdicts"] == 0


def test_equal_trajectories_have_an_effect_of_exactly_zero(experiment):
    numbers = [0.1, 0.7, 1 / 3, 2.0**-40, 5e9]
    summary = experiment(baseline=values("heldout_loss", numbers), lambda_zero=values("heldout_loss", numbers))
    found = find(summary, "heldout_loss", "lambda_zero")
    assert (found["effect"], found["low"], found["high"]) == (0.0, 0.0, 0.0)
    assert found["verdict"] == "no difference shown"
    assert found["reason"] == "the same value in both methods on all of 5 paired seeds"
    assert found["seeds_needed"] is None
    assert summary["chance_verdicts"] == 0


def test_against_the_first_method_where_there_is_no_baseline(experiment):
    summary = experiment(first=values("heldout_loss", BASE), method=values("heldout_loss", BASE))
    assert {(c["method"], c["against"]) for c in summary["comparisons"]} == {("method", "first")}


def test_pairs_are_seeds_with_both_values(experiment):
    base = values("heldout_loss", BASE)
    own = [{"heldout_loss": 0.0}, "running", None, {"heldout_loss": None}, {"heldout_loss": 4.0}]
    summary = experiment(baseline=base, method=own)
    found = find(summary, "heldout_loss")
    assert found["pairs"] == 2
    assert found["effect"] == pytest.approx(-1.0)
    statuses = [seed["status"] for seed in summary["methods"][1]["seeds"]]
    assert statuses == ["finished", "running", "not started", "finished", "finished"]


def test_no_pair_at_all(experiment):
    summary = experiment(baseline=values("heldout_loss", BASE), method=["crashed"] * 5)
    found = find(summary, "heldout_loss")
    assert found["effect"] is None
    assert found["pairs"] == 0
    assert found["verdict"] == "no difference shown"
    assert found["reason"] == "no seed has a value in both methods"


BASE6 = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


def test_survivors_do_not_make_a_method_better(experiment):
    own = [*values("heldout_loss", [0.0] * 5), "diverged"]
    found = find(experiment(baseline=values("heldout_loss", BASE6), method=own), "heldout_loss")
    assert found["pairs"] == 5
    assert found["effect"] == pytest.approx(-3.0)
    assert found["verdict"] == "no difference shown"
    assert found["reason"].startswith("1 run of method diverged or crashed")


def test_survivors_do_not_make_the_baseline_better(experiment):
    base = [*values("heldout_loss", [0.0] * 5), "diverged"]
    found = find(experiment(baseline=base, method=values("heldout_loss", BASE6)), "heldout_loss")
    assert found["verdict"] == "no difference shown"
    assert found["reason"].startswith("1 run of baseline diverged or crashed")


def test_failures_do_not_excuse_a_worse_method(experiment):
    own = [*values("heldout_loss", [10.0] * 5), "diverged"]
    found = find(experiment(baseline=values("heldout_loss", BASE6), method=own), "heldout_loss")
    assert found["verdict"] == "worse"


def test_divergence(experiment):
    summary = experiment(
        baseline=values("heldout_loss", BASE6),
        method=["diverged", "diverged", "crashed", "running", {"heldout_loss": 1.0}, {"heldout_loss": 2.0}],
    )
    base, own = summary["divergence"]
    assert (base["rate"], base["low"]) == (0.0, 0.0)
    assert base["high"] == pytest.approx(0.3903, abs=1e-3)
    assert (own["runs"], own["diverged"], own["crashed"], own["rate"]) == (5, 2, 1, 0.6)
    assert own["low"] == pytest.approx(0.2307, abs=1e-3)
    found = find(summary, "diverged")
    assert found["effect"] == pytest.approx(0.6)  # a rate, not a median of zeros and ones
    assert found["pairs"] == 5
    assert [seed["measures"].get("diverged") for seed in summary["methods"][1]["seeds"]] == [1, 1, 1, None, 0, 0]


def test_divergence_of_every_run_is_shown(experiment):
    found = find(experiment(baseline=values("heldout_loss", BASE), method=["diverged"] * 5), "diverged")
    assert found["verdict"] == "worse"


def test_equal_time_compares_with_the_end_of_the_baseline(experiment):
    own = [{"heldout_loss": base, "heldout_loss@equal_time": base + 0.5} for base in BASE]
    summary = experiment(baseline=values("heldout_loss", BASE), method=own)
    assert find(summary, "heldout_loss")["effect"] == 0.0
    found = find(summary, "heldout_loss@equal_time")
    assert found["effect"] == pytest.approx(0.5)
    assert found["verdict"] == "worse"


def test_costs_are_ratios_of_the_same_seed(experiment):
    base = [{"step_seconds": 1.0 * k, "memory_mb": 100.0} for k in (1, 2, 3, 4, 5)]
    own = [{"step_seconds": 1.5 * k, "memory_mb": 110.0} for k in (1, 2, 3, 4, 5)]
    summary = experiment(baseline=base, method=own)
    assert [seed["measures"]["step_seconds_ratio"] for seed in summary["methods"][1]["seeds"]] == [1.5] * 5
    assert [seed["measures"]["memory_ratio"] for seed in summary["methods"][0]["seeds"]] == [1.0] * 5
    found = find(summary, "step_seconds_ratio")
    assert (found["effect"], found["baseline"], found["relative"]) == (0.5, 1.0, 0.5)
    assert found["verdict"] == "worse"


def test_step_time_of_a_run_without_measures_comes_from_its_records(experiment, tmp_path):
    for step, seconds in enumerate((9.0, 3.0, 2.0, 1.0), start=1):
        append_record(tmp_path / "method" / "seed=0" / "metrics.jsonl", {"step": step, "step_seconds": seconds})
    summary = experiment(baseline=[{"step_seconds": 1.0}], method=["diverged"])
    assert summary["methods"][1]["seeds"][0]["measures"]["step_seconds"] == 2.0
    assert summary["methods"][1]["seeds"][0]["measures"]["step_seconds_ratio"] == 2.0


@pytest.mark.parametrize("measure", ["sensitivity", "lyapunov"])
@pytest.mark.parametrize("suffix", ["", "@equal_time"])
@pytest.mark.parametrize(
    ("diversity", "verdict"),
    [
        ([1.0, 1.0, 1.0, 1.0, 1.0], "better"),
        ([1.1, 1.2, 1.0, 1.1, 0.97], "better"),
        ([0.99, 0.99, 0.98, 0.99, 0.97], "lower, with less diversity"),  # shown lower
        ([1.2, 1.1, 1.1, 1.1, 0.9], "lower, with less diversity"),  # may have fallen by a tenth
        (None, "lower"),
    ],
)
def test_lower_sensitivity_counts_only_beside_diversity(experiment, measure, suffix, diversity, verdict):
    base = [{measure: 1.0, "diversity_variance": 1.0} for _ in range(5)]
    own = [{measure: 1.0, "diversity_variance": 1.0} for _ in range(5)]
    for seed, run in enumerate(own):
        run[measure + suffix] = 0.5
        del run["diversity_variance"]
        if diversity is not None:
            run["diversity_variance" + suffix] = diversity[seed]
    found = find(experiment(baseline=base, method=own), measure + suffix)
    assert found["verdict"] == verdict


def test_higher_sensitivity_is_worse_whatever_the_diversity(experiment):
    base = [{"sensitivity": 1.0, "diversity_variance": 1.0}] * 5
    own = [{"sensitivity": 2.0, "diversity_variance": 0.1}] * 5
    assert find(experiment(baseline=base, method=own), "sensitivity")["verdict"] == "worse"


def test_chance_verdicts(experiment):
    own = [{"heldout_loss": base + 0.1, "sensitivity": -base} for base in BASE]
    base = [{"heldout_loss": base, "sensitivity": base} for base in BASE]
    assert experiment(baseline=base, method=own)["chance_verdicts"] == pytest.approx(2 * 2**-4, abs=0.01)


def test_zero_baseline_has_no_relative_effect(experiment):
    summary = experiment(baseline=values("heldout_loss", [0.0] * 5), method=values("heldout_loss", [1.0] * 5))
    assert find(summary, "heldout_loss")["relative"] is None


def test_without_experiment(tmp_path):
    with pytest.raises(ValueError, match="holds no experiment"):
        summarize(tmp_path)

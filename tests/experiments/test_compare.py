import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from lsdr.experiments.compare import compare
from lsdr.runs import read_json, read_records
from lsdr.training.config import TrainingConfig


@pytest.fixture
def start(fake, tmp_path):
    """Compare on the fake task; returns the summary and what was printed."""

    def go(methods=("baseline", "clip"), seeds=(0,), config=None, out=tmp_path / "out", **options):
        text = io.StringIO()
        console = Console(file=text, width=10_000)
        summary = compare(config or fake.FakeConfig(), methods, seeds, out, task=fake.TASK, console=console, **options)
        return summary, text.getvalue()

    go.out = tmp_path / "out"
    return go


def statuses(summary):
    return {(m["name"], s["seed"]): s["status"] for m in summary["methods"] for s in m["seeds"]}


def starts(run):
    return [record["step"] for record in read_records(run / "starts.jsonl")]


def test_files_and_pairing(start):
    summary, text = start(seeds=(3, 4), jobs=2)
    assert set(statuses(summary).values()) == {"finished"}
    experiment = read_json(start.out / "experiment.json")
    assert [m["name"] for m in experiment["methods"]] == ["baseline", "clip"]
    assert experiment["methods"][1]["overrides"] == {"clip": 1.0}
    assert experiment["seeds"] == [3, 4]
    assert experiment["data"] == {"source": "fake", "count": 3}
    assert experiment["finished"] is not None
    assert experiment["measures"]["heldout_loss"]["better"] == "lower"
    assert "seed" not in experiment["config"]["training"]
    jobs = {(m, s): read_json(start.out / m / f"seed={s}" / "job.json") for m in ("baseline", "clip") for s in (3, 4)}
    assert jobs["clip", 4]["config"]["training"]["clip"] == 1.0
    assert jobs["clip", 4]["config"]["training"]["seed"] == jobs["baseline", 4]["config"]["training"]["seed"] == 4
    assert jobs["baseline", 3]["reference_seconds"] is None
    assert jobs["clip", 3]["reference_seconds"] == pytest.approx(0.25 * 5)
    assert read_json(start.out / "summary.json") == json.loads(json.dumps(summary))
    assert "clip seed=4: finished" in text


def test_baseline_of_a_seed_runs_first_wherever_it_is_named(start):
    start(methods=("clip", "baseline"), jobs=2)
    assert read_json(start.out / "clip" / "seed=0" / "job.json")["reference_seconds"] == pytest.approx(1.25)


def test_without_baseline_there_is_no_reference(start):
    start(methods=("clip",))
    assert read_json(start.out / "clip" / "seed=0" / "job.json")["reference_seconds"] is None


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        ("exit", "exit code 7"),
        ("kill", "SIGKILL"),
        ("raise", "exit code 1"),
    ],
)
def test_crash_is_a_result_and_stays_one(fake, start, failure, expected):
    config = fake.FakeConfig(fail={"clip": failure})
    summary, text = start(config=config)
    assert statuses(summary) == {("baseline", 0): "finished", ("clip", 0): "crashed"}
    run = start.out / "clip" / "seed=0"
    assert expected in read_json(run / "status.json")["message"]
    assert f"delete {run}" in text
    assert ("RuntimeError: planted" in text) == (failure == "raise")
    _, text = start(config=config)
    assert starts(run) == [0]
    assert "crashed earlier" in text
    assert f"delete {run}" in text
    (run / "status.json").unlink()
    start(config=config)
    assert starts(run) == [0, 2]


def test_divergence_is_a_result(fake, start):
    config = fake.FakeConfig(fail={"clip": "diverge"})
    summary, text = start(config=config)
    assert statuses(summary)["clip", 0] == "diverged"
    assert "step 3: planted" in text
    assert summary["divergence"][1]["diverged"] == 1
    start(config=config)
    assert starts(start.out / "clip" / "seed=0") == [0]


def test_worker_that_was_asked_to_stop_is_not_a_crash(fake, start):
    config = fake.FakeConfig(fail={"clip": "stop"})
    summary, text = start(config=config)
    assert statuses(summary)["clip", 0] == "interrupted"
    assert "clip seed=0: interrupted" in text
    summary, _ = start(config=config)
    assert statuses(summary)["clip", 0] == "finished"


@pytest.mark.parametrize("status", ["running", "interrupted"])
def test_unfinished_runs_resume_and_finished_ones_stay(fake, start, status):
    whole, _ = start(out=start.out.parent / "whole")
    start()
    run = start.out / "clip" / "seed=0"
    for name in ("measures.json", "status.json"):
        (run / name).unlink()
    fake.write_status(run, status, 2, 5)
    # As after a kill: the checkpoint is older than the records.
    records = read_records(run / "metrics.jsonl")
    (run / "checkpoint.json").write_text(json.dumps([2, int(records[1]["loss"] * 2**32)]))
    summary, _ = start()
    assert starts(run) == [0, 2]
    assert starts(start.out / "baseline" / "seed=0") == [0]
    assert summary == whole


def test_methods_and_seeds_can_be_added(start):
    start(methods=("baseline",), seeds=(0,))
    start(methods=("clip",), seeds=(1,))
    summary, _ = start(methods=("baseline", "clip"), seeds=(0, 1))
    assert set(statuses(summary)) == {("baseline", 0), ("baseline", 1), ("clip", 0), ("clip", 1)}
    assert set(statuses(summary).values()) == {"finished"}
    assert starts(start.out / "baseline" / "seed=0") == [0]
    assert read_json(start.out / "experiment.json")["command"].count("\n") == 1


def test_partly_run_experiment_is_not_finished(start):
    start(methods=("baseline",), seeds=(0,))
    summary, _ = start(methods=("clip",), seeds=(1,))
    assert statuses(summary)["baseline", 1] == "not started"
    assert read_json(start.out / "experiment.json")["finished"] is None


def test_changed_configuration_is_refused_before_anything_is_written(fake, start):
    start()
    before = {path: path.read_bytes() for path in start.out.rglob("*.json")}
    config = fake.FakeConfig(training=TrainingConfig(steps=6, lr=0.5), pause=0.5)
    with pytest.raises(ValueError, match="another configuration") as error:
        start(config=config)
    assert "training.steps was 5, is 6" in str(error.value)
    assert "training.lr was 0.001, is 0.5" in str(error.value)
    assert "pause was 0.0, is 0.5" in str(error.value)
    assert "--out" in str(error.value)
    assert {path: path.read_bytes() for path in start.out.rglob("*.json")} == before


def test_changed_method_is_refused(fake, start, monkeypatch):
    start(methods=("baseline", "fake_worker:stranger"))
    monkeypatch.setattr(fake, "stranger", lambda: (fake.Nothing(weight=2.0),))
    with pytest.raises(ValueError, match=r"fake_worker\.stranger\.regularizers was .*weight=1\.0.* is .*weight=2\.0"):
        start(methods=("baseline", "fake_worker:stranger"))


def test_seed_in_the_configuration_does_not_count(fake, start):
    start()
    start(config=replace(fake.FakeConfig(), training=TrainingConfig(steps=5, seed=9)))


def test_threads_stay_those_of_the_first_call(start):
    start(methods=("baseline",), jobs=1)
    first = read_records(start.out / "baseline" / "seed=0" / "starts.jsonl")[0]["threads"]
    start(methods=("baseline", "clip"), seeds=(0, 1), jobs=64)
    assert read_records(start.out / "clip" / "seed=1" / "starts.jsonl")[0]["threads"] == first


def test_runs_spread_over_gpus(fake, start, monkeypatch):
    monkeypatch.setattr("lsdr.experiments.compare._devices", lambda: ["3", "5"])
    start(methods=("baseline",), seeds=(0, 1), config=fake.FakeConfig(pause=0.1))
    places = [read_records(start.out / "baseline" / f"seed={k}" / "starts.jsonl")[0]["gpu"] for k in (0, 1)]
    assert places == ["3", "5"]


def test_same_method_twice(start):
    with pytest.raises(ValueError, match=r"decorrelation@0\.3.* mean 'decorrelation@0.3'"):
        start(methods=("decorrelation@0.3", "decorrelation@0.30"))
    assert not start.out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": ()}, "at least one method and distinct seeds"),
        ({"seeds": (1, 1)}, "distinct seeds"),
        ({"methods": ()}, "at least one method"),
        ({"jobs": 0}, "jobs must be at least 1"),
    ],
)
def test_wrong_arguments(start, options, message):
    with pytest.raises(ValueError, match=message):
        start(**options)
    assert not start.out.exists()


def test_directory_of_a_single_run_is_refused(start):
    start.out.mkdir()
    (start.out / "metrics.jsonl").write_text("")
    with pytest.raises(ValueError, match="single training run"):
        start()


def test_two_comparisons_in_one_folder(start):
    from lsdr.experiments.lock import alone

    start.out.mkdir()
    with alone(start.out), pytest.raises(ValueError, match="another process is writing"):
        start()


def test_stranger_that_sets_options_of_the_task(start):
    summary, _ = start(methods=("fake_worker:tuned", "fake_worker:tuned@0.25"))
    assert set(statuses(summary).values()) == {"finished"}
    jobs = [read_json(start.out / name / "seed=0" / "job.json") for name in ("tuned", "tuned@0.25")]
    assert [(job["config"]["pause"], job["config"]["training"]["lr"]) for job in jobs] == [(0.01, 0.5), (0.01, 0.25)]
    assert jobs[0]["task"] == "fake"


def test_stranger(start):
    summary, _ = start(methods=("baseline", "fake_worker:stranger", "fake_worker:stranger@0.5", "lambda_zero"))
    assert set(statuses(summary).values()) == {"finished"}
    assert (start.out / "fake_worker.stranger@0.5" / "seed=0" / "measures.json").exists()
    described = read_json(start.out / "experiment.json")["methods"]
    assert [each["regularizers"] for each in described] == [
        [],
        ["Nothing(weight=1.0)"],
        ["Nothing(weight=0.5)"],
        ["Nothing(weight=0.0)"],
    ]

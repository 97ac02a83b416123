import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from lsdr.diffusion.config import DiffusionConfig
from lsdr.experiments.fields import differences, from_dict, to_dict
from lsdr.training.config import TrainingConfig


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    names: tuple[str, ...] = ()
    pair: tuple[int, float] = (1, 2.0)


@dataclass(frozen=True)
class Outer:
    count: int
    kind: Literal["a", "b"] = "a"
    folder: Path | None = None
    flag: bool = False
    inner: Inner = field(default_factory=Inner)
    table: dict[str, int] = field(default_factory=dict)
    grid: list[float] = field(default_factory=list)


@pytest.mark.parametrize(
    "value",
    [
        Outer(3),
        Outer(3, "b", Path("x/y"), True, Inner(0.1, ("p", "q"), (7, 0.25)), {"k": 1}, [0.1, 1e-300]),
        DiffusionConfig(size=8, training=TrainingConfig(steps=3, trackers=(), precision="bf16")),
    ],
)
def test_round_trip_through_json(value):
    assert from_dict(type(value), json.loads(json.dumps(to_dict(value)))) == value


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "needs the field 'count'"),
        ({"count": "3"}, "count must be int, got '3'"),
        ({"count": 3.0}, "count must be int, got 3.0"),
        ({"count": True}, "count must be int, got True"),
        ({"count": 3, "flag": 1}, "flag must be bool, got 1"),
        ({"count": 3, "kind": "c"}, r"kind must be Literal\['a', 'b'\], got 'c'"),
        ({"count": 3, "cuont": 4}, "no field 'cuont'; close names: count"),
        ({"count": 3, "inner": {"rat": 1.0}}, r"no field 'inner\.rat'; close names: rate"),
        ({"count": 3, "inner": {"rate": "x"}}, r"inner\.rate must be float, got 'x'"),
        ({"count": 3, "inner": {"names": [1]}}, r"inner\.names\[0\] must be str, got 1"),
        ({"count": 3, "inner": {"pair": [1]}}, r"inner\.pair must be .*, got \[1\]"),
        ({"count": 3, "folder": 4}, "folder must be .*Path.*, got 4"),
        ({"count": 3, "table": {"k": "x"}}, r"table\.k must be int"),
    ],
)
def test_wrong_values(values, message):
    with pytest.raises(ValueError, match=message):
        from_dict(Outer, values)


def test_own_checks_run():
    with pytest.raises(ValueError, match="steps must be at least 1"):
        from_dict(TrainingConfig, {"steps": 0})


def test_integers_become_floats():
    assert isinstance(from_dict(Inner, {"rate": 1}).rate, float)


def test_differences():
    before = {"a": 1, "b": {"c": [1], "d": None}, "gone": 0}
    now = {"a": 1, "b": {"c": [2], "d": None}, "new": "x"}
    assert differences(before, now) == ["b.c was [1], is [2]", "gone was 0, is absent", "new was absent, is 'x'"]
    assert differences(before, json.loads(json.dumps(before))) == []

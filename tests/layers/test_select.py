import re

import pytest
import torch
from torch import nn

from lsdr.layers.select import select_called, select_layers, select_outermost


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList([nn.Linear(2, 2), nn.ReLU()])
        self.module = nn.Linear(2, 2)  # a part that happens to be called as wrappers call the model

    def forward(self, x):
        return self.module(self.parts[1](self.parts[0](x)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = Block()
        self.mid = Block()
        self.head = nn.Conv2d(2, 2, 1)


class Wrapper(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.module = model


def compiled(model):
    return torch.compile(model, backend="eager")  # another backend's import warns


NAMES = [
    *(f"{block}{part}" for block in ("down", "mid") for part in ("", ".parts", ".parts.0", ".parts.1", ".module")),
    "head",
]


def test_a_glob_crosses_dots_and_passes_the_model_over():
    assert list(select_layers(Net(), "*")) == NAMES
    assert list(select_layers(Net(), "mid*")) == [name for name in NAMES if name.startswith("mid")]
    assert list(select_layers(Net(), "mid.*")) == [name for name in NAMES if name.startswith("mid.")]


def test_case_counts():
    with pytest.raises(ValueError, match="no layer"):
        select_layers(Net(), "MID*")


def test_a_sequence_of_globs_keeps_the_models_order():
    assert list(select_layers(Net(), ["head", "down"])) == ["down", "head"]


def test_a_pattern_is_searched_for():
    assert list(select_layers(Net(), re.compile(r"parts\.\d$"))) == [
        f"{block}.parts.{k}" for block in ("down", "mid") for k in (0, 1)
    ]


def test_a_predicate_sees_name_and_module_and_the_model_itself():
    net = Net()
    assert select_layers(net, lambda name, module: isinstance(module, nn.Conv2d)) == {"head": net.head}
    assert select_layers(net, lambda name, module: module is net) == {"": net}


def test_the_model_is_selected_by_the_empty_glob_or_when_it_is_all_there_is():
    net, single = Net(), nn.Linear(2, 2)
    assert select_layers(net, "") == {"": net}
    assert select_layers(single, "*") == {"": single}
    assert select_layers(single, re.compile("")) == {"": single}


def test_types_filter():
    assert list(select_layers(Net(), "*", types=(nn.Conv2d, nn.ReLU))) == ["down.parts.1", "mid.parts.1", "head"]


@pytest.mark.parametrize(
    "wrap",
    [
        compiled,
        Wrapper,
        nn.DataParallel,
        lambda net: Wrapper(compiled(net)),
        lambda net: compiled(Wrapper(net)),
        lambda net: Wrapper(Wrapper(net)),
    ],
)
def test_what_wrappers_add_to_names_is_left_out(wrap):
    net = Net()
    assert list(select_layers(wrap(net), "*")) == NAMES
    assert select_layers(wrap(net), "") == {"": net}
    assert select_layers(wrap(net), "mid.module") == {"mid.module": net.mid.module}


def test_a_compiled_part_keeps_its_plain_name():
    net = Net()
    inner = net.mid
    net.mid = compiled(net.mid)
    assert list(select_layers(net, "*")) == NAMES
    assert select_layers(net, "mid") == {"mid": inner}


def test_a_shared_module_is_listed_once():
    shared = nn.Linear(2, 2)
    assert list(select_layers(nn.Sequential(shared, nn.ReLU(), shared), "*")) == ["0", "1"]


def test_no_match_lists_candidates_the_closest_first():
    with pytest.raises(ValueError, match=r"'heads\*'; there are head, "):
        select_layers(Net(), "heads*")
    with pytest.raises(ValueError, match=r"of type Conv2d matches 'mid'; there are head"):
        select_layers(Net(), "mid", types=(nn.Conv2d,))
    with pytest.raises(ValueError, match=r"of type Conv1d in the model at all"):
        select_layers(Net(), "*", types=(nn.Conv1d,))
    with pytest.raises(ValueError, match="no layer"):
        select_layers(Net(), [])
    with pytest.raises(ValueError, match="single Linear"):
        select_layers(nn.Linear(1, 1), "x")
    with pytest.raises(ValueError, match="and 10 more"):
        select_layers(nn.Sequential(*[nn.ReLU() for _ in range(20)]), lambda name, module: False)


def test_lists_of_modules_are_not_called():
    assert list(select_called(Net(), "mid*")) == ["mid", "mid.parts.0", "mid.parts.1", "mid.module"]
    with pytest.raises(ValueError, match="never called"):
        select_called(Net(), "mid.parts")


def test_outermost_is_taken_glob_by_glob():
    assert list(select_outermost(Net(), "*")) == ["down", "mid", "head"]
    assert list(select_outermost(Net(), "mid*")) == ["mid"]
    assert list(select_outermost(Net(), "mid.*")) == ["mid.parts.0", "mid.parts.1", "mid.module"]
    assert list(select_outermost(Net(), ["mid*", "mid.module"])) == ["mid", "mid.module"]
    assert list(select_outermost(Net(), re.compile("^mid"))) == ["mid", "mid.parts.0", "mid.parts.1", "mid.module"]
    with pytest.raises(ValueError, match="nothing"):
        select_outermost(Net(), ["mid*", "nothing"])

"""What a traced graph does not show at first sight: writes in place, the same node twice, names that mislead."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lsdr.regularizers.lipschitz_bound import lipschitz_bound


class Written(nn.Module):
    """A model of one line, with two linear layers, under names that tensors have methods of."""

    def __init__(self, line):
        super().__init__()
        self.line = line
        self.size, self.dim = nn.Linear(4, 4), nn.Linear(4, 4)
        self.leaky, self.inplace = nn.LeakyReLU(5.0, inplace=True), nn.ReLU(inplace=True)
        self.shift = nn.Parameter(torch.full((1, 4), -9.0))

    def forward(self, x):
        return self.line(self, x)


def jacobian_norm(model):
    """The largest gain in a few points."""

    def joined(x):
        result = model(x.clone())
        return torch.cat([each.flatten() for each in (result if isinstance(result, tuple) else (result,))])

    points = torch.randn(8, 1, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return max(
        float(torch.linalg.matrix_norm(torch.autograd.functional.jacobian(joined, x).flatten(1), 2)) for x in points
    )


def written(line):
    torch.manual_seed(0)
    return Written(line).double().eval()


@pytest.mark.parametrize(
    "line",
    [
        lambda m, x: (x, x),
        lambda m, x: x.T * 2,
        lambda m, x: 3 * x.real,
        lambda m, x: m.dim(x.mT.mT),
        lambda m, x: m.size(x) + x,
        lambda m, x: m.size(x.view(x.size(0), -1)),
        lambda m, x: torch.add(x, alpha=3, other=m.size(x)),
        lambda m, x: torch.cat(tensors=[x, x], dim=1),
        lambda m, x: 0.0 * (x * m.dim(x)) + x,
        lambda m, x: m.inplace(m.size(x)) + x,
        lambda m, x: F.softplus(m.dim(x), 2.0),
    ],
)
def test_gains_of_graphs(line):
    model = written(line)
    gain = jacobian_norm(model)
    bound = lipschitz_bound(model, (4,)).bound
    assert gain * (1 - 1e-9) <= bound < math.inf
    assert bound < 4 * gain


def overwritten(m, x):
    x.mul_(10)
    return x


def overwritten_view(m, x):
    h = m.dim(x)
    h.view(-1).mul_(5)
    return h


def overwritten_alias(m, x):
    h = m.dim(x)
    y = h
    y *= 3
    return h


def overwritten_sum(m, x):
    h = m.dim(x)
    h.add_(m.size(h))
    return h


def overwritten_by_a_layer(m, x):
    h = m.dim(x)
    return m.leaky(h) + h


def overwritten_by_a_function(m, x):
    h = m.dim(x)
    return F.leaky_relu(h, 5.0, True) + h


def overwritten_constant(m, x):
    shift = m.shift.clone()
    shift += x
    return shift + m.shift


@pytest.mark.parametrize(
    "line",
    [
        overwritten, overwritten_view, overwritten_alias, overwritten_sum, overwritten_by_a_layer,
        overwritten_by_a_function,
    ],
)  # fmt: skip
def test_what_is_read_after_it_was_written_over_is_refused(line):
    with pytest.raises(ValueError, match=r"writes in place what node '.+' reads afterwards"):
        lipschitz_bound(written(line), (4,))


def rebound(m, x):
    h = m.dim(x)
    h += x
    h *= 2
    return h


def shrunk(m, x):
    h = m.dim(x)
    return m.inplace(h) + h


@pytest.mark.parametrize("line", [rebound, shrunk, overwritten_constant])
def test_writing_in_place_is_fine_where_only_the_result_is_read_or_nothing_grows(line):
    model = written(line)
    assert jacobian_norm(model) * (1 - 1e-9) <= lipschitz_bound(model, (4,)).bound < math.inf


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (lambda m, x: torch.clamp(m.shift, min=x), "first argument alone"),
        (lambda m, x: torch.clamp(x, min=m.size(x)), "first argument alone"),
        (lambda m, x: x.to(torch.int64).double(), "jumps"),
        (lambda m, x: F.softplus(x, 1.0, 0.5), "jumps"),
        (lambda m, x: 2 * x.itemsize, "no rule for getattr"),
    ],
)
def test_what_has_no_rule_is_refused(line, message):
    with pytest.raises(ValueError, match=message):
        lipschitz_bound(written(line), (4,))


def test_a_known_layer_that_is_given_the_same_twice():
    class Sum(nn.Module):
        def forward(self, a, b):
            return a + b

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.sum = Sum()

        def forward(self, x):
            return self.sum(x, x)

    assert lipschitz_bound(Twice(), constants={"sum": math.sqrt(2)}).bound == pytest.approx(2)


def test_layers_that_are_not_numbers_have_no_bound():
    norm = nn.BatchNorm1d(4).eval()
    norm.running_var[0] = math.nan
    assert lipschitz_bound(norm).bound == math.inf


def test_hooks_are_named_in_a_note():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    assert not lipschitz_bound(model).notes
    model[1].register_forward_hook(lambda module, arguments, output: 9 * output)
    (note,) = lipschitz_bound(model).notes
    assert note.startswith("hooks of 1 are not looked into")

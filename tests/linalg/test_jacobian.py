"""Products with Jacobians against torch.func.jacrev, by every estimator and where forward mode is missing or wrong."""

import inspect

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from lsdr.linalg.jacobian import Jacobian

SIX = torch.arange(6, dtype=torch.float64)


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


WEIGHT = random(6, 6, seed=5)


def network(x, level=None):
    """Nonlinear, mixes everything in an example, and depends on what it is given."""
    flat = x.flatten(1)
    level = torch.ones(len(x)) if level is None else level
    out = torch.tanh(flat @ WEIGHT.to(flat) * level.to(flat)[:, None]) + 0.3 * flat.square()
    return out.view_as(x)


def dense(function, x, *given):
    rows = []
    for i in range(len(x)):
        here = [each[i : i + 1] for each in given]
        one = torch.func.jacrev(lambda y, i=i, here=here: function(y.view(x[i : i + 1].shape), *here).flatten())
        rows.append(one(x[i].flatten()))
    return torch.stack(rows)


@pytest.mark.parametrize("batch", [1, 4, 64])
@pytest.mark.parametrize("estimator", ["auto", "forward_mode", "finite_difference"])
def test_products_are_those_of_the_dense_jacobian(estimator, batch):
    x, level, v = random(3, 1, 2, 3), torch.tensor([0.1, 1.0, 3.0], dtype=torch.float64), random(3, 2, 6, seed=1)
    truth = dense(network, x, level)
    jacobian = Jacobian(network, x, given=(level,), estimator=estimator, batch=batch)
    assert jacobian.estimator == ("finite_difference" if estimator == "finite_difference" else "forward_mode")
    close = 1e-7 if estimator == "finite_difference" else 1e-12
    torch.testing.assert_close(jacobian.matvec(v), v @ truth.mT, rtol=close, atol=close)
    torch.testing.assert_close(jacobian.adjoint(v), v @ truth, rtol=1e-12, atol=1e-12)


def test_no_evaluation_is_larger_than_asked():
    sizes = []

    def watched(x):
        sizes.append(len(x))
        return network(x)

    jacobian = Jacobian(watched, random(3, 6), batch=4)
    jacobian.matvec(random(3, 5, 6))
    jacobian.adjoint(random(3, 5, 6))
    Jacobian(watched, random(3, 6), batch=4, estimator="finite_difference").matvec(random(3, 5, 6))
    assert max(sizes) == 4


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-7), (torch.float32, 1e-3)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_step_fits_precision_and_curvature(dtype, close, scale):
    # The first example is flat, the second bends within a thousandth of its size, as a denoiser does at low noise.
    x, bend = random(2, 50, seed=3, dtype=dtype) * scale, torch.tensor([1e-2, 300.0])

    def bent(x, bend):
        return scale * (torch.tanh(x / scale * bend[:, None].to(x)) / bend[:, None].to(x) + 0.1 * x.flip(1) / scale)

    v = random(2, 3, 50, seed=4, dtype=dtype)
    jacobian = Jacobian(bent, x, given=(bend,), estimator="finite_difference")
    truth = v @ dense(bent, x, bend).mT
    error = (jacobian.matvec(v) - truth).norm(dim=(1, 2)) / truth.norm(dim=(1, 2))
    assert error[0] < close
    assert error[1] < 30 * close


def test_the_given_step_is_relative_to_each_examples_size():
    def cubic(x):
        return x**3

    x = torch.tensor([[1.0, -1.0], [10.0, -10.0]], dtype=torch.float64)
    v = torch.ones(2, 1, 2, dtype=torch.float64)
    found = Jacobian(cubic, x, estimator="finite_difference", step=0.1).matvec(v)
    truth = 3 * x.square() + (0.1 * x).square()  # (x + h)^3 - (x - h)^3 over 2h, with h a tenth of |x|
    torch.testing.assert_close(found[:, 0], truth)


class Half(nn.Module):
    def __init__(self, dtype):
        super().__init__()
        self.weight = nn.Parameter(random(64, 64, seed=8, dtype=dtype) / 8)

    def forward(self, x):
        return x + torch.tanh(functional.linear(x.to(self.weight.dtype), self.weight)).to(x.dtype)


@pytest.mark.parametrize(
    ("how", "dtype"), [("told", torch.float64), ("told", torch.float32), ("autocast", torch.float32)]
)
def test_half_precision_takes_a_large_step(how, dtype):
    net, exact = Half(torch.float32 if how == "autocast" else torch.bfloat16), Half(torch.float32)
    exact.weight.data = net.weight.data.to(dtype)
    # Whole numbers: bfloat16 rounds them and their neighbours to the same, so that small steps see no change at all.
    x, v = random(2, 64).mul(4).round().to(dtype), random(2, 4, 64, seed=1, dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=how == "autocast"):
        told = torch.bfloat16 if how == "told" else None
        found = Jacobian(net, x, estimator="finite_difference", precision=told).matvec(v)
    change = v @ (dense(exact, x).mT - torch.eye(64, dtype=dtype))
    assert (found - v - change).norm() / change.norm() < 0.2


class NoForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0].cos()


class WrongForward(NoForward):
    @staticmethod
    def jvp(ctx, tangent):
        return 2 * tangent

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()


@pytest.mark.parametrize(("function", "word"), [(NoForward, "forward mode failed"), (WrongForward, "off what the map")])
def test_finite_differences_where_forward_mode_is_missing_or_wrong(function, word):
    x, v = random(2, 5), random(2, 3, 5, seed=1)
    jacobian = Jacobian(function.apply, x)
    assert jacobian.estimator == "finite_difference"
    assert word in jacobian.why
    torch.testing.assert_close(jacobian.matvec(v), x.cos()[:, None] * v, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(jacobian.adjoint(v), x.cos()[:, None] * v)


def test_forward_mode_that_was_asked_for_must_run():
    with pytest.raises(RuntimeError, match="finite_difference"):
        Jacobian(NoForward.apply, random(1, 3), estimator="forward_mode")


def test_forward_mode_through_fused_attention():
    def attend(x):
        y = x.view(len(x), 2, 5, 4)
        return functional.scaled_dot_product_attention(y, y, y).reshape(x.shape)

    x, v = random(2, 40, dtype=torch.float32), random(2, 2, 40, seed=1, dtype=torch.float32)
    jacobian = Jacobian(attend, x)
    assert jacobian.estimator == "forward_mode", jacobian.why
    with sdpa_kernel(SDPBackend.MATH):
        truth = dense(attend, x)
    torch.testing.assert_close(jacobian.matvec(v), v @ truth.mT, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(jacobian.adjoint(v), v @ truth, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("estimator", ["auto", "forward_mode", "finite_difference"])
def test_a_constant_has_the_jacobian_zero(estimator):
    bias = nn.Parameter(torch.ones(4))
    for constant in (torch.ones_like, lambda x: bias.expand(len(x), 4) * 1):
        jacobian = Jacobian(constant, random(2, 4, dtype=torch.float32), estimator=estimator)
        v = random(2, 3, 4, dtype=torch.float32)
        assert not jacobian.matvec(v).any()
        assert not jacobian.adjoint(v).any()


def test_zero_vectors_and_zero_inputs():
    jacobian = Jacobian(torch.sin, torch.zeros(1, 3, dtype=torch.float64), estimator="finite_difference")
    v = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]], dtype=torch.float64)
    torch.testing.assert_close(jacobian.matvec(v), v)


def test_a_cut_graph_is_said():
    jacobian = Jacobian(lambda x: x.detach().sin(), random(2, 4))
    assert jacobian.estimator == "finite_difference"
    with pytest.raises(ValueError, match="cuts the graph"):
        jacobian.adjoint(random(2, 1, 4))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_it_leaves_no_trace(mode):
    weight = nn.Parameter(random(4, 4))
    x, state = random(2, 4).requires_grad_(), torch.get_rng_state()
    with mode():
        jacobian = Jacobian(lambda x: torch.tanh(x @ weight), x)
        results = jacobian.matvec(random(2, 3, 4)), jacobian.adjoint(random(2, 3, 4))
    assert weight.grad is x.grad is None
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(each.requires_grad for each in results)
    torch.testing.assert_close(results[0], random(2, 3, 4) @ dense(lambda x: torch.tanh(x @ weight), x.detach()).mT)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Jacobian(network, SIX), "b, "),
        (lambda: Jacobian(network, SIX[:0].view(0, 6)), "at least one input"),
        (lambda: Jacobian(network, SIX[None], step=0.0), "step positive"),
        (lambda: Jacobian(network, SIX[None], batch=0), "batch must be 1"),
        (lambda: Jacobian(network, SIX[None], given=(torch.ones(2),)), "one entry for each"),
        (lambda: Jacobian(lambda x: x[:, :3], SIX[None]), "returned shape"),
        (lambda: Jacobian(lambda x: x / 0, SIX[None]), "not finite"),
        (lambda: Jacobian(lambda x: torch.rand_like(x), SIX[None]), "two answers"),
        (lambda: Jacobian(lambda x: x - x.mean(0), SIX.view(3, 2)), "alone and among"),
        (lambda: Jacobian(lambda x: (x * 0).abs().sqrt() + x, SIX[None]).adjoint(SIX[None, None]), "products .* nan"),
        (lambda: Jacobian(network, SIX[None]).matvec(torch.ones(1, 2, 5, dtype=torch.float64)), "expected"),
        (lambda: Jacobian(network, SIX[None]).adjoint(torch.ones(2, 2, 6, dtype=torch.float64)), "expected"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_unknown_estimator():
    make = inspect.unwrap(Jacobian.__init__)  # types are not checked outside the tests
    with pytest.raises(ValueError, match="'exact'; expected 'auto', 'forward_mode'"):
        make(object.__new__(Jacobian), network, SIX[None], estimator="exact")


def test_a_lost_tangent_is_no_zero():
    with pytest.raises(RuntimeError, match="loses the tangent"):
        Jacobian(lambda x: x.detach().sin(), random(1, 3), estimator="forward_mode")


def test_the_error_of_differences_is_known_where_small_steps_are_noise():
    """Rounding in the answers makes differences of short steps thousands of times too large."""
    x, v = random(1, 200, dtype=torch.float32), random(1, 4, 200, seed=1, dtype=torch.float32)
    jacobian = Jacobian(lambda x: 1e-4 * x + 100, x, estimator="finite_difference")
    off = ((jacobian.matvec(v) - 1e-4 * v).norm() / (1e-4 * v).norm()).item()
    assert jacobian.error.item() == pytest.approx(off, rel=0.9)
    assert Jacobian(torch.sin, x).error.item() == 0

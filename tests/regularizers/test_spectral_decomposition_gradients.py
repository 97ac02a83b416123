"""The gradients of SpectralDecomposition: those of exact quantities, under everything a training loop does."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lsdr.diffusion.edm import EDMDenoiser
from lsdr.layers.capture import capture
from lsdr.regularizers.attach import attach
from lsdr.regularizers.spectral_decomposition import SpectralDecomposition
from lsdr.regularizers.spectral_decorrelation import SpectralDecorrelation

sys.path.insert(0, str(Path(__file__).parent))
from decomposed import PENALTIES, Matrix, dense, generator, signs, unet

SIGMA = torch.tensor([0.5, 2.0], dtype=torch.float64)


def images(size=4, dtype=torch.float64):
    return torch.randn(2, 1, size, size, generator=generator(5), dtype=torch.float64).to(dtype)


def loss_of(net, of, penalty, x, sigma, wrap=EDMDenoiser, **settings):
    """The penalty at its second call, where dispersion has a mean to be from: another than what comes."""
    settings = {"fraction": 1, "weight": 1.0, "bound": 0.0, "iterations": x[0].numel(), **settings}
    denoiser = wrap(net)
    with SpectralDecomposition(of=of, penalty=penalty, **settings).attach(net) as term:
        if penalty == "dispersion":
            ones = torch.ones(16, dtype=torch.float64)
            term.load_state_dict({"values": 0.3 * ones, "weights": ones, "count": ones[0], "seen": torch.tensor(1)})
        denoised = denoiser(x, sigma, None)
        value = term(denoiser=denoiser, noisy=x, sigma=sigma, denoised=denoised, generator=generator())
    return value, term


def gradient_of(net, *arguments, **settings):
    net.zero_grad()
    value, term = loss_of(net, *arguments, **settings)
    value.backward()
    return torch.cat([(0 * p if p.grad is None else p.grad).detach().flatten() for p in net.parameters()]), term


@pytest.mark.parametrize(("of", "penalty"), PENALTIES)
def test_forward_mode_trains_through_a_unet_with_attention(of, penalty):
    """Its gradient is that of finite differences, which the test below compares with the value itself."""
    net, x = unet().double().train(), images()
    found, term = gradient_of(net, of, penalty, x, SIGMA, estimator="forward_mode")
    assert term.chosen.startswith("forward mode")
    expected, _ = gradient_of(net, of, penalty, x, SIGMA)
    assert expected.norm() > 1e-4
    assert (found - expected).norm() < 1e-4 * expected.norm()


@pytest.mark.parametrize("estimator", ["auto", "reverse_mode"])
@pytest.mark.parametrize(("of", "penalty"), PENALTIES)
def test_gradient_through_a_unet_is_that_of_the_value(of, penalty, estimator):
    """Of a value whose vectors change with the parameters: that they are held fixed costs nothing."""
    net, x = unet().double(), images()
    gradient, _ = gradient_of(net, of, penalty, x, SIGMA, estimator=estimator)
    assert gradient.norm() > 1e-4
    parameters = list(net.parameters())
    values = []
    with torch.no_grad():
        for sign in (1, -1):
            for parameter, part in zip(parameters, gradient.split([p.numel() for p in parameters]), strict=True):
                parameter += sign * 1e-4 * (part / gradient.norm()).view_as(parameter)
            values.append(loss_of(net, of, penalty, x, SIGMA, estimator=estimator)[0])
            for parameter, part in zip(parameters, gradient.split([p.numel() for p in parameters]), strict=True):
                parameter -= sign * 1e-4 * (part / gradient.norm()).view_as(parameter)
    torch.testing.assert_close((values[0] - values[1]) / 2e-4, gradient.norm(), rtol=2e-3, atol=0)


@pytest.mark.parametrize(("of", "penalty"), PENALTIES)
def test_gradient_to_a_matrix_is_that_of_the_dense_quantity(of, penalty):
    """All of its entries, against finite differences of what linear algebra says of the same directions."""
    d, sigma = 5, torch.tensor([0.4, 3.0], dtype=torch.float64)
    matrix = torch.randn(d, d, generator=generator(3), dtype=torch.float64)
    x = torch.randn(2, d, generator=generator(4), dtype=torch.float64)
    u_v = signs(2, 2, (d,))

    def exact(matrix):
        step = 0.7 * torch.eye(d) + 0.3 * matrix
        symmetric = (step + step.T) / 2
        if penalty == "hinge":
            values = torch.linalg.svdvals(step) if of == "singular_values" else torch.linalg.eigvalsh(symmetric)
            return (values.sort(descending=True).values[:2] - 0.7).relu().square().sum()
        if penalty == "negative_eigenvalues":
            return (-torch.linalg.eigvalsh((matrix + matrix.T) / 2)[:2]).relu().square().sum()
        if penalty == "asymmetry":
            return torch.einsum("ni,ij,nj->n", u_v[0], step - step.T, u_v[1]).square().mean() / d
        if (penalty, of) == ("frobenius", "eigenvalues"):
            return torch.einsum("ni,ij,nj->n", u_v[0], symmetric, u_v[1]).square().mean() / d
        (v,) = signs(2, 1, (d,))
        if penalty == "frobenius":
            return (v @ step.T).square().sum(1).mean() / d
        gain = (v * (v @ step.T)).sum(1) / d if of == "eigenvalues" else (v @ step.T).norm(dim=1) / d**0.5
        return (gain - 0.3).square().mean()

    net = Matrix(matrix)
    gradient, _ = gradient_of(net, of, penalty, x, sigma, wrap=lambda net: net, k=2)
    truth = torch.stack([exact(matrix + 1e-6 * e) - exact(matrix - 1e-6 * e) for e in torch.eye(d * d).view(-1, d, d)])
    assert gradient.norm() > 1e-3
    torch.testing.assert_close(gradient, truth / 2e-6, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("of", "penalty"), PENALTIES)
def test_checkpointing_changes_nothing(of, penalty):
    net, x = unet().double().train(), images()
    plain, _ = gradient_of(net, of, penalty, x, SIGMA)
    net.enable_gradient_checkpointing()
    checkpointed, _ = gradient_of(net, of, penalty, x, SIGMA)
    torch.testing.assert_close(checkpointed, plain, rtol=1e-8, atol=1e-10)


def hidden_autocast(net):
    """As Accelerate does it: nothing outside the network can tell."""

    def model(*arguments, **keywords):
        with torch.autocast("cpu", torch.bfloat16):
            return net(*arguments, **keywords).sample.float()

    return EDMDenoiser(model)


@pytest.mark.parametrize(("of", "penalty"), PENALTIES)
def test_bfloat16_autocast_gives_nearly_the_same(of, penalty):
    net, x = unet(), images(dtype=torch.float32)
    settings = {"iterations": 4, "bound": 0.2, "ratio": 0.2}
    sigma = SIGMA.float()
    plain, term = gradient_of(net, of, penalty, x, sigma, **settings)
    assert "float32" in term.chosen
    half, coarse = gradient_of(net, of, penalty, x, sigma, wrap=hidden_autocast, **settings)
    assert "bfloat16" in coarse.chosen
    assert ("two-sided" in coarse.chosen) == (penalty != "dispersion")
    torch.testing.assert_close(coarse.values[penalty], term.values[penalty], rtol=0.2, atol=2e-3)
    assert torch.nn.functional.cosine_similarity(half, plain, dim=0) > 0.95


def test_dropout_is_the_same_in_all_passes():
    """With other masks the difference would be hundreds of times as large as the step."""

    def denoiser(x, sigma, conditioning=None):
        return net(x)

    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(6, 64), nn.Dropout(0.5), nn.Linear(64, 6)).double(), torch.ones(8, 6).double()
    for of, penalty in PENALTIES:
        before = torch.get_rng_state()
        value, term = loss_of(net, of, penalty, x, torch.full((8,), 0.5).double(), wrap=lambda net: denoiser)
        with torch.random.fork_rng():
            torch.set_rng_state(before)
            net(x)
            assert torch.equal(torch.get_rng_state(), before) is False
            after = torch.get_rng_state()
        assert torch.equal(torch.get_rng_state(), after)  # as if the training pass had been alone
        assert term.values["gain"].abs() < 3, (of, penalty)
        assert value < 10, (of, penalty)
        if penalty == "dispersion":
            assert "a pass of their own" in term.chosen


def test_without_a_generator_only_the_directions_are_drawn():
    net, x = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5)), torch.ones(8, 6)
    context = {"denoiser": lambda x, sigma, conditioning: net(x), "noisy": x, "sigma": torch.tensor(1.0)}
    with SpectralDecomposition(penalty="asymmetry", fraction=1).attach(net) as term:
        torch.manual_seed(3)
        term(**context)
        after = torch.get_rng_state()
    torch.manual_seed(3)
    torch.randint(2, (8, 2, 6), dtype=torch.int8)
    assert torch.equal(torch.get_rng_state(), after)


@pytest.mark.parametrize(("of", "penalty"), PENALTIES)
def test_batch_statistics_are_those_of_the_pass_and_stay_as_they_were(of, penalty):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.SiLU(), nn.Conv2d(4, 1, 3, padding=1))
    net, x = net.double(), torch.randn(8, 1, 4, 4, dtype=torch.float64)
    x = x * torch.arange(1, 9).view(-1, 1, 1, 1)  # half of the batch has other statistics than the batch
    denoiser = lambda x, sigma, conditioning=None: net(x)  # noqa: E731
    with SpectralDecomposition(of=of, penalty=penalty, fraction=0.5).attach(net) as term:
        denoised = denoiser(x, None)
        buffers = {name: value.clone() for name, value in net.named_buffers()}
        value = term(denoiser=denoiser, noisy=x, sigma=torch.tensor(0.5).double(), denoised=denoised)
        (denoised.square().mean() + value).backward()
    assert all(torch.equal(value, buffers[name]) for name, value in net.named_buffers())
    assert term.values["gain"].abs() < 3


@pytest.mark.parametrize(("of", "penalty"), PENALTIES)
def test_an_estimate_without_a_graph_is_computed_again(of, penalty):
    """As a constant it would leave half of the difference without a gradient, a thousand times too large."""
    net, x = unet().double(), images()
    expected, _ = gradient_of(net, of, penalty, x, SIGMA)
    net.zero_grad()
    denoised = EDMDenoiser(net)(x, SIGMA, None).detach()
    settings = {"fraction": 1, "weight": 1.0, "bound": 0.0, "iterations": x[0].numel()}
    with SpectralDecomposition(of=of, penalty=penalty, **settings).attach(net) as term:
        if penalty == "dispersion":
            ones = torch.ones(16, dtype=torch.float64)
            term.load_state_dict({"values": 0.3 * ones, "weights": ones, "count": ones[0], "seen": torch.tensor(1)})
        term(denoiser=EDMDenoiser(net), noisy=x, sigma=SIGMA, denoised=denoised, generator=generator()).backward()
    found = torch.cat([(0 * p if p.grad is None else p.grad).flatten() for p in net.parameters()])
    assert (found - expected).norm() < 1e-6 * expected.norm()


def test_an_estimate_of_something_else_is_refused():
    net, x = unet(), images(dtype=torch.float32)
    denoiser, sigma = EDMDenoiser(net), SIGMA.float()
    for other in (denoiser(x, 1.1 * sigma), denoiser(x + 0.1, sigma), denoiser(x, sigma) + 0.01):
        with (
            SpectralDecomposition().attach(net) as term,
            pytest.raises(ValueError, match=r"not what denoiser\(noisy, sigma, conditioning\) gives"),
        ):
            term(denoiser=denoiser, noisy=x, sigma=sigma, denoised=other)


def test_nobody_sees_the_extra_passes():
    net, x, sigma, seen = unet(), images(dtype=torch.float32), SIGMA.float(), []
    denoiser = EDMDenoiser(net)
    decorrelation = SpectralDecorrelation(layers="mid_block*", weight=1.0)

    def values(*regularizers):
        with attach(net, *regularizers) as penalty:
            denoised = denoiser(x, sigma)
            penalty(denoiser=denoiser, noisy=x, sigma=sigma, denoised=denoised, generator=generator())
            denoised = denoiser(x, sigma)
            penalty(denoiser=denoiser, noisy=x, sigma=sigma, denoised=denoised, generator=generator())
            return penalty.values

    alone = values(decorrelation)
    with capture(net, "conv_out", lambda name, module, output: seen.append(len(output))):
        beside = values(*(SpectralDecomposition(of=of, penalty=penalty) for of, penalty in PENALTIES), decorrelation)
    assert seen == [2, 2]
    assert all(torch.equal(beside[name], value) for name, value in alone.items())


def test_parameters_are_left_alone_until_the_backward_pass():
    net, x = unet(), images(dtype=torch.float32)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    for of, penalty in PENALTIES:
        loss_of(net, of, penalty, x, SIGMA.float(), iterations=2)
        assert all(parameter.grad is None for parameter in net.parameters())
        with torch.no_grad():
            assert not loss_of(net, of, penalty, x, SIGMA.float(), iterations=2)[0].requires_grad
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())


def test_forward_mode_says_what_to_do_where_it_does_not_run():
    class Own(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            return x.clone()

        @staticmethod
        def backward(context, gradient):
            return gradient

    model, x = nn.Linear(3, 3), torch.randn(2, 3)
    with (
        SpectralDecomposition(estimator="forward_mode").attach(model) as term,
        pytest.raises(RuntimeError, match=r"'forward_mode' does not run.*use estimator='finite_difference'"),
    ):
        term(denoiser=lambda x, s, c: model(Own.apply(x)), noisy=x, sigma=torch.tensor(1.0))


def test_the_dense_jacobian_of_the_tests_is_right():
    matrix = torch.randn(3, 3, generator=generator(), dtype=torch.float64)
    assert torch.equal(dense(Matrix(matrix), torch.ones(2, 3).double(), None), matrix.expand(2, 3, 3))


@pytest.mark.timeout(300)
def test_compiled():
    worker = Path(__file__).parent / "compiled_decomposition.py"
    subprocess.run([sys.executable, str(worker)], check=True, timeout=280)

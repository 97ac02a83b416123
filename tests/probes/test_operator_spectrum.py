"""The operator's spectrum against dense Jacobians of small networks with attention, and against what is known."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lsdr.diffusion.ddpm import DDPMDenoiser
from lsdr.diffusion.edm import EDMDenoiser
from lsdr.layers.capture import capture
from lsdr.probes.denoising_step import frame_factor, step_gain
from lsdr.probes.operator_spectrum import operator_asymmetry, operator_density, operator_spectrum, operator_trace

SIGMA = torch.tensor([0.3, 2.0], dtype=torch.float64)
LABELS = torch.tensor([1, 2])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images(*shape, dtype=torch.float64, seed=1):
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64).to(dtype)


def network(kind):
    from diffusers import DiTTransformer2DModel, UNet2DModel

    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        if kind == "dit":
            net = DiTTransformer2DModel(
                num_attention_heads=2,
                attention_head_dim=8,
                in_channels=1,
                out_channels=1,
                num_layers=2,
                sample_size=8,
                patch_size=2,
                num_embeds_ada_norm=3,
                norm_num_groups=1,
            )
        else:
            net = UNet2DModel(
                sample_size=8,
                in_channels=1,
                out_channels=1,
                layers_per_block=1,
                block_out_channels=(8, 16),
                down_block_types=("DownBlock2D", "AttnDownBlock2D"),
                up_block_types=("AttnUpBlock2D", "UpBlock2D"),
                norm_num_groups=4,
                attention_head_dim=8,
                num_class_embeds=3,
            )
        for parameter in net.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.2)
    return net


@pytest.fixture(scope="module", params=["unet", "dit"])
def trained(request):
    """A denoiser in float64 with attention and labels, its images and its dense Jacobians."""
    net = network(request.param)
    denoiser = EDMDenoiser(net.double())
    noisy = images(2, 1, 8, 8)
    net.eval()
    with sdpa_kernel(SDPBackend.MATH):
        jacobians = [
            torch.func.jacrev(
                lambda x, i=i: denoiser(x.view(1, 1, 8, 8), SIGMA[i], LABELS[i : i + 1]).flatten(), chunk_size=1
            )(noisy[i].flatten())
            for i in range(2)
        ]
    net.train()
    return denoiser, noisy, torch.stack(jacobians).detach()


@pytest.mark.parametrize("estimator", ["auto", "finite_difference"])
@pytest.mark.parametrize("after", [None, SIGMA / 3])
def test_eigenvalues_of_networks_with_attention(trained, after, estimator):
    denoiser, noisy, dense = trained
    step = dense if after is None else torch.eye(64).double() / 3 + dense * 2 / 3
    truth = torch.linalg.eigvalsh((step + step.mT) / 2).flip(-1)
    found = operator_spectrum(
        denoiser, noisy, SIGMA, after, k=4, conditioning=LABELS, estimator=estimator, tolerance=1e-4, generator=seeded()
    )
    for spectrum, expected in zip(found, truth, strict=True):
        assert spectrum.kind == "eigenvalues"
        torch.testing.assert_close(spectrum.values, expected[:4], rtol=0, atol=1e-5)
        assert (spectrum.lower <= expected[:4]).all()
        assert (expected[:4] <= spectrum.upper).all()
        assert (spectrum.upper - spectrum.lower).max() < 1e-3
        assert "not reached" not in spectrum.method


def test_smallest_eigenvalues(trained):
    denoiser, noisy, dense = trained
    truth = torch.linalg.eigvalsh((dense + dense.mT) / 2).flip(-1)[:, -3:]
    found = operator_spectrum(
        denoiser, noisy, SIGMA, k=3, end="smallest", conditioning=LABELS, tolerance=1e-4, generator=seeded()
    )
    for spectrum, expected in zip(found, truth, strict=True):
        torch.testing.assert_close(spectrum.values, expected, rtol=0, atol=1e-5)
        assert (spectrum.lower <= expected).all()
        assert (expected <= spectrum.upper).all()


@pytest.mark.parametrize("frame", ["exploding", "preserving", "flow"])
def test_singular_values_of_networks_with_attention(trained, frame):
    denoiser, noisy, dense = trained
    after = SIGMA / 4
    factor = frame_factor(after, frame) / frame_factor(SIGMA, frame)
    for sigma_next, operator in (
        (None, dense),
        (after, factor.view(2, 1, 1) * (torch.eye(64).double() / 4 + dense * 3 / 4)),
    ):
        truth = torch.linalg.svdvals(operator)[:, :4]
        found = operator_spectrum(
            denoiser,
            noisy,
            SIGMA,
            sigma_next,
            4,
            "singular_values",
            frame=frame,
            conditioning=LABELS,
            tolerance=1e-5,
            generator=seeded(),
        )
        for spectrum, expected in zip(found, truth, strict=True):
            torch.testing.assert_close(spectrum.values, expected, rtol=1e-6, atol=0)
            assert (spectrum.lower <= expected).all()
            assert (expected <= spectrum.upper).all()
            assert (spectrum.residual < 1e-4).all()


def test_trace_asymmetry_and_density(trained):
    denoiser, noisy, dense = trained
    symmetric = (dense + dense.mT) / 2
    trace = operator_trace(denoiser, noisy, SIGMA, conditioning=LABELS, probes=200, generator=seeded())
    mean = dense.diagonal(dim1=1, dim2=2).mean(1)
    assert (trace.error < 0.02).all()
    assert ((trace.trace - mean).abs() < 4 * trace.error).all()
    expected = torch.linalg.matrix_norm(dense - dense.mT) / (2 * torch.linalg.matrix_norm(dense))
    found = operator_asymmetry(denoiser, noisy, SIGMA, conditioning=LABELS, probes=100, generator=seeded())
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0)
    eigenvalues = torch.linalg.eigvalsh(symmetric)
    densities = operator_density(denoiser, noisy, SIGMA, conditioning=LABELS, steps=12, probes=40, generator=seeded())
    for density, values in zip(densities, eigenvalues, strict=True):
        for power in (1, 2, 3):
            estimate, error = density.mean(power)
            assert abs(estimate - values.pow(power).mean()) < 4 * error
        grid = torch.linspace(-1, 1, 9).double()
        assert (density.cdf(grid) - (values <= grid[:, None]).double().mean(1)).abs().max() < 0.12


def test_density_of_the_step():
    def wiener(x, sigma, conditioning):
        return x * torch.linspace(0, 0.9, 30, dtype=x.dtype)

    mu = torch.linspace(0, 0.9, 30, dtype=torch.float64)
    exploding = operator_density(wiener, images(1, 30), 2.0, 1.0, probes=60, generator=seeded())[0]
    assert exploding.mean()[0] == pytest.approx((0.5 + mu / 2).mean().item(), abs=0.02)
    gains = step_gain(mu, 2.0, 1.0, "preserving")
    for of, power in (("eigenvalues", 1), ("singular_values", 2)):
        found = operator_density(
            wiener, images(1, 30), 2.0, 1.0, of, frame="preserving", probes=60, generator=seeded()
        )[0]
        assert found.mean(power)[0] == pytest.approx(gains.pow(power).mean().item(), rel=0.03)
        assert found.nodes.max() <= gains.max() + 1e-9
        assert found.nodes.min() >= gains.min() - 1e-9


def test_float32_and_an_epsilon_network():
    """The network's own error is multiplied by sigma in the estimate; the Jacobian is that of the same estimate."""
    net = network("unet")
    alphas = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)
    noisy = images(2, 1, 8, 8, dtype=torch.float32)
    found = operator_spectrum(
        DDPMDenoiser(net, alphas), noisy, SIGMA.float(), k=3, conditioning=LABELS, generator=seeded()
    )
    exact = operator_spectrum(
        DDPMDenoiser(net.double(), alphas), noisy.double(), SIGMA, k=3, conditioning=LABELS, generator=seeded(3)
    )
    for low, high in zip(found, exact, strict=True):
        torch.testing.assert_close(low.values, high.values, rtol=2e-3, atol=0)


def gaussian(variance, dtype=torch.float64):
    """The best denoiser of independent values of the given variances."""

    def denoise(x, sigma, conditioning=None):
        squared = sigma.view(-1, *[1] * (x.ndim - 1)).square()
        return variance.to(x) / (variance.to(x) + squared) * x

    return denoise


@pytest.mark.parametrize("shape", [(2, 5), (1, 3, 7), (2, 3, 5, 3), (1, 2, 2, 3, 5)])
def test_gaussian_data_of_any_shape(shape):
    variance = torch.logspace(-2, 1, math.prod(shape[1:])).double().view(shape[1:])
    sigma, after = torch.linspace(0.5, 2, shape[0]).double(), 0.25
    found = operator_spectrum(gaussian(variance), images(*shape), sigma, after, k=3, generator=seeded())
    singular = operator_spectrum(
        gaussian(variance), images(*shape), sigma, after, 3, "singular_values", generator=seeded()
    )
    for i in range(shape[0]):
        top = variance.flatten().sort(descending=True).values[:3]
        gains = 1 + (after / sigma[i] - 1) * sigma[i] ** 2 / (top + sigma[i] ** 2)  # Euler's step
        torch.testing.assert_close(found[i].values, gains, rtol=1e-5, atol=0)
        torch.testing.assert_close(singular[i].values, gains, rtol=1e-5, atol=0)
        assert found[i].method.startswith("block Lanczos on (J + J')/2, forward mode")


def test_a_short_step_is_resolved_beyond_the_identity_in_it():
    """The residual and the tolerance are those of what the network adds, which is 1 - rho of the step."""
    variance = torch.logspace(-2, 1, 80).double()
    noisy, rho = images(1, 80), 0.999
    gains = 1 - (1 - rho) / (variance.flip(0)[:4] + 1)
    errors = {}
    for of in ("eigenvalues", "singular_values"):
        step = operator_spectrum(gaussian(variance), noisy, 1.0, rho, 4, of, frame="flow", generator=seeded())[0]
        factor = 2 / (1 + rho)
        errors[of] = (step.values / factor - gains).abs().max().item() / (1 - rho)
        if of == "eigenvalues":
            alone = operator_spectrum(gaussian(variance), noisy, 1.0, k=4, generator=seeded())[0]
            torch.testing.assert_close(step.residual, alone.residual * factor * (1 - rho))
            torch.testing.assert_close(step.upper - step.lower, (alone.upper - alone.lower) * factor * (1 - rho))
    assert max(errors.values()) < 1e-3


def test_white_data_have_one_eigenvalue_however_often():
    found = operator_spectrum(gaussian(torch.ones(40)), images(1, 40), 1.0, k=8)[0]
    torch.testing.assert_close(found.values, torch.full((8,), 0.5, dtype=torch.float64))
    assert operator_asymmetry(gaussian(torch.ones(40)), images(1, 40), 1.0).item() < 1e-12


def test_two_points():
    """Data at +a and -a in every value: D = a tanh(a x / sigma^2), so mu(0) = a^2 / sigma^2, far above 1."""
    a, sigma = 1.0, 0.3

    def mixture(x, sigma, conditioning=None):
        return a * torch.tanh(a * x / sigma.view(-1, 1) ** 2)

    for estimator, close in (("forward_mode", 1e-12), ("finite_difference", 1e-4)):
        found = operator_spectrum(mixture, torch.zeros(1, 4, dtype=torch.float64), sigma, k=1, estimator=estimator)[0]
        assert found.values.item() == pytest.approx(a**2 / sigma**2, rel=close)
        assert found.values.item() == pytest.approx(11.1, abs=0.02)
    in_float32 = operator_spectrum(mixture, torch.full((1, 4), 0.1), sigma, k=1, estimator="finite_difference")[0]
    truth = a**2 / sigma**2 * (1 - math.tanh(a * 0.1 / sigma**2) ** 2)
    assert in_float32.values.item() == pytest.approx(truth, rel=1e-3)


class Sine(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0].cos()


def test_finite_differences_where_the_network_has_no_forward_mode():
    noisy = images(2, 9)
    found = operator_spectrum(lambda x, sigma, conditioning: Sine.apply(x), noisy, 1.0, k=2, generator=seeded())
    for spectrum, x in zip(found, noisy, strict=True):
        torch.testing.assert_close(spectrum.values, x.cos().sort(descending=True).values[:2], rtol=0, atol=1e-6)
        assert "finite differences" in spectrum.method
    trace = operator_trace(lambda x, sigma, conditioning: Sine.apply(x), noisy, 1.0)
    assert trace.estimator == "finite_difference"
    assert "forward mode failed" in trace.why


def test_a_constant_has_zeros():
    def constant(x, sigma, conditioning):
        return torch.ones_like(x)

    for of in ("eigenvalues", "singular_values"):
        spectrum = operator_spectrum(constant, images(1, 6), 1.0, k=3, of=of)[0]
        assert spectrum.values.tolist() == spectrum.residual.tolist() == [0.0] * 3
        step = operator_spectrum(constant, images(1, 6), 1.0, 0.25, 3, of)[0]
        torch.testing.assert_close(step.values, torch.full((3,), 0.25, dtype=torch.float64))
    assert operator_trace(constant, images(1, 6), 1.0).trace.item() == 0
    assert operator_asymmetry(constant, images(1, 6), 1.0).item() == 0
    assert operator_density(constant, images(1, 6), 1.0)[0].mean()[0] == 0


def test_asymmetry_is_reported_beside():
    matrix = images(8, 8, seed=4)
    spectrum = operator_spectrum(lambda x, sigma, c: x @ matrix.mT, images(1, 8), 1.0, k=8)[0]
    exact = torch.linalg.matrix_norm(matrix - matrix.mT) / (2 * torch.linalg.matrix_norm(matrix))
    assert float(spectrum.method.split("asymmetry ")[1].split(",")[0]) == pytest.approx(exact.item(), abs=0.01)


def test_one_image_alone_is_the_image_in_company():
    variance = torch.logspace(-2, 1, 12).double()
    noisy, sigma = images(3, 12), torch.tensor([0.1, 1.0, 5.0], dtype=torch.float64)
    together = operator_spectrum(gaussian(variance), noisy, sigma, k=12, batch=5)
    for i in range(3):
        alone = operator_spectrum(gaussian(variance), noisy[i : i + 1], sigma[i], k=12)[0]
        torch.testing.assert_close(alone.values, together[i].values)


def test_nothing_is_left_behind():
    net = network("unet")
    net.train()
    net.mid_block.eval()
    net.conv_in.weight.requires_grad_(False)
    net.conv_out.weight.grad = torch.ones_like(net.conv_out.weight)
    flags = [module.training for module in net.modules()]
    wants = [parameter.requires_grad for parameter in net.parameters()]
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    noisy, random = images(1, 1, 8, 8, dtype=torch.float32), torch.get_rng_state()
    heard = []
    with capture(net, "mid_block*", lambda name, module, output: heard.append(name)):
        for measure in (operator_spectrum, operator_trace, operator_asymmetry):
            measure(EDMDenoiser(net), noisy, 1.0, conditioning=LABELS[:1], generator=seeded())
        operator_density(EDMDenoiser(net), noisy, 1.0, steps=2, conditioning=LABELS[:1], generator=seeded())
    assert not heard
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in net.modules()] == flags
    assert [parameter.requires_grad for parameter in net.parameters()] == wants
    assert all(torch.equal(weights[name], value) for name, value in net.state_dict().items())
    assert all((p.grad is None) != (p is net.conv_out.weight) for p in net.parameters())
    assert net.conv_out.weight.grad.unique().tolist() == [1.0]


def test_dropout_and_half_precision_weights():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(16, 16, bias=False)
            self.dropout = nn.Dropout(0.5)
            with torch.no_grad():
                self.linear.weight.copy_(images(16, 16) / 4)

        def forward(self, x, t):
            return self.dropout(torch.tanh(self.linear(x)))

    net, noisy = Net(), images(2, 1, 4, 4, dtype=torch.float32)

    def denoise(model):
        def call(x, sigma, conditioning=None):
            kind = model.linear.weight.dtype
            return model(x.flatten(1).to(kind), None).view_as(x).to(x.dtype)

        call.model = model
        return call

    exact = operator_spectrum(denoise(net), noisy, 1.0, k=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # not for what is measured
        same = operator_spectrum(denoise(net), noisy, 1.0, k=3)
    for a, b in zip(exact, same, strict=True):
        torch.testing.assert_close(a.values, b.values, rtol=1e-3, atol=0)
    # In float64 too, where a small step would change nothing that the network sees.
    noisy = noisy.mul(4).round().double()
    exact = operator_spectrum(denoise(net.double()), noisy, 1.0, k=3)
    half = operator_spectrum(denoise(net.bfloat16()), noisy, 1.0, k=3, tolerance=0.02, estimator="finite_difference")
    for a, b in zip(exact, half, strict=True):
        torch.testing.assert_close(a.values, b.values, rtol=0.1, atol=0.02)
    assert net.training

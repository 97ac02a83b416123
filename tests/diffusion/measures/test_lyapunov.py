"""Exponents against dense Jacobians and Gaussian products."""

import math

import pytest
import torch

from lsdr.diffusion.heun import heun
from lsdr.diffusion.measures.lyapunov import lyapunov
from lsdr.diffusion.measures.measure import heun_steps
from lsdr.diffusion.sigmas import karras_sigmas
from lsdr.probes.evaluating import evaluating


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(count=2, side=4, dtype=torch.float64):
    return torch.randn(count, 1, side, side, dtype=dtype, generator=generator(1))


def dense(denoiser, z, sigmas, label=None):
    """Exponents of one image by the Jacobian of the whole sampler, in full."""
    jacobian = torch.autograd.functional.jacobian(lambda z: heun(denoiser, z[None], sigmas, label)[0], z)
    return torch.linalg.svdvals(jacobian.reshape(z.numel(), z.numel())).log() / (len(sigmas) - 1)


@pytest.fixture
def chain(tiny):
    tiny.model.double().eval()
    return tiny, karras_sigmas(8, 0.01, 5.0).double()


def test_the_leading_exponents_are_those_of_the_dense_jacobian(chain):
    denoiser, sigmas = chain
    z = noise()
    found = lyapunov(heun_steps(denoiser, sigmas), z, directions=3, iterations=40, generator=generator())
    expected = torch.stack([dense(denoiser, image, sigmas)[:3] for image in z])
    torch.testing.assert_close(found.exponents, expected, rtol=1e-6, atol=1e-8)
    assert found.residual < 1e-9


def test_it_is_a_lower_bound_that_grows(chain):
    denoiser, sigmas = chain
    z = noise()
    truth = torch.stack([dense(denoiser, image, sigmas)[:2] for image in z])
    before = torch.full((2,), -torch.inf, dtype=torch.float64)
    for iterations in (1, 2, 3, 6):
        found = lyapunov(heun_steps(denoiser, sigmas), z, iterations=iterations, generator=generator())
        assert (found.exponents <= truth + 1e-12).all()
        assert (found.exponents[:, 0] > before - 1e-6).all()
        before = found.exponents[:, 0]
    assert (truth[:, 0] - before).max() < 1e-3
    assert math.isnan(lyapunov(heun_steps(denoiser, sigmas), z, iterations=1).residual)


def test_three_rounds_are_near_the_truth(chain):
    denoiser, sigmas = chain
    z = noise()
    truth = torch.stack([dense(denoiser, image, sigmas)[0] for image in z])
    found = lyapunov(heun_steps(denoiser, sigmas), z, iterations=3, generator=generator())
    assert (truth - found.exponents[:, 0]).max() < 0.02


def test_labels_go_with_their_images(chain):
    denoiser, sigmas = chain
    z, labels = noise(), torch.tensor([2, 0])
    found = lyapunov(heun_steps(denoiser, sigmas), z, conditioning=labels, iterations=40, generator=generator())
    expected = torch.stack([dense(denoiser, z[i], sigmas, labels[i : i + 1])[:2] for i in range(2)])
    torch.testing.assert_close(found.exponents, expected, rtol=1e-6, atol=1e-8)
    assert not torch.allclose(expected[0], dense(denoiser, z[0], sigmas)[:2])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_gaussian_has_the_logarithm_of_its_steps_products(gaussian, dtype):
    variance = torch.linspace(0.01, 1, 16, dtype=dtype).view(1, 4, 4)
    denoiser = gaussian(torch.zeros(1, dtype=dtype), variance)
    sigmas = karras_sigmas(12, 0.01, 20.0).to(dtype)

    def step(state, at):
        sigma, after = sigmas[at], sigmas[at + 1]
        return state + (after - sigma) * (state - denoiser(state, sigma)) / sigma

    steps = [lambda state, at=at: step(state, at) for at in range(12)]
    rho = (sigmas[1:] / sigmas[:-1]).double()
    mu = variance.double().flatten()[:, None] / (variance.double().flatten()[:, None] + sigmas[:-1].double() ** 2)
    expected = (rho + (1 - rho) * mu).log().mean(1).sort(descending=True).values[:2]
    found = lyapunov(steps, 20 * noise(dtype=dtype), iterations=80, generator=generator())
    torch.testing.assert_close(found.exponents, expected.expand(2, 2), rtol=0, atol=1e-5)


def test_the_whole_sampler_in_unit_noise_contracts_to_the_standard_deviation(gaussian):
    denoiser = gaussian(torch.zeros(1), torch.tensor(0.25))
    found = lyapunov(heun_steps(denoiser, karras_sigmas(60, 0.002, 80.0)), noise(dtype=torch.float32))
    # Every singular value of dx/dz is the standard deviation of the data, 1/2.
    product = (60 * found.exponents).exp()
    torch.testing.assert_close(product, torch.full((2, 2), 0.5, dtype=torch.float64), rtol=0.01, atol=0)


def test_the_chain_of_steps_is_the_sampler(chain):
    denoiser, sigmas = chain
    state = noise()
    for step in heun_steps(denoiser, sigmas):
        state = step(state)
    torch.testing.assert_close(state, heun(denoiser, noise(), sigmas), rtol=1e-12, atol=1e-12)


def test_images_do_not_depend_on_their_neighbours(chain):
    denoiser, sigmas = chain
    z = noise(3)
    together = lyapunov(heun_steps(denoiser, sigmas), z, iterations=40, generator=generator()).exponents
    alone = lyapunov(heun_steps(denoiser, sigmas), z[1:2], iterations=40, generator=generator(9)).exponents
    torch.testing.assert_close(together[1:2], alone, rtol=1e-5, atol=1e-7)


def test_measuring_is_invisible(tiny, unchanged):
    same = unchanged(tiny.model)
    with evaluating(tiny):
        found = lyapunov(
            heun_steps(tiny, karras_sigmas(4, 0.01, 5.0)), noise(dtype=torch.float32), generator=generator()
        )
    assert same
    assert not found.exponents.requires_grad


def test_fused_attention_is_measured():
    def step(state):
        return state + torch.nn.functional.scaled_dot_product_attention(state, state, state)

    state = torch.randn(1, 3, 4, dtype=torch.float64, generator=generator())
    jacobian = torch.autograd.functional.jacobian(step, state).reshape(12, 12)
    found = lyapunov([step], state, iterations=60, generator=generator())
    torch.testing.assert_close(found.exponents[0, 0], torch.linalg.svdvals(jacobian)[0].log(), rtol=1e-6, atol=1e-8)


def test_an_infinite_gradient_is_not_a_number():
    found = lyapunov([torch.sqrt], torch.zeros(1, 3, dtype=torch.float64), generator=generator())
    assert found.exponents.isnan().all()
    assert found.exponents.shape == (1, 2)


def test_what_cannot_be_measured_is_refused(chain):
    denoiser, sigmas = chain
    steps, z = heun_steps(denoiser, sigmas), noise()
    with pytest.raises(ValueError, match="no_grad"):
        lyapunov([torch.no_grad()(torch.sin)], z)
    with pytest.raises(ValueError, match="diverged"):
        lyapunov([lambda x: x / 0], z)
    with pytest.raises(ValueError, match="float32 or float64"):
        lyapunov(steps, z.bfloat16())
    with pytest.raises(ValueError, match="between 1 and the 16"):
        lyapunov(steps, z, directions=17)
    for bad in ([], z, 3), (steps, z[:0], 3), (steps, z, 0):
        with pytest.raises(ValueError, match="need steps, images and iterations"):
            lyapunov(bad[0], bad[1], iterations=bad[2])

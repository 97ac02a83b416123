import pytest
import torch

from lsdr.gan.denoising_diffusion import DenoisingSchedule


@pytest.fixture(params=[1, 2, 4])
def schedule(request):
    return DenoisingSchedule(request.param).double()


def squares(map_, *inputs):
    """Variance of each output of a linear map of standard normals: the squared Jacobian's row sums."""
    jacobians = torch.autograd.functional.jacobian(map_, tuple(x.double() for x in inputs))
    return sum(j.flatten(1).square().sum(1) for j in jacobians)


def test_marginals_and_joint_law_of_a_pair(schedule):
    """A real pair has the diffusion's own covariance, in every step."""
    for step in range(1, schedule.steps + 1):
        t = torch.tensor([step])

        def pair(e, f, t=t):
            return torch.cat(schedule.q_sample_pair(torch.zeros(1, 1).double(), t, e[None], f[None]))[:, 0]

        one = torch.ones(1)
        earlier, later = squares(pair, one, one)
        bars = [
            torch.exp(-0.1 * s - 9.95 * s**2) for s in (torch.tensor((step - 1) / schedule.steps), t / schedule.steps)
        ]
        assert earlier.item() == pytest.approx(1 - bars[0].item(), abs=1e-6)
        assert later.item() == pytest.approx(1 - bars[1].item(), abs=1e-6)
        clean = torch.ones(1, 1).double()
        means = schedule.q_sample_pair(clean, t, 0 * clean, 0 * clean)
        assert means[0].item() == pytest.approx(bars[0].sqrt().item(), abs=1e-6)
        assert means[1].item() == pytest.approx(bars[1].sqrt().item(), abs=1e-6)


def test_posterior_redraws_the_earlier_neighbour(schedule):
    """(x_{t-1}, x_t) with x_{t-1} from the posterior has the joint law of the real pair, x_0 being known."""
    one = torch.ones(1)
    for step in range(1, schedule.steps + 1):
        t = torch.tensor([step])
        clean = torch.full((1, 1), 0.7).double()

        def real(e, f, t=t, clean=clean):
            earlier, later = schedule.q_sample_pair(clean, t, e[None], f[None])
            return torch.cat([earlier, later, earlier + later])[:, 0]

        def redrawn(e, f, g, t=t, clean=clean):
            later = schedule.q_sample_pair(clean, t, e[None], f[None])[1]
            earlier = schedule.posterior(clean, later, t, g[None])
            return torch.cat([earlier, later, earlier + later])[:, 0]

        zero = torch.zeros(1).double()
        torch.testing.assert_close(squares(redrawn, one, one, one), squares(real, one, one), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(redrawn(zero, zero, zero), real(zero, zero), rtol=1e-5, atol=1e-6)


def test_the_last_step_gives_the_clean_example_itself():
    schedule = DenoisingSchedule(4)
    x = torch.randn(3, 4, 2, 2)
    assert torch.equal(schedule.posterior(x[0], x[1], torch.ones(4, dtype=torch.int64), x[2]), x[0])


@pytest.mark.parametrize("variance", [0.25, 1.0, 2.0])
def test_the_exact_generator_samples_the_data(schedule, variance):
    """Data N(m, v): with the exact law of x_0 given x_t as the generator, the samples have mean m and variance v."""
    mean = 0.5

    def generator(z, noisy, level):
        bar = torch.exp(-0.1 * level - 9.95 * level**2)[:, None]
        gain = bar.sqrt() * variance / (bar * variance + 1 - bar)
        return mean + gain * (noisy - bar.sqrt() * mean) + (variance * (1 - gain * bar.sqrt())).sqrt() * z

    def draw(z, noise):
        return schedule.sample(generator, z[None], noise[None])[:, 0]

    steps = torch.ones(schedule.steps, 1)
    zeros = torch.zeros(schedule.steps, 1).double()
    # What of the data is left at T, a factor of .0066, is taken for noise.
    assert squares(draw, steps, steps).item() == pytest.approx(variance, rel=2e-4)
    assert draw(zeros, zeros).item() == pytest.approx(mean, abs=0.01)


def test_every_call_is_told_how_noisy_its_input_is():
    schedule = DenoisingSchedule(3)
    calls = []

    def generator(z, noisy, level):
        calls.append((z.clone(), noisy.clone(), level.clone()))
        return z.view_as(noisy)

    latents, noise = torch.randn(2, 3, 4), torch.randn(2, 3, 1, 2, 2)
    out = schedule.sample(generator, latents, noise)
    torch.testing.assert_close(
        torch.stack([level for *_, level in calls]), torch.tensor([[1.0] * 2, [2 / 3] * 2, [1 / 3] * 2])
    )
    assert all(torch.equal(z, latents[:, k]) for k, (z, *_) in enumerate(calls))
    assert torch.equal(calls[0][1], noise[:, 0])
    assert torch.equal(out, latents[:, 2].view(2, 1, 2, 2))
    expected = schedule.posterior(latents[:, 0].view(2, 1, 2, 2), noise[:, 0], torch.tensor([3, 3]), noise[:, 1])
    assert torch.equal(calls[1][1], expected)


def test_examples_at_different_times_do_not_mix():
    schedule = DenoisingSchedule(4)
    x = torch.randn(3, 4, 1, 2, 2)
    t = torch.tensor([1, 2, 3, 4])
    together = schedule.q_sample_pair(x[0], t, x[1], x[2]), schedule.posterior(x[0], x[1], t, x[2])
    for k in range(4):
        one = slice(k, k + 1)
        pair = schedule.q_sample_pair(x[0, one], t[one], x[1, one], x[2, one])
        assert all(torch.equal(a[one], b) for a, b in zip(together[0], pair, strict=True))
        assert torch.equal(together[1][one], schedule.posterior(x[0, one], x[1, one], t[one], x[2, one]))


def test_nothing_to_save_or_learn():
    schedule = DenoisingSchedule()
    assert not schedule.state_dict()
    assert not list(schedule.parameters())


@pytest.mark.parametrize("arguments", [{"steps": 0}, {"beta_min": 0.0}, {"beta_min": 30.0}, {"beta_max": float("nan")}])
def test_wrong_arguments(arguments):
    with pytest.raises(ValueError, match="steps must" if "steps" in arguments else "beta_min <= beta_max"):
        DenoisingSchedule(**arguments)


@pytest.mark.parametrize("t", [0, 5])
def test_times_outside_are_refused(t):
    x, t = torch.zeros(1, 2), torch.tensor([t])
    with pytest.raises(ValueError, match="t must be from 1 to 4"):
        DenoisingSchedule().posterior(x, x, t, x)
    with pytest.raises(ValueError, match="t must be from 1 to 4"):
        DenoisingSchedule().q_sample_pair(x, t, x, x)


def test_draws_for_another_number_of_steps_are_refused():
    with pytest.raises(ValueError, match="noise for 4 steps"):
        DenoisingSchedule().sample(None, torch.zeros(1, 4, 2), torch.zeros(1, 3, 2))

"""`SpectralDiscriminator`: what it measures, on which data it is zero, what it refuses."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lsdr.fourier.radial_power_spectrum import radial_power_spectrum
from lsdr.regularizers.attach import attach
from lsdr.regularizers.layer_spectra import LayerSpectra
from lsdr.regularizers.regularizer import Regularizer, Term
from lsdr.regularizers.spectral_discriminator import SpectralDiscriminator
from lsdr.regularizers.spectral_features import AmplitudePhase, BlockDCT, RadialSpectrum, Wavelet

_spec = importlib.util.spec_from_file_location("discriminated", Path(__file__).with_name("discriminated.py"))
discriminated = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(discriminated)
learnt, smooth = discriminated.learnt, discriminated.smooth

MODEL = nn.Identity()
FEATURES = ["radial", "amplitude_phase", "focal", "dct", "wavelet", AmplitudePhase(1, 0.2), AmplitudePhase(0, 1)]
SIZES = [(9,), (8,), (7, 10), (8, 8), (4, 6, 5)]


def grown(images):
    return images.clone().requires_grad_()


def value(penalty, denoised, clean, sigma=0.3):
    """The penalty's value, unweighted by what comes after; nothing is learnt."""
    with torch.no_grad():
        return float(penalty(denoised=denoised, clean=clean, sigma=torch.as_tensor(sigma)))


def test_it_is_a_regularizer_and_its_term_a_term():
    assert isinstance(SpectralDiscriminator(), Regularizer)
    with SpectralDiscriminator().attach(MODEL) as term:
        assert isinstance(term, Term)


@pytest.mark.parametrize("dims", SIZES)
def test_equal_weights_without_tolerance_and_correction_are_the_mean_squared_error(dims):
    clean, denoised = smooth(5, 3, *dims), smooth(5, 3, *dims, seed=1)
    plain = SpectralDiscriminator(features=(AmplitudePhase(),), weight=0.7, noise="none", tolerance=None)
    with attach(MODEL, plain) as penalty:  # and from the first step: nothing has to be known of the data
        found = penalty(denoised=grown(denoised), clean=clean)
    torch.testing.assert_close(found.detach(), 0.7 * (denoised - clean).square().mean(), rtol=1e-12, atol=0)
    flat = SpectralDiscriminator(features=(BlockDCT(1),), weight=1.0, noise="none", tolerance=None)
    with attach(MODEL, flat) as penalty:
        found = penalty(denoised=grown(denoised), clean=clean)
    torch.testing.assert_close(found.detach(), (denoised - clean).square().mean(), rtol=1e-12, atol=0)


def test_radial_by_its_formula():
    """Band, gate, floor and rings, worked out again."""
    data = smooth(40, 2, 8, 8)
    regularizer = SpectralDiscriminator(weight=2.0, noise="snr", tolerance=0.5, learn=40)
    with attach(MODEL, regularizer) as penalty:
        for _ in range(2):
            penalty(denoised=grown(data), clean=data, sigma=torch.tensor(0.1))
        denoised = data[:6].roll(1, 0) * 1.5
        sigma = torch.linspace(0, 2, 6, dtype=torch.float64)
        with torch.no_grad():
            found = penalty(denoised=denoised, clean=data[:6], sigma=sigma)
        values = penalty.values
    variance = data.var(0).mean()

    def power(images):
        return torch.stack([radial_power_spectrum(images[:, [c]], corners=True).power for c in range(2)], 1)[..., 1:]

    def rings(images):
        mean = power(data).mean(0)
        return (power(images) + 0.1 * mean + 1e-6 * mean.mean()).log()

    count = radial_power_spectrum(data, corners=True).count[1:]
    distance = (rings(denoised) - rings(data[:6])).abs()
    beyond = (distance - 0.5 * rings(data).std(0)).relu()
    squares = (beyond.square() * count).sum((1, 2)) / (2 * count.sum())
    expected = (variance / (variance + sigma.square()) * squares).mean()
    torch.testing.assert_close(found, 2 * expected)
    assert set(values) == {"SpectralDiscriminator/radial", "SpectralDiscriminator/outside"}
    torch.testing.assert_close(values["SpectralDiscriminator/radial"], expected)
    torch.testing.assert_close(values["SpectralDiscriminator/outside"], (beyond > 0).double().mean())


@pytest.mark.parametrize("noise", ["wiener", "bracket"])
@pytest.mark.parametrize(("amplitude", "phase"), [(1, 0.3), (0.2, 1), (1, 0)])
def test_only_amplitudes_are_corrected_by_their_formula(amplitude, phase, noise):
    """|F - F'|^2 is to the clean image, which the posterior mean minimises; A' alone is the corrected one."""
    data = smooth(40, 2, 8, 9)
    clean, denoised, sigma = data[:5], 0.6 * data[:5] + 0.3 * data[5:10], torch.full((5,), 0.8).double()
    regularizer = SpectralDiscriminator(
        features=(AmplitudePhase(amplitude, phase),), weight=1.0, noise=noise, tolerance=None, learn=40
    )
    with learnt(MODEL, regularizer, data) as penalty:
        found = value(penalty, denoised, clean, sigma)
        (term,) = penalty._terms.values()
        (known,) = term._sizes.values()
        target = known.noise.target(clean, sigma)
        gate = float(known.noise.gate(sigma)[0])
    estimate, right, low = (torch.fft.fft2(images, norm="ortho") for images in (denoised, clean, target))
    wanted = low.abs()
    if noise == "bracket":
        wanted = estimate.abs().clamp(torch.minimum(low.abs(), right.abs()), torch.maximum(low.abs(), right.abs()))
    distance = phase * (estimate - right).abs() ** 2 + (amplitude - phase) * (estimate.abs() - wanted) ** 2
    assert bool(distance.min() < 0) == (phase > amplitude and noise == "wiener")
    assert found == pytest.approx(gate * float(distance.clamp(min=0).mean()))


@pytest.mark.parametrize("feature", FEATURES)
def test_half_the_mean_squared_distance_of_pairs_is_the_spread(feature):
    data = smooth(20, 2, 6, 5)
    regularizer = SpectralDiscriminator(features=(feature,), weight=1.0, noise="none", learn=20)
    with learnt(MODEL, regularizer, data) as penalty:
        (term,) = penalty._terms.values()
        (known,) = term._sizes.values()
        (spread,) = known.spreads.values()
        (settings,) = term._features.values()
        seen = settings.coordinates(data, known.noise.rings(data)).values
        factors = torch.tensor([component.factor for component in settings.components], dtype=torch.float64)
        pairs = (seen[:, None] - seen[None]).square() @ factors
        torch.testing.assert_close(spread.variance(data), pairs.sum((0, 1)) / (2 * 20 * 19), rtol=1e-9, atol=1e-12)


def test_gaussian_optimum_is_stationary_under_the_wiener_target_alone():
    """The exact posterior mean of Gaussian data: no pull to more or less contrast, but without the correction."""
    generator = torch.Generator().manual_seed(0)
    axes, mean = (2, 3), torch.linspace(-0.5, 0.5, 12).expand(1, 12, 12)
    radius = torch.hypot(torch.fft.fftfreq(12)[:, None], torch.fft.rfftfreq(12)[None]).clamp(min=1 / 12)
    variance = 0.0025 / radius**2

    def filtered(images, gain):
        return mean + torch.fft.irfftn(gain * torch.fft.rfftn(images, dim=axes, norm="ortho"), (12, 12), axes, "ortho")

    def sample(count):
        return filtered(torch.randn(count, 1, 12, 12, generator=generator), variance.sqrt())

    data = sample(2000)
    v, found = float(data.var(0).mean()), {}
    for feature in ("radial", AmplitudePhase(1, 0)):
        for noise in ("wiener", "bracket", "snr", "none"):
            regularizer = SpectralDiscriminator(features=(feature,), weight=1.0, noise=noise, learn=2000)
            with learnt(MODEL, regularizer, data) as penalty:
                for sigma in (0.2, 1.0, 3.0):
                    clean = sample(400)
                    noisy = clean + sigma * torch.randn(clean.shape, generator=generator)
                    contrast = torch.ones((), requires_grad=True)
                    best = filtered(noisy - mean, variance / (variance + sigma**2))
                    with penalty.aside():
                        loss = penalty(denoised=mean + contrast * (best - mean), clean=clean, sigma=torch.tensor(sigma))
                        (slope,) = torch.autograd.grad(loss, contrast)
                    found[feature, noise, sigma] = float(loss.detach()), float(slope)
    for (feature, noise, sigma), (loss, slope) in found.items():
        wrong, pull = found[feature, "none", sigma]
        assert pull < 0  # towards more contrast than the best estimate has
        if noise in ("wiener", "bracket"):
            gate = v / (v + sigma**2)
            assert loss < 0.12 * gate * wrong, (feature, noise, sigma)
            # Means of log powers are met; squared differences of amplitudes shrink a little besides, and a bracket is
            # left by chance more often on its near side.
            allowed = 0.05 if (feature, noise) == ("radial", "wiener") else 0.25
            assert abs(slope) < allowed * gate * abs(pull), (feature, noise, sigma)
        if noise == "snr":
            gate = v / (v + sigma**2)
            assert loss == pytest.approx(gate * wrong, rel=0.1)
            assert slope == pytest.approx(gate * pull, rel=0.1)


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("dims", SIZES)
def test_every_feature_and_size_and_its_zero(feature, dims):
    data = smooth(18, 2, *dims, dtype=torch.float32)
    if isinstance(feature, str) and feature == "wavelet":
        feature = Wavelet(levels=1)
    with learnt(MODEL, SpectralDiscriminator(features=(feature,), weight=1.0, noise="snr"), data) as penalty:
        assert value(penalty, data, data) == 0
        denoised = grown(data + 4 * torch.randn(data.shape, generator=torch.Generator().manual_seed(3)))
        found = penalty(denoised=denoised, clean=data, sigma=torch.tensor(0.3))
        found.backward()
        assert found > 0
        assert denoised.grad.isfinite().all()
        assert denoised.grad.norm() > 0


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), sigma=st.floats(0, 50), mix=st.floats(0, 1))
def test_invariants(seed, sigma, mix):
    clean, denoised = smooth(6, 2, 8, 8, seed=seed), 2 * smooth(6, 2, 8, 8, seed=seed + 1)
    with learnt(MODEL, SpectralDiscriminator(weight=1.0, noise="bracket"), smooth(32, 2, 8, 8)) as penalty:
        (term,) = penalty._terms.values()
        level = torch.full((6,), sigma, dtype=torch.float64)
        (known,) = term._sizes.values()
        target = known.noise.target(clean, level)
        pull = value(penalty, denoised, clean, level)
        assert pull >= 0
        assert value(penalty, target, clean, level) < 1e-20
        assert value(penalty, clean, clean, level) < 1e-20
        # Mirrored images have the same radial spectra, and so have their targets.
        flipped = value(penalty, denoised.flip(-1), clean, level)
        assert flipped == pytest.approx(pull, rel=1e-9)
        order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
        assert value(penalty, denoised[order], clean[order], level) == pytest.approx(pull, rel=1e-9)
        # Between the two, channel by channel and ring by ring, nothing is paid.
        axes = (2, 3)
        low, high = (torch.fft.rfftn(images, dim=axes) for images in (target, clean))
        between = torch.fft.irfftn(
            torch.polar((mix * low.abs() ** 2 + (1 - mix) * high.abs() ** 2).sqrt(), high.angle()), dim=axes, s=(8, 8)
        )
        assert value(penalty, between, clean, level) < 1e-20
    with learnt(MODEL, SpectralDiscriminator(weight=1.0), smooth(32, 2, 8, 8)) as penalty:
        assert value(penalty, target, clean, level) < 1e-20


def test_wider_tolerance_pays_less_and_none_pays_all():
    clean, denoised = smooth(20, 1, 8, 8), 2 * smooth(20, 1, 8, 8, seed=1)
    found = []
    for tolerance in (None, 0, 0.5, 1.0, 2.0, 100.0):
        with learnt(MODEL, SpectralDiscriminator(tolerance=tolerance, weight=1.0), clean) as penalty:
            found.append(value(penalty, denoised, clean))
    assert found[0] == pytest.approx(found[1])
    assert found[1] > found[2] > found[3] > found[4] > found[5] == 0


def test_nothing_is_paid_until_sixteen_real_images_were_seen():
    data = smooth(8, 1, 8, 8)
    regularizer = SpectralDiscriminator(features=("radial", "focal"), weight=1.0)
    found = []
    with attach(MODEL, regularizer) as penalty:
        for _ in range(6):
            found.append(float(penalty(denoised=grown(5 * data), clean=data, sigma=torch.tensor(0.1)).detach()))
            assert list(penalty.values) == [f"SpectralDiscriminator/{name}" for name in ("radial", "focal", "outside")]
    # Two steps for the variance, two more for the spread in units that need it.
    assert found[:4] == [0, 0, 0, 0]
    assert found[4] > 0


def test_evaluation_learns_nothing_and_aside_takes_back():
    data = smooth(16, 1, 8, 8)
    with attach(MODEL, SpectralDiscriminator()) as penalty:
        with torch.no_grad():
            penalty(denoised=data, clean=data, sigma=torch.tensor(0.1))
        assert not penalty.state_dict()
        with penalty.aside():
            penalty(denoised=grown(data), clean=data, sigma=torch.tensor(0.1))
            assert penalty.state_dict()
        assert not penalty.state_dict()


def test_infinite_sigma_adds_exactly_nothing_even_if_the_estimate_is_not_finite():
    clean = smooth(20, 1, 8, 8)
    denoised, other = 3 * smooth(4, 1, 8, 8, seed=1), smooth(4, 1, 8, 8, seed=2)
    denoised[3] = torch.nan
    with learnt(MODEL, SpectralDiscriminator(features=tuple(FEATURES[:5]), weight=1.0, learn=20), clean) as penalty:
        sigma = torch.tensor([0.1, 0.2, 0.3, torch.inf], dtype=torch.float64)
        estimate = grown(denoised)
        found = penalty(denoised=estimate, clean=other, sigma=sigma)
        found.backward()
        assert float(found.detach()) == pytest.approx(0.75 * value(penalty, denoised[:3], other[:3], sigma[:3]))
        assert estimate.grad[:3].norm() > 0
        assert bool((estimate.grad[3] == 0).all())
        assert value(penalty, denoised, other, torch.inf) == 0
        # But where data stand out, what is not a number must be seen.
        assert math.isnan(value(penalty, denoised, other, 0.3))


def test_no_estimate_is_pushed_hard_where_it_has_little_power_by_chance():
    """The gradient of one image in a step, however near zero its power in a ring: the floor follows the data's."""
    data = smooth(64, 1, 8, 8)
    corner = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(4)
    corner = corner.outer(corner).view(1, 1, 8, 8) / 8  # the ring of a single coefficient
    regularizer = SpectralDiscriminator(weight=1.0, noise="none", tolerance=None)
    with learnt(MODEL, regularizer, data) as penalty:
        share = (data * corner).sum((1, 2, 3), keepdim=True)
        empty = data - share * corner
        push = []
        for left in (1.0, 0.3, 0.1, 1e-2, 1e-4):
            estimate = grown(empty + left * share * corner)
            with penalty.aside():
                loss = penalty(denoised=estimate, clean=data)
                (gradient,) = torch.autograd.grad(loss, estimate)
            push.append(float((gradient * corner).sum((1, 2, 3)).abs().max()))
        # Nothing is wrong at first, then more; where next to nothing is left, so is the push.
        assert push[0] < 1e-12
        assert push[1] < push[2] > push[3] > push[4]
        assert push[4] < 0.01 * push[2]


def test_constant_estimates_and_single_constant_images_stay_finite():
    clean = smooth(20, 3, 8, 8)
    clean[0] = 0.5
    for noise in ("wiener", "bracket", "snr", "none"):
        regularizer = SpectralDiscriminator(features=tuple(FEATURES[:5]), weight=1.0, noise=noise)
        with learnt(MODEL, regularizer, clean) as penalty:
            denoised = torch.zeros_like(clean).requires_grad_()
            found = penalty(denoised=denoised, clean=clean, sigma=torch.tensor(0.3))
            found.backward()
            assert found.isfinite()
            assert denoised.grad.isfinite().all()


def test_weight_zero_adds_nothing_and_carries_no_graph():
    clean = smooth(20, 1, 8, 8)
    with learnt(MODEL, SpectralDiscriminator(weight=0), clean) as penalty:
        found = penalty(denoised=grown(3 * clean), clean=clean, sigma=torch.tensor(0.1))
        assert found == 0
        assert not found.requires_grad
        assert penalty.values["SpectralDiscriminator/radial"] > 0


def test_features_are_averaged_and_named_apart():
    clean, denoised = smooth(20, 1, 8, 8), 3 * smooth(20, 1, 8, 8, seed=1)
    regularizer = SpectralDiscriminator(features=("radial", RadialSpectrum(), "focal", BlockDCT(4)), weight=2.0)
    with learnt(MODEL, regularizer, clean) as penalty:
        found = value(penalty, denoised, clean)
        values = {name.split("/")[1]: float(each) for name, each in penalty.values.items()}
    assert list(values) == ["radial", "radial-2", "focal", "dct", "outside"]
    assert values["radial"] == values["radial-2"]
    assert found == pytest.approx(2 * sum(list(values.values())[:4]) / 4)


def test_jpeg_weights_fine_errors_less_and_need_pictures():
    clean = smooth(20, 3, 16, 16)
    coarse, fine = torch.zeros(2, 20, 3, 16, 16, dtype=torch.float64)
    coarse += 0.1
    fine += 0.1 * torch.tensor([1.0, -1.0]).repeat(8).outer(torch.tensor([1.0, -1.0]).repeat(8))
    jpeg = SpectralDiscriminator(features=(BlockDCT(weights="jpeg"),), weight=1.0, noise="none", tolerance=None)
    with attach(MODEL, jpeg) as penalty:
        assert value(penalty, clean + fine, clean) < 0.2 * value(penalty, clean + coarse, clean)
        # Grey in, grey out: a colour image of three equal channels has one channel of error in three.
        grey = value(penalty, clean[:, :1] + coarse[:, :1], clean[:, :1])
        assert value(penalty, clean + coarse, clean) == pytest.approx(grey / 3)
        for shape in ((4, 4, 16, 16), (4, 3, 16), (4, 3, 8, 8, 8)):
            with pytest.raises(ValueError, match="for pictures of 1"):
                value(penalty, torch.zeros(shape), torch.zeros(shape))
    with pytest.raises(ValueError, match="latent channels are no colours"):
        SpectralDiscriminator(features=("radial", BlockDCT(weights="jpeg")), domain="latents")
    SpectralDiscriminator(features=("radial", BlockDCT()), domain="latents")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"clean": None}, TypeError, "needs clean= as a floating-point tensor, got NoneType; call penalty"),
        ({"sigma": 0.5}, TypeError, "needs sigma= as a floating-point tensor, got float"),
        ({"denoised": torch.zeros(4, 1, 8, 8, dtype=torch.int64)}, TypeError, "got torch.int64 tensor"),
        ({"clean": torch.zeros(4, 1, 8, 9)}, ValueError, r"shapes \(4, 1, 8, 8\) and \(4, 1, 8, 9\)"),
        ({"clean": torch.zeros(4, 1), "denoised": torch.zeros(4, 1)}, ValueError, "1 to 3 further dimensions"),
        ({"sigma": torch.zeros(3)}, ValueError, r"sigma has shape \(3,\) for a batch of 4"),
        ({"sigma": torch.tensor(-1.0)}, ValueError, "must not be negative or NaN"),
        ({"sigma": torch.tensor([0.1, 0.1, torch.nan, 1])}, ValueError, "must not be negative or NaN"),
        ({"clean": torch.full((4, 1, 8, 8), torch.nan)}, ValueError, "NaN or infinite pixels"),
        ({"clean": torch.full((4, 1, 8, 8), torch.inf)}, ValueError, "NaN or infinite pixels"),
        ({"clean": torch.ones(4, 1, 8, 8)}, ValueError, "all 4 clean images of this step are constant"),
        ({"denoised": torch.zeros(4, 1, 8, 8)}, RuntimeError, "not detached"),
    ],
)
def test_bad_input_is_named(change, error, message):
    context = {
        "denoised": torch.zeros(4, 1, 8, 8, requires_grad=True),
        "clean": torch.randn(4, 1, 8, 8),
        "sigma": torch.tensor(0.5),
    }
    with attach(MODEL, SpectralDiscriminator()) as penalty, pytest.raises(error, match=message):
        penalty(**{**context, **change})


def test_missing_sigma_is_named_where_it_is_needed():
    data = smooth(4, 1, 8, 8)
    nothing = "needs sigma= as a floating-point tensor, got nothing"
    with attach(MODEL, SpectralDiscriminator()) as penalty, pytest.raises(TypeError, match=nothing):
        penalty(denoised=grown(data), clean=data)


@pytest.mark.parametrize("noise", ["wiener", "snr", "none"])
@pytest.mark.parametrize("feature", ["radial", "amplitude_phase", "dct", "wavelet"])
def test_images_of_every_size_are_learnt_apart(feature, noise):
    """Aspect-ratio buckets: batches of several sizes in turn give what each size gives alone."""
    regularizer = SpectralDiscriminator(features=(feature,), noise=noise)
    sizes = [smooth(20, 1, 8, 8), smooth(20, 1, 8, 12, seed=1)]
    apart = []
    for clean in sizes:
        with learnt(MODEL, regularizer, clean) as penalty:
            apart.append(penalty(denoised=grown(3 * clean), clean=clean, sigma=torch.tensor(0.1)))
    with attach(MODEL, regularizer) as penalty:
        for clean in sizes + sizes:
            penalty(denoised=clean.clone().requires_grad_(), clean=clean, sigma=clean.new_tensor(0.1))
        state = penalty.state_dict()
        mixed = [penalty(denoised=grown(3 * clean), clean=clean, sigma=torch.tensor(0.1)) for clean in sizes]
    assert 0 < apart[0] != apart[1] > 0
    assert mixed == apart
    with attach(MODEL, regularizer) as penalty:
        penalty.load_state_dict(state)
        assert [penalty(denoised=grown(3 * each), clean=each, sigma=torch.tensor(0.1)) for each in sizes] == apart


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"features": "radial"}, TypeError, r"a sequence of one or more, as \('radial',\)"),
        ({"features": ()}, TypeError, "one or more"),
        ({"features": ("radail",)}, ValueError, "'radail' is unknown; there are 'amplitude_phase'"),
        ({"weight": -1}, ValueError, "weight must be finite and not negative, got -1"),
        ({"weight": math.nan}, ValueError, "weight must be finite"),
        ({"tolerance": -0.1}, ValueError, "tolerance must be None"),
        ({"learn": 15}, ValueError, "16 images at least, got 15"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        SpectralDiscriminator(**arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AmplitudePhase(-1), "amplitude must be finite and not negative"),
        (lambda: AmplitudePhase(0, 0), "both 0"),
        (lambda: BlockDCT(0), "at least 1, got 0"),
        (lambda: BlockDCT(4, "jpeg"), "blocks of 8 x 8, got size=4"),
        (lambda: Wavelet(levels=0), "at least 1, got 0"),
        (lambda: LayerSpectra(level=0), "positive noise level"),
        (lambda: LayerSpectra(fraction=0), r"in \(0, 1\]"),
    ],
)
def test_bad_features_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()

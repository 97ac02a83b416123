"""What one step of a sampler does to small differences: frames, gains, time scales, and the network's own Jacobian."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Frame = Literal["exploding", "preserving", "flow"]
Prediction = Literal["epsilon", "v", "sample", "flow", "edm"]
Numbers = Float[Tensor, "..."] | float | int


def frame_factor(sigma: Numbers, frame: Frame = "exploding") -> Float[Tensor, "..."]:
    r"""The factor a(sigma) that takes a noisy image of the exploding frame into another frame, z = a x.

    .. math:: a = 1, \qquad a = \frac{1}{\sqrt{1+\sigma^2}}, \qquad a = \frac{1}{1+\sigma}

    for "exploding" (x = clean + sigma noise: EDM), "preserving" (DDPM, where a = sqrt(abar)) and "flow" (the straight
    path, where a = 1 - t). A step is the same map in all three, but differences are measured in another unit before and
    after: its Jacobian in a frame is a(sigma') / a(sigma) times that of the exploding frame.

    Source: Karras et al. 2022, Table 1 (s(t)).

    Args:
        sigma: Noise levels, >= 0.
        frame: Which one.

    Returns:
        The factor, in (0, 1]; float64 for a plain number.

    Raises:
        ValueError: If there is no such frame.

    Example:
        >>> frame_factor(1.0, "flow")
        tensor(0.5000, dtype=torch.float64)
    """
    sigma = _numbers(sigma)
    if frame == "exploding":
        return torch.ones_like(sigma)
    if frame == "preserving":
        return (1 + sigma.square()).rsqrt()
    if frame == "flow":
        return (1 + sigma).reciprocal()
    raise ValueError(f"frame is {frame!r}; expected 'exploding', 'preserving' or 'flow'")


def step_gain(mu: Numbers, sigma: Numbers, sigma_next: Numbers, frame: Frame = "exploding") -> Float[Tensor, "..."]:
    r"""The eigenvalue of one Euler step that belongs to the eigenvalue mu of the denoiser's Jacobian.

    .. math:: g = \frac{a(\sigma')}{a(\sigma)}\bigl(\rho + (1 - \rho)\,\mu\bigr), \qquad \rho = \sigma'/\sigma

    for the step f(x) = rho x + (1 - rho) D(x), which is also DDIM's. Small differences along the eigenvector grow by g
    in the step. 1 leaves them, 0 removes them; in the preserving and the flow frame even the optimal denoiser has gains
    above 1, for the image grows as the noise goes.

    Source: Song, Meng & Ermon 2021, eq. 12 (DDIM), written in the exploding frame, where it is Euler's step (their
    section 4.3).

    Args:
        mu: Eigenvalues of dD/dx.
        sigma: Noise levels before the step, > 0; all three broadcast.
        sigma_next: Noise levels after the step, in [0, sigma).
        frame: The frame in which differences are measured; see `frame_factor`.

    Returns:
        The gains.

    Raises:
        ValueError: If a noise level is out of range (checked on the CPU only), or there is no such frame.

    Example:
        >>> step_gain(0.5, sigma=2.0, sigma_next=1.0)
        tensor(0.7500, dtype=torch.float64)
    """
    mu, sigma, after = _numbers(mu), _numbers(sigma), _numbers(sigma_next)
    check_levels(sigma, after)
    rho = after / sigma
    return frame_factor(after, frame) / frame_factor(sigma, frame) * (rho + (1 - rho) * mu)


def denoiser_eigenvalue(
    nu: Numbers, sigma: Numbers, prediction: Prediction, *, sigma_data: float = 0.5
) -> Float[Tensor, "..."]:
    r"""The eigenvalue of the denoiser's Jacobian that belongs to the eigenvalue nu of its network's.

    .. math::
        \mu_\epsilon = 1 - \sqrt{1-\bar\alpha}\,\nu, \quad \mu_v = \bar\alpha - \sqrt{\bar\alpha(1-\bar\alpha)}\,\nu,
        \quad \mu_{x_0} = \sqrt{\bar\alpha}\,\nu, \quad \mu_{flow} = (1-t)(1 - t\,\nu), \quad
        \mu_{edm} = \frac{1 + r\,\nu}{1 + r^2}

    with :math:`\bar\alpha = 1/(1+\sigma^2)`, t = sigma / (1 + sigma), r = sigma / sigma_data. nu belongs to the
    derivative of the network's prediction by its own input (x_t, or c_in x for "edm"). All are affine with the same
    eigenvectors, so they hold for eigenvalues of the symmetric parts too; not for singular values.

    Source: the derivative of Ho, Jain & Abbeel 2020, eq. 4; Salimans & Ho 2022, section 4; Liu, Gong & Liu 2023; Karras
    et al. 2022, eq. 7.

    Args:
        nu: Eigenvalues of the network's Jacobian; broadcasts with sigma.
        sigma: Noise levels, >= 0.
        prediction: What the network predicts: "epsilon", "v", "sample" (DDPM), "flow" (velocity) or "edm".
        sigma_data: Of EDM's preconditioning.

    Returns:
        Eigenvalues of dD/dx.

    Raises:
        ValueError: If the prediction is unknown, a sigma negative or nan (checked on the CPU only), or sigma_data not
            positive.

    Example:
        >>> denoiser_eigenvalue(0.0, sigma=3.0, prediction="epsilon")
        tensor(1., dtype=torch.float64)
    """
    nu, sigma = _numbers(nu), _numbers(sigma)
    if not sigma_data > 0 or (sigma.device.type == "cpu" and not bool((sigma >= 0).all())):
        raise ValueError(f"expected sigma >= 0 and sigma_data > 0, got {sigma.tolist()} and {sigma_data}")
    root = (1 + sigma.square()).rsqrt()  # sqrt(abar); sqrt(1 - abar) = sigma root
    if prediction == "epsilon":
        return 1 - sigma * root * nu
    if prediction == "v":
        return root.square() - sigma * root.square() * nu
    if prediction == "sample":
        return root * nu
    if prediction == "flow":
        t = sigma / (1 + sigma)
        return (1 - t) * (1 - t * nu)
    if prediction == "edm":
        r = sigma / sigma_data
        return (1 + r * nu) / (1 + r.square())
    raise ValueError(f"prediction is {prediction!r}; expected 'epsilon', 'v', 'sample', 'flow' or 'edm'")


def time_scale(mu: Numbers) -> Float[Tensor, "..."]:
    r"""How long, in units of log sigma, the flow takes to shrink a difference along an eigenvector by e.

    .. math:: \frac{d \ln |\delta x|}{d \ln \sigma} = 1 - \mu, \qquad \tau = \frac{1}{1 - \mu}

    of the probability-flow ODE as sigma falls, in the exploding frame. mu = 0 (noise) shrinks as sigma does, tau = 1;
    mu = 1 (settled) never changes, tau = inf; above 1 differences grow and tau is negative, minus the time in which
    they grow by e. Larger mu: a slower process. A Gaussian direction of variance lam has tau = 1 + lam / sigma^2.

    Source: the linearisation of Karras et al. 2022, eq. 1 with s = 1: dx / d ln sigma = x - D.

    Args:
        mu: Eigenvalues of dD/dx.

    Returns:
        Time scales, float64 for a plain number.

    Example:
        >>> time_scale(torch.tensor([0.0, 0.5, 1.0, 1.5]))
        tensor([ 1.,  2., inf, -2.])
    """
    return (1 - _numbers(mu)).reciprocal()


def discrete_time_scale(gain: Numbers, step: Numbers = 1.0) -> Float[Tensor, "..."]:
    r"""How long a chain of equal steps takes to shrink a difference by e, from the gain of one step.

    .. math:: \tau = -\frac{\Delta}{\ln g}

    in units of `step`: with ln(sigma / sigma') it compares with `time_scale`, and tends to it as steps become small;
    with 1 it counts steps. 0 for a gain of 0 (gone at once), inf for 1 (never), negative above 1 (minus the time in
    which differences grow by e). A negative gain turns differences around, and no time scale says that: nan.

    Args:
        gain: Gains of a step.
        step: Its length, positive.

    Returns:
        Time scales, float64 for plain numbers.

    Example:
        >>> discrete_time_scale(torch.tensor([0.0, 0.5, 1.0, -0.5]))
        tensor([0.0000, 1.4427, inf, nan])
    """
    gain, step = _numbers(gain), _numbers(step)
    return torch.where(gain == 1, torch.inf, -step / gain.log())


def check_levels(sigma: Float[Tensor, "..."], sigma_next: Float[Tensor, "..."] | None = None) -> None:
    """Refuse noise levels that no step has; free of charge, so only what is on the CPU is read.

    Raises:
        ValueError: If a sigma is not positive and finite, or a sigma_next not in [0, sigma).
    """
    if sigma.device.type == "cpu" and not bool(((sigma > 0) & (sigma < torch.inf)).all()):
        raise ValueError(
            f"sigma must be positive and finite, got {sigma.tolist()}; without noise the best estimate is the image "
            "itself, and its Jacobian the identity"
        )
    if sigma_next is None or sigma_next.device.type != "cpu" or sigma.device.type != "cpu":
        return
    if not bool(((sigma_next >= 0) & (sigma_next < sigma)).all()):
        raise ValueError(
            f"sigma_next must be in [0, sigma), since a step goes to less noise; got {sigma_next.tolist()} after "
            f"{sigma.tolist()}"
        )


def _numbers(value: Numbers) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)

"""Spectra of features: moments of what layers put out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lsdr.layers.capture import capture
from lsdr.layers.select import Layers, select_called
from lsdr.moments import Moments
from lsdr.probes.nothing import LayersNotMeasuredError, NothingMeasuredError
from lsdr.spectrum import Spectrum
from lsdr.statistics.effective_rank import effective_rank

_CHANNEL_FIRST = (nn.Conv1d, nn.ConvTranspose1d)


@dataclass(frozen=True)
class FeatureProbe:
    """Moments of the outputs of chosen layers over all forwards in a context; measuring changes nothing.

    Args:
        layers: Glob, several globs, regular expression or predicate (see `select_layers`).

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
        >>> with FeatureProbe("0").attach(model) as features:
        ...     for _ in range(2):
        ...         _ = model(torch.randn(5, 3))
        >>> features()["0"].count
        10
    """

    layers: Layers
    prefix: ClassVar[str] = "features"

    def select(self, model: nn.Module) -> dict[str, nn.Module]:
        """The layers that would be watched, by name.

        Raises:
            ValueError: If no layer matches.
        """
        return select_called(model, self.layers)

    @contextmanager
    def attach(self, model: nn.Module) -> Iterator[Callable[[], dict[str, Moments]]]:
        """Watch the layers' outputs until the context is left.

        Every position of every example is one sample of a vector of channels: dimension 1 of outputs with four or
        more dimensions (and of one-dimensional convolutions), the last dimension of others. Rows are added up in
        float32 or better, without a graph. Under `torch.compile` attach before the first call.

        Args:
            model: Plain, compiled or wrapped.

        Yields:
            A function that returns, during the context or after it, the moments so far of the layers that ran; it
            raises NothingMeasuredError if none did. They are this rank's: `Moments.all_reduce` adds the other ranks'.

        Raises:
            ValueError: If no layer matches; by the function, if an output has fewer than two dimensions or not always
                the same channels.
        """
        seen: dict[str, Moments] = {}
        failed: dict[str, str] = {}

        def receive(name: str, module: nn.Module, output: Tensor) -> None:
            try:
                with torch.no_grad():
                    seen.setdefault(name, Moments()).update(_samples(module, output.detach()))
            except (TypeError, ValueError, RuntimeError) as error:  # such as sparse and nested tensors
                failed[name] = str(error)

        with capture(model, self.layers, receive, failed.__setitem__) as selected:

            def features() -> dict[str, Moments]:
                if not seen and not failed:
                    raise NothingMeasuredError(
                        f"none of the {len(selected)} selected layers ran: run the model inside the context, and with "
                        "torch.compile enter it before the first compiled call"
                    )
                for name, moments in seen.items():
                    if not moments.count:
                        failed.setdefault(name, "put out no rows")
                good = [name for name in selected if name in seen and name not in failed]
                measured = {name: Moments().merge(seen[name]) for name in good}
                if failed:
                    raise LayersNotMeasuredError(failed, measured)
                return measured

            yield features


class FeatureSummary(NamedTuple):
    """What the moments of features come to."""

    spectrum: Spectrum
    """Eigenvalues of the covariance (count as the divisor), in squared units of the features."""
    mean_abs_correlation: Float[Tensor, ""]
    """Mean absolute correlation of two different channels, in [0, 1]; nan if fewer than two channels vary."""


def feature_summary(moments: Moments) -> FeatureSummary:
    r"""Spectrum of the covariance, and how correlated the channels are.

    .. math:: \lambda_k(C), \qquad \frac{1}{D (D - 1)} \sum_{i \ne j} \frac{|C_{ij}|}{\sqrt{C_{ii} C_{jj}}}

    Channels that do not vary have no correlation and are left out of the mean. Of N samples it is about
    sqrt(2 / (pi N)) for independent channels, not 0. Invariant to the scale and shift of each channel; the spectrum to
    shifts and rotations only. Eigenvalues that rounding made negative are 0. In float64, not differentiable; O(D^3).

    Args:
        moments: Torch moments of D channels.

    Returns:
        Spectrum (float64) and mean absolute correlation.

    Raises:
        ValueError: If there are no samples, or the features were not finite.

    Example:
        >>> summary = feature_summary(Moments.of(torch.tensor([[1.0, -1.0], [-1.0, 1.0]])))
        >>> summary.spectrum.values, summary.mean_abs_correlation
        (tensor([2., 0.], dtype=torch.float64), tensor(1., dtype=torch.float64))
    """
    covariance = moments.detach().covariance().double()
    if not bool(covariance.isfinite().all()):
        raise ValueError("the covariance is not finite: some features were nan, infinite or too large to square")
    spectrum = Spectrum.of(torch.linalg.eigvalsh(covariance).clamp_min(0), kind="eigenvalues", method="eigvalsh")
    deviation = covariance.diagonal().sqrt()
    varies = deviation > 0  # exactly: relative to the shift a constant is a few roundings, whose mean loses no digit
    correlation = (covariance / torch.outer(deviation, deviation))[varies][:, varies].abs()
    channels = len(correlation)
    off_diagonal = correlation.sum() - correlation.diagonal().sum()
    return FeatureSummary(spectrum, off_diagonal / (channels * (channels - 1)))


def feature_values(moments: Moments) -> dict[str, float]:
    """What to plot of a layer's features while it trains.

    "effective_rank" and "variance" (the trace) of the covariance, "mean_abs_correlation" of the channels, and
    "dead_units", the channels that never varied: those of a ReLU that is always off, those of zero weights. The rank
    of features that do not vary is undefined and given as 0. Features that are not finite have none of these, and
    "nonfinite" says how many channels are to blame. One eigenvalue decomposition of the channels.

    Args:
        moments: Torch moments of the channels.

    Example:
        >>> feature_values(Moments.of(torch.tensor([[1.0, -1.0, 5.0], [-1.0, 1.0, 5.0]])))["dead_units"]
        1.0
    """
    variances = moments.detach().covariance().diagonal()
    bad = int((~variances.isfinite()).sum())
    if bad:
        return {"nonfinite": float(bad)}
    spectrum, correlation = feature_summary(moments)
    values = {
        "effective_rank": float(effective_rank(spectrum)) if bool(spectrum.values[0] > 0) else 0.0,
        "variance": float(variances.double().sum()),
        "dead_units": float((variances <= 0).sum()),
    }
    return values if bool(correlation.isnan()) else {**values, "mean_abs_correlation": float(correlation)}


def _samples(module: nn.Module, output: Tensor) -> Float[Tensor, "n d"]:
    if output.ndim < 2:
        raise ValueError(f"put out shape {tuple(output.shape)}, expected (N, ..., D) or (N, D, ...)")
    channel = 1 if output.ndim >= 4 or (output.ndim == 3 and isinstance(module, _CHANNEL_FIRST)) else -1
    return output.movedim(channel, -1).flatten(0, -2)

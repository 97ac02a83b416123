"""The attached side of `SpectralDecorrelation`: from the layers' hooks to one number."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn

from lsdr.moments import Moments
from lsdr.regularizers._decorrelation_value import Recipe, moments_of_features, value_of_features, value_of_moments
from lsdr.regularizers._features import Features, channels_second

# How far a chunk's statistics may be from the observed ones, relatively: above what another order of half-precision
# rounding does to a mean over many features, below what other noise or another dropout mask does.
_REPLAY_TOLERANCE = 1e-2


@dataclass(frozen=True)
class _Forward:
    """The moments of one forward's features, in halves where the estimator wants halves."""

    samples: int
    halves: tuple[Moments, ...]


class DecorrelationTerm:
    """The penalty of one attached `SpectralDecorrelation`."""

    def __init__(self, layers: dict[str, nn.Module], recipe: Recipe, weight: float | int, channel_dim: int | None):
        self.values: dict[str, Tensor] = {}
        self._features = Features(layers)
        self._recipe = recipe
        self._weight = weight
        self._channel_dim = channel_dim
        self._observed: dict[str, list[_Forward]] = {name: [] for name in layers}
        self._used: dict[str, int] = dict.fromkeys(layers, 0)
        self._device = next((each.device for layer in layers.values() for each in layer.parameters()), None)
        self.receive = self._features.receive

    def __call__(self, held: Collection[str] = (), **context: Any) -> Float[Tensor, ""]:
        """Give the weighted mean over layers; in a game over those of the player that moves, zero if it has none.

        Args:
            held: Players, children of the model, that do not move now.
            context: Not needed.

        Raises:
            RuntimeError: If a layer did not run since the last call.
            ValueError: If there are too few samples for the estimator.
        """
        collected = self._features.take(held)
        for name in self._observed.keys() - collected.keys():
            self._observed[name].clear()
        if not collected:
            self.values = {}
            return torch.zeros((), device=self._device)
        parts, values = [], {}
        for name, outputs in collected.items():
            with torch.autocast(outputs[0].device.type, enabled=False):
                value, share = self._value(name, [self._ordered(name, output) for output in outputs])
            values[name] = value.detach()
            # The gradient of the whole, which the calls for other chunks complete, and this call's share of the value.
            parts.append(value if share == 1 else value - (1 - share) * values[name])
        self.values = values
        total = self._weight * torch.stack(parts).mean()
        # A zero gradient adds nothing but can change the layout in which sums are taken, and so the last bit.
        return total if self._weight else total.detach()

    @contextmanager
    def observe(self) -> Iterator[None]:
        """Collect moments of the forwards within; see `Penalty.observe`.

        Raises:
            ValueError: If the estimator needs all samples at once.
            RuntimeError: On leaving, if a layer did not run.
        """
        if self._recipe.estimator == "u_statistic":
            raise ValueError(
                "estimator='u_statistic' needs all samples at once and cannot be observed in chunks; "
                "use estimator='split_half', unbiased as well"
            )
        self._forget()
        with self._features.observed_by(self._remember):
            yield
        silent = [name for name, forwards in self._observed.items() if not forwards]
        if silent:
            self._forget()
            raise RuntimeError(f"the layers {silent} did not run while observed; run every chunk through the model")

    def observed(self) -> int:
        """Count the observed forwards that no call has used yet."""
        return max(len(forwards) - self._used[name] for name, forwards in self._observed.items())

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing: every step is computed from its own features."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Accept the empty state.

        Raises:
            ValueError: If the state is not empty.
        """
        if state:
            raise ValueError(f"spectral decorrelation has no state, got entries {sorted(state)}")

    def forget(self) -> None:
        """Let go of all features and of what was observed."""
        self._features.clear()
        self._forget()

    def _ordered(self, name: str, output: Tensor) -> Float[Tensor, "n d p"]:
        return channels_second(output, self._features.layers[name], self._channel_dim, name)

    def _remember(self, name: str, output: Tensor) -> None:
        with torch.autocast(output.device.type, enabled=False):
            self._observed[name].append(self._forward(self._ordered(name, output.detach())))

    def _forget(self) -> None:
        for name, forwards in self._observed.items():
            forwards.clear()
            self._used[name] = 0

    def _forward(self, x: Float[Tensor, "n d p"]) -> _Forward:
        return _Forward(x.shape[0], moments_of_features(x, self._recipe))

    def _value(self, name: str, features: list[Tensor]) -> tuple[Float[Tensor, ""], float]:
        """The layer's penalty over everything observed, and the part of the forwards that these features are."""
        observed = self._observed[name]
        if not observed and not _several_ranks():
            x = features[0] if len(features) == 1 else torch.cat(features)
            return value_of_features(x, self._recipe), 1.0
        live = [self._forward(x) for x in features]
        if not observed:
            return value_of_moments(self._totals(live, features[0].device), features, self._recipe), 1.0
        first = self._used[name]
        last = first + len(live)
        _check_replay(name, observed[first:last], live)
        forwards = [*observed[:first], *live, *observed[last:]]
        value = value_of_moments(self._totals(forwards, features[0].device), features, self._recipe)
        self._used[name] = last
        if last == len(observed):
            observed.clear()
            self._used[name] = 0
        return value, len(live) / len(forwards)

    def _totals(self, forwards: list[_Forward], device: torch.device) -> list[Moments]:
        """Merge forwards, then ranks; samples are numbered through, rank after rank, to tell even from odd."""
        totals = [Moments() for _ in forwards[0].halves]
        number = _samples_before(sum(forward.samples for forward in forwards), device) if len(totals) == 2 else 0
        for forward in forwards:
            halves = forward.halves if number % 2 == 0 else forward.halves[::-1]
            for total, half in zip(totals, halves, strict=True):
                total.merge(half)
            number += forward.samples
        return [total.all_reduce() for total in totals]


def _check_replay(name: str, observed: list[_Forward], live: list[_Forward]) -> None:
    """Make sure that the second pass brought the features of the first: else the gradient would be silently wrong."""
    same = len(observed) == len(live)
    for before, now in zip(observed, live, strict=False):
        same = same and before.samples == now.samples
        for half, half_now in zip(before.halves, now.halves, strict=True):
            if not same or not half.count:
                continue
            size = half.covariance().norm()
            moved = (half_now.covariance().detach() - half.covariance()).norm() > _REPLAY_TOLERANCE * size
            # Not "within": what is not a number is the guard's business.
            spread = half.mean.square().sum() + half.covariance().trace()
            shifted = (half_now.mean.detach() - half.mean).square().sum() > _REPLAY_TOLERANCE**2 * spread
            same = not bool(moved | shifted)
    if not same:
        raise RuntimeError(
            f"layer {name!r} brought other features than were observed: run the same chunks in the same order, one "
            "call of the penalty after each, with the same noise and dropout (replay your own generators; the global "
            "ones are put back when observe() is left) and without batch statistics across chunks"
        )


def _several_ranks() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def _samples_before(samples: int, device: torch.device) -> int:
    """Count the samples of the ranks before this one."""
    if not _several_ranks():
        return 0
    counts = torch.zeros(distributed.get_world_size(), dtype=torch.int64, device=device)
    rank = distributed.get_rank()
    counts[rank] = samples
    distributed.all_reduce(counts)
    return int(counts[:rank].sum())

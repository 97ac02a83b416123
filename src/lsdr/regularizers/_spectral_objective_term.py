"""The attached side of `SpectralObjective`: sums over examples, one gradient by them, each chunk's part of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn

from lsdr.regularizers._features import Features, channels_second
from lsdr.regularizers._outliers import Outliers
from lsdr.regularizers._view_sums import Rows, Sketch, ViewSums, over_ranks, pull_back
from lsdr.regularizers.objectives.objective import Objective, Views
from lsdr.regularizers.objectives.sigreg import directions
from lsdr.robust_moments import Robust

# How far a chunk's statistics may be from the observed ones, relatively: above what another order of half-precision
# rounding does to a mean over many features, below what other views or another dropout mask do.
_REPLAY_TOLERANCE = 1e-2


@dataclass(frozen=True)
class _Solved:
    """The objective of all examples, and its gradient by their statistics."""

    value: Tensor
    terms: dict[str, Tensor]
    views: Views
    gradient: Views


@dataclass
class _Layer:
    """A layer's part of the step that is under way."""

    outliers: Outliers | None
    total: ViewSums | None = None
    """Sums over the observed forwards of all ranks, at first of this one."""
    seen: list[tuple[int, Tensor, Tensor]] = field(default_factory=list)
    """Of each observed forward: its examples, their means, their variances."""
    used: int = 0
    solved: _Solved | None = None

    def forget(self) -> None:
        self.total, self.solved, self.used = None, None, 0
        self.seen.clear()


class SpectralObjectiveTerm:
    """The penalty of one attached `SpectralObjective`."""

    def __init__(
        self,
        layers: dict[str, nn.Module],
        objective: Objective,
        views: int,
        weight: float | int,
        robust: Robust | None,
        trim: float,
        channel_dim: int | None,
    ):
        self.values: dict[str, Tensor] = {}
        self._features = Features(layers)
        self._objective, self._views, self._weight, self._channel_dim = objective, views, weight, channel_dim
        self._layers = {name: _Layer(Outliers(robust, trim) if robust else None) for name in layers}
        self._step = 0
        self.receive = self._features.receive

    def __call__(self, **context: Any) -> Float[Tensor, ""]:
        """Give the weighted mean over layers; the context is not needed.

        Raises:
            RuntimeError: If a layer did not run since the last call, or brought other features than were observed.
            ValueError: If a layer's rows are not two views, or are fewer than two examples.
        """
        collected = self._features.take()
        device = next(iter(collected.values()))[0].device
        with torch.autocast(device.type, enabled=False):
            return self._penalty(collected)

    @contextmanager
    def observe(self) -> Iterator[None]:
        """Sum over the forwards within; see `Penalty.observe`.

        Raises:
            RuntimeError: On leaving, if a layer did not run.
        """
        self._forget()
        with self._features.observed_by(self._remember):
            yield
        silent = [name for name, layer in self._layers.items() if not layer.seen]
        if silent:
            self._forget()
            raise RuntimeError(f"the layers {silent} did not run while observed; run every chunk through the model")

    def observed(self) -> int:
        """Count the observed forwards that no call has used yet."""
        return max(len(layer.seen) - layer.used for layer in self._layers.values())

    def state_dict(self) -> dict[str, Tensor]:
        """Which step's directions come next, and what outliers are measured by; empty where there is no such thing."""
        state = {"step": torch.tensor(self._step)} if self._objective.needs.slices else {}
        for name, layer in self._layers.items():
            if layer.outliers is not None:
                state |= {f"{name}/{key}": value for key, value in layer.outliers.state_dict().items()}
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            ValueError: If it is of other layers, or of another kind of objective.
        """
        known = {"step"} if self._objective.needs.slices else set[str]()
        for name, layer in self._layers.items():
            if layer.outliers is not None:
                known |= {f"{name}/{key}" for key in ("mean", "quantile", "scale")}
        if not state.keys() <= known:
            raise ValueError(f"the state has entries {sorted(state.keys() - known)} that this objective does not have")
        self._step = int(state.get("step", torch.tensor(0)))
        for name, layer in self._layers.items():
            if layer.outliers is not None:
                own = {key: state[f"{name}/{key}"] for key in ("mean", "quantile", "scale") if f"{name}/{key}" in state}
                layer.outliers.load_state_dict(own)

    def forget(self) -> None:
        """Let go of all features and of what was observed."""
        self._features.clear()
        self._forget()

    def _penalty(self, collected: dict[str, list[Tensor]]) -> Float[Tensor, ""]:
        live = {name: [self._rows(name, output) for output in outputs] for name, outputs in collected.items()}
        self._solve(live)
        parts = []
        values: dict[str, Tensor] = {}
        for name, forwards in live.items():
            layer = self._layers[name]
            solved = layer.solved
            assert solved is not None
            share = 1.0
            if layer.seen:
                share = len(forwards) / len(layer.seen)
                _check_replay(name, layer.seen[layer.used : layer.used + len(forwards)], forwards)
                layer.used += len(forwards)
            parts.append(self._carry(layer, solved, forwards, share))
            values |= {name: solved.value, **{f"{name}/{key}": value for key, value in solved.terms.items()}}
        self.values = values
        if all(layer.used == len(layer.seen) for layer in self._layers.values()):
            self._finish()
        total = self._weight * torch.stack(parts).mean()
        # A zero gradient adds nothing but can change the layout in which sums are taken, and so the last bit.
        return total if self._weight else total.detach()

    def _forget(self) -> None:
        for layer in self._layers.values():
            layer.forget()

    def _rows(self, name: str, output: Tensor) -> Rows:
        """An output's examples, view by view, as the objective takes them."""
        x = channels_second(output, self._features.layers[name], self._channel_dim, name)
        if x.shape[0] % self._views:
            raise ValueError(
                f"layer {name!r} returned {x.shape[0]} rows, which are not two views of as many examples: run the "
                "model once on both views, torch.cat([a, b]), or use views=1"
            )
        samples, channels, positions = x.shape
        examples = samples // self._views * positions
        rows = x.movedim(1, 2).reshape(self._views, examples, channels)
        return sketch_of(self._objective, self._step, rows).prepare(rows)

    def _sums(self, layer: _Layer, rows: Rows) -> ViewSums:
        rows = rows.detach()
        weights, histogram = (None, None) if layer.outliers is None else layer.outliers.weigh(rows)
        return ViewSums.of(rows, sketch_of(self._objective, self._step, rows), weights, histogram)

    def _remember(self, name: str, output: Tensor) -> None:
        layer = self._layers[name]
        with torch.autocast(output.device.type, enabled=False):
            rows = self._rows(name, output.detach())
            sums = self._sums(layer, rows)
            layer.total = sums if layer.total is None else layer.total.merge(sums)
        layer.seen.append(_fingerprint(rows))

    def _solve(self, live: dict[str, list[Tensor]]) -> None:
        """Find every layer's objective and its gradient by the statistics, if this step's are not found yet."""
        waiting = {name: layer for name, layer in self._layers.items() if layer.solved is None}
        if not waiting:
            return
        for name, layer in waiting.items():
            if layer.total is None:
                for rows in live[name]:
                    sums = self._sums(layer, rows)
                    layer.total = sums if layer.total is None else layer.total.merge(sums)
        totals = over_ranks([layer.total for layer in waiting.values() if layer.total is not None])
        for (name, layer), total in zip(waiting.items(), totals, strict=True):
            alone = sum(count for count, _, _ in layer.seen) or sum(rows.shape[1] for rows in live[name])
            if alone < 2 and not _several_ranks():
                raise ValueError(
                    f"layer {name!r} brought {alone} example, and the objective compares examples: use larger batches"
                )
            layer.total, layer.solved = total, _solve(self._objective, total.views())

    def _carry(self, layer: _Layer, solved: _Solved, forwards: list[Tensor], share: float) -> Tensor:
        """The share of the value, with these rows' part of the gradient."""
        # DistributedDataParallel divides by the number of ranks.
        ranks = distributed.get_world_size() if _several_ranks() else 1
        carried = solved.value * share
        for rows in forwards:
            if not rows.requires_grad:
                continue
            known = rows.detach()
            weights = None if layer.outliers is None else layer.outliers.weigh(known)[0]
            sketch = sketch_of(self._objective, self._step, known)
            gradient = pull_back(known, weights, sketch, solved.views, solved.gradient)
            carried = _Carry.apply(carried, rows, gradient * ranks)
        return carried

    def _finish(self) -> None:
        for layer in self._layers.values():
            if layer.outliers is not None and layer.total is not None:
                layer.outliers.update(layer.total)
        self._step += 1
        self._forget()


class _Carry(torch.autograd.Function):
    """A value that is known, as a function of rows by which its gradient is known too."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, rows: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradients[0], gradients[0] * gradient, None


def sketch_of(objective: Objective, step: int, rows: Rows) -> Sketch:
    """What is summed for an objective in this step."""
    slices = objective.needs.slices
    return Sketch(objective.needs, directions(rows.shape[-1], slices, step, rows) if slices else None)


def _solve(objective: Objective, views: Views) -> _Solved:
    names = [each.name for each in fields(Views) if isinstance(getattr(views, each.name), Tensor)]
    known = [name for name in names if name not in ("count", "pairs")]
    leaves = {name: getattr(views, name).detach().requires_grad_() for name in known}
    with torch.enable_grad():
        value, terms = objective(Views(views.count, views.pairs, **leaves))
        found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True, materialize_grads=True)
    by_name = dict(zip(known, found, strict=True))
    if "covariances" in by_name:
        by_name["covariances"] = by_name["covariances"] + by_name["covariances"].transpose(1, 2)
    gradient = Views(views.count, views.pairs, **by_name)
    return _Solved(value.detach(), {name: term.detach() for name, term in terms.items()}, views, gradient)


def _fingerprint(rows: Rows) -> tuple[int, Tensor, Tensor]:
    """What tells a forward's features from others, in O(D)."""
    known = rows.detach()
    mean = known.mean(1)
    return known.shape[1], mean, (known - mean[:, None]).square().mean(1)


def _check_replay(name: str, observed: list[tuple[int, Tensor, Tensor]], live: list[Tensor]) -> None:
    """Make sure that the second pass brought the features of the first: else the gradient would be silently wrong."""
    same = len(observed) == len(live)
    for (count, mean, variance), rows in zip(observed, live, strict=False):
        now, mean_now, variance_now = _fingerprint(rows)
        same = same and now == count
        if not same:
            break
        moved = (variance_now - variance).norm() > _REPLAY_TOLERANCE * variance.norm()
        # Not "within": what is not a number is the guard's business.
        spread = mean.square().sum() + variance.sum()
        shifted = (mean_now - mean).square().sum() > _REPLAY_TOLERANCE**2 * spread
        same = not bool(moved | shifted)
    if not same:
        raise RuntimeError(
            f"layer {name!r} brought other features than were observed: run the same chunks in the same order, one "
            "call of the penalty after each, with the same views, noise and dropout (replay your own generators; the "
            "global ones are put back when observe() is left) and without batch statistics across chunks"
        )


def _several_ranks() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1

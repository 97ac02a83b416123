"""One optimiser step: forward, penalty, backward, update, in micro-batches and over ranks."""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from lsdr.regularizers.attach import Penalty, attach
from lsdr.regularizers.regularizer import Regularizer
from lsdr.training.average import ExponentialMovingAverage
from lsdr.training.config import TrainingConfig
from lsdr.training.optimizer import build_optimizer, check_optimizer, learning_rate
from lsdr.training.order import share, stream_seed
from lsdr.training.task import Task
from lsdr.training.trained import load_trained_state, trained_state
from lsdr.training.turn import Turn, turns_of

# Another order of sums moves a gradient by 1e-6 in float32 and by about 1e-2 in bfloat16.
_COMPILED_TOLERANCE = 0.05
_PRECISIONS = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


@dataclass(frozen=True)
class Gradient:
    """What the backward pass of a step found; the weights have not moved yet."""

    loss: float
    penalty: float
    norm: float
    components: dict[str, float]

    @property
    def watched(self) -> float:
        """What is shown and guarded: the loss, or the penalty where that is all of the objective."""
        return self.loss or self.penalty

    def after(self, earlier: "Gradient", turn: str) -> "Gradient":
        """This and the gradients of the step's earlier turns, as one record under the last turn's loss and norm."""
        own = {f"{turn}/loss": self.loss, f"{turn}/grad_norm": self.norm}
        return Gradient(
            self.loss, earlier.penalty + self.penalty, self.norm, {**earlier.components, **self.components, **own}
        )


class Stepper:
    """The state of a training run and how one step changes it.

    Every random number of a step comes from a stream named by (seed, step), so a step needs no generator state and can
    be replayed at any time: for diagnosis, for a second pass over micro-batches, after a resume.

    Args:
        task: What is trained.
        config: How.
        accelerator: Device, precision and ranks.
        average: The averaged weights, copied before any hook was on the model.
        penalty: The attached regularizers.
        regularized: Whether there are any.
    """

    def __init__(
        self,
        task: Task,
        config: TrainingConfig,
        accelerator: Accelerator,
        average: ExponentialMovingAverage,
        penalty: Penalty,
        *,
        regularized: bool,
    ) -> None:
        self.task, self.config, self.accelerator = task, config, accelerator
        self.average, self.penalty, self.regularized = average, penalty, regularized
        self.plain = task.model
        # Walking a model's modules at every step would cost a percent of a small model's step.
        self._parameters = [parameter for parameter in task.model.parameters() if parameter.requires_grad]
        self._buffers: list[Tensor] = list(task.model.buffers())
        self.turns = turns_of(task)
        """The moves that make a step, in order."""
        self._players = {turn.name: turn.parameters(task.model) for turn in self.turns}
        groups = [
            {"params": self._players[turn.name], "lr_scale": turn.lr_scale, "betas": turn.betas or config.betas}
            for turn in self.turns
        ]
        optimizer = build_optimizer(groups, config, accelerator.device)
        self.between_steps = False
        """Whether an update was begun and not brought to its end: weights and average then belong to no step."""
        self._unchecked, self._miscompiled = config.compile, False
        self._cut: tuple[int, Mapping[str, Tensor], list[dict[str, Tensor]]] | None = None
        if config.compile:
            task.model.compile()
        self.model: nn.Module
        if len(self.turns) == 1:
            self.model, self.optimizer = accelerator.prepare(task.model, optimizer)
        else:
            # A wrapper for ranks expects every parameter in every backward pass, and knows the model's own forward
            # alone; here each turn moves some parameters, and their gradients are averaged below.
            self.model, self.optimizer = task.model, accelerator.prepare(optimizer)
        self.model.train()

    def learning_rate(self, step: int) -> float:
        """Learning rate of `step`, counted from 0 (see `lsdr.training.optimizer.learning_rate`)."""
        return learning_rate(self.config, step)

    def state(self) -> dict[str, dict[str, Tensor]]:
        """What training has changed in the model ("model") and in its average ("ema")."""
        return {"model": trained_state(self.plain), "ema": trained_state(self.average.model, like=self.plain)}

    def load_state(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Put back what `state` gave.

        Raises:
            ValueError: If it is of other parameters than this run trains.
        """
        load_trained_state(self.plain, state["model"])
        load_trained_state(self.average.model, state["ema"], like=self.plain)

    def gradient(self, step: int, examples: Mapping[str, Tensor], turn: Turn | None = None) -> Gradient:
        """Accumulate the gradient of the whole batch of `step`.

        Args:
            step: Which step, counted from 0.
            examples: This rank's examples.
            turn: Whose gradient: one of `turns`; by default the first.

        Returns:
            Loss and penalty of the whole batch, gradient norm after averaging over ranks (unscaled, before clipping).
        """
        turn = self.turns[0] if turn is None else turn
        if self._unchecked:
            self._check_compilation(step, examples)
        with torch.compiler.set_stance("force_eager") if self._miscompiled else nullcontext(), self._only(turn):
            return self._accumulate(step, examples, turn)

    @contextmanager
    def _only(self, turn: Turn) -> Iterator[None]:
        """Let nothing but the turn's own parameters get a gradient: no work is done for the others'."""
        others = [each for name, player in self._players.items() if name != turn.name for each in player]
        for parameter in others:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in others:
                parameter.requires_grad_(True)

    def _accumulate(self, step: int, examples: Mapping[str, Tensor], turn: Turn) -> Gradient:
        if self._cut is None or self._cut[0] != step or self._cut[1] is not examples:
            self._cut = step, examples, self.chunks(step, examples)  # the turns of a step share its draws
        chunks = self._cut[2]
        records: list[dict[str, Tensor]] = []
        if len(chunks) > 1 and self.regularized:
            with self.penalty.observe():
                for number, chunk in enumerate(chunks):
                    self._losses(step, number, chunk, turn)
        world = self.accelerator.num_processes
        total = torch.zeros((), device=self.accelerator.device)
        penalties = torch.zeros((), device=self.accelerator.device)
        for number, chunk in enumerate(chunks):
            last = number == len(chunks) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                losses, context = self._losses(step, number, chunk, turn)
                records.append(context.pop("record", {}))
                # Ranks may hold unequal shares: weigh by examples, undoing the division of the ranks' average.
                loss = losses.sum() * (world / self.config.batch_size)
                penalty = self.penalty(**context)
                self.accelerator.backward(loss + penalty)
            total += loss.detach() / world
            penalties += penalty.detach()
        if world > 1 and len(self.turns) > 1:
            self._average_gradients()
        norm = self._unscaled_norm()
        if world > 1:
            total = self.accelerator.reduce(total, reduction="sum")
        recorded = {name: torch.stack([each[name].detach() for each in records]).mean() for name in records[0]}
        measured = {**self.penalty.values, **recorded}
        names = list(measured)
        values = [total, penalties, norm, *(measured[name] for name in names)]
        loss_value, penalty_value, norm_value, *components = torch.stack([v.float() for v in values]).tolist()
        return Gradient(loss_value, penalty_value, norm_value, dict(zip(names, components, strict=True)))

    def _check_compilation(self, step: int, examples: Mapping[str, Tensor]) -> None:
        """Compare a step's compiled gradient with the uncompiled one: compilers have been wrong without a word."""
        gradients = []
        for stance in ("default", "force_eager"):
            with torch.compiler.set_stance(stance), self.penalty.aside():
                self._accumulate(step, examples, self.turns[0])
            gradients.append([gradient.float() for gradient in self._gradients()])
            self.abandon()
        compiled, plain = gradients
        difference = torch.nn.utils.get_total_norm([a - b for a, b in zip(compiled, plain, strict=True)])
        relative = float(difference / torch.nn.utils.get_total_norm(plain))
        self._unchecked = False
        self._miscompiled = relative > _COMPILED_TOLERANCE  # never for NaN, which is the guard's business
        if self._miscompiled:
            warnings.warn(
                f"the compiled model's gradient differs by {relative:.0%} from the uncompiled one's on a batch: "
                f"torch {torch.__version__} compiles this model wrongly on this machine, so it is trained uncompiled",
                RuntimeWarning,
                stacklevel=2,
            )

    def update(self, step: int, gradient: Gradient, turn: Turn | None = None) -> None:
        """Clip, move the weights, project hard constraints, clear the gradient; the average follows the last turn."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step) * group["lr_scale"]
        if self.config.clip and gradient.norm > self.config.clip:
            scale = self.config.clip / (gradient.norm + 1e-6)
            torch._foreach_mul_(self._gradients(), scale)
        self.between_steps = True
        self.optimizer.step()
        self.penalty.project_()
        self.discard()
        if turn is None or turn.name == self.turns[-1].name:
            self.average.update(self._parameters, self._buffers, updates=step)
            self.between_steps = False

    def discard(self) -> None:
        """Clear the gradient."""
        for parameter in self._parameters:
            parameter.grad = None

    def abandon(self) -> None:
        """Give a step up after its gradient was found bad, without an update."""
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.update()  # or it would refuse to unscale the next gradient
        self.discard()

    @torch.no_grad()
    def retract(self) -> None:
        """Take back a gradient that broke off half-way: what is accumulated, and buffers that the forward moved.

        What a regularizer has gathered from part of the step's examples stays in its running estimates.
        """
        self.discard()
        for buffer, value in zip(self._buffers, self.average.buffers, strict=True):
            buffer.copy_(value)

    def overflowed(self, gradient: Gradient) -> bool:
        """Whether float16 gradients overflowed: normal, the scaler leaves the update out and lowers its scale."""
        scaler = self.accelerator.scaler
        bad = math.isfinite(gradient.loss) and not math.isfinite(gradient.norm)
        return scaler is not None and bad and scaler.get_scale() > 1

    def chunks(self, step: int, examples: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """This rank's micro-batches of `step`, examples and random draws together, on the device."""
        device, rank, world = self.accelerator.device, self.accelerator.process_index, self.accelerator.num_processes
        generator = torch.Generator(device=device).manual_seed(stream_seed(self.config.seed, "draws", step))
        # Drawn for the whole batch and then cut, so that noise does not depend on ranks and micro-batches.
        draws = self.task.draws(self.config.batch_size, generator)
        mine = share(list(range(self.config.batch_size)), rank, world)
        batch = {name: value.to(device, non_blocking=True) for name, value in examples.items()}
        batch |= {name: value[mine[0] : mine[-1] + 1] for name, value in draws.items()}
        parts = [share(list(range(len(mine))), k, self.config.accumulate) for k in range(self.config.accumulate)]
        return [{name: value[part[0] : part[-1] + 1] for name, value in batch.items()} for part in parts if part]

    def replay(
        self,
        step: int,
        chunk: Mapping[str, Tensor],
        number: int = 0,
        *,
        penalized: bool = True,
        turn: Turn | None = None,
    ) -> Tensor:
        """The objective of one micro-batch again, on the plain model, as `step` computed it."""
        with self.accelerator.autocast():
            losses, context = self._losses(step, number, chunk, turn or self.turns[0], model=self.plain)
            context.pop("record", None)
            return losses.mean() + self.penalty(**context) if penalized else losses.mean()

    def _losses(
        self, step: int, number: int, chunk: Mapping[str, Tensor], turn: Turn, model: nn.Module | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        # Dropout and the like draw from the global generator; a stream of its own makes both passes over a micro-batch,
        # and every replay, draw the same.
        name = [turn.name] if turn.name else []
        self._seed(stream_seed(self.config.seed, "forward", step, self.accelerator.process_index, number, *name))
        # A wrapped model does its own casting; players are called by the task one by one.
        with self.accelerator.autocast() if len(self.turns) > 1 else nullcontext():
            losses, context = turn.losses(self.model if model is None else model, chunk)
        # The same on every rank and for every micro-batch: a term that draws for the whole batch and takes its part of
        # that draws the same however the batch is cut.
        seed = stream_seed(self.config.seed, "penalty", step)
        generator = torch.Generator(device=self.accelerator.device).manual_seed(seed)
        # A penalty on features that both players' turns compute is the moving player's alone.
        held = tuple(each.name for each in self.turns if each.name != turn.name)
        return losses, {**context, "generator": generator, "held": held}

    def _seed(self, seed: int) -> None:
        # torch.manual_seed takes half a millisecond where there is no GPU, as long as a small player's forward pass.
        torch.default_generator.manual_seed(seed)
        if self.accelerator.device.type != "cpu":
            torch.get_device_module(self.accelerator.device).manual_seed(seed)

    def _average_gradients(self) -> None:
        """Average over ranks what the turn's backward passes found, all in one message."""
        gradients = self._gradients()
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        flat = self.accelerator.reduce(flat, reduction="mean")
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def _unscaled_norm(self) -> Tensor:
        if self.accelerator.scaler is not None:
            self.accelerator.unscale_gradients(self.optimizer)
        return torch.nn.utils.get_total_norm(self._gradients()).to(self.accelerator.device)

    def _gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self._parameters if parameter.grad is not None]


@contextmanager
def open_stepper(
    task: Task, config: TrainingConfig, accelerator: Accelerator, regularizers: Sequence[Regularizer] = ()
) -> Iterator[Stepper]:
    """Set up a run in the one order that works: average, then hooks, then compilation and wrapping for ranks.

    Raises:
        ValueError: If the batch is too small to give every rank and micro-batch an example, if no parameter of the
            model requires grad, or if the optimiser needs a package that is not there.
    """
    parts = accelerator.num_processes * config.accumulate
    if config.batch_size < parts:
        raise ValueError(
            f"batch_size={config.batch_size} cannot be cut into {accelerator.num_processes} ranks x "
            f"{config.accumulate} micro-batches; use batch_size={parts} or more"
        )
    if not any(parameter.requires_grad for parameter in task.model.parameters()):
        raise ValueError(
            "expected a model with parameters that require grad, and all are frozen: there is nothing to train; "
            "unfreeze some, or add adapters"
        )
    task.model.to(accelerator.device)
    average = ExponentialMovingAverage(task.model, config.ema)
    with attach(task.model, *regularizers) as penalty:
        # A constraint imposed on attaching holds for the average from its start.
        load_trained_state(average.model, trained_state(task.model), like=task.model)
        yield Stepper(task, config, accelerator, average, penalty, regularized=bool(regularizers))


def build_accelerator(config: TrainingConfig, **options: Any) -> Accelerator:
    """An Accelerator for this configuration.

    Raises:
        ValueError: If the launch asks for what the loop does not do (sharded parameters), for fp16 without a GPU, or
            for an optimiser whose package is not there.
    """
    check_optimizer(config)
    if config.precision == "fp16" and not torch.accelerator.is_available():
        raise ValueError("precision fp16 needs a GPU, and there is none here; use bf16 or fp32")
    # Unless told that it runs on CPUs, Accelerate takes the ranks that torchrun started there for lone processes.
    no_gpu = None if torch.accelerator.is_available() else True
    accelerator = Accelerator(mixed_precision=_PRECISIONS[config.precision], cpu=no_gpu, **options)
    if str(accelerator.distributed_type).rsplit(".", 1)[-1] in {"FSDP", "DEEPSPEED", "MEGATRON_LM"}:
        raise ValueError(
            f"the training loop runs on one process or on data-parallel ranks, got {accelerator.distributed_type}; "
            "launch without sharded parameters"
        )
    return accelerator

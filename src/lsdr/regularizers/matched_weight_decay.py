"""Weight decay as strong as another penalty: the control that asks whether any pull on the weights would have done."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch._functorch.config as functorch_config
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from lsdr.regularizers.regularizer import Regularizer, Term


@dataclass(frozen=True)
class MatchedWeightDecay:
    r"""L2 penalty on the weights whose gradient is, at the start of training, as large as another method's.

    .. math:: R = \frac{c}{2} \sum_W \|W\|_F^2, \qquad
        c = \frac{1}{B} \sum_{b=1}^B \frac{\|\nabla_\theta P_b\|_2}{\bigl(\sum_W \|W\|_F^2\bigr)^{1/2}}

    over the parameters W with two or more dimensions, P_b the other method's penalty on batch b, weight included, and
    theta all parameters. As R's gradient is c W, both gradients have the same norm then. The first B batches on which P
    has a gradient measure c, with the mean so far in force; from there on it stays. Dimensionless; a batch's cost
    during the match is one more backward pass, later a sum of squares (and the forward part of P where micro-batches
    are accumulated).

    The penalty P itself is never added. Ranks agree on c: P's gradients are averaged over ranks before their norm.

    Source: ours. It is a penalty in the loss and not AdamW's decoupled decay (Loshchilov & Hutter 2019)
    because what it stands in for is in the loss too.

    Args:
        references: The regularizers of the method to match.
        batches: Batches B to measure the strength on.

    Raises:
        ValueError: If there is nothing to match or `batches` is below 1.

    Example:
        >>> from lsdr.regularizers.spectral_decorrelation import SpectralDecorrelation
        >>> model = nn.Linear(3, 4)
        >>> with MatchedWeightDecay((SpectralDecorrelation(layers="*"),)).attach(model) as term:
        ...     _ = model(torch.randn(8, 3))
        ...     penalty = term()
        >>> bool(penalty > 0)
        True
    """

    references: tuple[Regularizer, ...]
    batches: int = 4

    def __post_init__(self) -> None:
        if not self.references:
            raise ValueError("expected at least one regularizer to match, got none")
        if self.batches < 1:
            raise ValueError(f"batches must be at least 1, got {self.batches}")

    @contextmanager
    def attach(self, model: nn.Module) -> Iterator["_Term"]:
        """Watch the model for the other method's penalty; yield the L2 term."""
        with ExitStack() as stack:
            # The first batches pass backward twice; a compiled graph allows it only if it gives no buffer away.
            stack.enter_context(functorch_config.patch(donated_buffer=False))
            terms = [stack.enter_context(reference.attach(model)) for reference in self.references]
            yield _Term(model, terms, self.batches)

    def project_(self, model: nn.Module) -> None:
        """Impose nothing: this is a penalty alone."""


class _Term:
    """The attached penalty."""

    def __init__(self, model: nn.Module, references: list[Term], batches: int) -> None:
        self._model, self._references, self._batches = model, references, batches
        self._coefficient, self._matched = 0.0, 0
        self._left = 0
        self._gradients: list[Tensor] | None = None
        self.values: dict[str, Tensor] = {}

    def __call__(self, **context: Any) -> Float[Tensor, ""]:
        self._left = (self._left or max(1, self.observed())) - 1
        matching = self._matched < self._batches
        with torch.set_grad_enabled(matching):  # called in any case: it uses up what was observed of this micro-batch
            penalty = torch.stack([reference(**context) for reference in self._references]).sum()
        if matching:
            self._match(penalty)
        if self._left:
            # The weights are the same in every micro-batch of a step, so the last one carries the whole term.
            return torch.zeros_like(penalty, requires_grad=False)
        half = torch.stack([weight.float().square().sum() for weight in self._weights()]).sum() / 2
        self.values = {"weights": half.detach()}
        return self._coefficient * half

    @contextmanager
    def observe(self) -> Iterator[None]:
        with ExitStack() as stack:
            for reference in self._references:
                stack.enter_context(reference.observe())
            yield

    def observed(self) -> int:
        return max(reference.observed() for reference in self._references)

    def forget(self) -> None:
        self._left, self._gradients = 0, None
        for reference in self._references:
            reference.forget()

    def state_dict(self) -> dict[str, Tensor]:
        state = {
            "coefficient": torch.tensor(self._coefficient, dtype=torch.float64),
            "matched": torch.tensor(self._matched),
        }
        for number, reference in enumerate(self._references):
            state |= {f"reference-{number}/{key}": value for key, value in reference.state_dict().items()}
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._coefficient, self._matched = float(state["coefficient"]), int(state["matched"])
        for number, reference in enumerate(self._references):
            start = f"reference-{number}/"
            reference.load_state_dict({k.removeprefix(start): v for k, v in state.items() if k.startswith(start)})

    def _weights(self) -> list[Tensor]:
        return [each for each in self._model.parameters() if each.ndim >= 2 and each.requires_grad]

    def _match(self, penalty: Tensor) -> None:
        """Add this micro-batch's share of the penalty's gradient; after the last one update the coefficient."""
        parameters = [each for each in self._model.parameters() if each.requires_grad]
        shares = [torch.zeros_like(each) for each in parameters]
        if penalty.requires_grad:
            shares = list(torch.autograd.grad(penalty, parameters, retain_graph=True, materialize_grads=True))
        if self._gradients is not None:
            shares = [total + share for total, share in zip(self._gradients, shares, strict=True)]
        self._gradients = shares
        if self._left:
            return
        gradient = torch.cat([each.float().flatten() for each in self._gradients])
        self._gradients = None
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(gradient)
            gradient /= dist.get_world_size()
        weights = torch.cat([weight.detach().float().flatten() for weight in self._weights()])
        ratio = float(gradient.norm() / weights.norm())
        # An overflow or a batch gone wrong says nothing about strength, nor does a penalty that is still learning what
        # to compare with: take another.
        if not (math.isfinite(ratio) and ratio > 0):
            return
        self._coefficient = (self._coefficient * self._matched + ratio) / (self._matched + 1)
        self._matched += 1

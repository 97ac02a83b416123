"""Attach regularizers to a model: one context, one number to add to the loss."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lsdr.regularizers.regularizer import Regularizer, Term


class Penalty:
    """The sum of the attached regularizers' terms; made by `attach`."""

    def __init__(self, model: nn.Module, regularizers: tuple[Regularizer, ...], terms: dict[str, Term]):
        self._model = model
        self._regularizers = regularizers
        self._terms = terms

    @property
    def values(self) -> dict[str, Tensor]:
        """Every term's values of the last call, keyed "<regularizer>/<layer>"; detached, without the weights."""
        return {f"{name}/{layer}": value for name, term in self._terms.items() for layer, value in term.values.items()}

    def __call__(self, **context: Any) -> Float[Tensor, ""]:
        """Give the penalty of the forward passes since the last call: zero if nothing is attached.

        Args:
            **context: What the loss knows, for terms that need it (`denoiser`, `noisy`, `sigma`, `denoised`, ...).

        Returns:
            What to add to the loss, shape ().
        """
        parts = [term(**context) for term in self._terms.values()]
        if not parts:
            return torch.zeros((), device=_device(self._model))
        return torch.stack(parts).sum()

    @contextmanager
    def observe(self) -> Iterator[None]:
        """Run the chunks of one large batch through the model first, for statistics over all of them.

        With gradient accumulation a penalty on each chunk's own statistics is another penalty than that of the whole
        batch. Instead, observe all chunks, then run each again for its gradient: the K calls' gradients add up to
        the whole batch's exactly, their values to its value. Nothing within keeps a graph, and on leaving the
        random generators and the model's buffers are what they were on entering, so that the second pass can draw
        the same dropout and noise again; a second pass that brings other features is an error.

        Source: Gao et al. 2021 (arXiv:2101.06983), who keep every representation; here O(D^2) moments are kept.

        Example:
            >>> from lsdr.regularizers.spectral_decorrelation import SpectralDecorrelation
            >>> model, chunks = nn.Linear(3, 4), torch.randn(5, 8, 3)
            >>> with attach(model, SpectralDecorrelation(layers="*")) as penalty:
            ...     with penalty.observe():
            ...         for chunk in chunks:
            ...             _ = model(chunk)
            ...     for chunk in chunks:
            ...         (model(chunk).square().mean() / len(chunks) + penalty()).backward()
        """
        device = _device(self._model)
        with ExitStack() as stack:
            if device.type == "cpu":
                stack.enter_context(torch.random.fork_rng([]))
            else:
                stack.enter_context(torch.random.fork_rng([device], device_type=device.type))
            stack.enter_context(torch.no_grad())
            for buffer in self._model.buffers():
                stack.callback(buffer.copy_, buffer.clone())
            for term in self._terms.values():
                stack.enter_context(term.observe())
            yield

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Run the model for another purpose than training: on leaving, the terms are what they were on entering."""
        state = {key: value.clone() for key, value in self.state_dict().items()}
        try:
            yield
        finally:
            for term in self._terms.values():
                term.forget()
            self.load_state_dict(state)

    def project_(self) -> None:
        """Impose the regularizers' constraints on the model; call it after the optimiser's step."""
        with torch.no_grad():
            for regularizer in self._regularizers:
                regularizer.project_(self._model)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the terms' states, keyed "<regularizer>/<entry>"."""
        return {
            f"{name}/{key}": value for name, term in self._terms.items() for key, value in term.state_dict().items()
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            ValueError: If the state is of other regularizers than these.
        """
        foreign = {key for key in state if key.split("/", 1)[0] not in self._terms}
        if foreign:
            raise ValueError(f"the state has entries {sorted(foreign)}, but attached are {list(self._terms)}")
        for name, term in self._terms.items():
            term.load_state_dict(
                {key.split("/", 1)[1]: value for key, value in state.items() if key.startswith(f"{name}/")}
            )


@contextmanager
def attach(model: nn.Module, *regularizers: Regularizer) -> Iterator[Penalty]:
    """Attach regularizers to a model while the context lasts.

    With `torch.compile`, enter before the compiled model's first call.

    Args:
        model: The model to regularize, plain, compiled or wrapped.
        *regularizers: None of them is the baseline: the penalty is then zero.

    Yields:
        The penalty: call it after the forward pass, add it to the loss.

    Raises:
        ValueError: If a regularizer finds no layer to work on.

    Example:
        >>> from lsdr.regularizers.spectral_decorrelation import SpectralDecorrelation
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
        >>> with attach(model, SpectralDecorrelation(layers="1", weight=0.1)) as penalty:
        ...     loss = model(torch.randn(8, 3)).square().mean() + penalty()
        ...     loss.backward()
        >>> list(penalty.values)
        ['SpectralDecorrelation/1']
    """
    with ExitStack() as stack:
        terms: dict[str, Term] = {}
        seen: Counter[str] = Counter()
        for regularizer in regularizers:
            kind = type(regularizer).__name__
            seen[kind] += 1
            name = kind if seen[kind] == 1 else f"{kind}-{seen[kind]}"
            terms[name] = stack.enter_context(regularizer.attach(model))
        yield Penalty(model, regularizers, terms)


def _device(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))

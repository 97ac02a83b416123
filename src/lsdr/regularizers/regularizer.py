"""What a regularizer is: two small protocols that every one of them, also a user's own, fulfils."""

from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn


@runtime_checkable
class Term(Protocol):
    """An attached regularizer: what it adds to the loss of the forward passes since it was last called."""

    @property
    def values(self) -> dict[str, Tensor]:
        """The penalty of the last call by layer, detached and without its weight."""

    def __call__(self, **context: Any) -> Float[Tensor, ""]:
        """Give the weighted penalty; the context is what the loss knows (`denoised`, `clean`, ...), as keywords."""

    def observe(self) -> AbstractContextManager[None]:
        """Collect the statistics of several chunks, so that the next calls are exact for all of them together."""

    def observed(self) -> int:
        """Count the observed chunks that no call has used yet."""

    def forget(self) -> None:
        """Let go of what was collected since the last call, as if those forward passes had not been."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a checkpoint must hold to continue bitwise."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_dict` gave."""


@runtime_checkable
class Regularizer(Protocol):
    """A penalty on a model's spectra, a constraint on them, or both; a *method* is a tuple of regularizers."""

    def attach(self, model: nn.Module) -> AbstractContextManager[Term]:
        """Watch the model until the context is left; yield the penalty."""

    def project_(self, model: nn.Module) -> None:
        """Impose what is constrained, in place; called after the optimiser's step."""

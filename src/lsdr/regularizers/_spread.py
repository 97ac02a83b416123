"""How much real images differ from each other in a feature: the band that an estimate may stray in."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from lsdr.regularizers._running_sums import ENOUGH, RunningSums
from lsdr.regularizers._shares import Share
from lsdr.regularizers.spectral_features import Component


class Spread:
    r"""Half the mean squared distance of two different real images, in each coordinate of a feature.

    .. math:: s_k^2 = \tfrac12\, \mathrm{mean}_{i \neq j}\, d_k^2(x_i, x_j)
        = \sum_r q_r \operatorname{Var} c_{kr}, \qquad d_k^2 = \sum_r q_r (c_{kr} - c'_{kr})^2

    The variance, with n - 1, is that of all pairs at the cost of two sums, and sums do not depend on how a step is cut.

    Args:
        components: The feature's components, with the factors q.
        learn: Images to take.
        every: Of how many images of a step one is looked at.
    """

    def __init__(self, components: Sequence[Component], learn: int, every: int = 1):
        self._factors = [component.factor for component in components]
        self._every = every
        self._sums = RunningSums(learn)
        self._known: Tensor | None = None

    @property
    def learning(self) -> bool:
        """Whether more images are wanted."""
        return self._sums.learning

    @property
    def ready(self) -> bool:
        """Whether enough images were seen in the steps before this one."""
        return self._sums.seen >= ENOUGH

    def update(self, values: Float[Tensor, "b m components"]) -> None:
        """Take the coordinates of a chunk's clean images; they count from the next step on."""
        values = values.detach()
        self._sums.add({"coordinates": values, "squares": values.square()})

    def merge(self, share: Share) -> None:
        """Count the step's images, after its last chunk."""
        if self._sums.settle(replace(share, total=max(1, share.total // self._every))):
            self._known = None

    def variance(self, like: Tensor) -> Float[Tensor, "m"]:
        """The squared spread of each coordinate."""
        if self._known is None:
            mean = self._sums.mean("coordinates")
            variance = self._sums.unbiased(self._sums.mean("squares"), mean.square())
            # Not negative but for rounding: it is a mean of squared distances.
            self._known = (variance @ variance.new_tensor(self._factors)).clamp(min=0)
        return self._known.to(like)

    def forget(self) -> None:
        """Let go of what the chunks of a step brought that did not end."""
        self._sums.forget()

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint must hold; empty before the first step."""
        return self._sums.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` gave."""
        self._sums.load_state_dict(state)
        self._known = None

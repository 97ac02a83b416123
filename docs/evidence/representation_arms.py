"""Arms of docs/evidence/representation.md for `lsdr compare representation`: `representation_arms:tuned_arms.sigreg`.

Those of ours with the learning rate that was chosen for each; the controls; and two losses as a stranger would bring
them: as the papers print them, of one batch's rows, without merged moments.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lsdr.experiments.method import Method
from lsdr.experiments.methods import resolve
from lsdr.layers.capture import capture
from lsdr.runs import read_json

PLAIN = {"objective": "vicreg", "robust": "none"}
TUNED = Path(__file__).parent / "results" / "representation-tuned.json"
GEOMETRY = "lighting:0.4,rotation:30,scale:0.5,crop:0.3"
NOISE = "blur:0.5,noise:0.05"
VIEWS = f"{GEOMETRY},{NOISE}"
"""What shall not matter to codes of images."""
OURS = ("baseline", "barlow_twins", "log_participation_ratio", "spectral_contrastive", "sigreg", "sim_clr")
PUBLISHED = ("published_vicreg", "published_barlow_twins")
CONTROLS: dict[str, Mapping[str, Any]] = {
    "only_noise": {"views": NOISE},
    "only_geometry": {"views": GEOMETRY},
    "contaminated_1": {"contaminate": 0.01},
    "contaminated_5": {"contaminate": 0.05},
    "contaminated_10": {"contaminate": 0.1},
    "trimmed_10": {"contaminate": 0.1, "robust": "trimmed"},
    "huber_10": {"contaminate": 0.1, "robust": "huber"},
}
"""What each sets beside what the baseline sets."""
FEWER_VIEWS = ("only_noise", "only_geometry")
OUTLIERS = tuple(name for name in CONTROLS if name not in FEWER_VIEWS)


def vicreg_of_rows(a: Tensor, b: Tensor) -> Tensor:
    """VICReg: Bardes et al. 2021 (arXiv:2105.04906), algorithm 1, weights 25, 25 and 1; lightly's and solo-learn's."""

    def parts(z: Tensor) -> tuple[Tensor, Tensor]:
        centred = z - z.mean(0)
        covariance = centred.T @ centred / (len(z) - 1)
        off_diagonal = covariance - covariance.diagonal().diag()
        return (1 - (z.var(0) + 1e-4).sqrt()).relu().mean(), off_diagonal.square().sum() / z.shape[1]

    (variance_a, covariance_a), (variance_b, covariance_b) = parts(a), parts(b)
    # The half of the variance term is in the authors' code and in both libraries, though not in the paper.
    return 25 * (a - b).square().mean() + 25 * (variance_a + variance_b) / 2 + covariance_a + covariance_b


def barlow_twins_of_rows(a: Tensor, b: Tensor) -> Tensor:
    """Barlow Twins: Zbontar et al. 2021 (arXiv:2103.03230), algorithm 1, lambda 0.0051; lightly's and solo-learn's."""
    a, b = (nn.functional.batch_norm(z, None, None, training=True) for z in (a, b))
    correlation = a.T @ b / len(a)
    diagonal = correlation.diagonal()
    off_diagonal = correlation.square().sum() - diagonal.square().sum()
    return (diagonal - 1).square().sum() + 0.0051 * off_diagonal


class PublishedTerm:
    """A loss of the projector's last output, whose halves are the two views."""

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor], weight: float) -> None:
        self._loss, self._weight = loss, weight
        self._output: Tensor | None = None
        self.values: dict[str, Tensor] = {}

    def receive(self, name: str, module: nn.Module, output: Tensor) -> None:
        """Take the projector's output of a training forward."""
        if torch.is_grad_enabled():
            self._output = output

    def __call__(self, **context: Any) -> Tensor:
        """Give the weighted loss of the last forward."""
        if self._output is None:
            raise RuntimeError("the projector did not run since the last call")
        (a, b), self._output = self._output.float().chunk(2), None
        value = self._loss(a, b)
        self.values = {"projector": value.detach()}
        return self._weight * value

    @contextmanager
    def observe(self) -> Iterator[None]:
        """Refuse: a loss of rows cannot be put together from micro-batches."""
        raise ValueError("a loss of one batch's rows cannot be cut into micro-batches; use accumulate=1")
        yield

    def observed(self) -> int:
        """Nothing is ever observed."""
        return 0

    def forget(self) -> None:
        """Let go of the output."""
        self._output = None

    def state_dict(self) -> dict[str, Tensor]:
        """No state."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """No state."""


@dataclass(frozen=True)
class PublishedLoss:
    """A regularizer of a stranger: a function of the two views' rows."""

    loss: Callable[[Tensor, Tensor], Tensor]
    weight: float = 1.0

    @contextmanager
    def attach(self, model: nn.Module) -> Iterator[PublishedTerm]:
        """Watch the projector."""
        term = PublishedTerm(self.loss, self.weight)
        with capture(model, "projector", term.receive):
            yield term

    def project_(self, model: nn.Module) -> None:
        """Impose nothing."""


def _published(name: str, loss: Callable[[Tensor, Tensor], Tensor]) -> Method:
    description = f"{(loss.__doc__ or '').partition(':')[0]} as published: of one batch's rows, without moments."
    # Weight 0 switches our own objective off.
    return Method(name, description, lambda: (PublishedLoss(loss),), {**PLAIN, "weight": 0.0}, number=())


def arm(name: str) -> Method:
    """An arm by its name here, at the rate of the options."""
    if name in OURS:
        return resolve(name, task="representation")
    if name in PUBLISHED:
        return _published(
            name, {"published_vicreg": vicreg_of_rows, "published_barlow_twins": barlow_twins_of_rows}[name]
        )
    baseline = resolve("baseline", task="representation")
    own = CONTROLS[name]
    words = ", ".join(f"{option} {value}" for option, value in own.items())
    description = f"Control: the baseline with {words}."
    return replace(baseline, name=name, description=description, overrides={**baseline.overrides, **own}, number=())


def tuned(name: str) -> Method:
    """An arm at the learning rate that was chosen for it; a control at the baseline's."""
    method = arm(name)
    chosen = read_json(TUNED)["baseline" if name in CONTROLS else name]
    return replace(method, overrides={**method.overrides, "lr": chosen["lr"]})


class _Tuned:
    def __getattr__(self, name: str) -> Callable[[], Method]:
        if name not in (*OURS, *PUBLISHED, *CONTROLS):
            raise AttributeError(name)
        return lambda: tuned(name)


def __getattr__(name: str) -> Callable[[], Method]:
    if name not in (*OURS, *PUBLISHED, *CONTROLS):
        raise AttributeError(name)
    return lambda: arm(name)


tuned_arms = _Tuned()

"""A view: an example as it looks after changes that must not matter."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lsdr.representation.data.fields import Fields, ImageFields, TextFields
from lsdr.representation.inputs import Inputs
from lsdr.representation.inputs import count as count_of
from lsdr.representation.views.parse import Part
from lsdr.representation.views.step import Step


@dataclass(frozen=True)
class View:
    """Transformations one after another, drawn anew for each example.

    Drawing and doing are apart: `draws` makes everything random about some examples, and calling the view with it
    makes their view. A view is a function of an example and its own row of the draws, to the last bit: batches cut
    into micro-batches or over ranks, and replays, give the same (on one kind of device).

    Attributes:
        fields: Of the data that it is for.
        parts: What it does, in order.
        steps: How; neighbouring rotations, scales, shifts and crops are one step.

    Example:
        >>> from lsdr.representation.views.texts import change_tokens
        >>> fields = TextFields(vocabulary=9, length=4, tokenizer="")
        >>> view = View(fields, (Part("span_deletion", 0.5),), (change_tokens("span_deletion", 0.5, fields),))
        >>> draws = view.draws(1, torch.Generator().manual_seed(0))
        >>> view({"tokens": torch.tensor([[5, 6, 7, 8]])}, draws)["tokens"]
        tensor([[5, 8, 0, 0]])
    """

    fields: Fields
    parts: tuple[Part, ...]
    steps: tuple[Step, ...]

    @property
    def transformations(self) -> tuple[str, ...]:
        """Names with strengths, such as "rotation:30"."""
        return tuple(str(part) for part in self.parts)

    @property
    def names(self) -> tuple[str, ...]:
        """Names without strengths."""
        return tuple(part.name for part in self.parts)

    @property
    def strengths(self) -> dict[str, float | None]:
        """The strength of each name, None for functions of the user's."""
        return {part.name: part.strength for part in self.parts}

    @property
    def dropout(self) -> float:
        """The rate of the encoder's own dropout while it trains, 0 where the view does not ask for any."""
        return self.strengths.get("dropout") or 0.0

    def draws(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Everything random about the views of some examples.

        Args:
            count: How many examples.
            generator: Where it is drawn from; the draws are on its device.

        Returns:
            Tensors with leading dimension `count`; names are free of everything but letters, digits, "_" and ".".
        """
        found: dict[str, Tensor] = {}
        for number, step in enumerate(self.steps):
            found |= {f"{number}.{name}": value for name, value in step.draw(count, generator).items()}
        return found

    def __call__(self, inputs: Inputs, draws: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The view of some examples.

        Args:
            inputs: As `lsdr.representation.data.representation_data.prepare` gives them.
            draws: Their rows of what `draws` gave, on any device.

        Returns:
            Inputs of the same names, shapes and dtypes.

        Raises:
            TypeError: If images are not numbers in [0, 1], such as bytes.
            ValueError: If the inputs are not of this view's data, or the draws not of these examples.
        """
        self._check(inputs)
        device, count = next(iter(inputs.values())).device, count_of(inputs)
        for key, value in draws.items():
            if len(value) != count:
                raise ValueError(f"expected draws of {count} examples, as there are inputs; got {len(value)} ({key})")
        result = dict(inputs)
        for number, step in enumerate(self.steps):
            start = f"{number}."
            mine = {key.removeprefix(start): value.to(device) for key, value in draws.items() if key.startswith(start)}
            try:
                result = step.apply(result, mine)
            except KeyError as error:
                raise ValueError(
                    f"expected what this view's draws() gives ({', '.join(self.transformations)}), got "
                    f"{sorted(draws)}: nothing for {error}"
                ) from error
        return result

    def _check(self, inputs: Inputs) -> None:
        wanted: tuple[str, ...] = ("numeric", "categorical", "missing")
        if isinstance(self.fields, ImageFields):
            wanted = ("image",)
        elif isinstance(self.fields, TextFields):
            wanted = ("tokens",)
        absent = [name for name in wanted if name not in inputs]
        if absent:
            raise ValueError(f"expected inputs {', '.join(wanted)}, got {', '.join(inputs) or 'none'}")
        if isinstance(self.fields, ImageFields):
            image, shape = inputs["image"], self.fields.shape
            if not image.is_floating_point():
                raise TypeError(
                    f"expected images as floating-point numbers in [0, 1], got {image.dtype}: "
                    "give what prepare(batch, fields) makes of them"
                )
            if tuple(image.shape[1:]) != shape:
                raise ValueError(
                    f"expected images of shape (n, {', '.join(map(str, shape))}), got {tuple(image.shape)}"
                )

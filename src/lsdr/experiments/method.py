"""What a method of a comparison is. Imports no torch."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any


@dataclass(frozen=True)
class Method:
    """A way to train. Importing and listing methods needs no torch; `build` does.

    A function of yours may return one, for `package.module:function` to name it.

    Raises:
        ValueError: If the name cannot be a folder's.

    Example:
        >>> Method("slow", "A tenth of the learning rate.", overrides={"lr": 1e-4}).overrides
        {'lr': 0.0001}
    """

    name: str
    """Also the name of its folder in the run directory."""
    description: str
    build: Callable[[], tuple[Any, ...]] = tuple
    """Makes the regularizers."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Options that this method sets: those of training by their names, or the task's own."""
    mirrors: Callable[[tuple[Any, ...]], tuple[Any, ...]] | None = None
    """For a control: makes its regularizers from those of the method that it is the control of."""
    number: tuple[str, ...] = ("weight",)
    """What NAME@NUMBER sets: these options of its own, or these fields of its regularizers; with none, nothing."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w@+-][\w.@+-]*", self.name):
            raise ValueError(f"a method's name is also a folder's: letters, digits and _.@+- only, got {self.name!r}")

    def configure(self, config: Any) -> Any:
        """The configuration with this method's options set.

        Args:
            config: A dataclass with a field `training` that is one too.

        Returns:
            A copy. Options that both have are those of training.

        Raises:
            ValueError: If neither has an option of that name, or a value is refused.
        """
        own, training = _names(config) - {"training"}, _names(config.training)
        for name in self.overrides:
            if name not in own | training:
                close = ", ".join(get_close_matches(name, own | training)) or "none"
                raise ValueError(
                    f"method {self.name} sets {name!r}, which {type(config).__name__} has no option for; close names: "
                    f"{close}"
                )
        within = {name: value for name, value in self.overrides.items() if name in training}
        beside = {name: value for name, value in self.overrides.items() if name not in training}
        return replace(config, training=replace(config.training, **within), **beside)


def _names(config: Any) -> set[str]:
    return {each.name for each in fields(config) if each.init}

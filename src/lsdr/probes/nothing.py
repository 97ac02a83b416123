"""What a probe raises when there was nothing to measure, or not everything could be."""

from collections.abc import Mapping
from typing import Any


class NothingMeasuredError(RuntimeError):
    """None of the chosen layers ran, or had what the probe reads; the message says what to do."""


class LayersNotMeasuredError(ValueError):
    """Some layers could not be measured.

    Raised when results are asked for, never within the model's forward pass, which goes on as if nothing was there.

    Args:
        reasons: Why not, by layer.
        measured: What the other layers came to.
    """

    def __init__(self, reasons: Mapping[str, str], measured: Mapping[str, Any]):
        shown = [f"layer {name!r} {reason}" for name, reason in list(reasons.items())[:3]]
        super().__init__("; ".join(shown) + (f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""))
        self.measured = measured

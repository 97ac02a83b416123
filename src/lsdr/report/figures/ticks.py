"""Labels of logarithmic axes: Plotly's own overlap where a plot is small."""

import numpy as np


def log_ticks(low: float, high: float) -> list[float]:
    """Round values to label between two powers of ten, some three to eight of them.

    Example:
        >>> log_ticks(-1.2, 0.1), log_ticks(-3.0, 3.0)
        ([0.1, 0.2, 0.5, 1.0], [0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0])
    """
    span = high - low
    steps = (1, 2, 3, 4, 5, 6, 7, 8, 9) if span < 0.6 else (1, 2, 5) if span < 1.6 else (1, 3) if span < 2.6 else (1,)
    apart = max(1, round(span / 7))
    decades = range(int(np.floor(low)), int(np.ceil(high)) + 1)
    ticks = [float(f"{step}e{power}") for power in decades if power % apart == 0 for step in steps]
    ticks = [tick for tick in ticks if low <= np.log10(tick) <= high]
    if len(ticks) > 1:
        return ticks
    return [float(f"{value:.3g}") for value in np.linspace(10**low, 10**high, 6)[1:-1]]


def tick_label(value: float) -> str:
    """A round value; powers of ten where zeros would be many.

    Example:
        >>> tick_label(0.002), tick_label(1e-7)
        ('0.002', '10<sup>−7</sup>')
    """
    if 1e-4 <= value < 1e5:
        return f"{value:g}"
    step, power = f"{value:.0e}".split("e")
    return ("" if step == "1" else f"{step}·") + f"10<sup>{int(power)}</sup>".replace("-", "−")

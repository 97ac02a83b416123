"""Numbers as people read them: three significant digits, thin spaces, a true minus sign."""

import math
from collections.abc import Iterable

THIN = "\u202f"  # narrow no-break space
_MINUS = "\u2212"
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float | int, digits: int = 3, *, whole: bool = False) -> str:
    """A value with so many significant digits; very large and very small ones as powers of ten.

    Args:
        value: The value; NaN, which stands for a missing one, becomes a dash.
        digits: Significant digits.
        whole: Leave out what is behind the point from 10 on.

    Example:
        >>> number(0.0712345), number(-12345.6).replace(THIN, " "), number(200), number(0.0000123), number(math.nan)
        ('0.0712', '−12 300', '200', '1.23×10⁻⁵', '—')
    """
    if math.isnan(value):
        return "—"
    if math.isinf(value):
        return "∞" if value > 0 else f"{_MINUS}∞"
    if value == 0:
        return "0"
    if float(value).is_integer() and abs(value) < 10**digits:
        return _sign(f"{value:.0f}")
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    power = int(exponent)
    if not -5 < power < 6:
        return _sign(f"{mantissa}×10{str(power).translate(_RAISED)}")
    decimals = 0 if whole and power > 0 else max(digits - 1 - power, 0)
    return _sign(_grouped(f"{float(f'{mantissa}e{exponent}'):.{decimals}f}"))


def count(value: float | int) -> str:
    """A whole number, exactly, in groups of three.

    Example:
        >>> count(50000).replace(THIN, " ")
        '50 000'
    """
    return _sign(_grouped(f"{value:.0f}")) if math.isfinite(value) else "—"


def plural(value: int, noun: str) -> str:
    """A count and its noun.

    Example:
        >>> plural(1, "seed"), plural(5, "seed")
        ('1 seed', '5 seeds')
    """
    return f"{count(value)} {noun}" + ("" if value == 1 else "s")


def signed(value: float | int) -> str:
    """A difference, with its sign.

    Example:
        >>> signed(0.5), signed(-0.5)
        ('+0.500', '−0.500')
    """
    return ("+" if value > 0 else "") + number(value)


def percent(share: float | int) -> str:
    """A relative difference in per cent, with its sign: two significant digits, or whole per cent.

    Example:
        >>> percent(-0.0444).replace(THIN, " "), percent(0.333).replace(THIN, " "), percent(0.00004).replace(THIN, " ")
        ('−4.4 %', '+33 %', '+0.0040 %')
    """
    if not math.isfinite(share):
        return "—"
    return ("+" if share > 0 else "") + number(100 * share, 2 if abs(share) < 0.1 else 3, whole=True) + f"{THIN}%"


def short(value: float | int) -> str:
    """A round value, such as a learning rate, without the zeros behind it.

    Example:
        >>> short(0.003)
        '0.003'
    """
    text = number(value)
    return text.rstrip("0").rstrip(".") if "." in text and "×" not in text else text


def ratio(value: float | int) -> str:
    """How many times as much.

    Example:
        >>> ratio(1.0634).replace(THIN, " ")
        '1.06 ×'
    """
    return f"{value:.2f}{THIN}×" if math.isfinite(value) else "—"


def duration(seconds: float | int) -> str:
    """Seconds as a person says them.

    Example:
        >>> duration(200).replace(THIN, " "), duration(7500).replace(THIN, " ")
        ('3 min 20 s', '2 h 5 min')
    """
    if not math.isfinite(seconds):
        return "—"
    if seconds < 60:
        return f"{number(seconds, 2)}{THIN}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{THIN}min {rest}{THIN}s"
    return f"{minutes // 60}{THIN}h {minutes % 60}{THIN}min"


def median(values: Iterable[float | int]) -> float:
    """The median of the finite values; NaN if there are none.

    Example:
        >>> median([3.0, math.nan, 1.0])
        2.0
    """
    kept = sorted(value for value in values if math.isfinite(value))
    if not kept:
        return math.nan
    half = len(kept) // 2
    return kept[half] if len(kept) % 2 else (kept[half - 1] + kept[half]) / 2


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share, sound where hits are few.

    Source: Wilson (1927), JASA 22, p. 209.

    Example:
        >>> low, high = wilson(0, 5)
        >>> round(low, 3), round(high, 3)
        (0.0, 0.434)
    """
    if trials == 0:
        return 0.0, 1.0
    z = 1.959963984540054
    share = hits / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return max(centre - half, 0.0), min(centre + half, 1.0)


def _grouped(text: str) -> str:
    whole, point, rest = text.partition(".")
    digits = whole.removeprefix("-")
    if len(digits) < 5:
        return text
    head = len(digits) % 3
    groups = ([digits[:head]] if head else []) + [digits[i : i + 3] for i in range(head, len(digits), 3)]
    return ("-" if whole.startswith("-") else "") + THIN.join(groups) + point + rest


def _sign(text: str) -> str:
    return text.replace("-", _MINUS)

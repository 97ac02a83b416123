"""Which route to the path is taken, cross-products or QR, and how many digits it leaves: both said in sentences."""

from lsdr.regression.system import System

# Cross-products are kept up to this variance inflation; the first batch already decides where it is clear.
VIF_LIMIT = 1e8
FIRST_VIF_LIMIT = 1e6
# Digits of t that cross-products must leave; and where QR costs next to nothing, in multiplications (0.1 s).
DIGITS = 8
SMALL_DIGITS = 12.5
SMALL = 2e8


def doubt(system: System, limit: float = VIF_LIMIT, small: bool = False) -> str | None:
    """Why cross-products are not good enough for these rows: a clause, None where they are.

    Their relative error in t is about 2e-16 times the largest variance inflation, and over 1 - R^2. Near aliases count
    as well: cross-products cannot tell a correlation of 1 - 1e-12 from 1, the triangular factor can.

    Args:
        system: What cross-products gave.
        limit: Largest variance inflation that is accepted.
        small: Whether the table is so small that QR costs next to nothing: more digits are then asked for.
    """
    if not system.vif < limit:
        return f"the largest variance inflation is {system.vif:.1e}, beyond {limit:.0e}"
    if system.doubtful:
        return "cross-products cannot tell whether a column is a combination of others or only close to one"
    free = system.rows > len(system.columns) + system.intercept
    if free and system.digits < (SMALL_DIGITS if small else DIGITS):
        why = ", and QR costs next to nothing on so few rows" if system.digits >= DIGITS else f", fewer than {DIGITS}"
        return f"cross-products would leave {system.digits:.0f} digits of the t values{why}"
    return None


def is_small(rows: float | int | None, columns: int) -> bool:
    """Whether QR of so many rows costs next to nothing; unknown is not small."""
    return rows is not None and rows * (columns + 1) ** 2 <= SMALL


def reason(system: System, because: str) -> str:
    """The route, what decided it, and the digits left.

    Args:
        system: The system of all rows.
        because: What decided, a clause.

    Returns:
        One sentence.
    """
    name = "Cross-products" if system.method == "gram" else "QR"
    digits = f"about {system.digits:.0f} digits of the t values are right"
    if not system.columns or system.exact:
        return f"{name}: {because}; the largest variance inflation is {system.vif:.3g}."
    return f"{name}: {because}; the largest variance inflation is {system.vif:.3g}, {digits}."

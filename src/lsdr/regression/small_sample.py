"""Corrections of robust covariances for the number of rows, coefficients and clusters."""


def small_sample(name: str, clusters: int | None, rows: float, df_resid: float) -> float:
    """Factor of the covariance: G/(G - 1) (n - 1)/(n - k) for clusters (CR1), n/(n - k) for HC1, else 1.

    The same as Stata's and statsmodels'; nan where it is undefined.

    Example:
        >>> small_sample("HC1", None, 100.0, 80.0), small_sample("cluster", 5, 101.0, 100.0)
        (1.25, 1.25)
    """
    if clusters is None and name != "HC1":
        return 1.0
    if not df_resid > 0 or (clusters is not None and clusters < 2):
        return float("nan")
    if clusters is None:
        return rows / df_resid
    return clusters / (clusters - 1) * (rows - 1) / df_resid

"""Triangular factors, by LAPACK without checks that small problems would spend most of their time in."""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack


def upper_factor(rows: NDArray[np.float64], columns: int) -> NDArray[np.float64]:
    """R of the QR factorisation of some rows, the first diagonal entries (as many as `columns`) not negative."""
    factor = np.asarray(np.linalg.qr(rows, mode="r"), dtype=np.float64)
    negative = np.flatnonzero(np.diagonal(factor)[:columns] < 0)
    factor[negative] *= -1.0
    return factor


def upper_inverse(root: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse of an upper triangular matrix."""
    return np.asarray(lapack.dtrtrs(root, np.eye(len(root)), lower=0)[0]) if len(root) else np.zeros((0, 0))


def solve_transposed(root: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """R^-T times a vector, or the columns of a matrix, R upper triangular."""
    return np.asarray(lapack.dtrtrs(root, right, lower=0, trans=1)[0]) if right.size else np.zeros(right.shape)

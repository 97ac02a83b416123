"""Householder QR of rows under a triangle, in place: the step of which TSQR is made."""

import ctypes
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cython_lapack

# Columns per block of reflectors, measured best: so many from so many columns on.
_PANELS = ((1, 4), (16, 8), (64, 16), (256, 32))


def _lapack(name: str) -> Callable[..., None]:
    """A routine of the LAPACK that SciPy brings; called this way, it lets other threads run, as dtpqrt must here."""
    capsule = cython_lapack.__pyx_capi__[name]
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype, api.PyCapsule_GetName.argtypes = ctypes.c_char_p, [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    signature = api.PyCapsule_GetName(capsule)
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 12)(api.PyCapsule_GetPointer(capsule, signature))


_dtpqrt = _lapack("dtpqrt")


def triangular_qr(triangle: NDArray[np.float64], rows: NDArray[np.float64], *, triangular: bool = False) -> None:
    """Replace the upper triangle R by that of [R; rows], in place; `rows` is overwritten.

    Householder reflections that leave the zeros of R alone (LAPACK's dtpqrt; Demmel, Grigori, Hoemmen & Langou, SIAM J.
    Sci. Comput. 2012, section 4): 2 m k^2 flops for m rows, less than half of that for another triangle.

    Args:
        triangle: R, shape (k, k), columns contiguous; what is below its diagonal is neither read nor written.
        rows: Shape (m, k), columns contiguous.
        triangular: Whether `rows` is an upper triangle itself, (k, k).

    Example:
        >>> triangle, rows = np.zeros((2, 2), order="F"), np.array([[3.0, 1.0], [4.0, 2.0]], order="F")
        >>> triangular_qr(triangle, rows)
        >>> triangle.T @ triangle
        array([[25., 11.],
               [11.,  5.]])
    """
    m, k = rows.shape
    if not m or not k:
        return
    panel = min(k, max(size for least, size in _PANELS if k >= least))
    reflectors, work = np.empty(panel * k), np.empty(panel * k)
    leading = [max(array.strides[1] // array.itemsize, 1) for array in (triangle, rows)]
    # M, N, L, NB, LDA, LDB, LDT, INFO
    numbers = (ctypes.c_int * 8)(m, k, k if triangular else 0, panel, *leading, panel, 0)
    at = [ctypes.addressof(numbers) + ctypes.sizeof(ctypes.c_int) * index for index in range(8)]
    a, b, t, w = (array.ctypes.data for array in (triangle, rows, reflectors, work))
    _dtpqrt(at[0], at[1], at[2], at[3], a, at[4], b, at[5], t, at[6], w, at[7])
    if numbers[7]:
        raise ValueError(f"dtpqrt refused its argument {-numbers[7]}")

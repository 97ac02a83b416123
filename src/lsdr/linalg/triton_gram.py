"""A'A v of many weights on a GPU in a few launches, each weight read from memory once.

Not timed: no GPU was at hand. The kernels are tested in Triton's interpreter and, where a CUDA device exists, on it;
compiled for sm_90 they take 64 to 160 registers for aligned rows, load 16 bytes at a time and spill next to nothing.

A program takes a piece of rows of one weight, found through a table of addresses, so that weights of any shapes share
a launch. A tile of a few rows is loaded into registers, gives its part of u = A v, and gives A'u before it is let go:
memory is read once. Rows of more than 16384 elements do not fit; for them the tile is read twice, one chunk of columns
after another, the second time from the L2 cache (a tile is at most 4 rows: with one a multiprocessor, all tiles in
flight of 20,000 columns take a third of the 50 MB of an H100). Several vectors of a weight are neighbouring programs,
which find its rows in the L2 cache.

No atomics: each program writes its partial sum of A'u to its own place, and a second launch adds these up in a fixed
order, so that results are bitwise the same every time. A piece has at least 32 rows, so that partial sums add at most
a sixteenth to what is read and written.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

# Bytes of a weight to a program: some thousands of programs for a large model, and few partial sums.
_PIECE_BYTES = 1 << 20
_PIECE_ROWS = 32
# Elements of a tile: 32 a thread, with 8 warps of 32 threads; 16 warps for the longest rows.
_TILE = 8192
_LONGEST = 16384
_CHUNK = 1024
# Columns that one program of the second launch adds up.
_REDUCED = 256


def available(device: torch.device) -> bool:
    """Whether these kernels run there: on CUDA with Triton installed, or on a CPU under TRITON_INTERPRET=1."""
    if device.type != "cuda" and not (device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"):
        return False
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True


def suitable(matrix: Tensor) -> bool:
    """Whether a weight's rows are contiguous and of a type that the kernels read."""
    kinds = (torch.float32, torch.bfloat16, torch.float16)
    return matrix.ndim == 2 and matrix.dtype in kinds and matrix.stride(1) == 1 and matrix.numel() > 0


class GroupedGram:
    r"""A'A v of a fixed set of weights and vectors, written to a fixed place, and the sums of squares of the weights.

    Addresses are put into tables once; a call is a launch for each class of row length and type (five or so) and one
    more, with no allocation and no synchronisation, so that it can be captured into a CUDA graph. Products are summed
    in float32, sums of squares in float32 within a piece and in float64 over the pieces.

    Args:
        matrices: Weights (m, n) as `suitable` says.
        vectors: Float32, shape (k, n), contiguous.
        out: Where the products go, as the vectors.
    """

    def __init__(self, matrices: Sequence[Tensor], vectors: Sequence[Tensor], out: Sequence[Tensor]):
        self._kept = list(matrices), list(vectors), list(out)
        device = vectors[0].device
        pieces: dict[tuple[torch.dtype, int, bool], list[tuple[int, ...]]] = {}
        sums: list[tuple[int, ...]] = []
        space = tiles = 0
        for layer, (matrix, block, product) in enumerate(zip(matrices, vectors, out, strict=True)):
            (m, n), k, size = matrix.shape, len(block), matrix.element_size()
            aligned = matrix.data_ptr() % 16 == matrix.stride(0) * size % 16 == n * size % 16 == 0
            width = 1 << max(n - 1, 15).bit_length() if n <= _LONGEST else 0
            rows = max(_PIECE_ROWS, _PIECE_BYTES // (n * size))
            starts = range(0, m, rows)
            wanted = pieces.setdefault((matrix.dtype, width, aligned), [])
            for index, first in enumerate(starts):
                for j in range(k):
                    place = space + (j * len(starts) + index) * n
                    slot = tiles + index if j == 0 else -1
                    source = block.data_ptr() + 4 * j * n
                    last = min(first + rows, m)
                    wanted.append((matrix.data_ptr(), source, matrix.stride(0), n, first, last, place, slot))
            for j in range(k):
                for column in range(0, n, _REDUCED):
                    target = product.data_ptr() + 4 * j * n
                    slot = tiles if j == 0 and column == 0 else -1
                    sums.append((target, n, column, space + j * len(starts) * n, len(starts), slot, layer))
            space += k * len(starts) * n
            tiles += len(starts)
        self._pieces = {key: torch.tensor(rows, device=device) for key, rows in pieces.items()}
        self._sums = torch.tensor(sums, device=device)
        self._partial = torch.empty(space, device=device)
        self._parts = torch.empty(tiles, device=device)
        self.squares = torch.empty(len(matrices), dtype=torch.float64, device=device)
        """Sums of squares of the weights, of the last call."""

    def __call__(self) -> Tensor:
        """Multiply; returns `squares`."""
        gram, add = _kernels()
        for (dtype, width, aligned), table in self._pieces.items():
            single = width > 0
            columns = width if single else _CHUNK
            rows = max(1, _TILE // columns) if single else 4
            gram[(len(table),)](
                table,
                self._partial,
                self._parts,
                TYPE=_types()[dtype],
                ROWS=rows,
                COLUMNS=columns,
                SINGLE=single,
                ALIGN=16 // dtype.itemsize if aligned else 1,
                num_warps=16 if columns > _TILE else 8,
            )
        add[(len(self._sums),)](self._sums, self._partial, self._parts, self.squares, COLUMNS=_REDUCED, num_warps=4)
        return self.squares


def captured(run: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
    """A CUDA graph of what a function launches, to be replayed, and what the function returned, which a replay refills.

    The function is run twice before, to compile and to allocate, and must leave no trace of how often it was run.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = run()
    return graph.replay, result


def _types() -> dict[torch.dtype, Any]:
    import triton.language as tl

    return {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


def _kernels() -> tuple[Any, Any]:
    from lsdr.linalg import triton_kernels

    return triton_kernels.gram, triton_kernels.add

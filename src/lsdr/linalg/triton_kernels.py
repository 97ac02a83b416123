"""The Triton kernels of `lsdr.linalg.triton_gram`, which says how they work. Imported only where Triton is used."""

import triton
import triton.language as tl


@triton.jit
def gram(  # type: ignore[no-untyped-def]
    table,
    partial,
    parts,
    TYPE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SINGLE: tl.constexpr,
    ALIGN: tl.constexpr,
):
    """Partial sums of A'(A v) and of squares over one piece of rows of one weight."""
    entry = table + tl.program_id(0).to(tl.int64) * 8
    weight = tl.multiple_of(tl.load(entry).to(tl.pointer_type(TYPE)), 16 if ALIGN > 1 else 1)
    vector = tl.load(entry + 1).to(tl.pointer_type(tl.float32))
    stride = tl.multiple_of(tl.load(entry + 2), ALIGN)
    n = tl.multiple_of(tl.load(entry + 3), ALIGN)
    first = tl.load(entry + 4)
    last = tl.load(entry + 5)
    out = partial + tl.load(entry + 6)
    slot = tl.load(entry + 7)
    lanes = tl.arange(0, COLUMNS)
    rows = tl.arange(0, ROWS)
    squares = tl.zeros([ROWS], dtype=tl.float32)
    if SINGLE:
        inside = lanes < n
        v = tl.load(vector + lanes, mask=inside, other=0.0)
        z = tl.zeros([COLUMNS], dtype=tl.float32)
        for start in range(first, last, ROWS):
            row = start + rows
            mask = (row < last)[:, None] & inside[None, :]
            tile = tl.load(weight + row[:, None] * stride + lanes[None, :], mask=mask, other=0.0).to(tl.float32)
            u = tl.sum(tile * v[None, :], axis=1)
            z += tl.sum(tile * u[:, None], axis=0)
            squares += tl.sum(tile * tile, axis=1)
        tl.store(out + lanes, z, mask=inside)
    else:
        for column in range(0, n, COLUMNS):
            tl.store(out + column + lanes, tl.zeros([COLUMNS], dtype=tl.float32), mask=column + lanes < n)
        tl.debug_barrier()
        for start in range(first, last, ROWS):
            row = start + rows
            u = tl.zeros([ROWS], dtype=tl.float32)
            for column in range(0, n, COLUMNS):
                at = column + lanes
                mask = (row < last)[:, None] & (at < n)[None, :]
                tile = tl.load(weight + row[:, None] * stride + at[None, :], mask=mask, other=0.0).to(tl.float32)
                v = tl.load(vector + at, mask=at < n, other=0.0)
                u += tl.sum(tile * v[None, :], axis=1)
                squares += tl.sum(tile * tile, axis=1)
            for column in range(0, n, COLUMNS):
                at = column + lanes
                mask = (row < last)[:, None] & (at < n)[None, :]
                tile = tl.load(weight + row[:, None] * stride + at[None, :], mask=mask, other=0.0).to(tl.float32)
                z = tl.sum(tile * u[:, None], axis=0)
                z += tl.load(out + at, mask=at < n, other=0.0)
                tl.store(out + at, z, mask=at < n)
            tl.debug_barrier()  # the next rows read what this program has written
    if slot >= 0:
        tl.store(parts + slot, tl.sum(squares, axis=0))


@triton.jit
def add(  # type: ignore[no-untyped-def]
    table, partial, parts, squares, COLUMNS: tl.constexpr
):
    """Sums of the partial sums, in the order of the pieces."""
    entry = table + tl.program_id(0).to(tl.int64) * 7
    out = tl.load(entry).to(tl.pointer_type(tl.float32))
    n = tl.load(entry + 1)
    at = tl.load(entry + 2) + tl.arange(0, COLUMNS)
    begin = partial + tl.load(entry + 3)
    count = tl.load(entry + 4)
    slot = tl.load(entry + 5)
    layer = tl.load(entry + 6)
    total = tl.zeros([COLUMNS], dtype=tl.float32)
    for piece in range(0, count):
        total += tl.load(begin + piece * n + at, mask=at < n, other=0.0)
    tl.store(out + at, total, mask=at < n)
    if slot >= 0:
        square = tl.zeros([1], dtype=tl.float64)
        for piece in range(0, count):
            square += tl.load(parts + slot + piece).to(tl.float64)
        tl.store(squares + layer + tl.arange(0, 1), square)

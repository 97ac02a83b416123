"""Products of two thin matrices: LoRA, LoCon, and whatever was factored."""

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.linalg.dense import spectral_dtype
from lsdr.linalg.full_precision import full_precision
from lsdr.linalg.operator import LinearOperator


class LowRank(LinearOperator):
    r"""scale * up @ down, never multiplied out.

    A LoRA of a linear layer has up (m, r) and down (r, n). One of a convolution has up (m, r, 1, 1) and down
    (r, c, kh, kw): what follows the first dimension is flattened, which gives the kernel update reshaped to
    (m, c kh kw), the operator "reshape". Other factored adapters: `with_core` (LoCon with a middle, Tucker forms),
    `Kronecker` (LoKr) and `Hadamard` (LoHa), whose factors may be low-rank themselves.

    The rank r may be 0 (the zero operator) or exceed m and n.

    Args:
        up: Shape (m, r, ...), any floating type.
        down: Shape (r, n, ...), any floating type.
        scale: A factor, alpha / rank for most adapters.

    Raises:
        ValueError: If the ranks do not agree or the factors are on different devices.

    Example:
        >>> LowRank(torch.ones(4, 2), torch.ones(2, 3), scale=0.5).matvec(torch.tensor([1.0, 0.0, 0.0]))
        tensor([1., 1., 1., 1.])
    """

    def __init__(self, up: Float[Tensor, "m ..."], down: Float[Tensor, "r ..."], scale: float | int = 1.0):
        self.up, self.down, self.scale = up.detach().flatten(1), down.detach().flatten(1), float(scale)
        if self.up.shape[1] != self.down.shape[0] or up.device != down.device:
            raise ValueError(
                "up (m, r, ...) and down (r, n, ...) must agree in r and be on one device, got "
                f"{tuple(up.shape)} on {up.device} and {tuple(down.shape)} on {down.device}"
            )
        double = torch.float64 in (up.dtype, down.dtype)
        dtype = spectral_dtype(torch.float64 if double else up.dtype)
        super().__init__((self.up.shape[0], self.down.shape[1]), dtype, up.device)

    @classmethod
    def with_core(
        cls,
        up: Float[Tensor, "m ..."],
        core: Float[Tensor, "r q ..."],
        down: Float[Tensor, "q ..."],
        scale: float | int = 1.0,
    ) -> "LowRank":
        r"""A factored kernel with its taps in the middle factor: R = scale * up [core_t down] over the taps t.

        LoCon with a middle stores up (m, r, 1, 1), mid (r, q, kh, kw) and down (q, c, 1, 1). The Tucker forms of LoHa
        and LoKr store the core as `t1`, `t2` (r, q, kh, kw), w_a as up transposed (r, m) and w_b as down (q, c). The
        core is contracted with `down` here, (r, c kh kw) numbers: as much as an ordinary LoRA of that layer holds.

        Args:
            up: Shape (m, r, ...).
            core: Shape (r, q, *kernel).
            down: Shape (q, c, ...).
            scale: A factor.
        """
        dtype = torch.float64 if torch.float64 in (up.dtype, core.dtype, down.dtype) else torch.float32
        with full_precision(up.device):
            inner = torch.einsum("rq...,qc->rc...", core.detach().to(dtype), down.detach().flatten(1).to(dtype))
        return cls(up, inner, scale)

    def factors(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Up and down in a type, the scale left out."""
        return self.up.to(dtype), self.down.to(dtype)

    def matvec(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        """A x, for each vector x."""
        with full_precision(self.device):
            up, down = self.factors(self.dtype)
            return (x @ down.mT) @ (self.scale * up.mT)

    def adjoint(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        """A transposed times y, for each vector y."""
        with full_precision(self.device):
            up, down = self.factors(self.dtype)
            return (y @ (self.scale * up)) @ down

    def matrix(self) -> Float[Tensor, "m n"]:
        """A itself: for small operators and for tests."""
        with full_precision(self.device):
            up, down = self.factors(self.dtype)
            return (self.scale * up) @ down

"""What the tests of SpectralDecomposition share: small denoisers whose operator is known."""

import torch
from torch import nn

PENALTIES = [
    ("eigenvalues", "dispersion"),
    ("singular_values", "dispersion"),
    ("eigenvalues", "hinge"),
    ("singular_values", "hinge"),
    ("eigenvalues", "frobenius"),
    ("singular_values", "frobenius"),
    ("eigenvalues", "asymmetry"),
    ("eigenvalues", "negative_eigenvalues"),
]


class Matrix(nn.Module):
    """D(x) = A x of the numbers of an image."""

    def __init__(self, matrix):
        super().__init__()
        self.layer = nn.Linear(len(matrix), len(matrix), bias=False, dtype=matrix.dtype)
        with torch.no_grad():
            self.layer.weight.copy_(matrix)

    def forward(self, x, sigma, conditioning=None):
        return self.layer(x.flatten(1)).unflatten(1, x.shape[1:])


def unet(size=4, **options):
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    net = UNet2DModel(
        sample_size=size,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(4, 8),
        norm_num_groups=2,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        **options,
    )
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return net


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def signs(examples, count, dims, seed=0, dtype=torch.float64):
    """The directions that a term draws from `generator(seed)`, shape (count, examples, *dims)."""
    drawn = torch.randint(2, (examples, count, *dims), generator=generator(seed), dtype=torch.int8)
    return (2 * drawn - 1).to(dtype).transpose(0, 1)


def dense(denoiser, x, sigma):
    """The Jacobian of each example, shape (n, d, d)."""
    x = x.detach().requires_grad_()
    flat = denoiser(x, sigma, None).flatten(1)
    rows = [torch.autograd.grad(flat[:, i].sum(), x, retain_graph=True)[0].flatten(1) for i in range(flat.shape[1])]
    return torch.stack(rows, 1)

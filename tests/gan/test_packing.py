import pytest
import torch

from lsdr.gan.packing import pack


def test_points_and_images():
    points = torch.arange(12).view(6, 2)
    assert pack(points, 3).tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
    images = torch.randn(4, 3, 2, 5)
    packed = pack(images, 2)
    assert packed.shape == (2, 6, 2, 5)
    assert torch.equal(packed[1, :3], images[2])
    assert torch.equal(packed[1, 3:], images[3])


def test_one_is_none():
    x = torch.randn(3, 2)
    assert torch.equal(pack(x, 1), x)


def test_gradient_goes_back_to_each_example():
    x = torch.randn(4, 2, requires_grad=True)
    (pack(x, 2) * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert x.grad.tolist() == [[1, 2], [3, 4], [1, 2], [3, 4]]


@pytest.mark.parametrize("size", [0, -1, 3])
def test_what_cannot_be_packed_is_refused(size):
    with pytest.raises(ValueError, match=f"4 examples cannot be put into packs of {size}"):
        pack(torch.zeros(4, 2), size)


def test_a_pack_shows_collapse_more_clearly():
    """PacGAN's point: total variation between real and collapsed grows with the pack; two modes against one of them."""
    real, collapsed = torch.tensor([0, 1]).repeat(500), torch.zeros(1000, dtype=torch.int64)
    generator = torch.Generator().manual_seed(0)

    def total_variation(size):
        weights = 2 ** torch.arange(size)
        codes = [
            (pack(x[torch.randperm(1000, generator=generator)][: 1000 // size * size, None], size) * weights).sum(1)
            for x in (real, collapsed)
        ]
        shares = [torch.bincount(code, minlength=2**size) / len(code) for code in codes]
        return float((shares[0] - shares[1]).abs().sum() / 2)

    assert total_variation(1) == pytest.approx(0.5)
    assert total_variation(2) == pytest.approx(0.75, abs=0.05)
    assert total_variation(4) == pytest.approx(0.9375, abs=0.05)

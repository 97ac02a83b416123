import pytest
import torch

from lsdr.linalg.full_precision import full_precision


def tf32():
    """Whether cuDNN may convolve in TF32, by either of torch's names for it."""
    conv = getattr(torch.backends.cudnn, "conv", None)
    return torch.backends.cudnn.allow_tf32 if conv is None else conv.fp32_precision == "tf32"


def test_on_a_gpu_tf32_convolutions_are_off_within_and_as_they_were_after():
    """The switch itself exists without a GPU; what it does to products needs one."""
    before = tf32()
    assert before  # torch's default, and the reason
    with full_precision(torch.device("cuda")):
        assert not tf32()
        with full_precision(torch.device("cuda")):
            assert not tf32()
        assert not tf32()
    assert tf32() == before
    with pytest.raises(KeyError), full_precision(torch.device("cuda")):
        raise KeyError
    assert tf32() == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_convolution_on_a_gpu_has_24_bits():
    from lsdr.linalg.convolution import Convolution

    weight = torch.randn(64, 64, 3, 3, device="cuda")
    operator, x = Convolution(weight, (16, 16), padding=1), torch.randn(64 * 256, device="cuda")
    true = Convolution(weight.double(), (16, 16), padding=1).matvec(x.double())
    assert float((operator.matvec(x) - true).norm() / true.norm()) < 1e-6


def test_no_gradient_and_no_autocast_within_and_both_back_after():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with full_precision(torch.device("cpu")):
            assert not torch.is_grad_enabled()
            assert not torch.is_autocast_enabled("cpu")
        assert torch.is_autocast_enabled("cpu")
    assert torch.is_grad_enabled()

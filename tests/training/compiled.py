"""Train the toy task compiled, rightly and wrongly: run by test_compiled.py in a process of its own."""

import sys
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from lsdr.regularizers.spectral_decorrelation import SpectralDecorrelation
from lsdr.training.loop import train


class CompiledWrongly(nn.Module):
    def forward(self, x):
        return x * 2 if torch.compiler.is_compiling() else x


def main(folder):
    sys.path.insert(0, str(Path(__file__).parent))
    import toy

    torch.set_num_threads(1)
    found = {}
    for name, compiled, wrong in (("eager", False, False), ("compiled", True, False), ("wrong", True, True)):
        torch.compiler.reset()
        settings = toy.config(steps=4, compile=compiled)
        task = toy.ToyTask(dropout=0.0)
        if wrong:
            task.model.append(CompiledWrongly())
        regularizers = (SpectralDecorrelation(layers="3", weight=0.1),)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            train(task, settings, folder / name, toy.accelerator(settings), regularizers=regularizers)
        found[name] = any("trained uncompiled" in str(each.message) for each in caught)
    assert found == {"eager": False, "compiled": False, "wrong": True}, found
    eager, compiled, wrong = (load_file(folder / name / "snapshots/final/model.safetensors") for name in found)
    torch.testing.assert_close(compiled, eager, rtol=1e-3, atol=1e-5)
    assert all(torch.equal(wrong[name], eager[name]) for name in eager)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

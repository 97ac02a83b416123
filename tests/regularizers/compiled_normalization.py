"""Spectral normalisation and penalty of a compiled model, run as a process of its own: compilers keep global state.

Prints one line a scenario; a failed assertion fails the process.
"""

import torch
from torch import nn

from lsdr.regularizers.attach import attach
from lsdr.regularizers.spectral_normalization import SpectralNormalization
from lsdr.regularizers.spectral_penalties import hinge
from lsdr.regularizers.spectral_penalty import SpectralPenalty

torch.set_num_threads(1)


def run(regularizer, compiled, observe):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12), nn.SiLU(), nn.Linear(12, 3))
    call = torch.compile(model, backend="aot_eager", fullgraph=not observe) if compiled else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    norms = []
    with attach(call, regularizer) as penalty:
        for step in range(4):
            chunks = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(step))
            if observe:
                with penalty.observe():
                    for chunk in chunks:
                        call(chunk)
            for chunk in chunks:
                loss = -call(chunk).square().mean()
                (loss + penalty()).backward()
            optimizer.step()
            optimizer.zero_grad()
            penalty.project_()
            norms.append(float(torch.linalg.matrix_norm(model[0].weight.detach(), 2)))
    return norms, torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


for name, regularizer, observe in (
    ("normalization", SpectralNormalization(bound=0.9), False),
    ("penalty", SpectralPenalty(penalty=hinge(0.5), weight=1.0), True),
):
    torch.compiler.reset()
    plain, compiled = run(regularizer, False, observe), run(regularizer, True, observe)
    torch.testing.assert_close(compiled[1], plain[1], rtol=1e-5, atol=1e-6)
    if name == "normalization":
        assert 0.9 * 0.999 < max(compiled[0]) <= 0.9 * 1.001, compiled[0]
    print(name, "ok", flush=True)

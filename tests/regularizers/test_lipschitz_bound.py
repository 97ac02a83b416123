import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lsdr.regularizers.activation_standardization import ActivationStandardization
from lsdr.regularizers.lipschitz_bound import Certificate, lipschitz_bound

SIZE = 6


def measured(model, shape, pairs=40, starts=6, steps=12):
    """The largest gain found: of pairs of points near and far, and along what power iteration on the Jacobian finds."""
    generator = torch.Generator().manual_seed(0)

    def draw(scale):
        return scale * torch.randn(1, *shape, generator=generator, dtype=torch.float64)

    largest = 0.0
    for number in range(pairs):
        with torch.no_grad():
            x, d = draw(3.0), draw((1e-3, 0.1, 3.0)[number % 3])
            largest = max(largest, float((model(x + d) - model(x)).norm() / d.norm()))
    for number in range(starts):
        x, v = draw((0.0, 1e-3, 0.3, 3.0)[number % 4]), draw(1.0)
        for _ in range(steps):
            v = v / v.norm().clamp_min(1e-300)
            with torch.no_grad():  # a gain of two points, so a true one
                image = (model(x + 1e-4 * v) - model(x - 1e-4 * v)) / 2e-4
            largest = max(largest, float(image.norm() / v.norm().clamp_min(1e-300)))
            point = x.clone().requires_grad_()
            (v,) = torch.autograd.grad(model(point), point, image)
    return largest


class Residual(nn.Module):
    def __init__(self, branch, scale=1.0):
        super().__init__()
        self.branch, self.scale = branch, scale

    def forward(self, x, mask=None):
        if mask is not None:
            x = x * mask
        return x + self.scale * self.branch(x)


class Joined(nn.Module):
    """Concatenation, slices, stacks, means, interpolation and constants, as functions."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(2, 3, 1)
        self.register_buffer("shift", torch.randn(3, 1, 1))
        self.gain = nn.Parameter(torch.randn(3, 1, 1))

    def forward(self, x):
        a, b = F.relu(self.first(x)), torch.tanh(self.second(x))
        h = torch.cat([a * self.gain, 2 * b - self.shift, x[:, :1]], dim=1)
        left, right = h.chunk(2, dim=1)[0], h[:, 4:]
        pooled = F.avg_pool2d(F.interpolate(left, scale_factor=2.0, mode="nearest"), 2)
        pooled = pooled + F.max_pool2d(left, 3, stride=1, padding=1)
        joined = torch.cat([pooled, right], 1).mean(dim=(2, 3), keepdim=True) + left[:, :1] / 4.0
        scaled = F.silu(joined) * (h.shape[1] ** -0.5)
        return torch.stack([scaled.flatten(1), 2 * scaled.view(scaled.size(0), -1)]).sum(0)


def double(*layers):
    torch.manual_seed(0)
    return nn.Sequential(*layers).double().eval()


ACTIVATIONS = (
    *(nn.SiLU, nn.GELU, nn.Mish, nn.Hardswish, nn.SELU, nn.Sigmoid, nn.Softplus, nn.ELU, nn.CELU, nn.Hardsigmoid),
    *(nn.ReLU, nn.ReLU6, nn.Tanh, nn.Hardtanh, nn.Softsign, nn.LogSigmoid, lambda: nn.GELU("tanh")),
)


def models():
    torch.manual_seed(0)
    conv = lambda *a, **k: nn.Conv2d(*a, **k)  # noqa: E731
    yield "linear", double(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 7), nn.Tanh(), nn.Linear(7, 3)), (5,)
    for kind in (nn.SiLU, nn.LeakyReLU, lambda: nn.Softmax(1)):
        yield f"activation {kind()}", double(nn.Linear(3, 4), kind()), (3,)
    for mode in ("zeros", "circular", "reflect", "replicate"):
        layer = conv(2, 3, 3, padding=2, padding_mode=mode, stride=2)
        yield f"convolution {mode}", double(layer), (2, SIZE, SIZE)
    yield "strided", double(conv(2, 4, 5, stride=3, padding=1), conv(4, 4, 2, groups=2)), (2, SIZE + 3, SIZE)
    yield "dilated", double(conv(2, 4, 3, dilation=2, padding="same"), nn.ReLU()), (2, SIZE, SIZE)
    yield "transposed", double(nn.ConvTranspose2d(4, 2, 4, stride=2, padding=1, groups=2)), (4, SIZE, SIZE)
    yield "one dimension", double(nn.Conv1d(2, 3, 3, dilation=2), nn.AvgPool1d(3, 2), nn.MaxPool1d(2)), (2, 12)
    yield "large", double(conv(3, 4, 3, padding=1, bias=False)), (3, 20, 20)
    yield "large transposed", double(nn.ConvTranspose2d(4, 3, 3, stride=2)), (4, 17, 17)
    pools = {
        "average": nn.AvgPool2d(3, 2, 1),
        "average, not of the padding": nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        "average, ceil": nn.AvgPool2d(4, 3, ceil_mode=True),
        "average, divisor": nn.AvgPool2d(2, 1, divisor_override=1),
        "maximum": nn.MaxPool2d(3, 1, 1),
        "maximum, dilated": nn.MaxPool2d(2, 2, dilation=2),
        "adaptive": nn.AdaptiveAvgPool2d((4, 1)),
        "nearest": nn.Upsample(scale_factor=2, mode="nearest"),
        "bilinear": nn.Upsample(size=(7, 11), mode="bilinear", align_corners=True),
        "bicubic": nn.Upsample(scale_factor=1.5, mode="bicubic"),
        "shuffle": nn.Sequential(nn.PixelUnshuffle(2), nn.ZeroPad2d(1), nn.PixelShuffle(2)),
    }
    for name, pool in pools.items():
        yield f"pool {name}", double(pool), (2, SIZE, SIZE)
    for name, layer in {
        "batch": nn.BatchNorm2d(2),
        "group": nn.GroupNorm(1, 2, eps=0.1),
        "instance": nn.InstanceNorm2d(2, eps=0.1),
        "layer": nn.LayerNorm(SIZE, eps=0.1),
        "rms": nn.RMSNorm(SIZE, eps=0.1),
        "standardisation": ActivationStandardization(2),
    }.items():
        model = nn.Sequential(layer.double(), conv(2, 2, 1).double())
        model(3 * torch.randn(4, 2, SIZE, SIZE, dtype=torch.float64) + 1)
        yield f"norm {name}", model.eval(), (2, SIZE, SIZE)
    block = Residual(nn.Sequential(conv(2, 4, 3, padding=1), nn.SiLU(), conv(4, 2, 3, padding=1)), -0.7)
    yield "residual", double(block, nn.Dropout(0.5), Residual(nn.Tanh()), nn.Flatten(), nn.Linear(72, 2)), (2, 6, 6)
    yield "joined", Joined().double().eval(), (2, SIZE, SIZE)


MODELS = {name: (model, shape) for name, model, shape in models()}


@pytest.mark.parametrize("name", MODELS)
def test_never_below_a_measured_gain(name):
    model, shape = MODELS[name]
    certificate = lipschitz_bound(model, shape)
    gain = measured(model, shape)
    assert gain > 0
    assert gain <= certificate.bound * (1 + 1e-9)
    assert certificate.bound < 60 * gain  # it says something
    assert math.isfinite(certificate.bound)
    if name in ("residual", "joined") or name.startswith(("pool adaptive", "pool nearest", "pool bi")):
        with pytest.raises(ValueError, match="give input_shape"):
            lipschitz_bound(model)
    else:
        assert lipschitz_bound(model).bound >= certificate.bound * (1 - 1e-9)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(5, 7), (5,)),
        (nn.Conv1d(2, 3, 3, padding=1, stride=2), (2, 9)),
        (nn.Conv2d(2, 3, 3, padding=1), (2, 5, 5)),
        (nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect", groups=2), (2, 5, 5)),
        (nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1, output_padding=1), (2, 5, 5)),
        (nn.AvgPool2d(2), (2, 6, 6)),
        (nn.AdaptiveAvgPool2d(1), (2, 6, 6)),
        (nn.Upsample(scale_factor=3, mode="nearest"), (1, 4, 4)),
        (nn.Sigmoid(), (4,)),
    ],
)
def test_tight_for_one_layer(layer, shape):
    torch.manual_seed(0)
    layer = layer.double()
    jacobian = torch.autograd.functional.jacobian(layer, torch.zeros(1, *shape, dtype=torch.float64))
    truth = float(torch.linalg.matrix_norm(jacobian.reshape(-1, math.prod(shape)), 2))
    certificate = lipschitz_bound(layer, shape)
    assert truth <= certificate.bound <= truth * (1 + 1e-6)
    assert list(certificate.per_layer) == [""]


def test_a_large_zero_padded_convolution_is_bounded_on_a_torus():
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, 3, padding=1)
    patch = lipschitz_bound(layer).bound
    torus = lipschitz_bound(layer, (3, 24, 24)).bound
    assert torus < 0.8 * patch
    assert lipschitz_bound(layer, (3, 25, 24)).bound > 0.95 * torus


def test_the_torus_is_large_enough():
    """Second differences at distance 205 of 1025 points: rings of 5 points have a smaller norm than chains of 5."""
    layer = nn.Conv1d(1, 1, 3, dilation=205, padding=205).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[[-1.0, 2.0, -1.0]]]))
    truth = 2 + 2 * math.cos(math.pi / 6)
    assert truth <= lipschitz_bound(layer, (1, 1025)).bound < 4


@pytest.mark.parametrize("kind", [*ACTIVATIONS, nn.LeakyReLU, nn.PReLU])
def test_slopes_of_activations(kind):
    activation = kind().double().requires_grad_(False)
    x = torch.linspace(-20, 20, 400001, dtype=torch.float64)
    slope = float((activation(x).diff() / x.diff()).abs().max())
    bound = lipschitz_bound(activation).bound
    assert slope <= bound * (1 + 1e-9)
    assert slope >= bound * 0.999


def test_residual_blocks_and_sums():
    branch = nn.Linear(3, 3, bias=False)
    nn.init.eye_(branch.weight)
    assert abs(lipschitz_bound(Residual(branch, 0.5), (3,)).bound - 1.5) < 1e-9
    with pytest.raises(ValueError, match="give input_shape"):
        lipschitz_bound(Residual(branch, 0.5))
    certificate = lipschitz_bound(nn.Sequential(Residual(branch, 0.5), Residual(copy.deepcopy(branch), 0.25)), (3,))
    assert abs(certificate.bound - 1.875) < 1e-9
    assert isinstance(certificate, Certificate)
    assert list(certificate.per_layer) == ["0.branch", "1.branch"]


def test_broadcasting_stretches():
    class Spread(nn.Module):
        def forward(self, x):
            return x + torch.mean(x, dim=1, keepdim=True)

    model = Spread().eval()
    truth = torch.linalg.matrix_norm(torch.eye(4) + torch.full((4, 4), 0.25), 2)
    assert lipschitz_bound(model, (4,)).bound >= truth  # 1 + 1/2 without the stretch would be too little
    assert lipschitz_bound(model, (4,)).bound <= 2.0 + 1e-9


def test_attention_and_gates_have_no_constant():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x):
            return self.inner(x, x, x)[0]

    class Gate(nn.Module):
        def forward(self, x):
            return x * torch.sigmoid(x)

    class Share(nn.Module):
        def forward(self, x):
            return 1.0 / x

    for model, shape in ((Attention(), (3, 4)), (Gate(), (4,)), (Share(), (4,))):
        certificate = lipschitz_bound(model.eval(), shape)
        assert certificate.bound == math.inf
        assert "no Lipschitz constant" in certificate.notes[0]
    zeroed = nn.Sequential(Gate(), nn.Linear(4, 2))
    nn.init.zeros_(zeroed[1].weight)
    assert lipschitz_bound(zeroed, (4,)).bound == 0  # whatever is before it


def test_known_constants_are_not_looked_into():
    class Odd(nn.Module):
        def forward(self, x):
            return torch.sort(x).values

    model = nn.Sequential(nn.Linear(3, 3), Odd())
    with pytest.raises(ValueError, match="no rule for sort"):
        lipschitz_bound(model)
    certificate = lipschitz_bound(model, constants={"1": 1.0})
    assert certificate.bound > 0
    assert certificate.per_layer["1"] == 1.0
    assert certificate.per_layer == lipschitz_bound(model, (3,), constants={"1": 1}).per_layer
    with pytest.raises(ValueError, match="no submodules"):
        lipschitz_bound(model, constants={"5": 1.0})
    with pytest.raises(ValueError, match="negative"):
        lipschitz_bound(model, constants={"1": -1.0})


def test_nothing_changes_and_no_hook_fires():
    model = nn.Sequential(nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), nn.ReLU(inplace=True)).eval()
    model[0].register_forward_hook(lambda *arguments: pytest.fail("a hook fired"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    lipschitz_bound(model, (2, 6, 6))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_what_it_refuses():
    with pytest.raises(ValueError, match=r"'0'.*training mode.*eval"):
        lipschitz_bound(nn.Sequential(nn.Dropout()))
    with pytest.raises(ValueError, match=r"'0': there is no rule for Embedding"):
        lipschitz_bound(nn.Sequential(nn.Embedding(3, 3)))

    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(ValueError, match="cannot be traced"):
        lipschitz_bound(Branching())

    class Two(nn.Module):
        def forward(self, x, y):
            return torch.cat([x, 3 * y], 1)

    assert abs(lipschitz_bound(Two()).bound - math.sqrt(10)) < 1e-9
    with pytest.raises(ValueError, match="one input"):
        lipschitz_bound(Two(), (3,))

    class Repeating(nn.Module):
        def forward(self, x):
            return x[:, [0, 0]]

    class Rounding(nn.Module):
        def forward(self, x):
            return torch.div(x, 2.0, rounding_mode="floor")

    for model, message in ((Repeating(), "repeat"), (Rounding(), "jumps")):
        with pytest.raises(ValueError, match=message):
            lipschitz_bound(model, (3,))


def test_weights_that_are_not_finite_have_no_bound():
    layer = nn.Linear(2, 2)
    nn.init.constant_(layer.weight, math.nan)
    assert lipschitz_bound(layer).bound == math.inf


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # the compiler's own
def test_compiled_and_wrapped_models():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    assert lipschitz_bound(torch.compile(model)).bound == lipschitz_bound(model).bound
    normed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)))
    truth = torch.linalg.matrix_norm(normed[0].weight.detach(), 2)
    assert truth <= lipschitz_bound(normed).bound * (1 + 1e-6)

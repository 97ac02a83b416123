"""Tracked singular values against `svdvals`: cold, warm, under drift, and for every weight that a model can hold."""

import math

import pytest
import torch

from lsdr.linalg.dense import Dense
from lsdr.linalg.operator import LinearOperator
from lsdr.linalg.tracking import Tracker


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def power_law(m, n, seed=0, exponent=1.0):
    """Singular values 1, 1/2, 1/3, ..., as trained layers have."""
    k = min(m, n)
    left = torch.linalg.qr(random(m, k, seed=seed)).Q
    right = torch.linalg.qr(random(n, k, seed=seed + 1)).Q
    return left * torch.arange(1, k + 1).float() ** -exponent @ right.mT


def truth(weight, count=1):
    return torch.linalg.svdvals(weight.detach().flatten(1).double())[:count]


def check(spectrum, weight, tolerance=1e-2):
    exact = truth(weight, len(spectrum.values))
    assert (spectrum.lower <= exact).all()
    assert (exact <= spectrum.upper).all()
    assert (spectrum.lower <= spectrum.values).all()
    torch.testing.assert_close(spectrum.values, exact, rtol=tolerance, atol=0)


SHAPES = [(48, 32), (32, 48), (16, 8, 3, 3), (8, 16, 1, 1), (4, 6, 5), (1, 1), (1, 9), (9, 1), (2, 200)]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_many_layers_cold_and_warm(count, dtype):
    weights = {str(shape): random(*shape, seed=i, dtype=dtype) for i, shape in enumerate(SHAPES)}
    tracker = Tracker(weights, count=count)
    for _ in range(3):
        found = tracker.update()
        assert list(found) == list(weights)
        for name, weight in weights.items():
            assert len(found[name].values) == min(count, *weight.flatten(1).shape)
            check(found[name], weight, 2e-2)
            norm = float(weight.double().square().sum().sqrt())
            assert tracker.frobenius[name] == pytest.approx(norm, rel=1e-6)
        for weight in weights.values():
            weight.mul_(1.1)
    assert not tracker.broken


def test_float8_is_widened():
    weight = random(24, 16).to(torch.float8_e4m3fn)
    check(Tracker({"layer": weight}).update()["layer"], weight.float())


@pytest.mark.parametrize("count", [1, 4])
def test_converges_to_the_exact_values_and_vectors(count):
    weight = power_law(60, 40)
    tracker = Tracker({"layer": weight}, count=count)
    tracker.update()
    found = tracker.update(steps=30)["layer"]
    torch.testing.assert_close(found.values, truth(weight, count), rtol=1e-5, atol=0)
    assert found.residual.max() < 1e-4
    vectors = tracker.vectors["layer"]
    assert vectors.shape == (count, 40)
    _, _, exact = torch.linalg.svd(weight)
    torch.testing.assert_close((vectors * exact[:count]).sum(1).abs(), torch.ones(count), rtol=1e-4, atol=0)


def test_the_residual_is_that_of_the_vector_before_the_step():
    weight = power_law(30, 20, exponent=0.3)
    tracker = Tracker({"layer": weight}, count=3)
    tracker.update()
    before = tracker.vectors["layer"].double()
    weight.add_(random(30, 20, seed=5), alpha=0.05)
    gram = (weight.mT @ weight).double()
    theta, basis = torch.linalg.eigh(before @ gram @ before.mT)
    ritz = basis.mT @ before
    expected = (ritz @ gram - theta[:, None] * ritz).norm(dim=1) / theta
    found = tracker.update()["layer"]
    torch.testing.assert_close(found.residual, expected.flip(0), rtol=1e-3, atol=1e-6)
    _, squares, right = torch.linalg.svd(before @ gram, full_matrices=False)
    torch.testing.assert_close(found.values, squares.sqrt(), rtol=1e-5, atol=0)
    aligned = (tracker.vectors["layer"] * right).sum(1).abs()
    torch.testing.assert_close(aligned, torch.ones(3).double(), rtol=1e-4, atol=0, check_dtype=False)


def test_the_upper_bound_of_a_low_rank_is_tight():
    weight = random(40, 2) @ random(2, 30, seed=1)
    found = Tracker({"layer": weight}, count=2)
    found.update()
    spectrum = found.update()["layer"]
    check(spectrum, weight, 1e-5)
    assert (spectrum.upper <= 1.002 * spectrum.values + 1e-3 * spectrum.values[0]).all()


def test_more_values_than_the_rank():
    weight = random(20, 2) @ random(2, 30, seed=1)
    tracker = Tracker({"layer": weight}, count=5)
    for _ in range(3):
        found = tracker.update()["layer"]
        exact = truth(weight, 5)
        torch.testing.assert_close(found.values, exact, rtol=1e-5, atol=1e-3 * float(exact[0]))
        assert (found.lower <= exact).all()
        assert (exact <= found.upper).all()
        assert found.residual.isfinite().all()
    weight += power_law(20, 30, seed=7) * 5
    tracker.update(steps=5)
    check(tracker.update()["layer"], weight, 2e-2)


class Adam:
    """Updates as Adam makes them: all entries move about as far, in one direction for many steps."""

    def __init__(self, weight):
        self.parameter = torch.nn.Parameter(weight)
        self.optimizer = torch.optim.Adam([self.parameter], lr=3e-3)
        self.target = 3 * random(len(weight), 1, seed=3) @ random(1, weight.shape[1], seed=4) / weight.shape[1] ** 0.5

    def step(self):
        self.optimizer.zero_grad()
        (self.parameter - self.target).square().sum().backward()
        self.optimizer.step()


def test_structured_drift_stays_within_a_percent_with_a_tolerance():
    weight = random(64, 64) / 8
    run = Adam(weight)
    tracker, careless = Tracker({"layer": run.parameter}), Tracker({"layer": run.parameter})
    tracker.update(), careless.update()
    worst = lag = 0.0
    for step in range(300):
        run.step()
        if step % 10:
            continue
        exact = float(truth(run.parameter))
        found = tracker.update(tolerance=0.02)["layer"]
        assert float(found.residual) <= 0.02
        worst = max(worst, 1 - float(found.values) / exact)
        lag = max(lag, 1 - float(careless.update()["layer"].values) / exact)
    assert worst < 0.01
    assert lag > 2 * worst  # one step lags: the tolerance is what keeps the value


def test_the_residual_tells_of_a_lagging_value():
    weight = power_law(50, 50)
    tracker = Tracker({"layer": weight})
    tracker.update(), tracker.update(steps=5)
    assert float(tracker.update()["layer"].residual) < 0.01
    u, v = random(50, 1, seed=8), random(1, 50, seed=9)
    weight += 3 * u @ v / (u.norm() * v.norm())
    found = tracker.update()["layer"]
    assert float(found.values) < 0.99 * float(truth(weight))
    assert float(found.residual) > 0.1


@pytest.mark.parametrize("count", [1, 3])
def test_zero_then_not(count):
    weight = torch.zeros(20, 30)
    tracker = Tracker({"zero": weight, "other": random(9, 9)}, count=count)
    for _ in range(3):
        found = tracker.update()
        assert found["zero"].values.tolist() == [0.0] * count
        assert found["zero"].upper.tolist() == found["zero"].residual.tolist() == [0.0] * count
        assert tracker.frobenius["zero"] == 0
        assert "zero" not in tracker.vectors
    weight += random(20, 30, seed=2)
    check(tracker.update()["zero"], weight)
    weight.zero_()
    assert float(tracker.update()["zero"].values[0]) == 0
    weight[3, 4] = 1e-30
    found = tracker.update()["zero"]
    torch.testing.assert_close(found.values[0].item(), 1e-30, rtol=1e-5, atol=0)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("size", [1e-36, 1e-25, 1e-13, 1e13, 1e25, 1e35])
def test_extremely_small_and_large_weights(size, count):
    weight = power_law(40, 30) * size
    tracker = Tracker({"layer": weight}, count=count)
    tracker.update()
    for factor in (1, 1.01):
        weight *= factor
        found = tracker.update(steps=2)["layer"]
        check(found, weight, 1e-3)
        assert tracker.frobenius["layer"] == pytest.approx(float(weight.double().norm()), rel=1e-5)
    weight /= size
    check(tracker.update()["layer"], weight)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("size", [1e-250, 1e200, 1e300])
def test_float64_weights_beyond_the_range_of_float32(size, count):
    weight = power_law(40, 30).double() * size
    tracker = Tracker({"layer": weight}, count=count)
    for _ in range(2):
        found = tracker.update()["layer"]
        values = torch.linalg.svdvals(weight / size)[:count]
        torch.testing.assert_close(found.values / size, values, rtol=2e-2, atol=0)
        assert (found.lower / size <= values * (1 + 1e-9)).all()
        assert (found.upper / size >= values * (1 - 1e-9)).all()


def test_half_precision_that_overflows_when_squared():
    weight = (random(30, 40) * 1e4).half()
    tracker = Tracker({"layer": weight})
    tracker.update()
    check(tracker.update()["layer"], weight)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("count", [1, 2])
def test_broken_weights_are_listed_and_the_others_right(bad, count):
    weights = {name: random(12, 10, seed=i) for i, name in enumerate("abc")}
    tracker = Tracker(weights, count=count)
    for already in (False, True):
        kept = weights["b"].clone()
        weights["b"][3, 4] = weights["b"][5, 0] = bad
        found = tracker.update()
        assert tracker.broken == {"b": 2}
        assert list(found) == ["a", "c"]
        assert list(tracker.frobenius) == ["a", "c"]
        check(found["a"], weights["a"], 5e-2)
        check(found["c"], weights["c"], 5e-2)
        assert "b" not in tracker.vectors
        weights["b"].copy_(kept)
        check(tracker.update()["b"], weights["b"])
        assert not tracker.broken, already


def test_weights_are_read_where_they_are():
    fused = random(30, 20)
    conv = random(8, 6, 3, 3).to(memory_format=torch.channels_last)
    odd = random(8, 3, 6, 5)[:, :, ::2, 1:4]
    weights = {
        "q": fused[:10],
        "k": fused[10:20],
        "v": fused[20:],
        "transposed": fused.mT,
        "conv": conv,
        "odd": odd,
        "slice": fused[:, 3:9],
    }
    tracker = Tracker(weights, count=2)
    tracker.update()
    for tensor in (fused, conv, odd):
        tensor.mul_(2)
    found = tracker.update(tolerance=0.02)
    for name, weight in weights.items():
        check(found[name], weight)
        v = tracker.vectors[name]
        images = weight.flatten(1) @ v.mT
        torch.testing.assert_close(images.norm(dim=0).double(), found[name].values, rtol=2e-2, atol=0)


@pytest.mark.parametrize("count", [1, 2])
def test_the_order_of_storage_changes_nothing(count):
    weight = random(8, 6, 3, 3)
    trackers = [Tracker({"layer": w}, count=count) for w in (weight, weight.to(memory_format=torch.channels_last))]
    for tracker in trackers:
        tracker.update()
    one, other = (tracker.update()["layer"] for tracker in trackers)
    torch.testing.assert_close(one.values, other.values, rtol=1e-5, atol=0)
    torch.testing.assert_close(one.residual, other.residual, rtol=1e-3, atol=1e-5)
    vectors = [tracker.vectors["layer"] for tracker in trackers]
    torch.testing.assert_close((vectors[0] * vectors[1]).sum(1).abs(), torch.ones(count), rtol=1e-3, atol=0)


class Shear(LinearOperator):
    def __init__(self, weight):
        super().__init__(tuple(weight.shape), torch.float32, weight.device)
        self.weight = weight

    def matvec(self, x):
        return x @ self.weight.mT

    def adjoint(self, y):
        return y @ self.weight


@pytest.mark.parametrize("size", [1.0, 1e-25, 0.0])
def test_operators(size):
    weight = power_law(20, 15) * size
    tracker = Tracker({"a": Shear(weight), "b": Dense(weight)}, count=2)
    for _ in range(3):
        for name, spectrum in tracker.update().items():
            torch.testing.assert_close(spectrum.values, truth(weight, 2), rtol=1e-3, atol=0)
            assert (spectrum.lower <= truth(weight, 2)).all(), name
    assert tracker.update()["a"].upper is None
    weight[0, 0] = math.nan
    assert tracker.update(["a"]) == {}
    assert tracker.broken["a"] > 0


def test_some_names_only():
    weights = {name: random(12, 10, seed=i) for i, name in enumerate("abc")}
    tracker = Tracker(weights)
    assert list(tracker.update(["c", "a"])) == ["c", "a"]
    assert set(tracker.frobenius) == {"a", "c"}
    assert set(tracker.vectors) == {"a", "c"}
    kept = tracker.vectors["a"].clone()
    check(tracker.update(["b"])["b"], weights["b"])
    torch.testing.assert_close(tracker.vectors["a"], kept, rtol=0, atol=0)
    assert tracker.update([]) == {}
    with pytest.raises(KeyError):
        tracker.update(["d"])


def test_state_gives_the_same_next_update():
    def make():
        return {
            "a": random(12, 10),
            "conv": random(8, 4, 3, 3, seed=1),
            "tiny": random(5, 6, seed=2) * 1e-25,
            "zero": torch.zeros(4, 4),
        }

    weights, generator = make(), torch.Generator().manual_seed(5)
    tracker = Tracker(weights, count=2, generator=generator)
    tracker.update(), tracker.update(["a"])
    state = tracker.state_dict()
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    other = Tracker(make(), count=2)
    other.load_state_dict(state)
    for changed in (weights, other_weights := {name: layer.weight for name, layer in other._layers.items()}):
        changed["a"] *= 1.5
        changed["zero"] += random(4, 4, seed=7)
    assert other_weights["a"] is not weights["a"]
    first, second = tracker.update(), other.update()
    for name in weights:
        assert torch.equal(first[name].values, second[name].values), name
        assert torch.equal(first[name].residual, second[name].residual), name
        assert torch.equal(tracker.vectors[name], other.vectors[name]), name
        assert tracker.frobenius == other.frobenius
    tracker.update()
    assert not torch.equal(state["vectors.a"], tracker.vectors["a"])  # a copy, not a view


def test_a_state_of_other_weights_is_refused():
    state = Tracker({"a": random(3, 4)})
    state.update()
    with pytest.raises(ValueError, match="not among the 1 weights"):
        Tracker({"b": random(3, 4)}).load_state_dict(state.state_dict())
    with pytest.raises(ValueError, match=r"shape \(1, 4\)"):
        Tracker({"a": random(3, 5)}).load_state_dict(state.state_dict())


def test_invisible():
    weight = torch.nn.Parameter(random(20, 10))
    loss = (weight * 2).square().sum()
    version, before, state = weight._version, weight.detach().clone(), torch.get_rng_state()
    tracker = Tracker({"layer": weight})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = [tracker.update(), tracker.update()]
    check(found[1]["layer"], weight)
    assert not found[1]["layer"].values.requires_grad
    assert weight._version == version
    assert torch.equal(weight, before)
    assert torch.equal(torch.get_rng_state(), state)
    loss.backward()


def test_starts_depend_on_seed_and_name_alone():
    a, b = random(12, 10), random(12, 10, seed=1)
    both, one = Tracker({"b": b, "a": a}), Tracker({"a": a})
    both.update(), one.update()
    assert torch.equal(both.vectors["a"], one.vectors["a"])
    seeded = Tracker({"a": a}, generator=torch.Generator().manual_seed(3))
    seeded.update()
    assert not torch.equal(seeded.vectors["a"], one.vectors["a"])


def test_threads_change_nothing(monkeypatch):
    weights = {str(i): random(20 + i, 30, seed=i) for i in range(12)}
    alone = Tracker(weights, count=2)
    expected = [alone.update(), alone.update()]
    monkeypatch.setattr("lsdr.linalg.weight_pass._ALONE_BYTES", 0)
    torch.set_num_threads(3)
    tracker = Tracker(weights, count=2)
    found = [tracker.update(), tracker.update()]
    assert torch.get_num_threads() == 3
    for one, other in zip(expected, found, strict=True):
        for name in weights:
            torch.testing.assert_close(one[name].values, other[name].values, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("weight", "error", "match"),
    [
        (torch.zeros(3), ValueError, "matrix with entries"),
        (torch.zeros(0, 3), ValueError, "matrix with entries"),
        (torch.zeros(2, 3, dtype=torch.int64), TypeError, "floating-point"),
        (torch.zeros(2, 3, device="meta"), ValueError, "meta device"),
    ],
)
def test_what_is_no_matrix_is_refused(weight, error, match):
    with pytest.raises(error, match=match):
        Tracker({"layer": weight})


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="count"):
        Tracker({}, count=0)
    with pytest.raises(ValueError, match="steps"):
        Tracker({}).update(steps=0)
    assert Tracker({}).update() == {}

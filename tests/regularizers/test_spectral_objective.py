"""Objectives on layers' outputs: gradients, micro-batches, layers of any kind, outliers, state."""

import pytest
import torch
from torch import nn

from lsdr.regularizers.attach import attach
from lsdr.regularizers.objectives.catalogue import OBJECTIVES
from lsdr.regularizers.objectives.sigreg import SIGReg, directions
from lsdr.regularizers.objectives.spectral_contrastive import SpectralContrastive
from lsdr.regularizers.objectives.vicreg import VICReg
from lsdr.regularizers.spectral_objective import SpectralObjective

NAMES = list(OBJECTIVES)


def build(dropout=0.0):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 4)).double()


def examples(count=12):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 3, generator=generator, dtype=torch.float64) * torch.linspace(0.5, 3, count)[:, None]
    return x, x + 0.3 * torch.randn(count, 3, generator=generator, dtype=torch.float64)


def both(x, y, cut):
    """Each chunk with both views of its examples."""
    return [torch.cat(pair) for pair in zip(x.split(cut), y.split(cut), strict=True)]


def step(net, penalty, chunks):
    """Value, values and gradient of one step, in one chunk or in two passes over several."""
    net.zero_grad()
    if len(chunks) > 1:
        with penalty.observe():
            for chunk in chunks:
                net(chunk)
    parts = []
    for chunk in chunks:
        net(chunk)
        part = penalty()
        part.backward()
        parts.append(part.detach())
    return sum(parts), penalty.values, [parameter.grad.clone() for parameter in net.parameters()]


def close(actual, expected, tolerance=1e-12):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_that_of_finite_differences(name, views):
    net, chunk = build(), torch.cat(examples(5))
    objective = SpectralObjective(name, layers="3", views=views, weight=0.7)

    with attach(net, objective) as penalty:
        net(chunk)
        penalty().backward()
    gradients = [parameter.grad for parameter in net.parameters()]
    generator = torch.Generator().manual_seed(5)
    for _ in range(2):
        direction = [torch.randn(each.shape, generator=generator, dtype=each.dtype) for each in gradients]
        ends = []
        for sign in (1e-5, -1e-5):
            moved = build()
            with torch.no_grad():
                for parameter, way in zip(moved.parameters(), direction, strict=True):
                    parameter += sign * way
            with attach(moved, objective) as penalty:
                moved(chunk)
                ends.append(penalty().detach())
        slope = sum((way * gradient).sum() for way, gradient in zip(direction, gradients, strict=True))
        assert abs(slope) > 1e-3
        close(slope, (ends[0] - ends[1]) / 2e-5, 1e-6)


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_micro_batches_are_one_big_batch(name, views):
    net, (x, y) = build(), examples()
    with attach(net, SpectralObjective(name, layers=["1", "3"], views=views)) as penalty:
        expected = step(net, penalty, both(x, y, 12))
    for cut in ([1, 3, 2, 6], [6, 6]):
        with attach(net, SpectralObjective(name, layers=["1", "3"], views=views)) as penalty:
            # Twice, for nothing of a step may stay but the number of it.
            value, values, gradients = step(net, penalty, both(x, y, cut))
            assert not next(iter(penalty._terms.values())).observed()
        close(gradients, expected[2])
        close(value, expected[0])
        close(values, expected[1])
    assert max(gradient.abs().max() for gradient in gradients) > 1e-2


def test_a_chunk_s_own_objective_is_another():
    net, (x, y) = build(), examples()
    with attach(net, SpectralObjective(layers="3")) as penalty:
        _, _, whole = step(net, penalty, both(x, y, 12))
        net.zero_grad()
        for chunk in both(x, y, 4):
            net(chunk)
            (penalty() / 3).backward()
    assert (net[0].weight.grad - whole[0]).norm() > 0.05 * whole[0].norm()


@pytest.mark.parametrize("name", ["vicreg", "sigreg"])
def test_micro_batches_with_dropout_are_one_big_batch_with_the_same_masks(name):
    net, chunks = build(dropout=0.4), both(*examples(), [1, 3, 2, 6])
    state = torch.get_rng_state()
    with attach(net, SpectralObjective(name, layers="3")) as penalty:
        value, _, gradients = step(net, penalty, chunks)
        torch.set_rng_state(state)
        net.zero_grad()
        for chunk in chunks:  # all forwards, then one call: the statistics of all with every row's graph
            net(chunk)
        penalty.load_state_dict({} if name == "vicreg" else {"SpectralObjective/step": torch.tensor(0)})
        whole = penalty()
        whole.backward()
    close(value, whole.detach())
    close(gradients, [parameter.grad for parameter in net.parameters()])


def test_what_is_kept_between_the_passes_does_not_grow_with_the_batch():
    net, (x, y) = build(), examples(64)

    def kept(cut):
        with attach(net, SpectralObjective(layers="3")) as penalty:
            with penalty.observe():
                for chunk in both(x, y, cut):
                    assert not net(chunk).requires_grad
            (layer,) = next(iter(penalty._terms.values()))._layers.values()
            total = sum(value.numel() for value in vars(layer.total).values())
            return total, sum(mean.numel() + variance.numel() for _, mean, variance in layer.seen)

    assert kept(32)[0] == kept(4)[0] == kept(1)[0]
    assert kept(4)[1] == 16 * 2 * 2 * 4  # of each chunk: mean and variance of 4 dimensions in 2 views


def test_a_second_pass_with_other_features_is_an_error():
    net, (x, y) = build(), examples()
    first, second = both(x, y, 6)
    with attach(net, SpectralObjective(layers="3")) as penalty:
        with penalty.observe():
            net(first)
            net(second)
        net(first + 0.1)
        with pytest.raises(RuntimeError, match="brought other features than were observed"):
            penalty()
        with penalty.observe():
            net(first)
        net(first)
        net(first)
        with pytest.raises(RuntimeError, match="brought other features"):  # one forward too many
            penalty()
        with pytest.raises(RuntimeError, match=r"\['3'\] did not run while observed"), penalty.observe():
            pass
        net(first)
        penalty()  # and then a step stands alone again


def test_feature_maps_and_tokens_are_rows_at_every_position():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 5, 3), nn.Tanh()).double()
    images = torch.randn(6, 2, 6, 5, dtype=torch.float64)
    for views in (1, 2):
        objective = SpectralObjective("vicreg", layers="1", views=views)
        with attach(net, objective) as penalty:
            maps = net(images)
            value = penalty().detach()
        halves = [half.permute(0, 2, 3, 1).reshape(-1, 5) for half in maps.detach().split(6 // views)]
        close(value, objective.of(*halves)["objective"])
    tokens = nn.Sequential(nn.Linear(2, 5), nn.Tanh()).double()
    with attach(tokens, SpectralObjective("barlow_twins", layers="1", views=1)) as penalty:
        features = tokens(torch.randn(4, 7, 2, dtype=torch.float64))
        value = penalty().detach()
    close(value, SpectralObjective("barlow_twins").of(features.detach().reshape(-1, 5))["objective"])


def test_values_are_by_layer_and_term_and_the_penalty_is_their_weighted_mean():
    net, chunk = build(), torch.cat(examples())
    with attach(net, SpectralObjective(layers=["1", "3"], weight=0.25)) as penalty:
        net(chunk)
        total = penalty().detach()
    prefix = "SpectralObjective"
    names = [f"{prefix}/{layer}{term}" for layer in (1, 3) for term in ("", "/invariance", "/variance", "/covariance")]
    assert list(penalty.values) == names
    close(total, 0.25 * (penalty.values[f"{prefix}/1"] + penalty.values[f"{prefix}/3"]) / 2)
    parts = [penalty.values[f"{prefix}/3/{term}"] for term in ("invariance", "variance", "covariance")]
    close(25 * parts[0] + 25 * parts[1] + parts[2], penalty.values[f"{prefix}/3"])


def test_weight_zero_computes_everything_and_adds_exactly_nothing():
    net, chunk = build(), torch.cat(examples())
    with attach(net, SpectralObjective(layers="3", weight=0)) as penalty:
        loss = net(chunk).square().mean()
        total = penalty()
        assert not total.requires_grad
        assert total == 0
        assert penalty.values["SpectralObjective/3"] > 0
        (loss + total).backward()


def test_statistics_are_float32_under_autocast_and_right_far_from_the_origin():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 4, generator=generator, dtype=torch.float64)
    y = x + 0.1 * torch.randn(256, 4, generator=generator, dtype=torch.float64)
    for name in NAMES[:3]:
        wide = SpectralObjective(name).of(x + 300, y + 300)["objective"]
        narrow = SpectralObjective(name).of((x + 300).float(), (y + 300).float())["objective"]
        assert narrow.dtype == torch.float32
        close(narrow.double(), wide, 2e-4)
        net = nn.Identity()
        rows = torch.cat([x, y]).float().add(300).requires_grad_()
        with attach(net, SpectralObjective(name, layers="")) as penalty:
            net(rows)
            penalty().backward()
        exact = torch.cat([x, y]).add(300).requires_grad_()
        with attach(net, SpectralObjective(name, layers="")) as penalty:
            net(exact)
            penalty().backward()
        assert (rows.grad - exact.grad).norm() < 1e-3 * exact.grad.norm()


@pytest.mark.parametrize("name", NAMES)
def test_autocast_touches_no_statistic_and_no_gradient(name):
    rows = torch.cat(examples(20)).float().requires_grad_()
    found = []
    for enabled in (False, True):
        with attach(nn.Identity(), SpectralObjective(name, layers="")) as penalty:
            for cuts in (1, 2):
                rows.grad = None
                chunks = both(*rows.chunk(2), 20 // cuts)
                model = next(iter(penalty._terms.values()))._features.layers[""]
                with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                    if cuts > 1:
                        with penalty.observe():
                            for chunk in chunks:
                                model(chunk)
                    for chunk in chunks:
                        model(chunk)
                        penalty().backward()
                found.append((rows.grad, *penalty.values.values()))
    for actual, expected in zip(found[2], found[0], strict=True):
        assert torch.equal(actual, expected)
    for actual, expected in zip(found[3], found[1], strict=True):
        assert torch.equal(actual, expected)
    model = nn.Linear(3, 4)
    with attach(model, SpectralObjective(name, layers="")) as penalty, torch.autocast("cpu", torch.bfloat16):
        assert model(rows).dtype == torch.bfloat16
        assert penalty().dtype == torch.float32


def test_sigreg_s_directions_change_with_the_step_and_are_resumed():
    net, chunks = build(), both(*examples(), 12)
    objective = SpectralObjective(SIGReg(slices=4), layers="3")
    with attach(net, objective) as penalty:
        values = [step(net, penalty, chunks)[0]]
        state = {key: value.clone() for key, value in penalty.state_dict().items()}
        values += [step(net, penalty, chunks)[0] for _ in range(2)]
        with penalty.aside():
            step(net, penalty, chunks)
        values.append(step(net, penalty, chunks)[0])
    assert len({float(value) for value in values}) == 4
    with attach(net, objective) as penalty:
        penalty.load_state_dict(state)
        assert [step(net, penalty, chunks)[0] for _ in range(3)] == values[1:]
        with pytest.raises(ValueError, match=r"entries \['other'\]"):
            penalty.load_state_dict({"SpectralObjective/other": torch.zeros(1)})
    like = torch.zeros(3)
    assert torch.equal(directions(3, 5, 7, like), directions(3, 5, 7, like))
    close(directions(3, 5, 7, like).norm(dim=0), torch.ones(5), 1e-6)
    with attach(net, SpectralObjective(layers="3")) as penalty:
        step(net, penalty, chunks)
        assert not penalty.state_dict()


@pytest.mark.parametrize("robust", ["trimmed", "huber"])
def test_outliers_are_weighed_from_the_third_step_on(robust):
    net, (x, y) = build().append(nn.Identity()), examples(40)
    spoilt = [each.clone() for each in (x, y)]
    spoilt[0][:4] *= 1000
    spoilt[1][:4] *= 1000
    net[1] = nn.Identity()  # linear: what is far out stays far out
    objective = SpectralObjective("vicreg", layers="3", robust=robust, trim=0.2)
    with attach(net, SpectralObjective("vicreg", layers="3")) as penalty:
        clean, _, _ = step(net, penalty, both(x[4:], y[4:], 36))
        plain, _, _ = step(net, penalty, both(*spoilt, 40))
    with attach(net, objective) as penalty:
        values = [step(net, penalty, both(*spoilt, 40)) for _ in range(6)]
        state = {key: value.clone() for key, value in penalty.state_dict().items()}
        seventh = step(net, penalty, both(*spoilt, 40))
    assert values[0][0] == values[1][0] == plain > 1e3 * clean
    close(values[5][0], clean, 1e-10 if robust == "trimmed" else 1.0)
    assert values[5][0] < 1e-2 * plain
    for cut in ([1, 9, 30], [20, 20]):
        with attach(net, objective) as penalty:
            penalty.load_state_dict(state)
            close(step(net, penalty, both(*spoilt, cut)), seventh, 1e-11)


def test_a_representation_that_jumps_away_is_found_again():
    net, (x, y) = nn.Linear(3, 3, dtype=torch.float64), examples(40)
    objective = SpectralObjective("vicreg", layers="", robust="trimmed")
    with attach(net, objective) as penalty:
        for _ in range(4):
            step(net, penalty, both(x, y, 40))
        values = [step(net, penalty, both(x + 100, y + 100, 40))[0] for _ in range(12)]
    assert torch.stack(values).isfinite().all()
    with attach(net, SpectralObjective("vicreg", layers="")) as penalty:
        close(values[-1], step(net, penalty, both(x + 100, y + 100, 40))[0], 0.2)


def test_nan_is_nan_and_teaches_nothing():
    net, chunk = build(), torch.cat(examples())
    with attach(net, SpectralObjective(layers="3", robust="huber")) as penalty:
        for _ in range(3):
            step(net, penalty, [chunk])
        before = penalty.state_dict()
        chunk[3] = torch.nan
        assert step(net, penalty, [chunk])[0].isnan()
        assert all(torch.equal(value, before[key]) for key, value in penalty.state_dict().items())


def test_arguments_and_batches_that_make_no_sense_are_refused():
    for settings, message in [
        ({"objective": "vigreg"}, "objective must be one of vicreg, barlow_twins"),
        ({"views": 3}, "views must be 1 or 2"),
        ({"weight": -1.0}, "weight must be finite"),
        ({"trim": 0.7}, "trim must be in"),
    ]:
        with pytest.raises(ValueError, match=message):
            SpectralObjective(**settings)
    for build_one, message in [
        (lambda: VICReg(variance=-1), "variance must be finite and not negative"),
        (lambda: SIGReg(share=1.5), r"share must be in \[0, 1\]"),
        (lambda: SpectralContrastive(mu=0), "mu must be positive"),
    ]:
        with pytest.raises(ValueError, match=message):
            build_one()
    net, (x, y) = build(), examples()
    with attach(net, SpectralObjective(layers="3")) as penalty:
        net(x[:3])
        with pytest.raises(ValueError, match="3 rows, which are not two views"):
            penalty()
        net(torch.cat([x[:1], y[:1]]))
        with pytest.raises(ValueError, match="brought 1 example"):
            penalty()
    with pytest.raises(ValueError, match="as many in both views"):
        SpectralObjective().of(x, y[1:])
    with pytest.raises(ValueError, match="N at least 2"):
        SpectralObjective().of(x[:1])

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from lsdr.regularizers.attach import attach
from lsdr.regularizers.matched_weight_decay import MatchedWeightDecay
from lsdr.regularizers.spectral_decorrelation import SpectralDecorrelation

REFERENCE = SpectralDecorrelation(layers="0", weight=0.7, form="as_written")


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))


def batch(number, size=16):
    return torch.randn(size, 5, generator=torch.Generator().manual_seed(number))


def strength(model, x, reference=REFERENCE):
    """The reference penalty's gradient norm over the weights' norm, by hand."""
    model = copy.deepcopy(model)
    with attach(model, reference) as penalty:
        model(x)
        penalty().backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return gradient.norm() / torch.cat([model[0].weight.flatten(), model[2].weight.flatten()]).norm()


def test_gradient_is_as_large_as_the_reference_s_and_along_the_weights():
    model, x = build(), batch(1)
    expected = strength(model, x)
    assert expected > 1e-3
    with attach(model, MatchedWeightDecay((REFERENCE,))) as penalty:
        model(x)
        term = penalty()
        assert all(p.grad is None for p in model.parameters())
        term.backward()
    for layer in (model[0], model[2]):
        torch.testing.assert_close(layer.weight.grad, expected * layer.weight.detach())
        assert layer.bias.grad is None
    squares = sum(layer.weight.detach().square().sum() for layer in (model[0], model[2]))
    torch.testing.assert_close(term.detach(), expected * squares / 2)
    torch.testing.assert_close(penalty.values["MatchedWeightDecay/weights"], squares / 2)


def test_the_loss_still_has_its_graph():
    model, x = build(), batch(1)
    other = copy.deepcopy(model)
    other(x).square().mean().backward()
    with attach(model, MatchedWeightDecay((replace(REFERENCE, weight=0.0),))) as penalty:
        (model(x).square().mean() + penalty()).backward()
    for own, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(own.grad, theirs.grad, rtol=0, atol=0)


def test_mean_over_the_first_batches_then_fixed():
    model = build()
    squares = sum(layer.weight.detach().square().sum() for layer in (model[0], model[2]))
    by_hand = [strength(model, batch(k)) for k in range(3)]
    assert by_hand[0] != by_hand[1]
    found = []
    with attach(model, MatchedWeightDecay((REFERENCE,), batches=2)) as penalty:
        for number in range(3):
            model(batch(number))
            found.append(penalty().detach() * 2 / squares)
    torch.testing.assert_close(found[0], by_hand[0])
    torch.testing.assert_close(found[1], (by_hand[0] + by_hand[1]) / 2)
    torch.testing.assert_close(found[2], found[1], rtol=0, atol=0)


def test_several_references_are_matched_together():
    model, x = build(), batch(1)
    references = (REFERENCE, replace(REFERENCE, layers="2", weight=0.4))
    copied = copy.deepcopy(model)
    with attach(copied, *references) as penalty:
        copied(x)
        penalty().backward()
    together = torch.cat([p.grad.flatten() for p in copied.parameters()]).norm()
    with attach(model, MatchedWeightDecay(references)) as penalty:
        model(x)
        penalty().backward()
    found = torch.cat([model[0].weight.grad.flatten(), model[2].weight.grad.flatten()]).norm()
    torch.testing.assert_close(found, together)


def test_micro_batches_match_the_whole_batch():
    model, whole = build(), [batch(k) for k in range(3)]
    alone = copy.deepcopy(model)
    with attach(alone, MatchedWeightDecay((REFERENCE,), batches=2)) as penalty:
        totals = []
        for x in whole:
            alone(x)
            term = penalty()
            term.backward()
            totals.append(term.detach())
    with attach(model, MatchedWeightDecay((REFERENCE,), batches=2)) as penalty:
        for x, total in zip(whole, totals, strict=True):
            with penalty.observe():
                for chunk in x.split([4, 7, 5]):
                    model(chunk)
            parts = []
            for chunk in x.split([4, 7, 5]):
                loss = model(chunk).sum() * 0
                parts.append(penalty())
                (loss + parts[-1]).backward()
            torch.testing.assert_close(torch.stack(parts).sum().detach(), total)
    torch.testing.assert_close(model[0].weight.grad, alone[0].weight.grad)
    assert alone[0].weight.grad.norm() > 1e-3


@pytest.mark.parametrize("pause", [1, 3, 4])
def test_resumed_is_bitwise_the_same(pause):
    def train(model, penalty, numbers):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for number in numbers:
            optimizer.zero_grad()
            (model(batch(number)).square().mean() + penalty()).backward()
            optimizer.step()

    method, whole, parts = MatchedWeightDecay((REFERENCE,), batches=3), build(), build()
    with attach(whole, method) as penalty:
        train(whole, penalty, range(6))
    with attach(parts, method) as penalty:
        train(parts, penalty, range(pause))
        state = penalty.state_dict()
    with attach(parts, method) as penalty:
        penalty.load_state_dict(state)
        train(parts, penalty, range(pause, 6))
    torch.testing.assert_close(parts.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_batch_that_is_not_finite_is_left_out():
    model = build()
    with attach(model, MatchedWeightDecay((REFERENCE,), batches=1)) as penalty:
        model(batch(0) * float("nan"))
        assert penalty() == 0
        model(batch(1))
        penalty().backward()
    torch.testing.assert_close(model[0].weight.grad, strength(model, batch(1)) * model[0].weight.detach())


def test_weight_zero_gives_zero():
    model = build()
    with attach(model, MatchedWeightDecay((replace(REFERENCE, weight=0.0),))) as penalty:
        model(batch(0))
        assert penalty() == 0


def test_frozen_weights_are_left_out():
    model = build()
    model[2].requires_grad_(False)
    with attach(model, MatchedWeightDecay((REFERENCE,))) as penalty:
        model(batch(0))
        penalty().backward()
    assert model[2].weight.grad is None
    ratio = model[0].weight.grad / model[0].weight.detach()
    copied = build()
    with attach(copied, REFERENCE) as penalty:
        copied(batch(0))
        penalty().backward()
    gradient = torch.cat([p.grad.flatten() for p in copied[0].parameters()])
    torch.testing.assert_close(ratio.mean(), gradient.norm() / model[0].weight.detach().norm())


@pytest.mark.parametrize(
    ("arguments", "message"), [(((),), "at least one regularizer"), (((REFERENCE,), 0), "batches must be at least 1")]
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        MatchedWeightDecay(*arguments)


def _rank(rank, world, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    model = build()
    with attach(model, MatchedWeightDecay((REFERENCE,), batches=2)) as penalty:
        for number in range(3):
            model(batch(number).split([5, 11])[rank])
            penalty().backward()
    torch.save(model[0].weight.grad, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_ranks_with_uneven_shares_equal_one_process(tmp_path):
    model = build()
    with attach(model, MatchedWeightDecay((REFERENCE,), batches=2)) as penalty:
        for number in range(3):
            model(batch(number))
            penalty().backward()
    torch.multiprocessing.spawn(_rank, (2, str(tmp_path)), nprocs=2)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(found, model[0].weight.grad)


def test_compiled_model():
    # The compiled backward is passed twice while the strength is measured.
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(5, 6), nn.SiLU(), nn.Softmax(1), nn.Linear(6, 6), nn.Linear(6, 3)), batch(1)
    reference, found = replace(REFERENCE, layers="3", form="correlation"), []
    for each in (copy.deepcopy(model), model):
        with attach(each, MatchedWeightDecay((reference,))) as penalty:
            forward = torch.compile(each, backend="aot_eager") if each is model else each
            (forward(x).square().mean() + penalty()).backward()
        found.append([parameter.grad for parameter in each.parameters()])
    torch.testing.assert_close(found[1], found[0])

"""Two players in one loop: against two optimisers written out by hand, and what each turn may touch."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from lsdr.regularizers.attach import attach
from lsdr.runs import read_records
from lsdr.training.loop import train
from lsdr.training.order import order_of
from lsdr.training.stepper import Gradient, open_stepper
from lsdr.training.turn import Turn, turns_of

_spec = importlib.util.spec_from_file_location("toy", Path(__file__).with_name("toy.py"))
toy = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(toy)


class Game(nn.Module):
    def __init__(self):
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 6))
        self.discriminator = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))


class GameTask(toy.ToyTask):
    def __init__(self, bad=False):
        super().__init__()
        torch.manual_seed(0)
        self.model, self.bad = Game(), bad
        self.saw = []

    def turns(self):
        return (
            Turn("discriminator", self.discriminator, lr_scale=2.0, betas=(0.5, 0.9)),
            Turn("generator", self.generator),
        )

    def discriminator(self, model, batch):
        self.saw.append({name for name, each in model.named_parameters() if each.requires_grad})
        with torch.no_grad():
            fake = model.generator(batch["noise"])
        real, fake = model.discriminator(batch["x"])[:, 0], model.discriminator(fake)[:, 0]
        loss = nn.functional.softplus(-real) + nn.functional.softplus(fake)
        return loss, {"record": {"logits/real": real.mean()}}

    def generator(self, model, batch):
        self.saw.append({name for name, each in model.named_parameters() if each.requires_grad})
        loss = nn.functional.softplus(-model.discriminator(model.generator(batch["noise"]))[:, 0])
        return loss * (math.nan if self.bad else 1.0), {}

    def feature_layers(self):
        return None

    def evaluate(self, model):
        return {"heldout_loss": 0.0}


def test_alternating_turns_are_two_optimizers_in_turn(tmp_path):
    settings = toy.config(steps=6, warmup=0, ema=0.9)
    task = GameTask()
    assert train(task, settings, tmp_path, toy.accelerator(settings)).status == "finished"

    by_hand = GameTask()
    model = by_hand.model
    optimizers = {
        "discriminator": torch.optim.AdamW(model.discriminator.parameters(), 2e-3, (0.5, 0.9), weight_decay=0.0),
        "generator": torch.optim.AdamW(model.generator.parameters(), 1e-3, (0.9, 0.99), weight_decay=0.0),
    }
    with open_stepper(GameTask(), settings, toy.accelerator(settings)) as stepper:
        order = order_of(task.dataset, 8, 0)
        batches = [task.dataset.__getitems__(order.batch(step)) for step in range(6)]
        chunks = [stepper.chunks(step, batch)[0] for step, batch in enumerate(batches)]
    for chunk in chunks:
        for turn in by_hand.turns():
            model.zero_grad()
            turn.losses(model, chunk)[0].mean().backward()
            optimizers[turn.name].step()
    for (name, ours), theirs in zip(task.model.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7, msg=name)


def test_each_turn_sees_only_its_own_parameters_and_all_are_given_back(tmp_path):
    task, settings = GameTask(), toy.config(steps=1)
    train(task, settings, tmp_path, toy.accelerator(settings))
    first, second = ({name.split(".")[0] for name in names} for names in task.saw)
    assert (first, second) == ({"discriminator"}, {"generator"})
    assert all(each.requires_grad for each in task.model.parameters())


def test_records_name_both_players_and_what_the_task_adds(tmp_path):
    settings = toy.config(steps=2)
    train(GameTask(), settings, tmp_path, toy.accelerator(settings))
    record = read_records(tmp_path / "metrics.jsonl")[-1]
    expected = {f"{player}/{what}" for player in ("generator", "discriminator") for what in ("loss", "grad_norm")}
    assert expected | {"logits/real"} <= record.keys()
    assert record["loss"] != record["discriminator/loss"]


def test_a_player_in_trouble_is_named_and_does_not_move(tmp_path):
    task, settings = GameTask(bad=True), toy.config(steps=3)
    before = [each.clone() for each in task.model.generator.parameters()]
    outcome = train(task, settings, tmp_path, toy.accelerator(settings))
    assert outcome.status == "diverged"
    assert all(map(torch.equal, before, task.model.generator.parameters()))


def test_micro_batches_give_the_gradient_of_the_whole_batch():
    found = []
    for accumulate in (1, 3):
        settings, task = toy.config(accumulate=accumulate), GameTask()
        with open_stepper(task, settings, toy.accelerator(settings)) as stepper:
            for turn in stepper.turns:
                found.append(stepper.gradient(0, task.dataset.__getitems__(range(8)), turn))
                stepper.discard()
    whole, parts = found[:2], found[2:]
    for one, other in zip(whole, parts, strict=True):
        assert (one.loss, one.norm) == pytest.approx((other.loss, other.norm), rel=1e-5)


def test_turns_of_a_plain_task_are_its_losses():
    task = toy.ToyTask()
    (turn,) = turns_of(task)
    assert (turn.name, turn.losses) == ("", task.losses)
    assert len(turn.parameters(task.model)) == 6


def test_gradients_of_a_step_add_up_in_one_record():
    first = Gradient(1.0, 0.5, 2.0, {"a": 1.0}).after(Gradient(0.0, 0.0, 0.0, {}), "discriminator")
    both = Gradient(3.0, 0.25, 4.0, {"b": 2.0}).after(first, "generator")
    assert (both.loss, both.penalty, both.norm) == (3.0, 0.75, 4.0)
    assert both.components["discriminator/grad_norm"] == 2.0
    assert {"a", "b", "generator/loss"} <= both.components.keys()


def test_attached_terms_are_called_in_every_turn():
    calls = []

    class Counting:
        def __init__(self):
            self.values = {}

        def __call__(self, **context):
            calls.append(context["generator"].initial_seed())
            return torch.zeros(())

    with attach(Game()) as penalty:
        penalty._terms["Counting"] = Counting()
        settings, task = toy.config(), GameTask()
        with open_stepper(task, settings, toy.accelerator(settings)) as stepper:
            stepper.penalty = penalty
            for turn in stepper.turns:
                stepper.gradient(0, task.dataset.__getitems__(range(8)), turn)
    assert len(calls) == 2

"""Trainings one after the other: each as if there were no other, whatever becomes of them."""

import math
from dataclasses import replace
from typing import ClassVar

from lab.outcome import no_progress, show_none
from lab.training import machine
from lab.training.adapt import manners
from lab.training.runs import MOVED_NOTHING, Training
from lab.training.train import train_in_turn

import pytest
import torch
from conftest import SMALL, SmallNet, small_data, textbook_training
from torch.nn.functional import l1_loss, mse_loss

TASK = replace(SMALL, epochs=3)
TRAININGS = [Training(seed, *small_data(seed)) for seed in (4, 5, 6)]


def adam(params):
    return torch.optim.Adam(params, lr=0.01)


def test_each_is_the_textbooks_training_bit_for_bit():
    runs = train_in_turn(TASK, TRAININGS, adam, no_progress)
    assert runs.steps_per_epoch == 4
    assert runs.lr == 0.01
    assert not runs.stacked
    x = torch.linspace(-1, 1, 9).unsqueeze(1)
    for k, training in enumerate(TRAININGS):
        losses, net = textbook_training(
            training.dataset, SmallNet, adam, mse_loss, training.seed, 3, 32
        )
        assert runs.history(k) == losses
        inputs, targets = training.dataset.tensors
        assert runs.final_losses[k].item() == mse_loss(net(inputs), targets).item()
        inputs, targets = training.held_out.tensors
        assert runs.held_out_losses[k].item() == mse_loss(net(inputs), targets).item()
        assert torch.equal(runs.predict(x, k), net(x))
    assert runs.note == ""
    assert runs.remarks == []


def test_a_rate_of_its_own_and_another_loss():
    task = replace(SMALL, loss=l1_loss, epochs=2, batch_size=50)
    trainings = [Training(4, *small_data(4), lr) for lr in (0.1, 0.3)]
    runs = train_in_turn(task, trainings, torch.optim.SGD, no_progress)
    for k, lr in enumerate((0.1, 0.3)):
        losses, _ = textbook_training(
            small_data(4)[0], SmallNet, lambda p, lr=lr: torch.optim.SGD(p, lr), l1_loss, 4, 2, 50
        )
        assert runs.history(k) == losses
    assert runs.lr == 0.1


class NoisySGD(torch.optim.SGD):
    """Draws random numbers of its own."""

    def step(self, closure=None):
        loss = super().step(closure)
        for group in self.param_groups:
            for param in group["params"]:
                with torch.no_grad():
                    param += 0.01 * torch.randn_like(param)
        return loss


def test_an_optimizer_that_draws_random_numbers_draws_what_it_does_alone():
    def noisy(params):
        return NoisySGD(params, lr=0.1)

    together = train_in_turn(TASK, TRAININGS, noisy, no_progress)
    for k, training in enumerate(TRAININGS):
        alone = train_in_turn(TASK, [training], noisy, no_progress)
        assert together.history(k) == alone.history(0)


def test_a_run_that_diverges_ends_there_and_leaves_the_others_alone():
    runs = train_in_turn(
        TASK,
        [Training(4, *small_data(4), 1e12), Training(4, *small_data(4), 0.1)],
        lambda params: torch.optim.SGD(params, momentum=0.9),
        no_progress,
    )
    wild, tame = runs.history(0), runs.history(1)
    assert not math.isfinite(wild[-1])
    assert all(map(math.isfinite, [*wild[:-1], *tame]))
    assert len(wild) < len(tame) == 12
    assert runs.diverged_at() == [len(wild)]
    assert runs.note == f"1 of 2 diverged, from step {len(wild)} on"
    assert runs.final_losses[0] == math.inf


class FailsAt(torch.optim.SGD):
    """Raises `error` at step `at` of every training."""

    at, error = 6, RuntimeError("no\nmore")

    def step(self, closure=None):
        self.count = getattr(self, "count", 0) + 1
        if self.count == self.at:
            raise self.error
        return super().step(closure)


def test_an_optimizer_that_fails_leaves_what_it_did():
    runs = train_in_turn(TASK, TRAININGS[:1], FailsAt, no_progress)
    whole = train_in_turn(TASK, TRAININGS[:1], torch.optim.SGD, no_progress)
    assert runs.history(0) == whole.history(0)[:5]
    assert runs.error is FailsAt.error
    assert runs.note == "failed at step 6: RuntimeError: no more"
    assert 0 < runs.final_losses[0] < math.inf


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError])
def test_of_many_what_is_complete_is_kept(kind, monkeypatch):
    starts = []

    class FailsInTheThird(FailsAt):
        error = kind("x")

        def __init__(self, params):
            super().__init__(params, lr=0.1)
            starts.append(self)
            self.at = 6 if len(starts) == 3 else None

    monkeypatch.setitem(manners, FailsInTheThird, "closure")  # or a trial would count as a start
    runs = train_in_turn(TASK, TRAININGS, FailsInTheThird, no_progress)
    assert runs.trainings == TRAININGS[:2]
    assert runs.losses.shape == (12, 2)
    assert runs.losses.isfinite().all()
    assert len(runs.final_losses) == 2
    assert "at step 6 of seed 6" in runs.note
    assert runs.note.startswith("interrupted" if kind is KeyboardInterrupt else "failed")


class OutOfPlace(torch.optim.SGD):
    """The commonest mistake: `param = param - ...`, which makes a new tensor and drops it."""

    @torch.no_grad()
    def step(self, closure=None):
        with torch.enable_grad():
            loss = closure()
        for group in self.param_groups:
            for param in group["params"]:
                param = param - group["lr"] * param.grad
        return loss


def test_a_step_that_moves_nothing_is_told():
    runs = train_in_turn(TASK, TRAININGS[:1], OutOfPlace, no_progress)
    assert runs.remarks == [MOVED_NOTHING]


class LooksAtThreads(torch.optim.SGD):
    seen: ClassVar[list[int]] = []

    def step(self, closure=None):
        self.seen.append(torch.get_num_threads())
        return super().step(closure)


@pytest.mark.parametrize("n_trainings", [1, 2])
@pytest.mark.parametrize(("worth", "n_threads"), [(None, 1), (0, 2)])
def test_threads_go_by_the_work(n_trainings, worth, n_threads, two_threads, monkeypatch):
    monkeypatch.setitem(manners, LooksAtThreads, "closure")
    monkeypatch.setattr(LooksAtThreads, "seen", [])
    if worth is not None:
        monkeypatch.setattr(machine, "WORK_WORTH_SHARING", worth)
    train_in_turn(TASK, TRAININGS[:n_trainings], LooksAtThreads, no_progress)
    assert set(LooksAtThreads.seen) == {n_threads}
    assert torch.get_num_threads() == 2


def test_what_nets_have_learned_is_held_once():
    runs = train_in_turn(TASK, TRAININGS, adam, no_progress)
    for k, net in enumerate(runs.nets):
        for name, param in net.named_parameters():
            assert param.grad is None
            assert param.requires_grad
            assert param.data_ptr() == runs.weights[name][k].data_ptr()


def test_progress_counts_steps_of_one_and_nets_of_many():
    seen = []

    def progress(items, total, unit):
        for item in items:
            seen.append(total)
            yield item

    train_in_turn(TASK, TRAININGS[:1], adam, progress)
    assert seen == [12] * 12
    seen.clear()
    train_in_turn(TASK, TRAININGS, adam, progress)
    assert seen == [3] * 3
    assert list(show_none("Adam")(range(3), 3)) == [0, 1, 2]

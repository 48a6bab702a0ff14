"""The proof that a stack trains as each of its nets would alone: what it finds out, and when."""

from dataclasses import replace

from lab.command_line.specs import parse_optimizer
from lab.outcome import no_progress
from lab.training import proof, stack
from lab.training.proof import Shadow, Unlike
from lab.training.runs import trainings_of
from lab.training.train import train_all, train_in_turn

import pytest
import torch
from conftest import SMALL, SmallNet, assert_like_alone, small_trainings
from torch.nn.functional import smooth_l1_loss

import training as training_module


class Adversary(torch.optim.SGD):
    """SGD that in some way makes more of a step than each element's own gradient."""

    def __init__(self, params, lr=0.02):
        super().__init__(params, lr=lr)
        self.count = 0

    @torch.no_grad()
    def step(self, closure=None):
        with torch.enable_grad():
            loss = closure()
        self.count += 1
        self.change()
        super().step()
        return loss

    def params(self):
        return [param for group in self.param_groups for param in group["params"]]

    def shrink(self, factor=0.9):
        for param in self.params():
            param.grad /= factor + param.grad.norm()


class FromStepFour(Adversary):
    def change(self):
        if self.count >= 4:
            self.shrink()


class FromStepHundred(Adversary):
    def change(self):
        if self.count >= 100:
            self.shrink()


class EveryFifthStep(Adversary):
    def change(self):
        if self.count % 5 == 0:
            self.shrink()


class AboveANorm(Adversary):
    """Clips what is above a norm that only the highest rate reaches."""

    def change(self):
        torch.nn.utils.clip_grad_norm_(self.params(), 20.0)


class AcrossGroups(Adversary):
    def change(self):
        norm = sum(param.grad.norm() for param in self.params())
        for param in self.params():
            param.grad *= 1 + 0.01 * norm


class ByShape(Adversary):
    def change(self):
        for param in self.params():
            if param.ndim > 1:
                param.grad *= 1.01


class ByNumberOfParameters(Adversary):
    def change(self):
        for param in self.params():
            param.grad *= 1 + 1 / param.numel()


class DistanceFromTheStart(Adversary):
    def change(self):
        if not hasattr(self, "start"):
            self.start = [param.clone() for param in self.params()]
        for param, start in zip(self.params(), self.start, strict=True):
            param.grad *= 1 + 0.01 * (param - start).norm()


class OutsideItsState(Adversary):
    """Keeps an average of all gradients where no state_dict sees it."""

    def change(self):
        for param in self.params():
            self.mean = 0.9 * getattr(self, "mean", 0) + 0.1 * param.grad.mean()
            param.grad += self.mean


class RandomDraws(Adversary):
    def change(self):
        for param in self.params():
            param.grad += 0.1 * torch.randn_like(param)


class NewData(Adversary):
    """Puts new tensors into the parameters, as `param.data = ...` does."""

    def change(self):
        for param in self.params():
            param.data = param.data * 0.999


class TwoCalls(Adversary):
    """Evaluates the loss a second time further along, as sharpness-aware methods do."""

    @torch.no_grad()
    def step(self, closure=None):
        with torch.enable_grad():
            loss = closure()
        moves = [0.05 * param.grad / param.grad.norm() for param in self.params()]
        for param, move in zip(self.params(), moves, strict=True):
            param += move
        with torch.enable_grad():
            closure()
        for param, move in zip(self.params(), moves, strict=True):
            param -= move
        torch.optim.SGD.step(self)
        return loss


class MovesBeforeItLooks(Adversary):
    @torch.no_grad()
    def step(self, closure=None):
        for param in self.params():
            param *= 1 - 1e-3 * param.norm()
        with torch.enable_grad():
            loss = closure()
        for param in self.params():
            param /= 1 - 1e-3 * param.norm()
        return loss


class AnotherLoss(Adversary):
    """Reports twice the loss."""

    def step(self, closure=None):
        return 2 * super().step(closure)

    def change(self):
        pass


ADVERSARIES = [
    FromStepFour, FromStepHundred, EveryFifthStep, AboveANorm, AcrossGroups, ByShape,
    ByNumberOfParameters, DistanceFromTheStart, OutsideItsState, RandomDraws, NewData, TwoCalls,
    MovesBeforeItLooks, AnotherLoss,
]  # fmt: skip


RATES = 0.01, 0.02, 0.7


@pytest.mark.parametrize(
    ("adversary", "lrs"),
    [(each, RATES) for each in ADVERSARIES]
    + [(each, (None,)) for each in ADVERSARIES if each is not AboveANorm],
)
def test_an_optimizer_that_couples_elements_is_found_out(adversary, lrs):
    task = replace(SMALL, epochs=40)
    every = small_trainings(lrs, seeds=(3, 4))
    runs = train_all(task, every, adversary)
    assert not runs.stacked
    alone = train_in_turn(task, every[:1], adversary, no_progress)
    assert runs.history(0) == alone.history(0)


@pytest.mark.slow
def test_element_wise_optimizers_stay_stacked_over_a_thousand_epochs():
    task = replace(SMALL, epochs=1000, batch_size=50)
    for spec in ("RMSprop(alpha=0.9)", "Adam(betas=(0.9, 0.99))"):
        runs = train_all(task, small_trainings(seeds=(3, 4)), parse_optimizer(spec, lr=0.01))
        assert runs.stacked


def test_a_training_loop_with_another_loss_is_found_out(monkeypatch):
    def train(net, optimizer, loader, loss_function, epochs):
        return training_module.train(net, optimizer, loader, smooth_l1_loss, epochs)

    monkeypatch.setattr(proof, "train", train)
    assert not train_all(SMALL, small_trainings(), torch.optim.Adam).stacked


def test_a_final_loss_that_is_not_the_nets_own_is_found_out(monkeypatch):
    monkeypatch.setattr(proof, "loss_over", lambda task, net, dataset: 1.01)
    assert not train_all(SMALL, small_trainings(), torch.optim.Adam).stacked


@pytest.mark.parametrize(
    ("wrong", "by", "is_found"),
    [
        ("weights", 1e-4, True),
        ("losses", 2e-4, True),
        ("losses", 2e-5, False),  # to rounding
        ("grads", 2e-3, True),
        ("grads", 3e-4, False),
    ],
)
def test_a_stack_that_computes_something_else_is_found_out(wrong, by, is_found, monkeypatch):
    backward = stack.Stack.backward

    def changed(stack, samples):
        losses, grads = backward(stack, samples)
        if wrong == "weights":
            with torch.no_grad():
                stack.matrix *= 1 + by
        if wrong == "losses":
            losses = losses * (1 + by)
        if wrong == "grads":
            grads *= 1 + by
        return losses, grads

    monkeypatch.setattr(stack.Stack, "backward", changed)
    assert train_all(SMALL, small_trainings(), torch.optim.SGD).stacked != is_found


# ---------------------------------------------------------------- shadows


def test_two_shadows_go_along_for_an_epoch_and_then_one():
    steps = []

    class Counts(torch.optim.SGD):
        def step(self, closure=None):
            steps.append(self)
            return super().step(closure)

    runs = train_all(SMALL, small_trainings((0.01, 0.02, 0.03)), Counts)
    assert runs.stacked
    # With the stack's own, in each of 6 epochs of 4 steps; one more step was a trial.
    assert sorted(map(steps.count, set(steps))) == [1, 4, 24, 24]


def test_where_the_middle_rate_diverges_another_shadow_goes_on():
    every = small_trainings((0.01, 1e25, 0.02))
    runs = train_all(SMALL, every, torch.optim.SGD)
    assert runs.stacked
    assert runs.final_losses[4:8].isinf().all()
    assert_like_alone(runs, SMALL, every[:4], torch.optim.SGD)


class DecaysMatrices(torch.optim.SGD):
    """Decays what is no bias: far too little for a loss or a gradient to show it."""

    def step(self, closure=None):
        loss = super().step(closure)
        with torch.no_grad():
            for group in self.param_groups:
                for param in group["params"]:
                    if param.ndim > 1:
                        param *= 1 - 1e-3 * group["lr"]
        return loss


@pytest.mark.parametrize("lrs", [(0.01, 1e25, 0.02), (0.01, 0.02, 1e25)])
def test_of_two_shadows_the_one_goes_on_that_does_not_diverge(lrs):
    assert not train_all(SMALL, small_trainings(lrs), DecaysMatrices).stacked


class DecaysMatricesLate(DecaysMatrices):
    """Does so from the second epoch on, in which one shadow is left."""

    def __init__(self, params, lr):
        super().__init__(params, lr)
        self.count = 0

    def step(self, closure=None):
        self.count += 1
        its_own = DecaysMatrices if self.count > 4 else torch.optim.SGD
        return its_own.step(self, closure)


@pytest.mark.parametrize("lrs", [(0.01, 1e25, 0.02), (0.01, 0.02, 1e25)])
def test_a_shadow_that_has_diverged_within_the_first_epoch_is_not_the_one_that_goes_on(lrs):
    assert not train_all(SMALL, small_trainings(lrs), DecaysMatricesLate).stacked


def test_weights_that_differ_after_the_first_step_are_found_before_the_second(monkeypatch):
    backward, steps = stack.Stack.backward, []

    def counted(stack, samples):
        steps.append(samples)
        return backward(stack, samples)

    monkeypatch.setattr(stack.Stack, "backward", counted)
    assert not train_all(SMALL, small_trainings(), DecaysMatrices).stacked
    assert len(steps) == 1


def test_the_loop_is_run_once_an_epoch_to_check(monkeypatch):
    checked = []

    def train(net, optimizer, loader, loss_function, epochs):
        checked.append(loader)
        return training_module.train(net, optimizer, loader, loss_function, epochs)

    monkeypatch.setattr(proof, "train", train)
    assert train_all(SMALL, small_trainings(), torch.optim.SGD).stacked
    assert len(checked) == 2 + 5  # by both shadows in the first epoch, then by one
    assert {len(x) for ((x, _),) in checked} == {32, 4}  # the smaller last mini-batch is one


# ---------------------------------------------------------------- a shadow by itself


class Shifted(SmallNet):
    """A net whose outputs go by a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("shift", torch.ones(1))

    def forward(self, x):
        return super().forward(x) + self.shift


SHIFTED = replace(SMALL, make_net=Shifted)


def shadow_of_one():
    """Return a shadow before its first step, and the stack of one net that it follows."""
    (one,) = trainings_of(SHIFTED, [3])
    shadow = Shadow(SHIFTED, one, 0, torch.optim.SGD)
    return shadow, stack.Stack(SHIFTED, [one])


def test_a_net_is_judged_with_the_buffers_that_the_stack_has_in_the_end():
    shadow, of_one = shadow_of_one()
    of_one.buffers["shift"] += 4.0
    shadow.first = torch.tensor(1.0), torch.ones(1)
    shadow.check_end(of_one, *of_one.evaluate_both())
    of_one.buffers["shift"] += 4.0
    losses = of_one.evaluate_both()
    of_one.buffers["shift"] -= 0.5
    with pytest.raises(Unlike, match="final loss"):
        shadow.check_end(of_one, *losses)


@pytest.mark.parametrize("share", [1.001, 1.5])
def test_a_buffer_that_differs_is_found_out(share):
    shadow, of_one = shadow_of_one()
    samples = torch.arange(32)
    shadow.record_start(of_one, samples)
    shadow.record_pass(of_one, *of_one.backward(samples), is_checked=True)
    shadow.check_gradient(shadow.step_to_check)
    shadow.step_to_check.buffers["shift"] *= share
    with pytest.raises(Unlike, match="its shift differs"):
        shadow.check_gradient(shadow.step_to_check)


def test_a_net_that_diverges_in_the_stack_alone_is_looked_at_no_more():
    shadow, of_one = shadow_of_one()
    shadow.loss = torch.tensor(1.0)
    shadow.look(of_one)
    assert shadow.is_alive
    of_one.matrix.fill_(torch.inf)
    shadow.look(of_one)
    assert not shadow.is_alive

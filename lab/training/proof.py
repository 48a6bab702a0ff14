"""The proof, while a stack trains, that each of its nets trains as it would alone."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from lab.training.adapt import MakeOptimizer, set_mode
from lab.training.evaluation import loss_over
from lab.training.parts import rules_of
from lab.training.runs import Training
from lab.training.schedules import Schedule, schedulers_of

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.optim import SGD, Optimizer

from tasks import Task
from training import train

if TYPE_CHECKING:
    from lab.training.stack import Stack


class Unlike(Exception):  # noqa: N818 (a finding, not an error)
    """A stack does not train as each of its nets would alone."""


# How far two ways to compute the same step may part, as a share of the way that weights have gone.
EXACT = 1e-5  # in float32
ROUGH = 0.03  # in bfloat16, which has 8 bits


class StepOfStack(NamedTuple):
    """What a stack did with one of its nets at one step."""

    batch: tuple[Tensor, ...]
    buffers_before: dict[str, Tensor]
    weights: Tensor  # (parameters,), before the step
    loss: Tensor
    buffers: dict[str, Tensor]  # after the forward pass


class Shadow:
    """The k-th net of a stack once more: trained apart, on the gradients that the stack has for it.

    It has an optimizer of its own, and separate parameters in the net's own shapes. As it is given
    the stack's gradients, no chaos can come between the two: their weights stay the same, to
    rounding, if the optimizer treats every element for itself, and part for good if it does not.
    So it is enough to look after the first step and each epoch, and around one step of an epoch:
    there losses, gradients and buffers, too, are held against what the training loop gives.
    """

    def __init__(self, task: Task, training: Training, k: int, make_optimizer: MakeOptimizer):
        self.k, self.task, self.training = k, task, training
        self.net = training.make_net(task)
        self.params = list(self.net.parameters())
        self.optimizer = training.make_optimizer(make_optimizer, self.net)
        set_mode(self.optimizer, "train")
        steps_per_epoch = math.ceil(len(self.training.dataset) / task.batch_size)
        self.schedule = Schedule(schedulers_of(make_optimizer), self.optimizer, steps_per_epoch)
        self.first_weights = parameters_to_vector(self.params).detach()
        rough = roughly_moved(self.optimizer)
        masks = [torch.full_like(p, p in rough, dtype=torch.bool).flatten() for p in self.params]
        is_rough = torch.cat(masks)
        self.parts = [(EXACT, ~is_rough), (ROUGH, is_rough)] if rough else [(EXACT, slice(None))]
        self.grad = torch.empty_like(self.first_weights)
        parts = self.grad.split([param.numel() for param in self.params])
        self.grads = [part.view_as(p) for part, p in zip(parts, self.params, strict=True)]
        self.first: tuple[Tensor, Tensor] | None = None  # loss and gradient: what is large here
        self.step_to_check: StepOfStack | None = None
        self.is_alive = True  # until it diverges

    def record_start(self, stack: "Stack", samples: Tensor) -> None:
        """Take down what the stack starts a step from that is to be checked."""
        self.batch = stack.batch_of(self.k, samples)
        self.buffers_before = stack.buffers_of(self.k)

    def record_pass(self, stack: "Stack", losses: Tensor, grads: Tensor, is_checked: bool) -> None:
        """Take down what the stack has computed when its closure was called."""
        self.grad.copy_(grads[self.k])
        self.loss, self.step_to_check = losses[self.k], None
        if is_checked:
            weights, loss = stack.matrix[self.k].clone(), self.loss.clone()
            self.step_to_check = StepOfStack(
                self.batch, self.buffers_before, weights, loss, stack.buffers_of(self.k)
            )
            self.is_alive = self.is_alive and bool(loss.isfinite() & self.grad.isfinite().all())
            self.first = self.first or (loss, self.grad.clone())

    def step(self) -> None:
        """Take the step that the stack has taken; raise Unlike if it was not the net's own."""
        calls = 0

        def closure() -> Tensor:
            nonlocal calls
            calls += 1
            if self.step_to_check:
                self.check_weights(self.step_to_check.weights)
                self.check_gradient(self.step_to_check)
            for param, grad in zip(self.params, self.grads, strict=True):
                param.grad = grad
            return self.grad

        if not self.is_alive:
            return
        step: Callable[..., object] = self.optimizer.step
        returned = step(closure)
        if returned is not self.grad or calls != 1:
            raise Unlike("alone, a step calls its closure otherwise")
        self.schedule.step(self.loss)

    @torch.enable_grad()
    def check_gradient(self, taken: "StepOfStack") -> None:
        """Raise Unlike if the training loop has another loss or gradient than the stack."""
        assert self.first is not None
        first_loss, first_grad = self.first
        inert = SGD(self.params, lr=0.0)
        self.net.load_state_dict(taken.buffers_before, strict=False)
        (loss,) = train(self.net, inert, [taken.batch], self.task.loss, epochs=1)
        grad = torch.cat([param.grad.flatten() for param in self.params if param.grad is not None])
        if abs(loss - taken.loss) > 1e-4 * abs(taken.loss) + 1e-6 * abs(first_loss):
            raise Unlike("its loss differs")
        if (grad - self.grad).norm() > 1e-3 * self.grad.norm() + 1e-5 * first_grad.norm():
            raise Unlike("its gradient differs")
        for name, buffer in self.net.named_buffers():
            if not torch.allclose(buffer, taken.buffers[name], rtol=1e-4, atol=1e-6):
                raise Unlike(f"its {name} differs")

    def look(self, stack: "Stack") -> None:
        """Raise Unlike if the net has other weights after a step; find out whether it diverged."""
        weights = stack.matrix[self.k]
        self.is_alive = self.is_alive and bool(self.loss.isfinite() & weights.isfinite().all())
        if self.is_alive:
            self.check_weights(weights)

    def check_weights(self, weights: Tensor) -> None:
        """Raise Unlike if these weights are not the shadow's, to rounding.

        Those that are moved roughly go on from the stack's.
        """
        all_of_mine = parameters_to_vector(self.params).detach()
        for rounding, some in self.parts:
            mine, first = all_of_mine[some], self.first_weights[some]
            bound = rounding * (mine - first).norm() + 1e-7 * mine.norm()
            if (mine - weights[some]).norm() > bound:
                raise Unlike("its weights differ")
            if rounding is ROUGH:
                all_of_mine[some] = weights[some]
                vector_to_parameters(all_of_mine, self.params)

    def check_end(self, stack: "Stack", final_losses: Tensor, held_out_losses: Tensor) -> None:
        """Raise Unlike if the net ended elsewhere, or at other losses over its two data sets."""
        if not self.is_alive or self.first is None or not final_losses[self.k].isfinite():
            return
        self.check_weights(stack.matrix[self.k])
        self.net.load_state_dict(stack.buffers_of(self.k), strict=False)
        ends = {self.training.dataset: final_losses, self.training.held_out: held_out_losses}
        for dataset, losses in ends.items():
            loss = loss_over(self.task, self.net, dataset)
            if abs(loss - losses[self.k]) > 1e-3 * abs(loss) + 1e-6 * abs(self.first[0]):
                raise Unlike("its final loss differs")


def roughly_moved(optimizer: Optimizer) -> set[Tensor]:
    """Return the parameters whose rule lets rounding errors grow."""
    rules = [rule for rule in rules_of(optimizer) if not rule.is_exact]
    return {p for rule in rules for group in rule.param_groups for p in group["params"]}

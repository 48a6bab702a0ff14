"""The loss of a guess that is the same for every sample: what a net has to be better than."""

import math

from lab.outcome import as_exceptions
from lab.training.datasets import holds_tensors
from lab.training.runs import Training

import torch
from torch import Tensor
from torch.optim import LBFGS

from tasks import Task
from training import evaluating

MAX_NUMBERS = 30_000  # of outputs to choose the guess by: so few are quick, and enough


def constant_guess(task: Task, training: Training) -> float | None:
    """Return the held-out loss of the best constant outputs, chosen on the training set.

    None where data or outputs are no tensors, or the loss does not take constant ones.
    """
    if not all(holds_tensors(task, dataset) for dataset in (training.dataset, training.held_out)):
        return None
    try:
        with as_exceptions():
            return loss_of_guess(task, training)
    except Exception:  # a loss of the user's own may want more than a tensor
        return None


def loss_of_guess(task: Task, training: Training) -> float | None:
    x, y = training.dataset.tensors
    with torch.no_grad(), evaluating(training.make_net(task)) as net:
        outputs = net(x[:2])
    if not isinstance(outputs, Tensor) or not outputs.is_floating_point():
        return None
    guess = torch.zeros_like(outputs[0], requires_grad=True)
    y = y[: max(1, MAX_NUMBERS // max(1, guess.numel()))]
    optimizer = LBFGS([guess], max_iter=20, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = task.loss(guess.expand(len(y), *guess.shape), y)
        loss.backward()
        return loss

    optimizer.step(closure)
    targets = training.held_out.tensors[1]
    loss = task.loss(guess.detach().expand(len(targets), *guess.shape), targets).item()
    return loss if math.isfinite(loss) else None

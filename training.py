"""The training loop, and what is read off it."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset


def train(
    net: nn.Module,
    optimizer: Optimizer,
    loader: DataLoader,
    epochs: int,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> list[float]:
    """Train `net` on mean squared error; return the mini-batch loss before each step.

    Every step is an `optimizer.step(closure)`, so that an optimizer which evaluates the loss more
    than once a step (LBFGS) works like the rest. Training stops at the first loss that is not
    finite, and that loss is the last in the list. `progress` may wrap the epochs (tqdm fits).
    """

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = mse_loss(net(x), y)
        loss.backward()
        return loss

    losses = []
    for _ in progress(range(epochs)):
        for x, y in loader:  # noqa: B007 (the closure reads them)
            losses.append(optimizer.step(closure).item())
            if not math.isfinite(losses[-1]):
                return losses
    return losses


def descend(
    formula: Callable[[Tensor], Tensor],
    start: tuple[float, float],
    make_optimizer: Callable[..., Optimizer],
    noise: Tensor,
    lrs: list[float] | None = None,
) -> Tensor:
    """Descend a surface from `start` by its gradient plus one row of `noise` a step.

    `formula` maps points (n, 2) to values (n,), and `noise` (steps, 2) may be zeros. With `lrs`,
    all n rates descend at once, each a param group whose one parameter is a row of the points;
    without, n is 1 and the optimizer's own rate is used. Returns the path (steps + 1, n, 2) in
    float64. It ends early, with the step that was not finite, when no point is finite any more.
    """
    groups = [{}] if lrs is None else [{"lr": lr} for lr in lrs]
    points = torch.tensor([start] * len(groups), dtype=torch.float64)
    rows = points.unbind()
    optimizer = make_optimizer(
        [{"params": [row]} | group for row, group in zip(rows, groups, strict=True)]
    )

    def closure() -> Tensor:
        leaf = points.clone().requires_grad_()
        loss = formula(leaf).sum()
        for row, grad in zip(rows, *torch.autograd.grad(loss, leaf), strict=True):
            row.grad = grad + disturbance
        return loss.detach()

    path = [points.clone()]
    for disturbance in noise:  # noqa: B007 (the closure reads it)
        optimizer.step(closure)
        path.append(points.clone())
        if not points.isfinite().all(1).any():
            break
    return torch.stack(path)


@torch.no_grad()
def evaluate(net: nn.Module, dataset: TensorDataset) -> float:
    """Return the mean squared error of `net` over the whole dataset."""
    x, y = dataset.tensors
    return mse_loss(net(x), y).item()


def steps_to_target(losses: list[float], target: float, window: int) -> int | None:
    """Return the first step at which the mean of the last `window` losses is below `target`.

    Steps count from 1. None if that never happens.
    """
    if len(losses) < window:
        return None
    means = torch.tensor(losses, dtype=torch.float64).unfold(0, window, 1).mean(1)
    below = (means < target).nonzero()
    return int(below[0]) + window if len(below) else None

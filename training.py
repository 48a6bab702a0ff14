"""The training loop: zero_grad, backward, step."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import TensorDataset


def train(
    net: nn.Module,
    optimizer: Optimizer,
    loader: Iterable[tuple[Tensor, ...]],
    loss_function: Callable[[Tensor, Tensor], Tensor],
    epochs: int,
) -> Iterator[float]:
    """Train `net`, a step at a time; yield each step's mini-batch loss, from before it.

    All is trained once all losses have been taken: `losses = list(train(...))`. Every step is an
    `optimizer.step(closure)`, so that an optimizer which needs the loss more than once a step
    (LBFGS) works like the rest. Training ends with the first loss that is not finite.
    """
    for _ in range(epochs):
        for x, y in loader:

            def closure():
                optimizer.zero_grad()
                loss = loss_function(net(x), y)
                loss.backward()
                return loss

            returned: Any = optimizer.step(closure)
            loss = returned.item()
            yield loss
            if not math.isfinite(loss):
                return


@torch.no_grad()
def evaluate(
    net: nn.Module, dataset: TensorDataset, loss_function: Callable[[Tensor, Tensor], Tensor]
) -> float:
    """Return the loss of `net` over the whole dataset, without dropout and the like."""
    x, y = dataset.tensors
    with evaluating(net):
        return loss_function(net(x), y).item()


@contextmanager
def evaluating(net: nn.Module) -> Iterator[nn.Module]:
    """Yield the net in `eval` mode; afterwards each of its parts is in the mode that it was in."""
    in_training = [module for module in net.modules() if module.training]
    net.eval()
    yield net
    for module in in_training:
        module.training = True

"""The loss, or another number, over a whole data set: in parts where it would fill the memory."""

from collections.abc import Callable
from typing import Any

from lab.training.datasets import CannotJoin, first, holds_tensors, joined, parts_of

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tasks import Task
from training import evaluate, evaluating

# In a part, the largest tensor on the way through the net has so many bytes; a few are there at a
# time. It is a number, and not what is free by now, so that the same command gives the same bytes.
PART_BYTES = 2**27
FEW_SAMPLES = 1000  # so many are a part in any case


def loss_over(task: Task, net: nn.Module, dataset: Any) -> float:
    """Return the loss of a net over the whole data set, in `eval` mode."""
    if holds_tensors(task, dataset) and part_size(task, net, dataset) >= len(dataset):
        return evaluate(net, dataset, task.loss)
    return value_over(task, net, dataset, lambda outputs, y: task.loss(outputs, y).item())


@torch.no_grad()
def value_over(
    task: Task, net: nn.Module, dataset: Any, value: Callable[[Any, Any], float]
) -> float:
    """Return `value(outputs, targets)` of all samples, in `eval` mode.

    The outputs of parts are joined first, so that it is the same in parts, to rounding, whatever
    `value` is. Where they cannot be joined, as those of sequences of other lengths, it is the mean
    over the samples of what it is for their mini-batches.
    """
    sizes, outputs, targets = [], [], []
    with evaluating(net):
        for n, x, y in parts_of(task, dataset, part_size(task, net, dataset)):
            sizes.append(n)
            outputs.append(net(x))
            targets.append(y)
    try:
        together = joined(outputs, sizes), joined(targets, sizes)
    except CannotJoin:
        values = map(value, outputs, targets)
        return sum(n * one for n, one in zip(sizes, values, strict=True)) / sum(sizes)
    return value(*together)


def part_size(task: Task, net: nn.Module, dataset: Any) -> int:
    """Return how many samples of a data set may pass the net at once."""
    n_samples = len(dataset)
    if n_samples <= FEW_SAMPLES or not holds_tensors(task, dataset):
        return max(1, n_samples)
    x, _ = first(task, dataset, task.batch_size)
    with evaluating(net):
        return max(1, int(PART_BYTES / max(1.0, bytes_per_sample(net, x))))


@torch.no_grad()
def bytes_per_sample(net: nn.Module, x: Tensor) -> float:
    """Return the size of the largest tensor on the way of x (samples, ...), for each sample.

    It is nothing where torch cannot tell.
    """
    try:
        with Largest() as largest:
            net(x)
    except Exception:  # what is wrong with it will show when it is evaluated
        return 0
    return largest.n_bytes / len(x)


class Largest(TorchDispatchMode):
    """Look at each operation's results for the largest of them."""

    n_bytes = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        results = function(*args, **(kwargs or {}))
        for result in tree_leaves(results):
            if isinstance(result, Tensor):
                self.n_bytes = max(self.n_bytes, result.nbytes)
        return results

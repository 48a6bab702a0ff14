"""Which way is the quicker one: one stack of all nets, stacks of so many, or one by one.

By a count and not by a clock, so that the same command always gives the same numbers.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from lab.training.datasets import device_of, first, holds_tensors
from lab.training.plain_loop import loop_is_plain
from lab.training.runs import Training

import torch
from torch import nn

from tasks import Task

# Time of training each in turn over that of the stack, one thread, Adam; above 1 the stack wins.
#
#   net, mini-batches       parameters   work   4 nets   8    16    50   200   400
#   16-32-10, of 64                874   0.3 M     1.3  2.4   3.8   6.8          7.4
#   64-64-10, of 64              4,810   1.8 M     1.3  2.1   2.9   4.1   4.9   5.7
#   64-128-10, of 64             9,610   3.6 M     1.2  1.9   2.5   3.0
#   784-64-10, of 8             50,890   6.7 M          1.3   1.5   1.9   0.8
#   784-32-10, of 64            25,450   9.1 M     1.0  1.3   1.5   1.7   1.8   1.0
#   64-64-10, of 512             4,810    11 M          1.5         1.6
#   784-64-10, of 64            50,890    18 M     1.0  1.2   1.2   0.8-1.3
#   784-256-10, of 8           203,530    27 M          0.6         0.3
#   two convolutions, of 64      5,258    68 M     0.9  0.9   0.9   0.6
#   784-256-10, of 64          203,530    73 M     0.8  0.7   0.8   0.4
#
# What a step costs beside its work, some 0.3 ms, is what a stack saves. Where the work is large,
# one net's numbers stay in the processor's cache, and those of many do not. Two or three nets do
# not pay for the shadows that prove a stack, and one of more than five million parameters has
# tensors of so many megabytes that the C library gives them back and takes them again.
PARAMETER = 100  # an optimizer's step moves a parameter in the time of so many operations
MAX_WORK = 15e6
MIN_NETS = 4
MAX_PARAMETERS = 5_000_000


def why_in_turn(task: Task, training: Training) -> str:
    """Return why such nets cannot be a stack, if that is known before."""
    if not holds_tensors(task, training.dataset):
        return "its data sets are no TensorDatasets, or have a collate_fn"
    if not loop_is_plain():
        return "the loop of training.py is not the one that a stack has"
    net = trial_of(task, training)
    if any(param.grad is None for param in net.parameters()):
        return "some of its parameters get no gradient"
    return ""


def trial_of(task: Task, training: Training) -> nn.Module:
    """Return a net that has taken a mini-batch there and back."""
    net = training.make_net(task)
    net.train()
    x, y = first(task, training.dataset, task.batch_size)
    task.loss(net(x), y).backward()
    return net


def work_of(task: Task, training: Training) -> float:
    """Count what a step costs: additions and multiplications in matrices, and the parameters.

    It is nothing where it cannot be counted.
    """
    from torch.utils.flop_counter import FlopCounterMode

    mapping = {torch.ops.aten.mkldnn_rnn_layer: operations_of_lstm}
    try:
        with FlopCounterMode(display=False, custom_mapping=mapping) as operations:
            net = trial_of(task, training)
    except Exception:  # what is wrong with it will show when it trains
        return 0
    return operations.get_total_flops() + PARAMETER * n_parameters_of(net)


def operations_of_lstm(
    x: torch.Size, weight: torch.Size, recurrent: torch.Size, *_: object, **__: object
) -> int:
    """Count those of a layer there and back, which torch has as one operation of its own."""
    return 6 * x[:2].numel() * (weight.numel() + recurrent.numel())


def n_parameters_of(net: nn.Module) -> int:
    return sum(param.numel() for param in net.parameters())


def is_stack_quicker(task: Task, trainings: Sequence[Training]) -> bool:
    """Tell whether a stack of these nets, or stacks of so many, take less time than one by one."""
    if len(trainings) < MIN_NETS:
        return False
    on_cpu = device_of(trainings[0].dataset).type == "cpu"
    # Elsewhere an operation takes as long for one small net as for many.
    return not on_cpu or work_of(task, trainings[0]) <= MAX_WORK


def stacks_of(task: Task, trainings: Sequence[Training]) -> list[Sequence[Training]]:
    """Return the trainings in as few parts as are quick, each to be a stack, of like size."""
    limit = max(MIN_NETS, MAX_PARAMETERS // max(1, n_parameters_of(task.make_net())))
    n_parts = math.ceil(len(trainings) / limit)
    ends = [len(trainings) * k // n_parts for k in range(n_parts + 1)]
    return [trainings[start:end] for start, end in pairwise(ends)]

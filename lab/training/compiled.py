"""A stack's forward and backward pass as compiled code, where that is worth it."""

import logging
import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, TypeAlias

from lab.training.runs import Training

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from tasks import Loss, Task

# Maps weights, buffers, data, seed_of and samples to losses and gradients: see Stack.
CompiledPass: TypeAlias = Callable[..., tuple[Tensor, Tensor]]

NOT_COMPILED = "not compiled, which would be faster"

# What small nets cost is many small operations, and the memory that each reads and writes. Out of
# them all torch.compile makes a few loops in C++. So the pass of 900 of the tutorial's nets takes a
# seventh of the time; larger nets gain less, some nothing. To compile takes 4 to 17 s, the longer
# the deeper the net, or 2 s where torch finds on the disk what an earlier process compiled.
#
# So many steps of single nets, for each parameter tensor of a net, repay that. It is a count, and
# not a clock, so that the same command always gives the same numbers.
WORTH_COMPILING = 750_000


given_up: list[tuple[object, Loss]] = []  # nets and losses that could not be compiled


def give_up(task: Task) -> None:
    """Compile no stack of such nets any more."""
    given_up.append((task.make_net, task.loss))


def is_worth_compiling(task: Task, trainings: Sequence[Training]) -> bool:
    """Tell whether compiling repays if all these train as one stack."""
    if any(task.make_net is net and task.loss is loss for net, loss in given_up):
        return False
    steps = task.epochs * math.ceil(len(trainings[0].dataset) / task.batch_size)
    n_tensors = len(list(task.make_net().parameters()))
    return len(trainings) * steps >= WORTH_COMPILING * n_tensors


@cache
def compiled_pass(make_net: Callable[[], nn.Module], loss: Loss) -> CompiledPass:
    """Return compiled code for the losses and gradients of a stack of such nets.

    It is the same function for all stacks of a process, so that it is compiled once.
    """
    net = make_net()
    shapes = {name: param.shape for name, param in net.named_parameters()}
    sizes = [shape.numel() for shape in shapes.values()]
    pass_of_each = vmap(grad_and_value(partial(loss_of_one, net, loss)))

    def compute(
        matrix: Tensor,
        buffers: dict[str, Tensor],
        data: tuple[Tensor, Tensor],
        seed_of: Tensor,
        samples: Tensor,
    ) -> tuple[Tensor, Tensor]:
        x, y = (tensor.index_select(1, samples).index_select(0, seed_of) for tensor in data)
        weights = {
            name: column.view(-1, *shape)
            for (name, shape), column in zip(shapes.items(), matrix.split(sizes, 1), strict=True)
        }
        grads, losses = pass_of_each(weights, buffers, x, y)
        return losses, torch.cat([grad.reshape(len(matrix), -1) for grad in grads.values()], 1)

    torch._logging.set_logs(all=logging.CRITICAL)  # what goes wrong is told in one line
    settings: dict[str, Any] = {
        "fullgraph": True,
        "recompile_limit": 4,  # for other numbers of nets, where one code does not do for all
        "isolate_recompiles": True,
        "options": {
            # Before each call, look at shapes only. The proof catches anything else that changes.
            "guard_filter_fn": torch.compiler.keep_tensor_guards_unsafe,
            # Compiling torch's headers apart, and programs that try out what the processor can do,
            # would double the time. It repays where there is more to compile.
            "cpp_cache_precompile_headers": False,
            "cpp.vec_isa_ok": True,
            # Otherwise a sum of one net is split across threads, and rounds differently.
            "cpp.enable_loop_tail_vec": False,
        },
    }
    return torch.compile(compute, **settings)


def loss_of_one(
    net: nn.Module,
    loss: Loss,
    weights: dict[str, Tensor],
    buffers: dict[str, Tensor],
    x: Tensor,
    y: Tensor,
) -> Tensor:
    """Return the loss that the net has with these weights and buffers."""
    return loss(functional_call(net, weights | buffers, (x,)), y)

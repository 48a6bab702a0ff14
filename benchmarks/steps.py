"""What a step costs, and what is remembered: `python -m benchmarks.steps` in the repository's root.

It prints, for each optimizer of `--optimizers today` as optimizers/ has it, the time of a step
beside Adam's, in alternation, and the memory of its state as a multiple of the parameters'.
"""

import statistics
from functools import partial

from lab.command_line.specs import parse_optimizers, texts_of
from lab.training.adapt import make_for

import torch
from torch import Tensor
from torch.optim import Optimizer

from benchmarks.speed import seconds
from models import mlp
from settings import TODAY

SIZES = 64, 256, 256, 10
STEPS = 100  # at a time
TIMES = 7


def in_our_words(call: str) -> str:
    """Return the call with the classes of optimizers/ in place of torch's."""
    parts = (part.strip() for part in call.split("|"))
    return " | ".join(p if p.startswith("optimizers.") else f"optimizers.{p}" for p in parts)


def take_steps(optimizer: Optimizer) -> None:
    for _ in range(STEPS):
        optimizer.step()


def memory_of(optimizer: Optimizer) -> float:
    """Return the bytes of its state over those of its parameters."""

    def n_bytes(tensors: list[Tensor]) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    kept = [value for state in optimizer.state.values() for value in state.values()]
    params = [param for group in optimizer.param_groups for param in group["params"]]
    return n_bytes([value for value in kept if isinstance(value, Tensor)]) / n_bytes(params)


def main() -> None:
    torch.set_num_threads(1)
    calls = {label: in_our_words(call) for label, call in TODAY.items()}
    optimizers = {}
    for label, make_optimizer in parse_optimizers(texts_of(calls), lr=1e-3).items():
        torch.manual_seed(0)
        net = mlp(*SIZES)
        for param in net.parameters():
            param.grad = 1e-3 * torch.randn_like(param)
        optimizers[label] = make_for(make_optimizer, net)
        take_steps(optimizers[label])  # the first times are slower, and not timed
    for label, optimizer in optimizers.items():
        ratios = []
        for _ in range(TIMES):
            adam = seconds(partial(take_steps, optimizers["Adam"]))
            ratios.append(seconds(partial(take_steps, optimizer)) / adam)
        ratio = statistics.median(ratios)
        print(f"{label}: {ratio:.2f} times Adam's step, state {memory_of(optimizer):.2f} times θ")


if __name__ == "__main__":
    main()

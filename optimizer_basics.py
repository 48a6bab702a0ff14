"""What does a torch Optimizer do? A tour of its methods in seven steps.

Each step is one function: read it next to what it prints. All numbers printed are computed while
it runs.
"""

import argparse
import copy
import importlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from lab.output.main import run_main

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.optim import Optimizer
from torch.optim.lr_scheduler import StepLR

from data import make_loader, parabola
from models import Net
from settings import SEED
from training import evaluate, train

LR = 0.05
EPOCHS = 4
BATCH_SIZE = 32

dataset, _ = parabola(SEED)

EXAMPLES = """\
  python optimizer_basics.py
  python optimizer_basics.py --optimizers-from optimizers"""


def new_net() -> Net:
    """Return the net that every step starts from, with the same weights each time."""
    torch.manual_seed(SEED)
    return Net()


def param_groups(optim: ModuleType) -> list[dict[str, float]]:
    """Param groups: parameters that share their hyperparameters

    A list of dicts in place of the parameters gives each group its own lr, momentum and weight
    decay. What a group does not name, it takes from the optimizer's other arguments.
    """
    net = new_net()
    optimizer = optim.SGD(
        [
            {"params": net.hidden.parameters(), "momentum": 0.9},
            {"params": net.predict.parameters(), "lr": 0.01, "weight_decay": 0.5},
        ],
        lr=LR,
    )
    biases = {"hidden": net.hidden.bias, "predict": net.predict.bias}
    starts = [bias[0].item() for bias in biases.values()]
    for param in net.parameters():
        param.grad = torch.ones_like(param)
    optimizer.step()
    optimizer.step()
    results = []
    for name, start, group in zip(biases, starts, optimizer.param_groups, strict=True):
        moved = biases[name][0].item() - start
        settings = {key: group[key] for key in ("lr", "momentum", "weight_decay")}
        print(f"{name}: {', '.join(f'{key}={value}' for key, value in settings.items())}")
        print(f"    two steps under a gradient of 1 moved its first bias by {moved:.5f}")
        results.append({"start": start, "moved": moved, **settings})
    return results


def zero_grad(optim: ModuleType) -> tuple[list[float | None], dict[bool, list[float]]]:
    """zero_grad(): backward() adds to the gradients, so they have to be cleared

    The gradient of w² at w = 3 is 6. A training that forgets zero_grad steps along the sum of all
    gradients so far. That is a momentum of 1: fast at first, but it never comes to rest.
    """
    w = nn.Parameter(torch.tensor(3.0))
    optimizer = optim.SGD([w], lr=LR)

    def gradient() -> float | None:
        return None if w.grad is None else w.grad.item()

    gradients = []
    for _ in range(2):
        (w**2).backward()
        gradients.append(gradient())
    optimizer.zero_grad()
    gradients.append(gradient())
    (w**2).backward()
    gradients.append(gradient())
    print(f"gradient after one backward(): {gradients[0]}, after a second: {gradients[1]}")
    print(f"after zero_grad(): {gradients[2]}, and after one more backward(): {gradients[3]}")

    losses: dict[bool, list[float]] = {True: [], False: []}
    for clears in losses:
        net = new_net()
        optimizer = optim.SGD(net.parameters(), lr=LR)
        loader = make_loader(dataset, BATCH_SIZE)
        for _ in range(4 * EPOCHS):
            for x, y in loader:
                if clears:
                    optimizer.zero_grad()
                mse_loss(net(x), y).backward()
                optimizer.step()
            losses[clears].append(evaluate(net, dataset, mse_loss))
    print(f"loss after every {EPOCHS} epochs")
    print(f"    with zero_grad():  {format_losses(losses[True][EPOCHS - 1 :: EPOCHS])}")
    print(f"    without it:        {format_losses(losses[False][EPOCHS - 1 :: EPOCHS])}")
    print(f"    at the end {losses[False][-1] / losses[True][-1]:.1f} times as large")
    return gradients, losses


def step(optim: ModuleType) -> dict[str, float]:
    """step(): the parameters move, by the optimizer's rule and by nothing else

    For plain SGD the rule is θ ← θ - lr·g, which one can compute by hand.
    """
    net = new_net()
    optimizer = optim.SGD(net.parameters(), lr=LR)
    x, y = dataset.tensors
    loss = mse_loss(net(x), y)
    loss.backward()
    bias = net.predict.bias
    assert bias.grad is not None  # backward() has just set it
    before, gradient = bias.item(), bias.grad.item()
    by_hand = before - LR * gradient
    optimizer.step()
    after = bias.item()
    loss_after = mse_loss(net(x), y).item()
    print(f"bias {before:.6f}, gradient {gradient:.6f}, lr {LR}")
    print(f"by hand {by_hand:.6f}, by step() {after:.6f}: differ by {abs(by_hand - after):.1e}")
    print(f"the loss went from {loss.item():.4f} to {loss_after:.4f}")
    return {
        "by_hand": by_hand,
        "after": after,
        "loss_before": loss.item(),
        "loss_after": loss_after,
    }


def closure(optim: ModuleType) -> tuple[dict[str, tuple[int, float]], str]:
    """step(closure): for an optimizer that needs the loss at more than one place

    The closure clears the gradients, computes the loss, calls backward() and returns the loss.
    SGD calls it once a step. LBFGS moves several times, and tries several points each time.
    """
    results = {
        "SGD": three_steps(optim.SGD, lr=LR),
        "LBFGS": three_steps(optim.LBFGS, line_search_fn="strong_wolfe"),
    }
    for name, (calls, loss) in results.items():
        print(f"{name}: 3 steps, {calls} calls of the closure, loss {loss:.4f}")
    message = ""
    try:
        optim.LBFGS(new_net().parameters()).step()
    except TypeError as error:
        message = str(error)
    print(f"LBFGS.step() without one: TypeError: {message}")
    return results, message


def three_steps(optimizer_class: Callable[..., Any], **settings: object) -> tuple[int, float]:
    """Take three steps with a closure; return how often it was called, and the loss at the end."""
    net, calls = new_net(), 0
    optimizer = optimizer_class(net.parameters(), **settings)
    x, y = dataset.tensors

    def closure() -> Tensor:
        nonlocal calls
        calls += 1
        optimizer.zero_grad()
        loss = mse_loss(net(x), y)
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    return calls, mse_loss(net(x), y).item()


def state_dict(optim: ModuleType) -> dict[str, list[float]]:
    """state_dict() and load_state_dict(): stop, save, load, and go on as if nothing happened

    An optimizer has a memory: Adam keeps two moments and a step count for every parameter. A run
    that loads only the net starts again without them.
    """
    batches = [*make_loader(dataset, BATCH_SIZE)]

    def steps(net: Net, optimizer: Optimizer, first: int, last: int) -> list[float]:
        return list(train(net, optimizer, batches[first:last], mse_loss, epochs=1))

    net = new_net()
    losses = {"without_a_stop": steps(net, optim.Adam(net.parameters(), lr=LR), 0, 30)[20:]}

    net = new_net()
    optimizer = optim.Adam(net.parameters(), lr=LR)
    steps(net, optimizer, 0, 20)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "checkpoint.pt")
        torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict()}, file)
        checkpoint = torch.load(file, weights_only=True)
        kept = sorted(checkpoint["optimizer"]["state"][0])
        print(f"saved {file.stat().st_size} bytes; kept for each parameter: {', '.join(kept)}")

    for name in ("state_loaded", "state_forgotten"):
        net = Net()
        net.load_state_dict(copy.deepcopy(checkpoint["net"]))
        optimizer = optim.Adam(net.parameters(), lr=LR)
        if name == "state_loaded":
            optimizer.load_state_dict(copy.deepcopy(checkpoint["optimizer"]))
        losses[name] = steps(net, optimizer, 20, 30)
    print(f"without a stop:      {format_losses(losses['without_a_stop'])}")
    for name in ("state_loaded", "state_forgotten"):
        same = "the same" if losses[name] == losses["without_a_stop"] else "not the same"
        title = name.replace("_", " ") + ":"
        print(f"{title:20} {format_losses(losses[name])}  {same}")
    return losses


def format_losses(losses: list[float]) -> str:
    """Return the first five of the losses, as text."""
    return "  ".join(f"{loss:.5f}" for loss in losses[:5])


def add_param_group(optim: ModuleType) -> dict[str, tuple[float, list[float]]]:
    """add_param_group(): a frozen layer joins later, at a smaller learning rate

    As in fine-tuning: at first only the last layer learns, later all layers do.
    """
    loader = make_loader(dataset, BATCH_SIZE)
    net = new_net()
    net.hidden.requires_grad_(False)
    first_weights = net.hidden.weight.clone()
    optimizer = optim.Adam(net.predict.parameters(), lr=LR)
    results = {}

    def train_on(phase: str) -> None:
        list(train(net, optimizer, loader, mse_loss, EPOCHS))
        moved = (net.hidden.weight - first_weights).abs().max().item()
        lrs = [group["lr"] for group in optimizer.param_groups]
        results[phase] = moved, lrs
        print(f"{phase}: learning rates {lrs}, loss {evaluate(net, dataset, mse_loss):.4f}")
        print(f"    the hidden layer's weights have moved by at most {moved:.4f}")

    train_on("frozen")
    net.hidden.requires_grad_(True)
    optimizer.add_param_group({"params": net.hidden.parameters(), "lr": LR / 10})
    train_on("joined")
    return results


def schedule(optim: ModuleType) -> list[list[float]]:
    """Learning-rate schedules: they change the lr of every group, each from its own start

    StepLR here multiplies by 0.1 after every second epoch.
    """
    net = new_net()
    groups = [{"params": net.hidden.parameters()}, {"params": net.predict.parameters(), "lr": 0.01}]
    optimizer = optim.SGD(groups, lr=LR)
    scheduler = StepLR(optimizer, step_size=2, gamma=0.1)
    loader = make_loader(dataset, BATCH_SIZE)
    lrs = []
    for epoch in range(EPOCHS):
        lrs.append([group["lr"] for group in optimizer.param_groups])
        losses = list(train(net, optimizer, loader, mse_loss, epochs=1))
        scheduler.step()
        shown = ", ".join(f"{lr:.4g}" for lr in lrs[-1])
        print(
            f"epoch {epoch + 1}: learning rates {shown}; mean loss {sum(losses) / len(losses):.4f}"
        )
    return lrs


STEPS: list[Callable[[ModuleType], object]] = [
    param_groups,
    zero_grad,
    step,
    closure,
    state_dict,
    add_param_group,
    schedule,
]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"examples:\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--optimizers-from",
        choices=["torch.optim", "optimizers"],
        default="torch.optim",
        help="PyTorch's classes, or this repository's own (default: torch.optim)",
    )
    module = importlib.import_module(parser.parse_args(argv).optimizers_from)
    for number, function in enumerate(STEPS, start=1):
        print(f"\n{number}. {str(function.__doc__).splitlines()[0]}\n")
        function(module)
    return 0


if __name__ == "__main__":
    run_main(main)

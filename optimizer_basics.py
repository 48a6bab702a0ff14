"""What does a torch Optimizer do? A tour of its methods in seven steps.

Each step is one function: read it beside what it prints. Every number and every verdict printed
is computed there and then.
"""

import argparse
import copy
import importlib
import tempfile
from pathlib import Path

from lab.output.main import run_main

import torch
from torch.nn.functional import mse_loss
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
    """Return the net that every step starts from."""
    torch.manual_seed(SEED)
    return Net()


def param_groups(optim):
    """Param groups: parameters that share their hyperparameters

    A list of dicts in place of the parameters gives each group its own lr, momentum and weight
    decay; what a group does not name it takes from the optimizer's other arguments.
    """
    net = new_net()
    optimizer = optim.SGD(
        [
            {"params": net.hidden.parameters(), "momentum": 0.9},
            {"params": net.predict.parameters(), "lr": 0.01, "weight_decay": 0.5},
        ],
        lr=LR,
    )
    moved = []
    for group in optimizer.param_groups:
        start = group["params"][1].detach().clone()[0]
        for param in group["params"]:
            param.grad = torch.ones_like(param)
        moved.append({"start": start.item(), "group": group})
    optimizer.step()
    optimizer.step()
    for name, entry in zip(("hidden", "predict"), moved, strict=True):
        group = entry.pop("group")
        entry |= {key: group[key] for key in ("lr", "momentum", "weight_decay")}
        entry["moved"] = group["params"][1][0].item() - entry["start"]
        settings = f"lr={group['lr']}, momentum={group['momentum']}"
        print(f"{name}: {settings}, weight_decay={group['weight_decay']}")
        print(f"    two steps under a gradient of 1 moved its first bias by {entry['moved']:.5f}")
    return moved


def zero_grad(optim):
    """zero_grad(): backward() adds to the gradients, so they have to be cleared

    The gradient of w² at w = 3 is 6. And a training that forgets zero_grad steps along the sum of
    all gradients it has ever seen: a momentum of 1, quick at first, that never settles.
    """
    w = torch.nn.Parameter(torch.tensor(3.0))
    optimizer = optim.SGD([w], lr=LR)
    seen = []
    for _ in range(2):
        (w**2).backward()
        seen.append(w.grad.item())
    optimizer.zero_grad()
    seen.append(w.grad)
    (w**2).backward()
    seen.append(w.grad.item())
    print(f"gradient after one backward(): {seen[0]}, after a second: {seen[1]}")
    print(f"after zero_grad(): {seen[2]}, and after one more backward(): {seen[3]}")

    losses = {True: [], False: []}
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
    return {"gradients": seen, "losses": losses}


def step(optim):
    """step(): the parameters move, by the optimizer's rule and by nothing else

    For plain SGD that is θ ← θ - lr·g, which one can do by hand.
    """
    net = new_net()
    optimizer = optim.SGD(net.parameters(), lr=LR)
    x, y = dataset.tensors
    loss = mse_loss(net(x), y)
    loss.backward()
    before = net.predict.bias.item()
    by_hand = before - LR * net.predict.bias.grad.item()
    optimizer.step()
    after = net.predict.bias.item()
    loss_after = mse_loss(net(x), y).item()
    print(f"bias {before:.6f}, gradient {net.predict.bias.grad.item():.6f}, lr {LR}")
    print(f"by hand {by_hand:.6f}, by step() {after:.6f}: differ by {abs(by_hand - after):.1e}")
    print(f"the loss went from {loss.item():.4f} to {loss_after:.4f}")
    return {"by_hand": by_hand, "after": after, "losses": (loss.item(), loss_after)}


def closure(optim):
    """step(closure): for an optimizer that needs the loss at more than one place

    The closure clears the gradients, computes the loss, calls backward() and returns the loss.
    SGD calls it once a step. LBFGS moves several times, and tries several points each time.
    """
    x, y = dataset.tensors
    result = {}
    makers = {
        "SGD": lambda params: optim.SGD(params, lr=LR),
        "LBFGS": lambda params: optim.LBFGS(params, line_search_fn="strong_wolfe"),
    }
    for name, make_optimizer in makers.items():
        net, calls = new_net(), 0
        optimizer = make_optimizer(net.parameters())

        def closure():
            nonlocal calls
            calls += 1
            optimizer.zero_grad()
            loss = mse_loss(net(x), y)
            loss.backward()
            return loss

        for _ in range(3):
            optimizer.step(closure)
        result[name] = {"calls": calls, "loss": mse_loss(net(x), y).item()}
        print(f"{name}: 3 steps, {calls} calls of the closure, loss {result[name]['loss']:.4f}")
    try:
        optimizer.step()
    except TypeError as error:
        result["error"] = str(error)
        print(f"LBFGS.step() without one: TypeError: {error}")
    return result


def state_dict(optim):
    """state_dict() and load_state_dict(): stop, save, load, and go on as if nothing happened

    An optimizer remembers: Adam keeps two moments and a step count for every parameter. A run that
    loads the net alone starts them from nothing.
    """
    batches = [*make_loader(dataset, BATCH_SIZE)]

    def steps(net, optimizer, first, last):
        return list(train(net, optimizer, batches[first:last], mse_loss, epochs=1))

    net = new_net()
    uninterrupted = steps(net, optim.Adam(net.parameters(), lr=LR), 0, 30)[20:]

    net = new_net()
    optimizer = optim.Adam(net.parameters(), lr=LR)
    steps(net, optimizer, 0, 20)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "checkpoint.pt")
        torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict()}, file)
        checkpoint = torch.load(file, weights_only=True)
        kept = sorted(checkpoint["optimizer"]["state"][0])
        print(f"saved {file.stat().st_size} bytes; kept for each parameter: {', '.join(kept)}")

    losses = {}
    for remembers in (True, False):
        net = Net()
        net.load_state_dict(copy.deepcopy(checkpoint["net"]))
        optimizer = optim.Adam(net.parameters(), lr=LR)
        if remembers:
            optimizer.load_state_dict(copy.deepcopy(checkpoint["optimizer"]))
        losses[remembers] = steps(net, optimizer, 20, 30)
    print(f"without a stop:      {format_losses(uninterrupted)}")
    for remembers, name in ((True, "state loaded:   "), (False, "state forgotten:")):
        same = "the same" if losses[remembers] == uninterrupted else "not the same"
        print(f"{name}     {format_losses(losses[remembers])}  {same}")
    return {"uninterrupted": uninterrupted, "loaded": losses[True], "forgotten": losses[False]}


def format_losses(losses: list[float]) -> str:
    """Return the first few of the losses, as text."""
    return "  ".join(f"{loss:.5f}" for loss in losses[:5])


def add_param_group(optim):
    """add_param_group(): a frozen layer joins later, at a smaller learning rate

    As in fine-tuning: first only the last layer learns, then all do.
    """
    loader = make_loader(dataset, BATCH_SIZE)
    net = new_net()
    net.hidden.requires_grad_(False)
    first_weights = net.hidden.weight.clone()
    optimizer = optim.Adam(net.predict.parameters(), lr=LR)
    result = {}

    def report(phase):
        list(train(net, optimizer, loader, mse_loss, EPOCHS))
        moved = (net.hidden.weight - first_weights).abs().max().item()
        rates = [group["lr"] for group in optimizer.param_groups]
        result[phase] = {"moved": moved, "loss": evaluate(net, dataset, mse_loss), "lrs": rates}
        print(f"{phase}: learning rates {rates}, loss {result[phase]['loss']:.4f}")
        print(f"    the hidden layer's weights have moved by at most {moved:.4f}")

    report("frozen")
    net.hidden.requires_grad_(True)
    optimizer.add_param_group({"params": net.hidden.parameters(), "lr": LR / 10})
    report("joined")
    return result


def schedule(optim):
    """Learning-rate schedules: they change the lr of every group, each from its own start

    StepLR here multiplies by 0.1 after every second epoch.
    """
    net = new_net()
    groups = [{"params": net.hidden.parameters()}, {"params": net.predict.parameters(), "lr": 0.01}]
    optimizer = optim.SGD(groups, lr=LR)
    scheduler = StepLR(optimizer, step_size=2, gamma=0.1)
    loader = make_loader(dataset, BATCH_SIZE)
    rates = []
    for epoch in range(EPOCHS):
        rates.append([group["lr"] for group in optimizer.param_groups])
        losses = list(train(net, optimizer, loader, mse_loss, epochs=1))
        scheduler.step()
        shown = ", ".join(f"{rate:.4g}" for rate in rates[-1])
        print(
            f"epoch {epoch + 1}: learning rates {shown}; mean loss {sum(losses) / len(losses):.4f}"
        )
    return rates


STEPS = [param_groups, zero_grad, step, closure, state_dict, add_param_group, schedule]


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
        print(f"\n{number}. {function.__doc__.splitlines()[0]}\n")
        function(module)
    return 0


if __name__ == "__main__":
    run_main(main)

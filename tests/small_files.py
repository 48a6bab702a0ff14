"""A user's small file: run it as from a command line, and train it by a plain loop.

Exit status 0: all is well, with a remark or without. 1: what was trained is saved, and something is
lacking, told on a line. 2: refused before any training, in one line on standard error.
"""

import copy
import csv
import io
import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

import compare_optimizers
from tasks import Task

SEED = 81  # the scripts' first
LR = 0.05

# What the small files begin with. `data(x, y)` is a make_data of 80 samples, and 40 held out.
HEAD = """\
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset
from data import parabola, split
import compare_optimizers
from tasks import Task

g = torch.Generator().manual_seed(0)
x = torch.randn(120, 2, generator=g)
y = (x[:, 0] > 0).long()


def data(x, y):
    return lambda seed: split(seed, x, y, held_out=40)


"""


@dataclass
class End:
    """How a script ended, and what it said."""

    status: int
    out: str
    err: str
    warnings: list[str]

    @property
    def said(self) -> str:
        """All that a user has on the screen."""
        return self.out + self.err

    @property
    def rows(self) -> dict[str, dict[str, str]]:
        """Return the cells of the table by label and title; what is beyond, by "note"."""
        flush = re.sub("\n  +", "  ", self.out)  # a note that has a line of its own, too
        lines = [re.split(r"\s{2,}", line.strip()) for line in flush.splitlines()]
        titles = next(line for line in lines if len(line) > 2)
        rows = [line for line in lines if len(line) >= len(titles) and line is not titles]
        return {row[0]: dict(zip([*titles, "note"], row, strict=False)) for row in rows}

    def column(self, title: str) -> list[str]:
        return [row[title] for row in self.rows.values() if title in row]


def run(script: ModuleType, *words: str, name: str = "out") -> End:
    """Run a script's main with these words: no window, and `out.csv` and `out.png` for results."""
    streams = io.StringIO(), io.StringIO()
    words = ("--no-show", "--output", f"{name}.png", "--csv", f"{name}.csv", *words)
    with (
        redirect_stdout(streams[0]),
        redirect_stderr(streams[1]),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("default")
        warnings.simplefilter("ignore", DeprecationWarning)  # as Python does
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            status = script.main(list(words))
        except SystemExit as stop:
            status = stop.code
    out, err = (stream.getvalue() for stream in streams)
    return End(status, out, err, [str(warning.message) for warning in caught])


def read_csv(name: str = "out") -> list[dict[str, str]]:
    with Path(f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def losses_in_csv(label: str, seed: int = SEED) -> list[float]:
    """Return the losses that compare_optimizers.py has written of a training."""
    return [
        float(row["loss"])
        for row in read_csv()
        if (row["optimizer"], row["seed"]) == (label, str(seed))
    ]


def assert_saved(end: End, status: int = 0, name: str = "out") -> None:
    """Assert this exit status, and that figure and CSV are there."""
    assert end.status == status, end.said
    assert Path(f"{name}.png").exists()
    assert Path(f"{name}.csv").exists()
    assert "Traceback" not in end.said


def assert_refused(end: End, *words: str, never: Iterable[str] = ()) -> None:
    """Assert one line on standard error with all the words, and that nothing is written."""
    assert end.status == 2, end.said
    *before, line = end.err.splitlines()
    assert not before, end.err
    line = line.partition("error: ")[2]
    for word in words:
        assert word in line, f"no {word!r} in: {line}"
    for word in never:
        assert word not in line, f"{word!r} in: {line}"
    assert not Path("out.png").exists()
    assert not Path("out.csv").exists()


def objects_of(source: str, name: str = "b") -> dict[str, Any]:
    """Return what a small file defines: made anew, and no module."""
    torch.manual_seed(0)
    namespace = {"__name__": name}
    exec(compile(source, f"{name}.py", "exec", dont_inherit=True), namespace)
    return namespace


# ---------------------------------------------------------------- the plain loop


@dataclass
class Plain:
    """What a plain loop makes of a training."""

    net: nn.Module
    loss_function: Callable[[Any, Tensor], Tensor]
    losses: list[float] = field(default_factory=list)
    rates: list[list[float]] = field(default_factory=list)  # of each param group, at each step
    data: tuple[TensorDataset, ...] = ()

    @torch.no_grad()
    def outputs(self, x: Tensor) -> Any:
        """Return what the net gives in eval(), as it is left by that."""
        return copy.deepcopy(self.net).eval()(x)

    def loss_over(self, dataset: TensorDataset) -> float:
        x, y = dataset.tensors
        return self.loss_function(self.outputs(x), y).item()

    @property
    def final(self) -> float:
        return self.loss_over(self.data[0])

    @property
    def held_out(self) -> float:
        return self.loss_over(self.data[1])

    def share(self, is_right: Callable[[Any, Tensor], Tensor]) -> float:
        """Return the share of the held-out samples, or elements, that are classified right."""
        x, y = self.data[1].tensors
        return is_right(self.outputs(x), y).double().mean().item()


def plain_training(
    task: Task,
    make_optimizer: Callable[[Iterable], Optimizer],
    seed: int = SEED,
    make_scheduler: Callable[[Optimizer], Any] | None = None,
    closure: bool = True,
    graph: bool = False,
    goes_on: bool = False,
    nudge: float = 0.0,
    **own: int,
) -> Plain:
    """Train as the README's tutorial does; `closure` says how its optimizer's step is called.

    `graph` keeps the graph of the gradients. It ends with a loss that is not finite, or `goes_on`.
    `nudge` changes its first weights by so small a share of themselves.
    An optimizer's own train() and eval() are called as Schedule-Free's documentation asks. `own`
    are epochs or batch_size, instead of the task's.
    """
    epochs, batch_size = (own.get(key) or getattr(task, key) for key in ("epochs", "batch_size"))
    dataset, held_out = task.make_data(seed)
    order = torch.Generator().manual_seed(0)
    loader = DataLoader(dataset, batch_size=batch_size, shuffle=True, generator=order)
    torch.manual_seed(seed)
    net = task.make_net()
    if nudge:
        with torch.no_grad():
            for param in net.parameters():
                param *= 1 + nudge * torch.randn(param.shape)
    optimizer = make_optimizer(net.parameters())
    scheduler = make_scheduler(optimizer) if make_scheduler else None
    plain = Plain(net, task.loss, data=(dataset, held_out))
    in_mode(optimizer, "train")
    for x, y, ends_epoch in batches(loader, epochs):

        def backward(x=x, y=y):
            optimizer.zero_grad()
            loss = task.loss(net(x), y)
            loss.backward(create_graph=graph)
            plain.losses.append(loss.item())
            return loss

        n_losses = len(plain.losses)
        plain.rates.append([float(group.get("lr", math.nan)) for group in optimizer.param_groups])
        take_step(optimizer, backward, closure)
        del plain.losses[n_losses + 1 :]  # the loss of a step is that from before it
        if not (math.isfinite(plain.losses[-1]) or goes_on):
            break
        if scheduler and ends_epoch:
            scheduler.step()
    in_mode(optimizer, "eval")
    return plain


def plain_descent(
    formula: Callable[[Tensor], Tensor],
    start: tuple[float, float],
    make_optimizer: Callable[[Iterable], Optimizer],
    steps: int,
    closure: bool = True,
    graph: bool = False,
) -> Tensor:
    """Return the points (steps + 1, 2) of a descent as every tutorial writes it."""
    point = nn.Parameter(torch.tensor(start, dtype=torch.float64))
    optimizer = make_optimizer([point])

    def backward() -> Tensor:
        optimizer.zero_grad()
        loss = formula(point)
        loss.backward(create_graph=graph)
        return loss

    points = [point.detach().clone()]
    in_mode(optimizer, "train")
    for _ in range(steps):
        take_step(optimizer, backward, closure)
        points.append(point.detach().clone())
    return torch.stack(points)


def path_in_csv(label: str) -> Tensor:
    """Return the points (steps + 1, 2) that compare_paths.py has written of an optimizer."""
    rows = [row for row in read_csv() if row["optimizer"] == label]
    return torch.tensor([[float(row["x"]), float(row["y"])] for row in rows], dtype=torch.float64)


def take_step(optimizer: Optimizer, backward: Callable[[], Any], closure: bool) -> None:
    """Call step(closure), or backward() and step(), as the textbook's loop does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using backward.. with create_graph=True")
        if closure:
            optimizer.step(backward)
        else:
            backward()
            optimizer.step()


def batches(loader: DataLoader, epochs: int) -> Iterator[tuple[Tensor, Tensor, bool]]:
    for _ in range(epochs):
        for number, (x, y) in enumerate(loader, start=1):
            yield x, y, number == len(loader)


def in_mode(optimizer: Optimizer, mode: str) -> None:
    """Call the optimizer's own train() or eval(), if it has one."""
    getattr(optimizer, mode, lambda: None)()


# ---------------------------------------------------------------- one against the other


def assert_like_plain(end: End, label: str, plains: list[Plain], status: int = 0) -> None:
    """Assert the numbers of a plain loop for each seed, bit for bit where trained in turn."""
    assert_saved(end, status)
    in_turn = len(plains) == 1 or "net by net" in " ".join(end.said.split())
    for seed, plain in enumerate(plains, start=SEED):
        losses = losses_in_csv(label, seed)
        assert losses == (plain.losses if in_turn else near(plain.losses))
    row = end.rows[label]
    assert_quartiles(row["loss"], [plain.final for plain in plains])
    assert_quartiles(row["held-out loss"], [plain.held_out for plain in plains])


def near(values: float | list[float]) -> Any:
    """Return what equals these values to rounding."""
    return pytest.approx(values, rel=2e-4, abs=2e-6, nan_ok=True)


def numbers(cell: str) -> list[float]:
    """Return the numbers of a cell; a dash and a word are infinity."""
    found = re.findall(r"-?\d+(?:\.\d*)?(?:e[+-]?\d+)?|diverged|(?<![\w-])-(?![\w-])", cell)
    return [math.inf if number in ("-", "diverged") else float(number) for number in found]


def assert_quartiles(cell: str, values: list[float], rounding: float = 2e-6) -> None:
    """Assert that a cell is `median [lower, upper]` of the values, or the one value."""
    finite = torch.tensor(values, dtype=torch.float64).nan_to_num(1e300, 1e300).clamp(max=1e300)
    wanted = [finite.quantile(share).item() for share in (0.5, 0.25, 0.75)[: 2 * len(values) - 1]]
    wanted = [value if value < 1e200 else math.inf for value in wanted]
    if not math.isfinite(wanted[0]) and not math.isfinite(wanted[-1]):
        wanted = wanted[:1]
    median, *ends = numbers(cell)
    assert median == pytest.approx(wanted[0], rel=6e-4, abs=rounding)
    assert ends == pytest.approx(wanted[1:], rel=6e-3, abs=rounding)


class Maybe:
    """An accuracy that need not be shown: it takes more than data and outputs to know it."""

    def __init__(self, is_right: Callable[[Any, Tensor], Tensor]):
        self.is_right = is_right


def assert_accuracy(cells: list[str], is_right: Any, plains: list[Plain]) -> None:
    """Assert the share of the held-out samples of which `is_right` holds; None is no column."""
    if isinstance(is_right, Maybe):
        is_right = is_right.is_right if cells else None
    if is_right is None:
        assert not cells
    else:
        (cell,) = cells
        assert_quartiles(cell, [100 * plain.share(is_right) for plain in plains], rounding=0.06)


def momentum(params: Iterable) -> Optimizer:
    return torch.optim.SGD(params, lr=LR, momentum=0.8)


def assert_task_is_trained(source: str, is_right: Any, seeds: int) -> None:
    """Assert that the task `mine` of b.py has a plain loop's numbers, and no word on it."""
    words = ["--optimizers", "Momentum", "--lr", str(LR), "--seeds", str(seeds)]
    end = run(compare_optimizers, "--task", "b.mine", *words)
    task = objects_of(source)["mine"]
    plains = [plain_training(task, momentum, SEED + k) for k in range(seeds)]
    assert_like_plain(end, "Momentum", plains)
    assert_accuracy(end.column("accuracy"), is_right, plains)
    assert "differentiated Tensor" not in end.said  # a reason is in words, not in torch's
    assert not end.err
    assert not end.warnings

"""The speed figures of the README: `python -m benchmarks.speed` in the repository's root.

Each pair is timed in alternation in one run, so that a machine whose speed drifts slows both
alike; medians and the median of the ratios pair by pair are printed.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import DataLoader

import cli
from compare_learning_rates import LR_COUNT, LR_RANGE, learning_rates
from compare_optimizers import BATCH_SIZE, EPOCHS, LR, OPTIMIZERS
from data import make_dataset, make_loader, stack_datasets
from models import Net, make_nets
from training import train, train_many

ROOT = Path(__file__).resolve().parents[1]
IMPORT_FLOOR = """
import torch
import matplotlib
matplotlib.use("agg")
import matplotlib.pyplot as plt
torch.optim.Adam(torch.nn.Linear(1, 1).parameters())
figure, axes = plt.subplots()
figure.savefig("floor.png")
"""


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(name: str, work: Callable, other_name: str, other: Callable, pairs: int) -> None:
    """Time `work` and `other` in turn and print a line with their medians and ratio."""
    times = [(seconds(work), seconds(other)) for _ in range(pairs)]
    mine, others = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(a / b for a, b in times)
    print(f"{name} {mine:.3f} s, {other_name} {others:.3f} s: ratio {ratio:.2f}", flush=True)


def process(*words: str) -> Callable[[], object]:
    """Return a function that runs Python with `words`, whole process."""
    return lambda: subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)


def train_all(make: Callable[[], DataLoader], loop: Callable = train, epochs: int = EPOCHS) -> None:
    """Train the tutorial's four nets."""
    for make_optimizer in cli.parse_optimizers(OPTIMIZERS, LR).values():
        net = Net()
        loop(net, make_optimizer(net.parameters()), make(), epochs)


def textbook_loop(net, optimizer, loader, epochs):
    """The training loop as tutorials have it."""
    loss_function = torch.nn.MSELoss()
    losses = []
    for _ in range(epochs):
        for x, y in loader:
            output = net(x)
            loss = loss_function(output, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


def train_stacks(n_seeds: int, lrs: list[float] | None = None) -> None:
    """Train the tutorial's four from every seed, at every rate: the data and nets included."""
    seeds = range(n_seeds)
    dataset = stack_datasets(make_dataset(seed=seed) for seed in seeds)
    specs = cli.parse_optimizers(OPTIMIZERS, None if lrs else LR)
    for make_optimizer in specs.values():
        train_many(make_nets(seeds), make_optimizer, dataset, make_loader, EPOCHS, lrs)


def compare_stacks(plain: Callable[[], object]) -> None:
    """Print what a training costs among many, against the plain loop, timed in turn with it."""
    lrs = learning_rates(*LR_RANGE, LR_COUNT)
    for n_seeds, rates in ((1, None), (10, None), (100, None), (1000, None), (100, lrs)):
        trainings = 4 * n_seeds * len(rates or [None])
        stacks = partial(train_stacks, n_seeds, rates)
        pairs = [(seconds(plain) / 4, seconds(stacks)) for _ in range(3)]
        stack = statistics.median(pair[1] for pair in pairs)
        ratio = statistics.median(one / (many / trainings) for one, many in pairs)
        name = f"{n_seeds} seeds × 4 optimizers" + (f" × {len(rates)} rates" if rates else "")
        print(f"{name}: {stack:.2f} s, a training {ratio:.1f} times cheaper", flush=True)


MEMORY = """
import resource
from benchmarks.speed import LR_RANGE, learning_rates, train_stacks
train_stacks(1000, learning_rates(*LR_RANGE, 9))
print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
"""


def main() -> None:
    dataset = make_dataset()

    def ours():
        return make_loader(dataset, BATCH_SIZE)

    def textbook(workers=0):
        return DataLoader(dataset, BATCH_SIZE, shuffle=True, num_workers=workers)

    def serve(loader):
        return lambda: [None for _ in range(EPOCHS) for batch in loader]

    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    train_all(ours)  # warm
    with tempfile.TemporaryDirectory() as folder:
        figure = str(Path(folder, "figure.png"))
        run = process(str(ROOT / "compare_optimizers.py"), "--no-show", "--output", figure)
        floor = process("-c", IMPORT_FLOOR.replace("floor.png", str(Path(folder, "floor.png"))))
        compare("default run", run, "import floor", floor, pairs=9)
    compare("our loader", serve(ours()), "default collation", serve(textbook()), pairs=9)
    compare(
        "our loader and loop",
        lambda: train_all(ours),
        "textbook's",
        lambda: train_all(textbook, textbook_loop),
        pairs=9,
    )
    compare(
        "one epoch: our loader and loop",
        lambda: train_all(ours, epochs=1),
        "textbook's with two workers",
        lambda: train_all(lambda: textbook(2), textbook_loop, epochs=1),
        pairs=3,
    )
    compare_stacks(lambda: train_all(ours))
    print("peak memory of 1000 seeds × 4 optimizers × 9 rates:", end=" ", flush=True)
    subprocess.run([sys.executable, "-c", MEMORY], check=True, cwd=ROOT)


if __name__ == "__main__":
    main()

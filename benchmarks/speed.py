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
from pathlib import Path

import torch
from torch.utils.data import DataLoader

import cli
from compare_optimizers import BATCH_SIZE, EPOCHS, LR, OPTIMIZERS
from data import make_dataset, make_loader
from models import Net
from training import train

SCRIPT = Path(__file__).resolve().parents[1] / "compare_optimizers.py"
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
        run = process(str(SCRIPT), "--no-show", "--output", figure)
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


if __name__ == "__main__":
    main()

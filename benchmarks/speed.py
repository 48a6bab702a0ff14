"""The table of docs/speed.md: `python -m benchmarks.speed` in the repository's root.

Each pair is timed in alternation in one run, so that a machine whose speed drifts slows both
alike; medians and the median of the ratios pair by pair are printed. With --peer, only our sweep
and the same in JAX (benchmarks/peer.py).
"""

import argparse
import importlib.util
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from lab.specs import parse_optimizers
from lab.stacking import train_all
from lab.sweeps import learning_rates
from lab.trainings import trainings_of

import torch
from torch.utils.data import DataLoader

from compare_learning_rates import LR_COUNT, LR_RANGE
from data import make_loader
from settings import LR, OPTIMIZERS, SEED
from tasks import TASKS
from training import train

TASK = TASKS["parabola"]
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
    mine, others, ratio = medians([(seconds(work), seconds(other)) for _ in range(pairs)])
    print(f"{name} {mine:.3f} s, {other_name} {others:.3f} s: ratio {ratio:.2f}", flush=True)


def medians(pairs: list[tuple[float, float]]) -> tuple[float, float, float]:
    """Return the median of the first numbers, of the second, and of their ratios."""
    mine, others = (statistics.median(column) for column in zip(*pairs, strict=True))
    return mine, others, statistics.median(a / b for a, b in pairs)


def process(*words: str) -> Callable[[], object]:
    """Return a function that runs Python with `words`, whole process."""
    return lambda: subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)


def train_four(make_loader: Callable, loop: Callable, epochs: int = TASK.epochs) -> None:
    """Train the tutorial's four nets."""
    for make_optimizer in parse_optimizers(OPTIMIZERS, LR).values():
        net = TASK.make_net()
        list(loop(net, make_optimizer(net.parameters()), make_loader(), TASK.loss, epochs))


def textbook_loop(net, optimizer, loader, loss_function, epochs):
    """The training loop as tutorials have it."""
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


def train_stacks(
    n_seeds: int, lrs: list[float] | None = None, compiled: bool = False
) -> list[float]:
    """Train the tutorial's four from every seed, at every rate: the data and nets included.

    Returns what a step of each took, in milliseconds.
    """
    trainings, steps = trainings_of(TASK, range(n_seeds), lrs or [None]), []
    for make_optimizer in parse_optimizers(OPTIMIZERS, None if lrs else LR).values():
        runs = train_all(TASK, trainings, make_optimizer, compiled=compiled)
        assert runs.stacked or len(trainings) == 1
        steps.append(1000 * runs.seconds / len(runs.losses))
    return steps


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


def compare_tasks() -> None:
    """Print what 100 trainings of each task take, 10 rates × 10 seeds, on one thread."""
    torch.set_num_threads(1)
    (make_optimizer,) = parse_optimizers(["Adam"]).values()
    lrs, total = learning_rates(1e-4, 1.0, 10), 0.0
    for name, task in TASKS.items():
        trainings = trainings_of(task, range(10), lrs)
        runs = train_all(task, trainings, make_optimizer)
        assert runs.stacked
        total += runs.seconds
        print(f"100 trainings of {name}: {runs.seconds:.2f} s", flush=True)
    print(f"all tasks: {total:.1f} s")


MEMORY = """
import resource
from lab.sweeps import learning_rates
from benchmarks.speed import LR_RANGE, train_stacks
train_stacks(1000, learning_rates(*LR_RANGE, 9))
print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
"""


@contextmanager
def busy(n_processes: int):
    """Keep so many other processes busy."""
    loops = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n_processes)
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def compare_load(folder: str) -> None:
    """Print what both sweeps take beside two busy processes, against their quiet time."""
    script, figure = str(ROOT / "compare_learning_rates.py"), str(Path(folder, "figure.png"))
    for n_seeds in ("10", "100"):
        sweep = process(script, "--no-show", "--output", figure, "--seeds", n_seeds)
        times = []
        for _ in range(3):
            quiet = seconds(sweep)
            with busy(2):
                times.append((seconds(sweep), quiet))
        loaded, quiet, ratio = medians(times)
        print(
            f"sweep of {n_seeds} seeds: quiet {quiet:.1f} s, beside two busy processes "
            f"{loaded:.1f} s: ratio {ratio:.2f}",
            flush=True,
        )


STEPS = """
import sys
from benchmarks.speed import LR_COUNT, LR_RANGE, train_stacks
from lab.sweeps import learning_rates
lrs = learning_rates(*LR_RANGE, LR_COUNT)
rounds = [train_stacks(int(sys.argv[1]), lrs, sys.argv[2] == "yes") for _ in range(2)]
for both in zip(*rounds):
    for step in both:
        print(step, "ms a step")
"""


def compare_peer(folder: str) -> None:
    """Print how our sweep compares with the same in JAX, a step of it and the whole process."""
    script, figure = str(ROOT / "compare_learning_rates.py"), str(Path(folder, "figure.png"))
    cache = Path(folder, "cache")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache)  # where torch keeps what it has compiled
    for n_seeds, n_pairs in (("10", 3), ("100", 7), ("1000", 1)):
        theirs = partial(step_times, "-m", "benchmarks.peer", n_seeds, "--again")
        for compiled in ("no", "yes"):
            ours = partial(step_times, "-c", STEPS, n_seeds, compiled)
            mine, others, ratio = medians([(ours(), theirs()) for _ in range(n_pairs)])
            print(
                f"{9 * int(n_seeds)} nets, compiled: {compiled}: {mine:.2f} ms a step, JAX "
                f"{others:.2f} ms: ratio {ratio:.2f}",
                flush=True,
            )
    sweep = process(script, "--no-show", "--output", figure, "--seeds", "1000")

    def from_nothing():
        shutil.rmtree(cache, ignore_errors=True)
        sweep()

    peer = process("-m", "benchmarks.peer", "1000")
    plain = process(script, "--no-show", "--output", figure, "--seeds", "1000", "--compile", "no")
    compare("36,000 trainings, nothing compiled before", from_nothing, "JAX", peer, pairs=3)
    compare("36,000 trainings, compiled before", sweep, "JAX", peer, pairs=3)
    compare(
        "36,000 trainings, nothing compiled before", from_nothing, "--compile no", plain, pairs=3
    )


def step_times(*words: str) -> float:
    """Return what a step of the second round takes, as the process tells, in milliseconds.

    That is the mean over the optimizers.
    """
    output = subprocess.run(
        [sys.executable, *words], check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True
    ).stdout
    times = re.findall(r"([\d.]+) ms a step", output)
    return statistics.mean(map(float, times[1::2]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peer", action="store_true", help="compare with JAX instead")
    if parser.parse_args().peer:
        if not all(map(importlib.util.find_spec, ("jax", "optax"))):
            parser.error("--peer needs two packages: pip install jax optax")
        with tempfile.TemporaryDirectory() as folder:
            compare_peer(folder)
        return
    dataset, _ = TASK.make_data(SEED)

    def ours():
        return make_loader(dataset, TASK.batch_size)

    def textbook(workers=0):
        return DataLoader(dataset, TASK.batch_size, shuffle=True, num_workers=workers)

    def serve(loader):
        return lambda: [None for _ in range(TASK.epochs) for batch in loader]

    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    train_four(ours, train)  # warm
    with tempfile.TemporaryDirectory() as folder:
        figure = str(Path(folder, "figure.png"))
        run = process(str(ROOT / "compare_optimizers.py"), "--no-show", "--output", figure)
        floor = process("-c", IMPORT_FLOOR.replace("floor.png", str(Path(folder, "floor.png"))))
        compare("default run", run, "import floor", floor, pairs=9)
        compare_load(folder)
        all_tasks = (str(ROOT / "compare_tasks.py"), "--no-show", "--output", figure, "--jobs")
        compare(
            "all tasks: jobs 2", process(*all_tasks, "2"), "jobs 1", process(*all_tasks, "1"), 1
        )
    compare("our loader", serve(ours()), "default collation", serve(textbook()), pairs=9)
    compare(
        "our loader and loop",
        lambda: train_four(ours, train),
        "textbook's",
        lambda: train_four(textbook, textbook_loop),
        pairs=9,
    )
    compare(
        "one epoch: our loader and loop",
        lambda: train_four(ours, train, epochs=1),
        "textbook's with two workers",
        lambda: train_four(lambda: textbook(2), textbook_loop, epochs=1),
        pairs=3,
    )
    compare_stacks(lambda: train_four(ours, train))
    compare_tasks()
    print("peak memory of 1000 seeds × 4 optimizers × 9 rates:", end=" ", flush=True)
    subprocess.run([sys.executable, "-c", MEMORY], check=True, cwd=ROOT)


if __name__ == "__main__":
    main()

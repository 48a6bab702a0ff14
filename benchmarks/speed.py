"""The table of docs/speed.md: `python -m benchmarks.speed` in the repository's root.

It times two programs in turn, again and again: if the machine gets slower, both do. It prints the
median time of each, and the median of the ratios. With --peer it compares only our sweep with the
same sweep in JAX (benchmarks/peer.py).
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
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path

from lab.command_line.specs import parse_optimizers
from lab.outcome import no_progress
from lab.training.crew import Crew, Job, open_crew
from lab.training.runs import Training, trainings_of
from lab.training.sweeps import learning_rates
from lab.training.train import train_all, train_in_turn
from lab.training.way import is_stack_quicker, stacks_of

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from benchmarks.nets import NETS
from compare_learning_rates import LR_COUNT, LR_RANGE
from data import make_loader
from settings import LR, OPTIMIZERS, SEED
from tasks import TASKS, Task
from training import train

Batches = Iterable[tuple[Tensor, Tensor]]
LossFunction = Callable[[Tensor, Tensor], Tensor]
Loop = Callable[[nn.Module, Optimizer, Batches, LossFunction, int], Iterable[float]]

TASK = TASKS["parabola"]
ROOT = Path(__file__).resolve().parents[1]
# What any script that trains and draws has to do: no script of ours can be faster than this.
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
    """Return how long a call of `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(
    name: str,
    work: Callable[[], object],
    other_name: str,
    other: Callable[[], object],
    pairs: int,
) -> None:
    """Time `work` and `other` in turn, and print their medians and the median of the ratios."""
    first, second, ratio = medians([(seconds(work), seconds(other)) for _ in range(pairs)])
    print(f"{name} {first:.3f} s, {other_name} {second:.3f} s: ratio {ratio:.2f}", flush=True)


def medians(pairs: list[tuple[float, float]]) -> tuple[float, float, float]:
    """Return the median of the first numbers, of the second, and of the ratios pair by pair."""
    first, second = (statistics.median(column) for column in zip(*pairs, strict=True))
    return first, second, statistics.median(a / b for a, b in pairs)


def python(*words: str) -> Callable[[], object]:
    """Return a function that runs `python WORDS` as a process of its own, and waits for it."""
    return lambda: subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)


def train_four(make_loader: Callable[[], Batches], loop: Loop, epochs: int = TASK.epochs) -> None:
    """Train a net with each of the tutorial's four optimizers, one after the other."""
    for make_optimizer in parse_optimizers(OPTIMIZERS, LR).values():
        net = TASK.make_net()
        list(loop(net, make_optimizer(net.parameters()), make_loader(), TASK.loss, epochs))


def textbook_loop(
    net: nn.Module,
    optimizer: Optimizer,
    loader: Batches,
    loss_function: LossFunction,
    epochs: int,
) -> list[float]:
    """Train with the loop that most tutorials show; return the loss before each step."""
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


def train_stacks(n_seeds: int, lrs: list[float] | None = None) -> list[float]:
    """Train with the tutorial's four from all seeds, at all rates; make the data and nets, too.

    Returns how long a step of each optimizer took, in milliseconds.
    """
    trainings, steps = trainings_of(TASK, range(n_seeds), lrs or [None]), []
    for make_optimizer in parse_optimizers(OPTIMIZERS, None if lrs else LR).values():
        runs = train_all(TASK, trainings, make_optimizer)
        assert runs.stacked or len(trainings) == 1
        steps.append(1000 * runs.seconds / len(runs.losses))
    return steps


def compare_stacks(plain: Callable[[], object]) -> None:
    """Print how much cheaper a training is among many than alone, in the loop `plain`."""
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
    """Print how long 100 trainings of each task take, 10 rates × 10 seeds, on one thread."""
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


def compare_sizes() -> None:
    """Print how long nets of real sizes take, by Adam, and in the textbook's loop one by one."""
    (make_optimizer,) = parse_optimizers(["Adam"]).values()
    n_alone, threads = 5, torch.get_num_threads()
    for n_threads in dict.fromkeys((1, threads)):
        torch.set_num_threads(n_threads)
        for (name, task), n_nets in product(NETS.items(), (10, 50)):
            trainings, pairs, way = trainings_of(task, range(n_nets)), [], "in turn"
            if n_nets > 10 and not is_stack_quicker(task, trainings):
                continue  # in turn, each takes what one of ten does
            alone = partial(train_alone, task, trainings[:n_alone], make_optimizer)
            alone()  # the first time is slower, and not timed
            for _ in range(3):
                runs = train_all(task, trainings, make_optimizer)
                if runs.stacked:
                    way = f"stacks of {n_nets // len(stacks_of(task, trainings))}"
                pairs.append((seconds(alone) / n_alone, runs.seconds / n_nets))
            theirs, ours, ratio = medians(pairs)
            print(
                f"{n_nets} nets of {name}, {n_threads} threads: {way}, {1000 * ours:.1f} ms a net, "
                f"textbook's {1000 * theirs:.1f} ms: {ratio:.2f} times as quick",
                flush=True,
            )


def compare_jobs() -> None:
    """Print how much sooner two processes have trained nets that take their turn."""
    (make_optimizer,) = parse_optimizers(["Adam"]).values()
    torch.set_num_threads(1)
    for name, task in NETS.items():
        trainings = trainings_of(task, range(4), learning_rates(1e-4, 1e-2, 30))
        if is_stack_quicker(task, trainings):
            continue
        jobs = {name: Job(task, trainings, make_optimizer)}
        one = seconds(lambda: list(Crew().each(train_all, jobs)))
        with open_crew(2) as crew:
            first, second = (seconds(lambda: list(crew.each(train_all, jobs))) for _ in range(2))
        print(
            f"{len(trainings)} nets of {name}: one thread {one:.1f} s, two jobs {first:.1f} s, "
            f"{one / first:.2f} times as quick; once their processes run {one / second:.2f} times",
            flush=True,
        )


def compare_rules() -> None:
    """Print how much sooner 100 nets train as a stack than in turn, by rules that see a matrix."""
    torch.set_num_threads(1)
    task, lrs = TASKS["spirals"], learning_rates(1e-4, 1e-1, 10)
    trainings, some = trainings_of(task, range(10), lrs), trainings_of(task, range(1), lrs)
    rules = ["Muon | AdamW", "Adafactor", "optimizers.SOAP", "optimizers.Adam"]
    for label, make_optimizer in parse_optimizers(rules).items():
        in_turn = partial(train_in_turn, task, some, make_optimizer, no_progress)
        stack = partial(train_all, task, trainings, make_optimizer)
        assert stack().stacked
        pairs = [(len(lrs) * seconds(in_turn), seconds(stack)) for _ in range(3)]
        theirs, ours, ratio = medians(pairs)
        print(
            f"100 nets by {label}: in turn {theirs:.1f} s, as a stack {ours:.1f} s, "
            f"{ratio:.1f} times as quick",
            flush=True,
        )


def train_alone(
    task: Task, trainings: list[Training], make_optimizer: Callable[..., Optimizer]
) -> None:
    """Train one net after the other as the textbook does, and take its losses in the end."""
    for training in trainings:
        net = training.make_net(task)
        loader = DataLoader(training.dataset, task.batch_size, shuffle=True)
        optimizer = make_optimizer(net.parameters())
        textbook_loop(net, optimizer, loader, task.loss, task.epochs)
        with torch.no_grad():
            for dataset in (training.dataset, training.held_out):
                x, y = dataset.tensors
                task.loss(net(x), y).item()


LARGE = """
import resource
from benchmarks.nets import deep
from lab.training.runs import trainings_of
from lab.training.train import train_all
from torch.optim import Adam
train_all(deep, trainings_of(deep, range(10), [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]), Adam)
print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
"""
MEMORY = """
import resource
from lab.training.sweeps import learning_rates
from benchmarks.speed import LR_RANGE, train_stacks
train_stacks(1000, learning_rates(*LR_RANGE, 9))
print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
"""


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Keep `count` other processes busy meanwhile."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def compare_load(folder: str) -> None:
    """Print how long two sweeps take beside two busy processes, and how long without those."""
    script, figure = str(ROOT / "compare_learning_rates.py"), str(Path(folder, "figure.png"))
    for n_seeds in ("10", "100"):
        sweep = python(script, "--no-show", "--output", figure, "--seeds", n_seeds)
        times = []
        for _ in range(3):
            quiet = seconds(sweep)
            with busy_processes(2):
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
from lab.training import compiled
from lab.training.sweeps import learning_rates
lrs = learning_rates(*LR_RANGE, LR_COUNT)
compiled.WORTH_COMPILING = float(sys.argv[2])
rounds = [train_stacks(int(sys.argv[1]), lrs) for _ in range(2)]
for both in zip(*rounds):
    for step in both:
        print(step, "ms a step")
"""


def compare_peer(folder: str) -> None:
    """Print how long our sweep takes and the same in JAX: a step, and the whole process."""
    script, figure = str(ROOT / "compare_learning_rates.py"), str(Path(folder, "figure.png"))
    cache = Path(folder, "cache")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache)  # torch keeps compiled code there
    for n_seeds, n_pairs in (("10", 3), ("100", 7), ("1000", 1)):
        theirs = partial(step_times, "-m", "benchmarks.peer", n_seeds, "--again")
        for how, worth_compiling in (("not compiled", "inf"), ("compiled", "0")):
            ours = partial(step_times, "-c", STEPS, n_seeds, worth_compiling)
            our_time, their_time, ratio = medians([(ours(), theirs()) for _ in range(n_pairs)])
            print(
                f"{9 * int(n_seeds)} nets, {how}: {our_time:.2f} ms a step, JAX "
                f"{their_time:.2f} ms: ratio {ratio:.2f}",
                flush=True,
            )
    sweep = python(script, "--no-show", "--output", figure, "--seeds", "1000")

    def sweep_without_cache() -> None:
        shutil.rmtree(cache, ignore_errors=True)
        sweep()

    peer = python("-m", "benchmarks.peer", "1000")
    not_compiled_before = "36,000 trainings, nothing compiled before"
    compare(not_compiled_before, sweep_without_cache, "JAX", peer, pairs=3)
    compare("36,000 trainings, compiled before", sweep, "JAX", peer, pairs=3)


def step_times(*words: str) -> float:
    """Run `python WORDS`; return how long a step of its second round takes, in milliseconds.

    That is the mean over the optimizers, of the lines that the process prints.
    """
    output = subprocess.run(
        [sys.executable, *words], check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True
    ).stdout
    times = re.findall(r"([\d.]+) ms a step", output)
    return statistics.mean(map(float, times[1::2]))


def main() -> None:
    parser = argparse.ArgumentParser(description="The speed figures of the README")
    parser.add_argument("--peer", action="store_true", help="compare with JAX instead")
    if parser.parse_args().peer:
        if not all(map(importlib.util.find_spec, ("jax", "optax"))):
            parser.error("--peer needs two packages: pip install jax optax")
        with tempfile.TemporaryDirectory() as folder:
            compare_peer(folder)
        return
    dataset, _ = TASK.make_data(SEED)

    def our_loader() -> Batches:
        return make_loader(dataset, TASK.batch_size)

    def plain_loader(workers: int = 0) -> Batches:
        return DataLoader(dataset, TASK.batch_size, shuffle=True, num_workers=workers)

    def load_all(loader: Batches) -> Callable[[], object]:
        return lambda: [None for _ in range(TASK.epochs) for batch in loader]

    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    train_four(our_loader, train)  # the first time is slower, and not timed
    with tempfile.TemporaryDirectory() as folder:
        figure = str(Path(folder, "figure.png"))
        run = python(str(ROOT / "compare_optimizers.py"), "--no-show", "--output", figure)
        floor = python("-c", IMPORT_FLOOR.replace("floor.png", str(Path(folder, "floor.png"))))
        compare("default run", run, "import floor", floor, pairs=9)
        compare_load(folder)
        all_tasks = (str(ROOT / "compare_tasks.py"), "--no-show", "--output", figure, "--jobs")
        compare("all tasks: jobs 2", python(*all_tasks, "2"), "jobs 1", python(*all_tasks, "1"), 1)
    compare(
        "our loader", load_all(our_loader()), "default collation", load_all(plain_loader()), pairs=9
    )
    compare(
        "our loader and loop",
        lambda: train_four(our_loader, train),
        "textbook's",
        lambda: train_four(plain_loader, textbook_loop),
        pairs=9,
    )
    compare(
        "one epoch: our loader and loop",
        lambda: train_four(our_loader, train, epochs=1),
        "textbook's with two workers",
        lambda: train_four(lambda: plain_loader(2), textbook_loop, epochs=1),
        pairs=3,
    )
    compare_stacks(lambda: train_four(our_loader, train))
    compare_sizes()
    compare_jobs()
    compare_rules()
    compare_tasks()
    for what, code in (
        ("1000 seeds × 4 optimizers × 9 rates", MEMORY),
        ("50 nets of 669,706 parameters", LARGE),
    ):
        print(f"peak memory of {what}:", end=" ", flush=True)
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


if __name__ == "__main__":
    main()

"""Which optimizer at which learning rate? Train each at every rate of a grid, over many seeds.

A seed is the data's noise and order and the first weights; all optimizers share them.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial

from lab import plotting
from lab.commands import Parser, device, positive_float, positive_int
from lab.report import Report, run_main, table
from lab.specs import parse_optimizers, try_optimizers
from lab.stacking import train_all
from lab.statistics import (
    format_quartiles,
    quartiles,
    seeds_needed,
    steps_to_target,
    told_apart,
)
from lab.trainings import Problem, Runs, Training, silent, take_a_step

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import TensorDataset

from data import make_dataset
from models import Net
from settings import BATCH_SIZE, EPOCHS, LOSS, OPTIMIZERS, SEED

LR_RANGE = 1e-4, 1.0
LR_COUNT = 9
SEEDS = 10
GOOD = 1.5  # a rate is good if its median loss is within this many times the best

EXAMPLES = """\
  python compare_learning_rates.py --seeds 100
  python compare_learning_rates.py --optimizers Adam AdamW NAdam RAdam --lr-range 1e-3 0.3
  python compare_learning_rates.py --optimizers Adam homework.MyAdam --csv rates.csv"""

CSV_HEADER = ("optimizer", "lr", "seed", "final_loss")


class Sweep:
    """The runs of one optimizer, by rate and seed. Rates that are not complete are left out."""

    def __init__(self, runs: Runs):
        """Take runs of all seeds at the first rate, then of all at the second, and so on."""
        self.runs = runs
        lrs = [training.lr for training in runs.trainings]
        n_seeds = lrs.count(lrs[0])
        self.lrs = [lr for lr in dict.fromkeys(lrs) if lrs.count(lr) == n_seeds]
        n_runs = n_seeds * len(self.lrs)
        self.losses = runs.losses[:, :n_runs].unflatten(1, (-1, n_seeds))  # (steps, rates, seeds)
        # After training, over the training set (rates, seeds); infinite where a run diverged.
        self.final_losses = runs.final_losses[:n_runs].unflatten(0, (-1, n_seeds))
        self.median = quartiles(self.final_losses)[1]  # (rates,)
        self.best = int(self.median.argmin())  # the index of the rate with the lowest median


def learning_rates(low: float, high: float, count: int) -> list[float]:
    """Return `count` rates from `low` to `high`, evenly spaced by their logarithms.

    ValueError if these are not at least two different rates.
    """
    if not low < high or count < 2:
        raise ValueError("--lr-range wants LOW below HIGH, and --lr-count at least 2")
    exponents = torch.linspace(math.log10(low), math.log10(high), count, dtype=torch.float64)
    rates = [float(f"{10**exponent:.6g}") for exponent in exponents.tolist()]
    if len(set(rates)) < count:
        raise ValueError(f"--lr-range {low:g} {high:g} is too narrow for {count} rates")
    return rates


def compare(
    optimizers: dict[str, Callable[..., Optimizer]] | None = None,
    lrs: Iterable[float] | None = None,
    make_data: Callable[[int], TensorDataset] = make_dataset,
    make_net: Callable[[], nn.Module] = Net,
    seeds: Iterable[int] = range(SEED, SEED + SEEDS),
    epochs: int = EPOCHS,
    batch_size: int = BATCH_SIZE,
    progress: Callable = silent,
) -> Iterator[tuple[str, Runs]]:
    """Train every optimizer at every rate from every seed; yield (label, Runs) as each finishes.

    `optimizers` maps a label to whatever makes the optimizer from param groups, which name the lr;
    those of settings.py by default. The runs come rate by rate: see `Sweep`. Data and nets are as
    in compare_optimizers.py.
    """
    problem = Problem(make_net, LOSS, epochs, batch_size)
    data = {seed: make_data(seed) for seed in seeds}
    rates = lrs or learning_rates(*LR_RANGE, LR_COUNT)
    trainings = [Training(seed, data[seed], lr) for lr in rates for seed in data]
    for label, make_optimizer in (optimizers or parse_optimizers(OPTIMIZERS)).items():
        yield label, train_all(problem, trainings, make_optimizer, progress(label))


# ---------------------------------------------------------------- what the numbers say


def good_rates(sweep: Sweep) -> tuple[float, float]:
    """Return the lowest and the highest rate of those around the best that are good, all of them.

    Good is a median final loss of at most GOOD times the best one.
    """
    good = (sweep.median <= GOOD * sweep.median[sweep.best]).tolist()
    low = high = sweep.best
    while low > 0 and good[low - 1]:
        low -= 1
    while high < len(good) - 1 and good[high + 1]:
        high += 1
    return sweep.lrs[low], sweep.lrs[high]


def judged(sweep: Sweep) -> Tensor:
    """Return each seed's final loss (seeds,) at the best rate of seeds that it is not among.

    One half of the seeds chooses the rate for the other: a rate that is judged on the seeds that
    chose it is flattered by their luck. A single seed has no other.
    """
    losses = sweep.final_losses.clone()[sweep.best]
    if len(losses) > 1:
        even, odd = slice(0, None, 2), slice(1, None, 2)
        for half, others in ((even, odd), (odd, even)):
            best = quartiles(sweep.final_losses[:, others])[1].argmin()
            losses[half] = sweep.final_losses[best, half]
    return losses


def conclusions(sweeps: dict[str, Sweep]) -> list[str]:
    """Return what the numbers allow one to say, a sentence each."""
    lost = [label for label, sweep in sweeps.items() if sweep.median[sweep.best] == math.inf]
    sentences = [f"{label} diverged at every rate." for label in lost]
    sweeps = {label: sweep for label, sweep in sweeps.items() if label not in lost}
    losses = {label: judged(sweep) for label, sweep in sweeps.items()}
    n_seeds = min(map(len, losses.values()), default=0)
    if len(losses) > 1 and n_seeds > 1:
        sentences.append(ties_in_words({k: v[:n_seeds] for k, v in losses.items()}))
        good = {label: good_rates(sweep) for label, sweep in sweeps.items()}
        ratios = {label: high / low for label, (low, high) in good.items()}
        widest = [label for label in ratios if ratios[label] > 0.99 * max(ratios.values())]
        sentences.append(
            f"Most forgiving of a badly chosen rate: {', '.join(widest)}, within {GOOD:g} times "
            f"the best loss while the rate grows {max(ratios.values()):.3g}-fold."
        )
    sentences += flattery_in_words(sweeps)
    ends = [label for label, sweep in sweeps.items() if sweep.best in (0, len(sweep.lrs) - 1)]
    if ends:
        sentences.append(
            f"The best rate lies at an end of the grid for {', '.join(ends)}: a wider "
            "--lr-range may hold a better one."
        )
    return sentences


def ties_in_words(losses: dict[str, Tensor]) -> str:
    """Return which pairs cannot be told apart, given each one's losses, paired (seeds,)."""
    n_seeds = len(next(iter(losses.values())))
    start = f"Not to be told apart at their best rates, over {n_seeds} seeds"
    if n_seeds < (needed := seeds_needed(len(losses))):
        return f"{start}: any two, as these are too few seeds for a test; {needed} would do."
    apart = told_apart(losses)
    ties = "; ".join(f"{a} and {b}" for (a, b), differ in apart.items() if not differ)
    pairs = "one pair" if len(apart) == 1 else f"{len(apart)} pairs, corrected by Holm"
    return f"{start} (exact signed-rank test, 5 %, {pairs}): {ties or 'none'}."


def flattery_in_words(sweeps: dict[str, Sweep]) -> list[str]:
    """Return what it would add to judge rates on the seeds that chose them, where that shows."""
    sentences = []
    for label, sweep in sweeps.items():
        honest, flattered = quartiles(judged(sweep))[1].item(), sweep.median[sweep.best].item()
        if math.isfinite(honest) and honest > 1.01 * flattered:
            sentences.append(
                f"{label} would look {honest / flattered - 1:.0%} better if its rate were judged "
                "on the seeds that chose it."
            )
    return sentences


# ---------------------------------------------------------------- the figure


def draw_final_losses(axes: Axes, sweeps: dict[str, Sweep]) -> None:
    """Draw final loss against learning rate: median, interquartile band, best rate, divergence."""
    colors = plotting.colors(sweeps)
    lowest = [quartiles(sweep.final_losses)[0].min().item() for sweep in sweeps.values()]
    highest = [sweep.median.min().item() for sweep in sweeps.values()]
    highest.append(next(iter(sweeps.values())).losses[:1].nanmedian().item())  # before training
    lowest, highest = ([x for x in losses if x < math.inf] for losses in (lowest, highest))
    for i, (label, sweep) in enumerate(sweeps.items()):
        plotting.median_band(axes, sweep.lrs, quartiles(sweep.final_losses), label, colors[label])
        best_lr, best_loss = sweep.lrs[sweep.best], sweep.median[sweep.best].item()
        axes.plot(best_lr, best_loss, marker="o", markersize=9, color=colors[label])
        # Runs that diverged: a cross above their rate, larger the more of the seeds did.
        share = sweep.final_losses.isinf().double().mean(1)
        axes.scatter(
            sweep.lrs,
            [0.98 - 0.035 * i] * len(sweep.lrs),
            s=80 * share,
            marker="x",
            color=colors[label],
            transform=axes.get_xaxis_transform(),
        )
    plotting.log_scale(axes.xaxis)
    plotting.log_scale(axes.yaxis, subs=(1, 2, 5))
    if lowest and highest:
        axes.set(ylim=(0.8 * min(lowest), 3 * max(highest)))
    axes.set(
        xlabel="Learning rate (×: diverged)", ylabel="Loss on the training set, after training"
    )


def draw_histories(axes: Axes, sweeps: dict[str, Sweep]) -> None:
    """Draw the loss against steps of each optimizer at its own best rate."""
    colors = plotting.colors(sweeps)
    for label, sweep in sweeps.items():
        bands = quartiles(sweep.losses[:, sweep.best])
        steps = range(1, len(sweep.losses) + 1)
        name = plotting.name(label, sweep.lrs[sweep.best])
        plotting.median_band(axes, steps, bands, name, colors[label], linewidth=1)
    plotting.log_scale(axes.yaxis, subs=(1, 2, 5))
    axes.set(xlabel="Steps", ylabel="Loss at the best rate")


def draw(runs: dict[str, Runs] | Iterable[tuple[str, Runs]]) -> Figure:
    """Return the figure of what `compare` yields: loss against rate, histories at the best."""
    sweeps = {label: Sweep(run) for label, run in dict(runs).items()}
    figure, (left, right) = plotting.new_figure(2)
    draw_final_losses(left, sweeps)
    draw_histories(right, sweeps)
    plotting.legend(figure, right.lines)
    return figure


# ---------------------------------------------------------------- the table and the command line


def table_row(run: Runs, target: float) -> tuple[str, ...]:
    """Return the cells of a row: best rate, loss there, good rates, steps, seconds, the end."""
    sweep = Sweep(run)
    low, high = good_rates(sweep)
    all_diverged = sweep.median[sweep.best] == math.inf
    losses = sweep.losses[:, sweep.best].T
    steps = [steps_to_target(history, target, run.steps_per_epoch) for history in losses]
    return (
        "-" if all_diverged else f"{sweep.lrs[sweep.best]:.3g}",
        format_quartiles(judged(sweep), ".5f"),
        "-" if all_diverged else f"{low:.3g} to {high:.3g}",
        format_quartiles(torch.tensor(steps), ".0f"),
        f"{run.seconds:.2f}",
        run.note(),
    )


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLES, "compare_learning_rates.png")
    parser.add_optimizers(list(OPTIMIZERS), "the tutorial's four")
    parser.add_argument(
        "--lr-range",
        type=positive_float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        default=LR_RANGE,
        help=f"ends of the grid of learning rates (default: {LR_RANGE[0]:g} {LR_RANGE[1]:g})",
    )
    parser.add("--lr-count", positive_int, LR_COUNT, "learning rates, at equal ratios")
    parser.add_seeds(SEEDS)
    parser.add_training()
    parser.add_batch_size()
    parser.add_target()
    parser.add("--device", device, "cpu", "where to train: cpu, cuda, mps")
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = make_parser()
    options = parser.parse(argv)

    @cache
    def make_data(seed: int) -> TensorDataset:
        dataset = make_dataset(seed, options.samples, options.noise)
        return TensorDataset(*(tensor.to(options.device) for tensor in dataset.tensors))

    with parser.refusing():
        lrs = learning_rates(*options.lr_range, options.lr_count)
        optimizers = parse_optimizers(options.optimizers)
        for label, spec in optimizers.items():
            if "lr" in spec.keywords:
                raise ValueError(f"{label!r} names its own lr, but here every rate is tried")
        problem = Problem(Net, LOSS, options.epochs, options.batch_size)
        training = Training(options.seed, make_data(options.seed), lrs[0])
        try_optimizers(optimizers, partial(take_a_step, problem, training))

    columns = {
        "best lr": ">8",
        "loss": ">27",
        "good rates": ">18",
        f"steps to {options.target:g}": ">17",
        "seconds": ">7",
    }
    report = Report(options, table(optimizers, **columns))
    runs = report.collect(
        compare(
            optimizers,
            lrs,
            make_data,
            seeds=range(options.seed, options.seed + options.seeds),
            epochs=options.epochs,
            batch_size=options.batch_size,
            progress=report.progress,
        ),
        lambda label, run: (label, optimizers[label].call, *table_row(run, options.target)),
    )
    for sentence in conclusions({label: Sweep(run) for label, run in runs.items()}):
        report.say(sentence)
    rows = (
        (label, training.lr, training.seed, loss)
        for label, run in runs.items()
        for training, loss in zip(run.trainings, run.final_losses.tolist(), strict=True)
    )
    return report.save(draw(runs), CSV_HEADER, rows)


if __name__ == "__main__":
    run_main(main)

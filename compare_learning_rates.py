"""Which optimizer at which learning rate? Train each at every rate of a grid, over many seeds.

A seed is the data's noise and order and the first weights; all optimizers share them.
"""

import math
import time
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import cli
import plotting
from data import make_dataset, make_loader, stack_datasets
from models import make_nets
from training import quartiles, quartiles_of_steps, train_many

OPTIMIZERS = [
    "SGD",
    "Momentum=SGD(momentum=0.8)",
    "RMSprop=RMSprop(alpha=0.9)",
    "Adam=Adam(betas=(0.9, 0.99))",
]
LR_RANGE = 1e-4, 1.0
LR_COUNT = 9
SEEDS = 10
EPOCHS = 12
BATCH_SIZE = 32
N_SAMPLES = 1000
NOISE = 0.1
SEED = 0
TARGET = 0.02
GOOD = 1.5  # a rate is good if its median loss is within this many times the best

EXAMPLES = """\
  python compare_learning_rates.py --seeds 100
  python compare_learning_rates.py --optimizers Adam AdamW NAdam RAdam --lr-range 1e-3 0.3
  python compare_learning_rates.py --optimizers Adam homework.MyAdam --csv rates.csv"""

CSV_HEADER = ("optimizer", "lr", "seed", "final_loss")


class Sweep(NamedTuple):
    """One optimizer at every rate and seed: what `compare` yields."""

    lrs: list[float]
    losses: Tensor  # (steps, rates, seeds), the mini-batch loss before each step
    final_losses: Tensor  # (rates, seeds), over the training set; infinite where it diverged
    steps_per_epoch: int
    seconds: float
    stacked: bool  # all at once, or one by one

    @property
    def median(self) -> Tensor:
        """The median final loss at each rate."""
        return quartiles(self.final_losses)[1]

    @property
    def best(self) -> int:
        """The index of the rate with the lowest median."""
        return int(self.median.argmin())


def learning_rates(low: float, high: float, count: int) -> list[float]:
    """Return `count` rates from `low` to `high`, evenly spaced by their logarithms."""
    exponents = torch.linspace(math.log10(low), math.log10(high), count, dtype=torch.float64)
    return [float(f"{10**exponent:.6g}") for exponent in exponents.tolist()]


def compare(
    optimizers: dict[str, Callable] | None = None,
    lrs: list[float] | None = None,
    seeds: int = SEEDS,
    seed: int = SEED,
    epochs: int = EPOCHS,
    batch_size: int = BATCH_SIZE,
    n_samples: int = N_SAMPLES,
    noise: float = NOISE,
    device: str = "cpu",
    progress: Callable[[str], Callable] = lambda label: iter,
) -> Iterator[tuple[str, Sweep]]:
    """Train every optimizer at every rate from every seed; yield (label, Sweep) as each finishes.

    `optimizers` maps a label to whatever makes the optimizer from param groups, which name the lr;
    the tutorial's four by default. The seeds are `seed`, `seed + 1`, and so on.
    """
    if optimizers is None:
        optimizers = cli.parse_optimizers(OPTIMIZERS)
    lrs = lrs or learning_rates(*LR_RANGE, LR_COUNT)
    numbers = range(seed, seed + seeds)
    dataset = stack_datasets(make_dataset(n_samples, noise, k) for k in numbers)
    dataset.tensors = tuple(tensor.to(device) for tensor in dataset.tensors)
    nets = [net.to(device) for net in make_nets(numbers)]

    def loader(data):
        return make_loader(data, batch_size)

    for label, make_optimizer in optimizers.items():
        start = time.perf_counter()
        torch.manual_seed(seed)
        many = train_many(nets, make_optimizer, dataset, loader, epochs, lrs, progress(label))
        seconds = time.perf_counter() - start
        final_losses = many.final_losses.cpu().nan_to_num(math.inf)
        losses = many.losses.cpu()
        yield label, Sweep(lrs, losses, final_losses, len(loader(dataset)), seconds, many.stacked)


# ---------------------------------------------------------------- what the numbers say


def good_region(sweep: Sweep) -> float:
    """Return how many decades of rates around the best one are good, without a gap."""
    good = (sweep.median <= GOOD * sweep.median[sweep.best]).tolist()
    low = high = sweep.best
    while low > 0 and good[low - 1]:
        low -= 1
    while high < len(good) - 1 and good[high + 1]:
        high += 1
    return math.log10(sweep.lrs[high] / sweep.lrs[low])


def difference_interval(one: Tensor, other: Tensor, resamples: int = 4000) -> tuple[float, float]:
    """Return a 95 % bootstrap interval of the median of `one - other`, paired over seeds (n,).

    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 (percentiles).
    """
    difference = (one.double().clamp(max=1e30) - other.double().clamp(max=1e30)).flatten()
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(len(difference), (resamples, len(difference)), generator=generator)
    medians = difference[rows].quantile(0.5, dim=1)
    low, high = medians.quantile(torch.tensor([0.025, 0.975], dtype=medians.dtype)).tolist()
    return low, high


def conclusions(sweeps: dict[str, Sweep]) -> list[str]:
    """Return what the numbers allow one to say, a sentence each."""
    sentences = []
    at_best = {label: sweep.final_losses[sweep.best] for label, sweep in sweeps.items()}
    ties = []
    for one, other in combinations(at_best, 2):
        low, high = difference_interval(at_best[one], at_best[other])
        if low <= 0 <= high:
            ties.append(f"{one} and {other}")
    n_seeds = len(next(iter(at_best.values())))
    if len(at_best) > 1 and n_seeds > 1:
        which = "; ".join(ties) if ties else "none"
        sentences.append(
            f"Not to be told apart at their best rates, over {n_seeds} seeds (the 95 % bootstrap "
            f"interval of the median difference includes zero): {which}."
        )
        widths = {label: good_region(sweep) for label, sweep in sweeps.items()}
        widest = [label for label in widths if widths[label] > max(widths.values()) - 0.01]
        sentences.append(
            f"Most forgiving of a badly chosen rate: {', '.join(widest)}, within {GOOD:g} times "
            f"the best loss over {max(widths.values()):.1f} decades."
        )
    ends = [label for label, sweep in sweeps.items() if sweep.best in (0, len(sweep.lrs) - 1)]
    if ends:
        sentences.append(
            f"The best rate lies at an end of the grid for {', '.join(ends)}: a wider "
            "--lr-range may hold a better one."
        )
    return sentences


# ---------------------------------------------------------------- the figure


def draw_final_losses(axes: Axes, sweeps: dict[str, Sweep]) -> None:
    """Draw final loss against learning rate: median, interquartile band, best rate, divergence."""
    colors = plotting.colors(sweeps)
    medians = torch.stack([sweep.median for sweep in sweeps.values()])
    lowest = min(quartiles(sweep.final_losses)[0].min().item() for sweep in sweeps.values())
    first_loss = next(iter(sweeps.values())).losses[0].median().item()
    top = 3 * max(first_loss, medians.min(1).values.max().item())
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
    axes.set(ylim=(0.8 * lowest, top))
    axes.set(
        xlabel="Learning rate (×: diverged)", ylabel="Loss on the training set, after training"
    )


def draw_histories(axes: Axes, sweeps: dict[str, Sweep]) -> None:
    """Draw the loss against steps of each optimizer at its own best rate."""
    colors = plotting.colors(sweeps)
    for label, sweep in sweeps.items():
        bands = quartiles(sweep.losses[:, sweep.best])
        steps = range(1, len(sweep.losses) + 1)
        name = f"{label}, lr={sweep.lrs[sweep.best]:.3g}"
        plotting.median_band(axes, steps, bands, name, colors[label], linewidth=1)
    plotting.log_scale(axes.yaxis, subs=(1, 2, 5))
    axes.set(xlabel="Steps", ylabel="Loss at the best rate")


def draw(sweeps: dict[str, Sweep]) -> Figure:
    """Return the figure: final loss against learning rate, and the histories at the best."""
    figure, (left, right) = plotting.new_figure(2)
    draw_final_losses(left, sweeps)
    draw_histories(right, sweeps)
    plotting.legend(figure, right.lines)
    return figure


# ---------------------------------------------------------------- the table and the command line


def table_row(sweep: Sweep, target: float) -> tuple[str, ...]:
    """Return best rate, loss there, good region, steps to target and divergence, as shown."""
    steps = quartiles_of_steps(sweep.losses[:, sweep.best], target, sweep.steps_per_epoch)
    return (
        f"{sweep.lrs[sweep.best]:.3g}",
        cli.format_quartiles(quartiles(sweep.final_losses[sweep.best]), ".5f"),
        f"{good_region(sweep):.1f}",
        cli.format_quartiles(steps, ".0f"),
        f"{sweep.final_losses.isinf().double().mean():.0%}",
        f"{sweep.seconds:.2f}",
    )


def make_parser() -> cli.Parser:
    parser = cli.Parser(__doc__, EXAMPLES)
    parser.add_optimizers(OPTIMIZERS, "the tutorial's four")
    parser.add_argument(
        "--lr-range",
        type=cli.positive_float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        default=LR_RANGE,
        help=f"ends of the grid of learning rates (default: {LR_RANGE[0]:g} {LR_RANGE[1]:g})",
    )
    parser.add("--lr-count", cli.positive_int, LR_COUNT, "learning rates, evenly spaced in decades")
    parser.add("--seeds", cli.positive_int, SEEDS, "how many seeds, from --seed on")
    parser.add_training_options(EPOCHS, BATCH_SIZE, N_SAMPLES, NOISE)
    parser.add_target(TARGET)
    parser.add("--device", cli.device, "cpu", "where to train: cpu, cuda, mps")
    parser.add_common_options(SEED, "compare_learning_rates.png")
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = make_parser()
    args = parser.parse(argv)
    low, high = args.lr_range
    if not low < high or args.lr_count < 2:
        parser.error("--lr-range wants LOW below HIGH, and --lr-count at least 2")
    lrs = learning_rates(low, high, args.lr_count)
    try:
        parser.check_seeds(args.seed, args.seeds)
        optimizers = cli.parse_optimizers(args.optimizers)
        for label, spec in optimizers.items():
            if "lr" in spec.keywords:
                raise ValueError(f"{label!r} names its own lr, but here every rate is tried")
        tiny = {"lrs": lrs[:2], "seeds": 1, "epochs": 1, "n_samples": 1, "device": args.device}
        cli.try_optimizers(optimizers, lambda one: list(compare(one, **tiny)))
    except (ValueError, RuntimeError) as error:
        parser.error(str(error))

    layout = cli.layout(optimizers, 8, 27, 12, 17, 8, 7)
    header = "best lr", "loss [quartiles]", "good decades", f"steps to {args.target:g}"
    print(layout.format("optimizer", "call", *header, "diverged", "seconds"))
    sweeps, interrupted = {}, False
    settings = args.epochs, args.batch_size, args.samples, args.noise, args.device
    try:
        for label, sweep in compare(
            optimizers, lrs, args.seeds, args.seed, *settings, cli.progress_of_many
        ):
            sweeps[label] = sweep
            row = table_row(sweep, args.target)
            print(layout.format(label, optimizers[label].call, *row), flush=True)
            if not sweep.stacked:
                print(cli.ONE_BY_ONE.format(label))
    except KeyboardInterrupt:
        if not sweeps:
            raise
        interrupted = True

    print(*conclusions(sweeps), sep="\n")
    rows = (
        (label, lr, args.seed + k, loss)
        for label, sweep in sweeps.items()
        for lr, losses in zip(sweep.lrs, sweep.final_losses.tolist(), strict=True)
        for k, loss in enumerate(losses)
    )
    return cli.finish(args, draw(sweeps), CSV_HEADER, rows, interrupted)


if __name__ == "__main__":
    cli.run(main)

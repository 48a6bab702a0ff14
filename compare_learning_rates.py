"""Which optimizer at which learning rate? Train each at every rate of a grid, over many seeds.

A seed is the data and the first weights; all optimizers share them. Rates are chosen, and
optimizers compared, by the loss on data held out. Where the best rate lies at an end of the grid,
the grid grows.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from lab import plotting
from lab.commands import Parser
from lab.report import Report, run_main, table
from lab.specs import parse_optimizers, try_optimizers
from lab.stacking import is_worth_compiling
from lab.statistics import (
    describe_test,
    format_quartiles,
    quartiles,
    seeds_needed,
    steps_to_target,
    told_apart,
)
from lab.sweeps import DECADES, GOOD, Sweep, learning_rates, sweep
from lab.trainings import Runs, silent, take_a_step, trainings_of

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.optim import Optimizer

from settings import OPTIMIZERS, SEED, TASK
from tasks import TASKS, Task

LR_RANGE = 1e-4, 1.0
LR_COUNT = 9
SEEDS = 10

EXAMPLES = """\
  python compare_learning_rates.py --seeds 100
  python compare_learning_rates.py --optimizers Adam AdamW NAdam RAdam --lr-range 1e-3 0.3
  python compare_learning_rates.py --optimizers Adam homework.MyAdam --csv rates.csv
  python compare_learning_rates.py --task rare_words"""

CSV_HEADER = ("optimizer", "lr", "seed", "final_loss", "held_out_loss")


def compare(
    optimizers: dict[str, Callable[..., Optimizer]] | None = None,
    task: Task = TASKS[TASK],
    lrs: Iterable[float] | None = None,
    seeds: Iterable[int] = range(SEED, SEED + SEEDS),
    progress: Callable = silent,
    compiled: bool | None = None,
) -> Iterator[tuple[str, Runs]]:
    """Train every optimizer at every rate from every seed; yield (label, Runs) as each finishes.

    `optimizers` maps a label to whatever makes the optimizer from param groups, which name the lr;
    those of settings.py by default. The runs come rate by rate: see `Sweep`. There are more than
    `lrs` names, evenly spaced, where the best one lies at their end. Steps are compiled if
    `compiled` says so, by default where so much work is worth it.
    """
    trainings = trainings_of(task, seeds, lrs or learning_rates(*LR_RANGE, LR_COUNT))
    optimizers = optimizers or parse_optimizers(OPTIMIZERS)
    if compiled is None:
        compiled = is_worth_compiling(task, trainings, len(optimizers))
    for label, make_optimizer in optimizers.items():
        yield label, sweep(task, trainings, make_optimizer, progress(label), compiled)


# ---------------------------------------------------------------- what the numbers say


def conclusions(sweeps: dict[str, Sweep]) -> list[str]:
    """Return what the numbers allow one to say, a sentence each."""
    lost = [label for label, result in sweeps.items() if result.diverged]
    sentences = [f"{label} diverged at every rate." for label in lost]
    sweeps = {label: result for label, result in sweeps.items() if label not in lost}
    losses = {label: result.judged() for label, result in sweeps.items()}
    n_seeds = min(map(len, losses.values()), default=0)
    if len(losses) > 1 and n_seeds > 1:
        sentences.append(ties_in_words({k: v[:n_seeds] for k, v in losses.items()}))
        good = {label: result.good_rates() for label, result in sweeps.items()}
        ratios = {label: high / low for label, (low, high) in good.items()}
        widest = [label for label in ratios if ratios[label] > 0.99 * max(ratios.values())]
        sentences.append(
            f"Most forgiving of a badly chosen rate: {', '.join(widest)}, within {GOOD:g} times "
            f"the best loss while the rate grows {max(ratios.values()):.3g}-fold."
        )
    sentences += flattery_in_words(sweeps)
    if ends := [label for label, result in sweeps.items() if result.end()]:
        sentences.append(
            f"The best rate still lies at an end of the grid for {', '.join(ends)}, which has "
            f"grown by {DECADES} decades."
        )
    if alone := [label for label, result in sweeps.items() if result.is_only_survivor()]:
        sentences.append(
            f"The best rate of {', '.join(alone)} is the only one that did not diverge: a finer "
            "grid may hold a better one."
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
    return f"{start} ({describe_test(len(losses))}): {ties or 'none'}."


def flattery_in_words(sweeps: dict[str, Sweep]) -> list[str]:
    """Return what it would add to judge rates on the seeds that chose them, where that shows."""
    sentences = []
    for label, result in sweeps.items():
        honest, flattered = quartiles(result.judged())[1].item(), result.median[result.best].item()
        if math.isfinite(honest) and honest > 1.01 * flattered:
            sentences.append(
                f"{label} would look {honest / flattered - 1:.0%} better if its rate were judged "
                "on the seeds that chose it."
            )
    return sentences


# ---------------------------------------------------------------- the figure


def draw_final_losses(axes: Axes, sweeps: dict[str, Sweep]) -> None:
    """Draw losses against learning rate: held out, with quartiles, best rate and divergence.

    The loss on the training set is dashed.
    """
    colors = plotting.colors(sweeps)
    lowest = [quartiles(result.held_out_losses)[0].min().item() for result in sweeps.values()]
    lowest += [quartiles(result.final_losses)[1].min().item() for result in sweeps.values()]
    highest = [result.median.min().item() for result in sweeps.values()]
    highest.append(next(iter(sweeps.values())).losses[:1].nanmedian().item())  # before training
    lowest, highest = ([x for x in losses if x < math.inf] for losses in (lowest, highest))
    for i, (label, result) in enumerate(sweeps.items()):
        bands = quartiles(result.held_out_losses)
        plotting.median_band(axes, result.lrs, bands, label, colors[label])
        training = quartiles(result.final_losses)[1].clamp(max=1e30)
        axes.plot(result.lrs, training, linestyle="--", linewidth=1, color=colors[label])
        best_lr, best_loss = result.lrs[result.best], result.median[result.best].item()
        axes.plot(best_lr, best_loss, marker="o", markersize=9, color=colors[label])
        # Runs that diverged: a cross above their rate, larger the more of the seeds did.
        share = result.held_out_losses.isinf().double().mean(1)
        axes.scatter(
            result.lrs,
            [0.98 - 0.035 * i] * len(result.lrs),
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
        xlabel="Learning rate (×: diverged)",
        ylabel="Loss after training: held out (dashed: training set)",
    )


def draw_histories(axes: Axes, sweeps: dict[str, Sweep]) -> None:
    """Draw the loss against steps of each optimizer at its own best rate."""
    colors = plotting.colors(sweeps)
    for label, result in sweeps.items():
        bands = quartiles(result.losses[:, result.best])
        steps = range(1, len(result.losses) + 1)
        name = plotting.name(label, result.lrs[result.best])
        plotting.median_band(axes, steps, bands, name, colors[label], linewidth=1)
    plotting.log_scale(axes.yaxis, subs=(1, 2, 5))
    axes.set(xlabel="Steps", ylabel="Mini-batch loss at the best rate")
    if any(result.runs.rates is not None for result in sweeps.values()):
        rates = {label: result.rate_history() for label, result in sweeps.items()}
        plotting.draw_rates(axes, rates, colors)


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
    """Return the cells of a row: best rate, losses there, accuracy, good rates, steps, seconds."""
    result = Sweep(run)
    losses = result.losses[:, result.best].T
    steps = [steps_to_target(history, target, run.steps_per_epoch) for history in losses]
    accuracies = result.accuracies()
    low, high = result.good_rates()
    best = f"{result.lrs[result.best]:.3g}"
    return (
        "-" if result.diverged else best,
        format_quartiles(result.final_losses[result.best], ".5f"),
        format_quartiles(result.judged(), ".5f"),
        *([] if accuracies is None else [format_quartiles(accuracies, ".1%")]),
        "-" if result.diverged else f"{low:.3g} to {high:.3g}",
        format_quartiles(torch.tensor(steps), ".0f"),
        f"{run.seconds:.2f}",
        run.note(),
    )


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLES, "compare_learning_rates.png")
    parser.add_optimizers(list(OPTIMIZERS), "the tutorial's four")
    parser.add_lr_range(*LR_RANGE, LR_COUNT)
    parser.add_seeds(SEEDS)
    parser.add_task()
    parser.add_batch_size()
    parser.add_target()
    parser.add_compile()
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = make_parser()
    options = parser.parse(argv)
    task, seeds = options.task, range(options.seed, options.seed + options.seeds)
    with parser.refusing():
        lrs = learning_rates(*options.lr_range, options.lr_count)
        optimizers = parse_optimizers(options.optimizers, sweeping=True)
        (training,) = trainings_of(task, [options.seed], lrs[:1])
        try_optimizers(optimizers, partial(take_a_step, task, training))

    columns = {"best lr": ">8", "loss": ">27", "held-out loss": ">27"}
    if training.has_classes:
        columns["accuracy"] = ">22"
    columns |= {"good rates": ">18", f"steps to {task.target:g}": ">17", "seconds": ">7"}
    report = Report(options, table(optimizers, **columns))
    runs = report.collect(
        compare(optimizers, task, lrs, seeds, report.progress, options.compile),
        lambda label, run: (label, optimizers[label].call, *table_row(run, task.target)),
    )
    for sentence in conclusions({label: Sweep(run) for label, run in runs.items()}):
        report.say(sentence)
    rows = (
        (label, training.lr, training.seed, *losses)
        for label, run in runs.items()
        for training, *losses in zip(
            run.trainings, run.final_losses.tolist(), run.held_out_losses.tolist(), strict=True
        )
    )
    return report.save(draw(runs), CSV_HEADER, rows)


if __name__ == "__main__":
    run_main(main)

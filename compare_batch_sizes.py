"""What does a batch cost, and what does it give? The same net trained with batches of each size.

Batch gradient descent (BGD) takes the whole set for each step, stochastic gradient descent (SGD)
one sample, mini-batch gradient descent (MBGD) something between. All start from the same weights.
"""

import math
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.optim import Optimizer
from torch.utils.data import TensorDataset

import cli
import plotting
from data import make_dataset, make_loader
from models import Net
from training import evaluate, train

BATCH_SIZES = ["full", "32", "1"]
OPTIMIZER = "SGD"
LR = 0.01
EPOCHS = 12
N_SAMPLES = 1000
NOISE = 0.1
SEED = 0

EXAMPLES = """\
  python compare_batch_sizes.py --lr 0.1
  python compare_batch_sizes.py --batch-sizes full 256 64 16 4 1
  python compare_batch_sizes.py --optimizer "Adam(lr=0.003)" --epochs 30"""

CSV_HEADER = ("batch_size", "epoch", "seconds", "loss")


class Run(NamedTuple):
    """The training with one batch size: what `compare` yields."""

    losses: list[float]  # over the training set, at the start and after each epoch
    seconds: list[float]  # of training until then, without the evaluation
    updates_per_epoch: int
    gradient_noise: float  # see `gradient_noise`
    diverged_at: int | None  # the step, counted from 1, whose loss was not finite


def compare(
    make_optimizer: Callable[..., Optimizer] | None = None,
    batch_sizes: tuple[int, ...] = (N_SAMPLES, 32, 1),
    dataset: TensorDataset | None = None,
    epochs: int = EPOCHS,
    seed: int = SEED,
    progress: Callable[[str], Callable] = lambda label: iter,
) -> Iterator[tuple[int, Run]]:
    """Train one net per batch size; yield (batch size, Run) as each finishes."""
    if make_optimizer is None:
        make_optimizer = cli.parse_optimizer(OPTIMIZER, LR)
    if dataset is None:
        dataset = make_dataset(N_SAMPLES, NOISE, seed)
    for batch_size in batch_sizes:
        torch.manual_seed(seed)
        net = Net()
        noise = gradient_noise(net, dataset, batch_size)
        optimizer = make_optimizer(net.parameters())
        loader = make_loader(dataset, batch_size)
        losses, seconds, steps, diverged_at = [evaluate(net, dataset)], [0.0], 0, None
        for _ in progress(f"batch size {batch_size}")(range(epochs)):
            start = time.perf_counter()
            batch_losses = train(net, optimizer, loader, epochs=1)
            seconds.append(seconds[-1] + time.perf_counter() - start)
            losses.append(evaluate(net, dataset))
            steps += len(batch_losses)
            if not math.isfinite(batch_losses[-1] + losses[-1]):
                diverged_at = steps + math.isfinite(batch_losses[-1])
                break
        yield batch_size, Run(losses, seconds, len(loader), noise, diverged_at)


def gradient(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of the mean squared error by all parameters, as one vector."""
    grads = torch.autograd.grad(mse_loss(net(x), y), list(net.parameters()))
    return nn.utils.parameters_to_vector(grads)


def gradient_noise(net: nn.Module, dataset: TensorDataset, batch_size: int) -> float:
    """Return the noise of a mini-batch's gradient, relative to the full gradient's norm.

    That is √(mean of |g - G|²) / |G| for gradients g of at least 200 mini-batches and G of the
    whole set. For batches much smaller than the set it falls like 1/√batch_size.
    """
    full = gradient(net, *dataset.tensors)
    loader = make_loader(dataset, batch_size)
    square_distances = []
    while len(square_distances) < 200:
        for x, y in loader:
            if len(x) == min(batch_size, len(dataset)):  # the last one may be smaller
                square_distances.append((gradient(net, x, y) - full).square().sum())
    return (torch.stack(square_distances).mean().sqrt() / full.norm()).item()


def name_of(batch_size: int, n_samples: int) -> str:
    """Return the method's name with its batch size, as the legend has it."""
    method = {n_samples: "BGD", 1: "SGD"}.get(batch_size, "MBGD")
    return f"{method} ({batch_size})"


def draw(runs: dict[int, Run], n_samples: int = N_SAMPLES) -> Figure:
    """Return the figure: the loss against epochs, and against seconds of training."""
    figure, panels = plotting.new_figure(2)
    colors = plotting.colors(name_of(batch_size, n_samples) for batch_size in runs)
    for batch_size, run in runs.items():
        name = name_of(batch_size, n_samples)
        label = name if run.diverged_at is None else f"{name} (diverged)"
        for axes, x in zip(panels, (range(len(run.losses)), run.seconds), strict=True):
            axes.plot(x, run.losses, label=label, color=colors[name], marker=".")
    finite = [loss for run in runs.values() for loss in run.losses if math.isfinite(loss)]
    first = next(iter(runs.values())).losses[0]
    plotting.log_scale(panels[1].xaxis)  # the start, at 0 seconds, is in the left panel only
    for axes, xlabel in zip(panels, ("Epochs", "Seconds of training"), strict=True):
        plotting.log_scale(axes.yaxis, subs=(1, 2, 5))
        axes.set(xlabel=xlabel, ylabel="Loss on the training set")
        axes.set(ylim=(0.8 * min(finite), 2 * first))
    plotting.legend(figure, panels[0].lines)
    return figure


def batch_size(text: str) -> int | str:
    return text if text == "full" else cli.positive_int(text)


def make_parser() -> cli.Parser:
    parser = cli.Parser(__doc__, EXAMPLES)
    parser.add_argument(
        "--batch-sizes",
        nargs="+",
        type=batch_size,
        metavar="N",
        default=[batch_size(text) for text in BATCH_SIZES],
        help=f"samples a step; full is all there are (default: {' '.join(BATCH_SIZES)})",
    )
    parser.add("--optimizer", str, OPTIMIZER, "SPEC, as in compare_optimizers.py")
    parser.add("--lr", cli.positive_float, LR, "learning rate where the SPEC names none")
    parser.add_training_options(EPOCHS, None, N_SAMPLES, NOISE)
    parser.add_common_options(SEED, "compare_batch_sizes.png")
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = make_parser()
    args = parser.parse(argv)
    n_samples = args.samples
    sizes = [n_samples if size == "full" else min(size, n_samples) for size in args.batch_sizes]
    if len(set(sizes)) < len(sizes):
        parser.error(f"--batch-sizes names one twice, of {n_samples} samples: {sizes}")
    try:
        dataset = make_dataset(n_samples, args.noise, args.seed)
        one_sample = TensorDataset(*dataset[:1])
        optimizer = cli.parse_optimizers([args.optimizer], args.lr)
        (spec,) = optimizer.values()
        cli.try_optimizers(optimizer, lambda _: list(compare(spec, (1,), one_sample, epochs=1)))
    except (ValueError, RuntimeError) as error:
        parser.error(str(error))

    layout = "{:12}  {:>17}  {:>17}  {:>19}  {:>14}"
    print(f"{spec.call}, {args.epochs} epochs of {n_samples} samples")
    print(
        layout.format("method", "updates per epoch", "seconds per epoch", "loss", "gradient noise")
    )
    runs, interrupted = {}, False
    try:
        for size, run in compare(spec, sizes, dataset, args.epochs, args.seed, cli.progress):
            runs[size] = run
            loss = f"{run.losses[-1]:.5f}"
            if run.diverged_at:
                loss = f"diverged at step {run.diverged_at}"
            pace = f"{run.seconds[-1] / (len(run.seconds) - 1):.4f}"
            row = run.updates_per_epoch, pace, loss, f"{run.gradient_noise:.3f}"
            print(layout.format(name_of(size, n_samples), *row), flush=True)
    except KeyboardInterrupt:
        if not runs:
            raise
        interrupted = True

    rows = (
        (size, epoch, seconds, loss)
        for size, run in runs.items()
        for epoch, (seconds, loss) in enumerate(zip(run.seconds, run.losses, strict=True))
    )
    return cli.finish(args, draw(runs, n_samples), CSV_HEADER, rows, interrupted)


if __name__ == "__main__":
    cli.run(main)

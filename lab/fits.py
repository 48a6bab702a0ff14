"""What nets have learned, drawn: a curve, decision regions, or a map, as suits the data."""

from collections.abc import Callable

from lab import plotting
from lab.statistics import quartiles
from lab.trainings import Runs

import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from torch import Tensor
from torch.utils.data import TensorDataset

Draw = Callable[[list[Axes], dict[str, Runs]], None]
SIZE = 100  # points a side of what is drawn of a plane


def panels_of(dataset: TensorDataset, n_runs: int) -> tuple[int, Draw]:
    """Return how many panels the fits of so many runs need, and what draws them.

    ValueError where neither inputs nor targets can be drawn.
    """
    x, y = dataset.tensors
    if x.shape[1:] == (1,) and y.shape[1:] == (1,):
        return 1, draw_curves
    if x.shape[1:] == (2,) and not y.is_floating_point() and y.ndim == 1:
        return n_runs, draw_regions
    if x.shape[1:] == (2,) and y.shape[1:] == (1,):
        return n_runs + 1, draw_maps
    raise ValueError(
        "--fit draws a curve of one input, or what two inputs give: a class or a number"
    )


def draw_curves(panels: list[Axes], runs: dict[str, Runs]) -> None:
    """Draw the data of the first seed, and the curves of the nets: median and quartiles."""
    (axes,) = panels
    x, y = data_of(runs)
    grid = torch.linspace(x.min(), x.max(), 200, device=x.device).unsqueeze(1)
    axes.scatter(x.cpu(), y.cpu(), s=4, color="lightgrey")
    axes.set(xlabel="x", ylabel="y", ylim=axes.get_ylim())  # the data's, whatever a net does
    for label, color in plotting.colors(runs).items():
        bands = quartiles(predict_all(runs[label], grid).squeeze(2).T)
        plotting.median_band(axes, grid.cpu().flatten(), bands, label, color, linewidth=2)


def draw_regions(panels: list[Axes], runs: dict[str, Runs]) -> None:
    """Draw for each optimizer which class its nets give to each point, and the first seed's data.

    Of several seeds it is the class of the highest mean probability.
    """
    x, y = data_of(runs)
    palette = ListedColormap(plotting.PALETTE[: int(y.max()) + 1])
    limits = {"cmap": palette, "vmin": -0.5, "vmax": palette.N - 0.5}
    for axes, (label, run) in zip(panels, runs.items(), strict=True):
        classes = predict_all(run, plane(x)).softmax(2).nanmean(0).argmax(1)
        draw_image(axes, x, classes, alpha=0.35, **limits)
        axes.scatter(*x.T.cpu(), c=y.cpu(), s=3, **limits)
        axes.set(title=label)


def draw_maps(panels: list[Axes], runs: dict[str, Runs]) -> None:
    """Draw the first seed's data as a map, and beside it the map that each optimizer's nets give.

    Of several seeds it is their median.
    """
    x, y = data_of(runs)
    limits = {"vmin": y.min().item(), "vmax": y.max().item()}
    real, *others = panels
    real.tripcolor(*x.T.cpu(), y.flatten().cpu(), shading="gouraud", **limits)
    real.set(title="the data", xlabel="x₁", ylabel="x₂")
    for axes, (label, run) in zip(others, runs.items(), strict=True):
        heights = predict_all(run, plane(x)).squeeze(2).nanmedian(0).values
        draw_image(axes, x, heights, **limits)
        axes.set(title=label)


def data_of(runs: dict[str, Runs]) -> tuple[Tensor, Tensor]:
    """Return x and y of the first seed."""
    return next(iter(runs.values())).trainings[0].dataset.tensors


def predict_all(run: Runs, x: Tensor) -> Tensor:
    """Return the outputs of all nets (trainings, points, outputs)."""
    return torch.stack([run.predict(x, k) for k in range(len(run.trainings))])


def plane(x: Tensor) -> Tensor:
    """Return the points (SIZE², 2) of a grid over the range of x, row by row from below."""
    low, high = x.min(0).values.tolist(), x.max(0).values.tolist()
    first, second = (torch.linspace(*ends, SIZE) for ends in zip(low, high, strict=True))
    return torch.cartesian_prod(second, first).flip(1).to(x.device)


def draw_image(axes: Axes, x: Tensor, values: Tensor, **style) -> None:
    """Draw values (SIZE²,) at the points of `plane(x)`."""
    low, high = x.min(0).values.tolist(), x.max(0).values.tolist()
    axes.imshow(
        values.reshape(SIZE, SIZE).numpy(force=True),
        origin="lower",
        extent=(low[0], high[0], low[1], high[1]),
        aspect="auto",
        **style,
    )
    axes.grid(visible=False)
    axes.set(xlabel="x₁", ylabel="x₂")

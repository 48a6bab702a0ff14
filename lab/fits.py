"""What nets have learned, drawn: a curve, decision regions, or a map, as suits the data."""

from collections.abc import Callable

from lab import plotting
from lab.statistics import quartiles
from lab.trainings import Runs

import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from torch import Tensor
from torch.utils.data import TensorDataset

Draw = Callable[[list[Axes], dict[str, Runs]], None]
Move = Draw  # what is drawn, to other weights of the same nets
SIZE = 100  # points a side of what is drawn of a plane


def panels_of(dataset: TensorDataset, n_runs: int) -> tuple[int, Draw, Move]:
    """Return how many panels the fits of so many runs need, what draws them, and what moves them.

    ValueError where neither inputs nor targets can be drawn.
    """
    x, y = dataset.tensors
    if x.shape[1:] == (1,) and y.shape[1:] == (1,):
        return 1, draw_curves, move_curves
    if x.shape[1:] == (2,) and not y.is_floating_point() and y.ndim == 1:
        return n_runs, draw_regions, move_regions
    if x.shape[1:] == (2,) and y.shape[1:] == (1,):
        return n_runs + 1, draw_maps, move_maps
    raise ValueError(
        "--fit and --animate draw a curve of one input, or what two give: a class or a number"
    )


def draw_curves(panels: list[Axes], runs: dict[str, Runs]) -> None:
    """Draw the data of the first seed, and the curves of the nets: median and quartiles."""
    (axes,) = panels
    x, y = data_of(runs)
    grid = torch.linspace(x.min(), x.max(), 200, device=x.device)
    axes.scatter(x.cpu(), y.cpu(), s=4, color=plotting.faint())
    axes.set(xlabel="x", ylabel="y", ylim=axes.get_ylim())  # the data's, whatever a net does
    for label, color in plotting.colors(runs).items():
        bands = curve_of(runs[label], grid)
        plotting.median_band(axes, grid.cpu(), bands, label, color, linewidth=2)


def move_curves(panels: list[Axes], runs: dict[str, Runs]) -> None:
    (axes,) = panels
    for line, run in zip(axes.lines, runs.values(), strict=True):
        grid = torch.as_tensor(line.get_xdata(), device=data_of(runs)[0].device)
        line.set_ydata(curve_of(run, grid)[1].clamp(-1e30, 1e30).cpu())


def curve_of(run: Runs, x: Tensor) -> Tensor:
    """Return the quartiles (3, points) of the nets' outputs for inputs x (points,)."""
    return quartiles(predict_all(run, x.unsqueeze(1)).squeeze(2).T)


def draw_regions(panels: list[Axes], runs: dict[str, Runs]) -> None:
    """Draw for each optimizer which class its nets give to each point, and the first seed's data.

    Of several seeds it is the class of the highest mean probability.
    """
    x, y = data_of(runs)
    palette = ListedColormap(plotting.PALETTE[: int(y.max()) + 1])
    limits = {"cmap": palette, "vmin": -0.5, "vmax": palette.N - 0.5}
    for axes, (label, run) in zip(panels, runs.items(), strict=True):
        draw_image(axes, x, classes_of(run, x), alpha=0.35, **limits)
        axes.scatter(*x.T.cpu(), c=y.cpu(), s=3, **limits)
        axes.set(title=label)


def move_regions(panels: list[Axes], runs: dict[str, Runs]) -> None:
    for axes, run in zip(panels, runs.values(), strict=True):
        axes.images[0].set_data(as_image(classes_of(run, data_of(runs)[0])))


def classes_of(run: Runs, x: Tensor) -> Tensor:
    """Return the class (SIZE²,) that nets give to each point of the plane."""
    return predict_all(run, plane(x)).softmax(2).nanmean(0).argmax(1)


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
        draw_image(axes, x, heights_of(run, x), **limits)
        axes.set(title=label)


def move_maps(panels: list[Axes], runs: dict[str, Runs]) -> None:
    for axes, run in zip(panels[1:], runs.values(), strict=True):
        axes.images[0].set_data(as_image(heights_of(run, data_of(runs)[0])))


def heights_of(run: Runs, x: Tensor) -> Tensor:
    """Return the number (SIZE²,) that nets give to each point of the plane."""
    return predict_all(run, plane(x)).squeeze(2).nanmedian(0).values


def moving(axes: Axes) -> list[Artist]:
    """Return what moves in a panel; the data, too, where they lie on an image that does."""
    return [*axes.lines, *axes.images, *(axes.collections if axes.images else [])]


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


def as_image(values: Tensor) -> list[list[float]]:
    """Return values (SIZE²,) as rows, the lowest first."""
    return values.reshape(SIZE, SIZE).numpy(force=True)


def draw_image(axes: Axes, x: Tensor, values: Tensor, **style) -> None:
    """Draw values (SIZE²,) at the points of `plane(x)`."""
    low, high = x.min(0).values.tolist(), x.max(0).values.tolist()
    axes.imshow(
        as_image(values),
        origin="lower",
        extent=(low[0], high[0], low[1], high[1]),
        aspect="auto",
        **style,
    )
    axes.grid(visible=False)
    axes.set(xlabel="x₁", ylabel="x₂")

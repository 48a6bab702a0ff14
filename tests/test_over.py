"""Maps over the learning rate and one more hyperparameter: `--over lr momentum`."""

import csv
import math
from dataclasses import replace
from functools import partial
from itertools import pairwise

from lab.command_line.over import parse_over, those_with
from lab.command_line.specs import parse_optimizers
from lab.output.in_words import maps_in_words
from lab.pictures.looks import letter_color
from lab.pictures.maps import COLORS
from lab.pictures.style import ONCE
from lab.training.hyperparameter import Hyperparameter
from lab.training.maps import Map
from lab.training.train import train_all

import matplotlib.pyplot as plt
import pytest
import torch
from conftest import (
    SMALL,
    SmallNet,
    assert_refused,
    exit_status,
    made_up,
    small_data,
    textbook_training,
)
from matplotlib.colors import to_hex
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import TensorDataset

import compare_learning_rates as script
from settings import OPTIMIZERS
from tasks import Task

MOMENTUM = Hyperparameter("momentum", (0.0, 0.5, 0.9))
FAST = ["--no-show", "--epochs", "2", "--task", "parabola(samples=64)", "--batch-size", "32"]
FAST += ["--seeds", "3", "--judges", "4", "--lr-count", "3"]


def run_main(*words):
    return exit_status(script.main, [*FAST, *words])


def made_up_map(rows, lrs, seeds=4, over=MOMENTUM, judges=0):
    """A map made up so that each value and rate has this median."""
    parts = [made_up(row, lrs, seeds) for row in rows]
    runs = parts[0]
    for part, value in zip(parts, over.values, strict=True):
        part.trainings = [
            replace(t, settings=over.settings(torch.optim.SGD, value)) for t in part.trainings
        ]
    for name in ("final_losses", "held_out_losses"):
        setattr(runs, name, torch.cat([getattr(part, name) for part in parts]))
    runs.losses = torch.cat([part.losses for part in parts], 1)
    runs.trainings = [training for part in parts for training in part.trainings]
    if not judges:
        return Map(over, runs)
    found = Map(over, runs)
    judging = made_up([9.0], [found.best_lr], judges)
    judging.trainings = [replace(t, seed=t.seed + seeds) for t in judging.trainings]
    return Map(over, runs, judging)


# ---------------------------------------------------------------- the numbers


def test_each_number_is_that_of_the_textbooks_loop():
    task, lrs, seeds = replace(SMALL, epochs=2, batch_size=50), [0.003, 0.03], [7, 8]
    sgd = {"SGD": torch.optim.SGD}
    ((_, found),) = script.compare(sgd, task, lrs, seeds, [11, 12], over=MOMENTUM)
    assert found.runs.stacked

    def ends(momentum, lr, seed):
        make = partial(torch.optim.SGD, lr=lr, momentum=momentum)
        _, net = textbook_training(small_data(seed)[0], SmallNet, make, mse_loss, seed, 2, 50)
        return [mse_loss(net(x), y).item() for x, y in (d.tensors for d in small_data(seed))]

    medians = {}
    for lr, momentum, seed, stage, *losses in found.rows():
        assert losses == pytest.approx(ends(momentum, lr, seed), rel=1e-3)
        medians.setdefault((stage, momentum, lr), []).append(losses[1])
    cells = {k[1:]: sum(both) / 2 for k, both in medians.items() if k[0] == "chosen"}
    assert list(cells) == [(momentum, lr) for momentum in MOMENTUM.values for lr in lrs]
    assert found.medians.flatten().tolist() == pytest.approx(list(cells.values()))
    best = min(cells, key=lambda cell: cells[cell])
    assert (found.value, found.best_lr) == best
    assert [k[1:] for k in medians if k[0] == "judged"] == [best]
    assert found.judged_losses.tolist() == pytest.approx(medians["judged", best[0], best[1]])
    assert found.judged.seeds == [11, 12]
    x, y = small_data(8)[1].tensors
    loss = mse_loss(found.runs.net(3)(x), y).item()  # of the best value, with the second lr
    assert loss == pytest.approx(found.held_out_losses[1, 1].item())
    assert found.default == (0.001, 0)


@pytest.mark.parametrize("seed", range(2))
def test_on_a_quadratic_full_batch_sgd_diverges_just_above_the_line(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(50, 3, generator=generator) * torch.tensor([0.3, 1, 3])
    data = TensorDataset(x, x.sum(1, keepdim=True))
    net = partial(nn.Linear, 3, 1, bias=False)
    task = Task(lambda seed: (data, data), net, mse_loss, epochs=400, batch_size=50)
    largest = torch.linalg.eigvalsh(2 * x.double().T @ x.double() / 50)[-1].item()
    limits = [2 * (1 + momentum) / largest for momentum in MOMENTUM.values]
    lrs = sorted(factor * limit for limit in limits for factor in (0.97, 1.03))
    ((_, found),) = script.compare({"SGD": torch.optim.SGD}, task, lrs, [seed], [], over=MOMENTUM)
    assert found.curvature == pytest.approx(largest, rel=1e-4)
    assert found.limits == pytest.approx(limits, rel=1e-4)
    start = found.losses[0].max().item()
    is_stable = [[lr < limit for lr in lrs] for limit in limits]
    assert (found.medians < start).tolist() == is_stable
    assert [sum(row) for row in is_stable] == [1, 3, 5]


def test_the_curvature_is_the_median_over_the_seeds_and_known_of_sgd_alone():
    def data(seed):
        both = TensorDataset(seed * torch.ones(8, 1), torch.zeros(8, 1))
        return both, both

    task = Task(data, partial(nn.Linear, 1, 1, bias=False), mse_loss, epochs=1, batch_size=4)
    own = {
        "SGD": torch.optim.SGD,
        **parse_optimizers(["RMSprop", "falling=SGD + StepLR(step_size=1)"]),
    }
    maps = dict(script.compare(own, task, [0.01], [1, 2, 5], [], over=MOMENTUM))
    assert maps["SGD"].curvature == pytest.approx(2 * 2**2)
    assert maps["SGD"].limits == pytest.approx([0.25, 0.375, 0.475])
    for label in ("RMSprop", "falling"):
        assert maps[label].curvature is maps[label].limits is None
    ((_, net),) = script.compare({"SGD": torch.optim.SGD}, SMALL, [0.1], [1], [], over=MOMENTUM)
    assert net.curvature is net.limits is None


def test_one_of_a_tuple_goes_with_the_others_as_they_are():
    over = parse_over(["lr", "betas[0]=0 or 0.5"])
    (spec,) = parse_optimizers(["Adam(betas=(0.8, 0.7))"]).values()
    assert over.settings(spec, 0.5) == {"betas": (0.5, 0.7)}
    assert over.settings(torch.optim.Adam, 0.5) == {"betas": (0.5, 0.999)}
    assert over.value_in({"betas": (0.5, 0.7)}) == 0.5
    assert (over.default(spec), over.default(torch.optim.Adam)) == (0.8, 0.9)
    task = replace(SMALL, epochs=1)
    ((_, found),) = script.compare({"Adam": spec}, task, [0.01, 0.1], [1, 2], [], over=over)
    trainings = [replace(t, settings={"betas": (0.5, 0.7)}) for t in found.runs.trainings]
    alone = train_all(task, trainings, spec)
    assert found.sweeps[0.5].final_losses.flatten().tolist() == alone.final_losses.tolist()


def test_what_a_map_has_is_worked_by_hand():
    inf = math.inf
    found = made_up_map([[5, 4, 9], [3, 2, inf], [8, inf, inf]], [0.1, 1.0, 10.0], judges=6)
    assert found.medians.tolist() == [[5, 4, 9], [3, 2, inf], [8, inf, inf]]
    assert found.shares_diverged.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 1]]
    assert (found.value, found.best_lr, found.setting) == (0.5, 1.0, ", momentum=0.5")
    assert found.median.tolist() == [3, 2, inf]  # as a sweep it is the best value's
    assert found.edge == 0
    assert found.ends == []
    assert found.stopped == "12 of 36 diverged, from step 1 on"
    rows = list(found.rows())
    assert [row[:4] for row in rows[11:14]] == [
        (10.0, 0.0, 3, "chosen"),
        (0.1, 0.5, 0, "chosen"),
        (0.1, 0.5, 1, "chosen"),
    ]
    assert [row[:4] for row in rows[36:]] == [(1.0, 0.5, seed, "judged") for seed in range(4, 10)]
    assert {row[5] for row in rows[36:]} == {9.0}


def test_a_best_cell_at_an_end_is_told_but_for_0():
    ends = {(0, 0): ["lr"], (1, 1): [], (2, 1): ["momentum"], (2, 2): ["lr", "momentum"]}
    for (row, column), names in ends.items():
        rows = [[5.0] * 3 for _ in range(3)]
        rows[row][column] = 1.0
        assert made_up_map(rows, [0.1, 1.0, 10.0]).ends == names
    words = Hyperparameter("momentum", (True, False))
    assert made_up_map([[5, 1, 5], [5, 5, 5]], [0.1, 1.0, 10.0], over=words).ends == []


def test_a_value_that_has_not_all_rates_is_left_out():
    whole = made_up_map([[5, 4], [3, 2], [1, 0.5]], [0.1, 1.0])
    runs = made_up([5, 4, 3, 2, 1], [1.0] * 5, 4)
    runs.trainings = [t for s in whole.sweeps.values() for t in s.runs.trainings][:20]
    found = Map(MOMENTUM, runs)
    assert list(found.sweeps) == [0.0, 0.5]
    assert found.ends == ["lr", "momentum"]
    runs.trainings, runs.final_losses = runs.trainings[:3], runs.final_losses[:3]
    runs.held_out_losses, runs.losses = runs.held_out_losses[:3], runs.losses[:, :3]
    assert list(Map(MOMENTUM, runs).sweeps) == [0.0]
    assert Map(MOMENTUM, runs).ends == ["lr"]


def test_ctrl_c_keeps_what_is_there():
    def interrupt(items, total, unit):
        for number, item in enumerate(items):
            if number == 2:
                raise KeyboardInterrupt
            yield item

    task, sgd = replace(SMALL, epochs=2), {"SGD": torch.optim.SGD}
    sweeps = script.compare(
        sgd, task, [0.01, 0.1], [1, 2], [3], lambda name: interrupt, over=MOMENTUM
    )
    _, found = next(sweeps)
    assert found.interrupted
    assert (len(found.losses), found.judged) == (2, None)
    assert "interrupted at step 3" in found.note
    script.draw({"SGD": found})
    with pytest.raises(KeyboardInterrupt):
        next(sweeps)


# ---------------------------------------------------------------- what is said


def test_the_sentences_follow_from_the_numbers():
    found = made_up_map([[5, 4, 9], [3, 2, 2.5], [8, 7, 1]], [0.1, 1.0, 10.0])
    assert maps_in_words({"a": found}) == [
        "a's best lr is 1 at momentum 0, 1 at 0.5, 10 at 0.9.",
        "a's best cell lies at an end of lr and momentum: a wider range may win.",
    ]
    found.curvature, found.limits = 4.0, [0.5, 0.75, 0.95]
    stable = (
        "The loss is a quadratic, whose Hessian's largest eigenvalue is 4.00. So full-batch a is "
        "stable up to the lr 0.5 at momentum 0, 0.75 at 0.5, 0.95 at 0.9"
    )
    for n, more in ((SMALL.batch_size, ""), (33, "; with mini-batches only up to a lower one")):
        found.runs.trainings[0] = replace(found.runs.trainings[0], dataset=range(n))
        assert maps_in_words({"a": found})[1] == f"{stable}{more}."
    lost = made_up_map([[math.inf] * 3, [3, 2, 2.5], [8, 1, 7]], [0.1, 1.0, 10.0])
    assert maps_in_words({"b": lost}) == [
        "b's best lr is 1 at momentum 0.5, 1 at 0.9.",
        "b's best cell lies at an end of momentum: a wider range may win.",
    ]
    assert "a's best lr is 1 at momentum 0, 1 at 0.5, 10 at 0.9." in script.conclusions(
        {"a": found}
    )


def test_the_table_and_the_csv(workdir, unrendered, capsys):
    words = ["--over", "lr", "momentum=0.9 or 0", "--optimizers", "SGD", "RMSprop"]
    assert run_main(*words, "--csv", "a.csv", "--seed", "4") == 0
    head, first, *_ = (out := capsys.readouterr().out).splitlines()
    assert head.split()[:5] == ["optimizer", "best", "lr", "best", "momentum"]
    with (workdir / "a.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert ",".join(rows[0]) == "optimizer,lr,momentum,seed,stage,final_loss,held_out_loss"
    over = Hyperparameter("momentum", (0.0, 0.9))
    own = parse_optimizers(["SGD", "RMSprop"])
    task = replace(
        script.TASKS["parabola"],
        make_data=partial(script.TASKS["parabola"].make_data, samples=64),
        epochs=2,
        batch_size=32,
    )
    maps = dict(script.compare(own, task, [1e-4, 1e-2, 1.0], [4, 5, 6], range(7, 11), over=over))
    assert rows[1:] == [[a, *map(str, row)] for a, found in maps.items() for row in found.rows()]
    sgd, _ = script.rows(maps)
    assert (sgd["best lr"], sgd["best momentum"]) == (
        maps["SGD"].best_lr,
        maps["SGD"].best_value,
    )
    assert first.split()[1:3] == [f"{sgd['best lr']:.3g}", sgd["best momentum"]]
    assert "SGD's best lr is " in " ".join(out.split())


def test_of_the_default_ones_those_are_taken_that_have_it():
    specs = parse_optimizers(OPTIMIZERS)
    for word, labels in {
        "momentum": ["SGD", "RMSprop"],
        "betas[1]": ["Adam"],
        "eps": ["RMSprop", "Adam"],
    }.items():
        options = script.make_parser().parse_args(["--over", "lr", word])
        assert options.over.name == word
        assert list(those_with(options.over, specs, options.optimizers)) == labels
    with pytest.raises(ValueError, match="SGD has no 'tau'"):  # and none of the others has
        those_with(parse_over(["lr", "tau=0 or 1"]), specs, options.optimizers)


def test_a_class_of_ones_own_has_names_of_its_own(workdir, unrendered, homework, capsys):
    homework(
        "import torch\n"
        "class Mine(torch.optim.Optimizer):\n"
        "    def __init__(self, params, eta=0.1, friction=0.5):\n"
        "        super().__init__(params, dict(lr=eta, friction=friction))\n"
        "    def step(self, closure=None):\n"
        "        for group in self.param_groups:\n"
        "            for p in group['params']:\n"
        "                v = self.state[p].setdefault('v', torch.zeros_like(p))\n"
        "                v.mul_(1 - group['friction']).add_(p.grad)\n"
        "                p.data -= group['lr'] * v\n"
    )
    words = ["--over", "lr", "friction=even(0.1, 1)", "--optimizers", "homework.Mine"]
    assert run_main(*words, "--csv", "mine.csv") == 0
    assert " best friction " in capsys.readouterr().out
    words = ["--over", "lr", "momentum=even(0, 0.9)", "--optimizers", "SGD"]
    assert run_main(*words, "--csv", "sgd.csv") == 0
    mine, sgd = (
        [line.split(",") for line in (workdir / name).read_text().splitlines()[1:]]
        for name in ("mine.csv", "sgd.csv")
    )
    order = sorted(mine, key=lambda row: (-float(row[2]), float(row[1]), int(row[3])))
    chosen = [row for row in order if row[4] == "chosen"]
    for one, other in zip(chosen, [row for row in sgd if row[4] == "chosen"], strict=True):
        assert float(one[2]) == pytest.approx(1 - float(other[2]))
        assert float(one[6]) == pytest.approx(float(other[6]), rel=1e-3)
    found = Hyperparameter("friction", (0.1, 1))
    import homework as module

    short = replace(SMALL, epochs=1)
    ((_, own),) = script.compare({"m": module.Mine}, short, [0.1], [1], [], over=found)
    assert own.default == (0.1, 0.5)

    def without_a_default(params, friction, eta=0.1):
        return module.Mine(params, eta, friction)

    ((_, own),) = script.compare({"m": without_a_default}, short, [0.1], [1], [], over=found)
    assert own.default is None


# ---------------------------------------------------------------- what is typed


def test_the_values_are_those_of_the_spaces_or_as_typed():
    momentum = parse_over(["lr", "momentum"])
    assert momentum.values == pytest.approx(
        [0] + [1 - 10 ** (-k / 2) for k in range(1, 7)], abs=5e-4
    )
    assert (momentum.keyword, momentum.number, momentum.name) == ("momentum", None, "momentum")
    assert parse_over(["weight_decay", "lr"]).values == (0, *(10.0**k for k in range(-5, 2)))
    second = parse_over(["lr", "betas[1]"])
    assert (second.keyword, second.number, second.name) == ("betas", 1, "betas[1]")
    assert second.values[-1] == 0.9999
    assert parse_over(["lr", "eps = log(0.1, 10)"]).values[::3] == (0.1, 1, 10)
    assert repr(parse_over(["lr", "x=3 or 1 or 2 or 1"]).values) == "(1, 2, 3)"
    assert repr(parse_over(["lr", "x=1 or 0 or 0.5"]).values) == "(0.0, 0.5, 1.0)"
    assert parse_over(["lr", "x='b' or 'a'"]).values == ("b", "a")
    assert parse_over(["lr", "x=even(0, 6)"]).values == (0, 1, 2, 3, 4, 5, 6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lr"], "expected 2 arguments"),
        (["lr", "lr"], "--over: it wants lr and one other hyperparameter, as --over lr momentum"),
        (["momentum", "eps"], "wants lr and one other"),
        (["lr", "momentun"], "did you mean momentum?"),
        (["lr", "tau"], 'no values are known: write them, as "tau=0 or 0.5"'),
        (["lr", "mo-m=0 or 1"], "is not of the form NAME or NAME=VALUES"),
        (["lr", "momentum="], "is not of the form NAME or NAME=VALUES"),
        (["lr", "momentum=("], "is not of the form NAME or NAME=VALUES"),
        (["lr", "momentum=0"], "wants at least two values"),
        (["lr", "momentum={} or 0"], "has values that cannot be: unhashable type: 'dict'"),
        (["lr", f"momentum=0.5 or 1{'0' * 400}"], "has values that cannot be: int too large"),
        (["lr", f"momentum={'-' * 3000}1 or 2"], "is not of the form"),
        (["lr", "momentum=1or 2"], "is not of the form"),
        (["lr", "momentum=log(1, 0.1)"], "LOW below HIGH"),
        (["lr", "momentum=f(1)"], "neither a literal nor"),
        (["lr", "momentum=0 or -1"], "Invalid momentum value: -1"),
        (["lr", "eps"], "--over: SGD has no 'eps'; known: lr, momentum"),
        (["lr", "momentum", "--optimizers", "SGD", "Momentum"], "names its own momentum"),
        (["lr", "lr=0.1 or 0.2", "--optimizers", "Adam"], "lr is the lr of Adam"),
        (["lr", "betas[2]=0 or 1", "--optimizers", "Adam"], "betas of Adam is (0.9, 0.99), and"),
        (["lr", "momentum[0]=0 or 1", "--optimizers", "SGD"], "momentum of SGD is 0, and has no"),
        (["lr", "momentum", "--optimizers", "SGD", "Adam"], "Adam has no 'momentum'; known: lr,"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(words, message, workdir, capsys):
    words = words if "--optimizers" in words else [*words, "--optimizers", "SGD"]
    assert_refused(script.main, [*FAST, "--over", *words], message, workdir, capsys)


# ---------------------------------------------------------------- the figure


def marks(axes, label):
    return next(line for line in axes.lines if line.get_label() == ONCE + label)


def test_the_figure_shows_cells_and_marks():
    inf = math.inf
    rows = [[5, 4, 9], [3, 2, inf], [8, inf, inf]]
    one = made_up_map(rows, [0.1, 1.0, 10.0])
    one.limits, one.default = [2.0, 3.0, 4.0], (1.0, 0.7)
    other = made_up_map([[6, 5, 1], [6, 5, 6], [6, 5, 6]], [0.1, 1.0, 10.0])
    other.default = (1.0, 0.0)
    figure = script.draw({"SGD": one, "Adam": other})
    left, middle, right, bar = figure.axes
    assert [axes.get_title() for axes in (left, middle)] == ["SGD", "Adam"]
    assert left.get_ylabel() == "momentum"
    assert bar.get_ylabel() == "Held-out loss, median of 4 seeds"
    assert bar.get_yscale() == "log"
    (mesh,) = [c for c in left.collections if hasattr(c, "get_coordinates")]
    drawn = mesh.get_array()
    assert drawn.mask.tolist() == [[x == inf for x in row] for row in rows]
    assert drawn.compressed().tolist() == [x for row in rows for x in row if x < inf]
    edges = mesh.get_coordinates()
    assert edges[0, :, 0].tolist() == pytest.approx([10**-1.5, 10**-0.5, 10**0.5, 10**1.5])
    assert edges[:, 0, 1].tolist() == [-0.5, 0.5, 1.5, 2.5]
    assert [text.get_text() for text in left.get_yticklabels()] == ["0", "0.5", "0.9"]
    assert mesh.norm(1.0) == 0  # the lowest of both
    assert mesh.norm(3.0) == 1  # the loss before training, of all rates of the best value
    assert marks(left, "best").get_xydata().tolist() == [[1.0, 1.0]]
    assert marks(middle, "best").get_xydata().tolist() == [[10.0, 0.0]]
    assert marks(left, "default").get_xydata().tolist() == [[1.0, 1.5]]  # between two rows
    assert marks(middle, "default").get_xydata().tolist() == [[1.0, 0.0]]
    line = marks(left, "limit of full-batch SGD")
    assert line.get_xydata().tolist() == [[2.0, 0], [3.0, 1], [4.0, 2]]
    assert ONCE + "limit of full-batch SGD" not in [line.get_label() for line in middle.lines]
    (crosses,) = [c for c in left.collections if c.get_label() == ONCE + "some diverged"]
    at = [xy for xy, size in zip(crosses.get_offsets().tolist(), crosses.get_sizes(), strict=True)
          if size > 0]  # fmt: skip
    assert at == [[10.0, 1], [1.0, 2], [10.0, 2]]
    assert [line.get_label() for line in right.lines if "lr=" in str(line.get_label())] == [
        "SGD, momentum=0.5, lr=1",
        "Adam, momentum=0, lr=10",
    ]
    assert to_hex(line.get_color()) == to_hex(letter_color())
    assert left.get_xlim() == pytest.approx((10**-1.5, 10**1.5))


def test_a_cross_is_the_larger_the_more_of_the_seeds_diverged():
    found = made_up_map([[5, 4], [3, 2], [1, 1]], [0.1, 1.0])
    found.sweeps[0.5].held_out_losses[0, 0] = math.inf
    figure = script.draw({"SGD": found})
    (crosses,) = [c for c in figure.axes[0].collections if c.get_label() == ONCE + "some diverged"]
    assert crosses.get_sizes().tolist() == [0, 0, 45 / 4, 0, 0, 0]


def test_each_value_has_room_for_its_letters():
    values = tuple(k / 100 for k in range(20))
    rows, over = [[5.0, 4.0]] * 20, Hyperparameter("momentum", values)
    with plt.style.context({"figure.figsize": (3.4, 2.4), "font.size": 8}):
        found = made_up_map(rows, [0.1, 1.0], 1, over)
        figure = script.draw({"SGD": found, "RMSprop": found})
        figure.draw_without_rendering()
        for axes in figure.axes[:2]:
            boxes = [text.get_window_extent() for text in axes.get_yticklabels()]
            assert all(a.y1 <= b.y0 for a, b in pairwise(boxes))


@pytest.mark.parametrize(
    "rows",
    [
        [[math.inf] * 2] * 3,
        [[-1.0, 2.0], [0.0, 1.0], [3.0, math.inf]],
        [[2.0, 2.0]] * 3,
        [[1e-30, 1e30]] * 3,
        [[0.0, 2.0], [1.0, 1.0], [3.0, 3.0]],
    ],
)
def test_any_losses_can_be_drawn(rows, workdir):
    found = made_up_map(rows, [0.1, 1.0], seeds=1)
    found.default = (5.0, 0)  # beyond the rates
    figure = script.draw({"a$b$": found})
    assert not figure.axes[0].title.get_parse_math()
    figure.savefig("a.png")
    labels = [line.get_label() for line in figure.axes[0].lines]
    assert ONCE + "default" not in labels
    assert (ONCE + "best" in labels) == math.isfinite(min(map(min, rows)))
    assert figure.axes[-1].get_ylabel() == "Held-out loss"
    assert (figure.axes[-1].get_yscale() == "linear") == (min(map(min, rows)) <= 0)
    assert not len(figure.axes[-1].yaxis.get_minorticklocs())


def test_a_default_beyond_the_values_or_that_is_no_number_is_not_marked():
    for values, default in [((0.2, 0.5, 0.9), 0.1), ((0.2, 0.5, 0.9), "a"), (("a", "b", "c"), 1)]:
        found = made_up_map([[5, 4], [3, 2], [1, 1]], [0.1, 1.0], 1, Hyperparameter("m", values))
        found.default = (0.1, default)
        figure = script.draw({"SGD": found})
        assert ONCE + "default" not in [line.get_label() for line in figure.axes[0].lines]


def test_lower_losses_are_lighter_in_grey_too():
    colors = plt.get_cmap(COLORS)(torch.linspace(0, 1, 32).numpy())[:, :3]
    grey = colors @ [0.299, 0.587, 0.114]
    assert (grey[1:] < grey[:-1]).all()


# ---------------------------------------------------------------- what the page says


@pytest.mark.slow
def test_momentum_is_worth_on_scales_what_the_page_says():
    over = Hyperparameter("momentum", (0.0, 0.9684, 0.999))
    sgd, seeds, full = {"SGD": torch.optim.SGD}, range(81, 91), script.TASKS["scales"]
    lrs = script.learning_rates(0.001, 0.1, 17)
    task = replace(full, batch_size=1000, epochs=400)
    ((_, found),) = script.compare(sgd, task, lrs, seeds, [], over=over)
    assert found.curvature == pytest.approx(195, abs=0.5)
    assert found.limits[0] == pytest.approx(0.0102, abs=1e-4)
    for value, limit in zip(over.values, found.limits, strict=True):
        is_finite = found.sweeps[value].median.isfinite().tolist()
        assert is_finite == [lr < limit for lr in lrs]
    lowest = found.medians.min(1).values.tolist()
    assert lowest[:2] == pytest.approx([1.58, 0.0102], rel=0.01)
    ((_, small),) = script.compare(sgd, full, [0.01], seeds, [], over=over)
    assert small.medians[1].item() == pytest.approx(4.5e7, rel=0.1)
    assert found.limits[1] == pytest.approx(2 * 0.01, rel=0.01)
    x = torch.cat([full.make_data(81)[0].tensors[0], torch.ones(1000, 1)], 1).double()
    eigenvalues = torch.linalg.eigvalsh(2 * x.T @ x / 1000)
    ratio = (eigenvalues[-1] / eigenvalues[0]).item()
    assert ratio == pytest.approx(10_000, rel=0.1)
    assert ((ratio**0.5 - 1) / (ratio**0.5 + 1)) ** 2 == pytest.approx(0.96, abs=0.005)


@pytest.mark.slow
def test_on_the_parabola_more_momentum_wants_a_lower_rate():
    over = Hyperparameter("momentum", (0.0, 0.9, 0.99))
    lrs = script.learning_rates(*script.LR_RANGE, script.LR_COUNT)
    sgd, seeds = {"SGD": torch.optim.SGD}, range(81, 91)
    ((_, found),) = script.compare(sgd, lrs=lrs, seeds=seeds, judges=[], over=over)
    best = [f"{sweep.best_lr:.3g}" for sweep in found.sweeps.values()]
    assert best == ["0.316", "0.0316", "0.00316"]

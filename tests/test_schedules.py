"""Schedules against plain loops with the same schedulers of torch."""

import csv
import math
import pickle
from functools import partial

from lab.command_line.specs import TORCH_SCHEDULERS, parse_optimizer, parse_optimizers
from lab.pictures import paths
from lab.training import schedules
from lab.training.runs import trainings_of
from lab.training.sweeps import Sweep, sweep
from lab.training.train import train_all

import pytest
import torch
from conftest import SMALL, SmallNet, assert_refused, exit_status, small_data
from torch.nn.functional import mse_loss
from torch.optim import SGD, Adam, lr_scheduler
from torch.utils.data import DataLoader

import compare_batch_sizes
import compare_learning_rates
import compare_optimizers
import compare_paths
import compare_tasks
from surfaces import SURFACES

EPOCHS, STEPS = SMALL.epochs, SMALL.epochs * 4  # 100 samples in batches of 32

# What is written, and the schedulers that it stands for.
SCHEDULES = {
    "StepLR(step_size=2, gamma=0.3)": [partial(lr_scheduler.StepLR, step_size=2, gamma=0.3)],
    "MultiStepLR(milestones=[1, 4])": [partial(lr_scheduler.MultiStepLR, milestones=[1, 4])],
    "ConstantLR(total_iters=2)": [partial(lr_scheduler.ConstantLR, total_iters=2)],
    "LinearLR(total_iters=3)": [partial(lr_scheduler.LinearLR, total_iters=3)],
    "ExponentialLR(gamma=0.7)": [partial(lr_scheduler.ExponentialLR, gamma=0.7)],
    "PolynomialLR(total_iters=6, power=2.0)": [
        partial(lr_scheduler.PolynomialLR, total_iters=6, power=2.0)
    ],
    "CosineAnnealingLR(T_max=6)": [partial(lr_scheduler.CosineAnnealingLR, T_max=6)],
    "CosineAnnealingWarmRestarts(T_0=2)": [
        partial(lr_scheduler.CosineAnnealingWarmRestarts, T_0=2)
    ],
    f"OneCycleLR(max_lr=0.3, total_steps={STEPS})": [
        partial(lr_scheduler.OneCycleLR, max_lr=0.3, total_steps=STEPS)
    ],
    "CyclicLR(base_lr=0.01, max_lr=0.2, step_size_up=5)": [
        partial(lr_scheduler.CyclicLR, base_lr=0.01, max_lr=0.2, step_size_up=5)
    ],
    "ReduceLROnPlateau(factor=0.5, patience=0)": [
        partial(lr_scheduler.ReduceLROnPlateau, factor=0.5, patience=0)
    ],
    "LinearLR(start_factor=0.1, total_iters=3) + CosineAnnealingLR(T_max=6)": [
        partial(lr_scheduler.LinearLR, start_factor=0.1, total_iters=3),
        partial(lr_scheduler.CosineAnnealingLR, T_max=6),
    ],
    "ExponentialLR(gamma=0.9) + ReduceLROnPlateau(threshold=0.5, patience=1)": [
        partial(lr_scheduler.ExponentialLR, gamma=0.9),
        partial(lr_scheduler.ReduceLROnPlateau, threshold=0.5, patience=1),
    ],
}
RELATIVE = [text for text in SCHEDULES if not text.startswith(("OneCycleLR", "CyclicLR"))]
EACH_STEP = (lr_scheduler.OneCycleLR, lr_scheduler.CyclicLR)


def plain_training(make_optimizer, make_schedulers, seed, batch_size=32):
    """Return losses and rates at each step, of the loop that PyTorch's documentation has."""
    dataset, _ = small_data(seed)
    loader = DataLoader(
        dataset, batch_size, shuffle=True, generator=torch.Generator().manual_seed(0)
    )
    torch.manual_seed(seed)
    net = SmallNet()
    optimizer = make_optimizer(net.parameters())
    schedulers = [make(optimizer) for make in make_schedulers]
    losses, rates = [], []
    for _ in range(EPOCHS):
        epoch = []
        for x, y in loader:
            optimizer.zero_grad()
            loss = mse_loss(net(x), y)
            loss.backward()
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            epoch.append(loss.item())
            is_last = len(epoch) == len(loader)
            for scheduler in schedulers:
                if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
                    if is_last:
                        scheduler.step(sum(epoch) / len(epoch))
                elif is_last or isinstance(scheduler, EACH_STEP):
                    scheduler.step()
        losses += epoch
    return losses, rates


def test_every_class_that_takes_literals_is_among_those_tested():
    written = {make.func for makers in SCHEDULES.values() for make in makers}
    others = {"LambdaLR", "MultiplicativeLR", "SequentialLR", "ChainedScheduler"}
    assert {cls.__name__ for cls in written} == set(TORCH_SCHEDULERS) - others


@pytest.mark.parametrize("text", SCHEDULES)
@pytest.mark.parametrize(
    ("name", "make_optimizer"),
    [
        ("SGD(lr=0.2, momentum=0.5)", partial(SGD, lr=0.2, momentum=0.5)),
        ("optimizers.Adam(lr=0.05)", partial(Adam, lr=0.05)),
    ],
)
def test_losses_are_those_of_a_plain_loop(text, name, make_optimizer):
    runs = train_all(SMALL, trainings_of(SMALL, [3]), parse_optimizer(f"{name} + {text}"))
    losses, rates = plain_training(make_optimizer, SCHEDULES[text], 3)
    assert len(set(rates)) > 1
    assert runs.lr_histories[:, 0].tolist() == rates
    if make_optimizer.func is SGD:
        assert runs.history(0) == losses  # bit for bit
    assert runs.history(0) == pytest.approx(losses, rel=1e-4)


@pytest.mark.parametrize("text", SCHEDULES)
def test_in_a_stack_each_rate_moves_from_its_own_start(text):
    lrs = (0.02, 0.3) if text in RELATIVE else (None,)
    spec = parse_optimizer(f"SGD(momentum=0.5) + {text}")
    trainings = trainings_of(SMALL, [0, 1, 2], lrs)
    runs = train_all(SMALL, trainings, spec)
    assert runs.stacked
    assert not runs.remarks
    for k, training in enumerate(trainings):
        make_optimizer = partial(SGD, lr=training.lr or 1e-3, momentum=0.5)
        losses, rates = plain_training(make_optimizer, SCHEDULES[text], training.seed)
        assert runs.lr_histories[:, k].tolist() == rates
        assert runs.history(k) == pytest.approx(losses, rel=1e-4)


def test_on_a_plateau_each_net_goes_by_its_own_loss():
    text = "ReduceLROnPlateau(factor=0.5, patience=0, threshold=0.1)"
    spec = parse_optimizer(f"SGD(lr=0.3) + {text}")
    runs = train_all(SMALL, trainings_of(SMALL, range(6)), spec)
    assert runs.stacked
    ends = runs.lr_histories[-1].tolist()
    assert len(set(ends)) > 1
    scheduler = partial(lr_scheduler.ReduceLROnPlateau, factor=0.5, patience=0, threshold=0.1)
    expected = [plain_training(partial(SGD, lr=0.3), [scheduler], k)[1][-1] for k in range(6)]
    assert ends == expected


def test_without_a_schedule_nothing_moves():
    optimizer = SGD([torch.zeros(1)], lr=0.1)
    schedule = schedules.Schedule((), optimizer, 1)
    schedule.step(1.0)
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert schedule.lr_histories([1]) is None
    assert train_all(SMALL, trainings_of(SMALL, [0]), SGD).lr_histories is None


COUPLED = """
from torch.optim.lr_scheduler import LRScheduler


class Halving(LRScheduler):
    def get_lr(self):
        return [lr / 2**self.last_epoch for lr in self.base_lrs]


class Coupled(LRScheduler):
    def get_lr(self):
        return [self.optimizer.param_groups[0]["lr"] for _ in self.optimizer.param_groups]


class Fixed(LRScheduler):
    def get_lr(self):
        return [0.125 for _ in self.optimizer.param_groups]


class Failing(LRScheduler):
    def get_lr(self):
        return [1 / (4 - self.last_epoch) for _ in self.optimizer.param_groups]
"""


def test_a_schedule_of_ones_own(homework):
    homework(COUPLED)
    spec = parse_optimizer("SGD(lr=0.2) + homework.Halving")
    runs = train_all(SMALL, trainings_of(SMALL, [0, 1]), spec)
    assert runs.stacked
    assert runs.lr_histories[:, 1].tolist() == [
        0.2 / 2**epoch for epoch in range(6) for _ in range(4)
    ]
    losses, _ = plain_training(partial(SGD, lr=0.2), spec.schedulers, 1)
    assert runs.history(1) == pytest.approx(losses, rel=1e-4)


def test_a_schedule_that_mixes_the_rates_is_found_and_its_nets_trained_in_turn(homework):
    homework(COUPLED)
    spec = parse_optimizer("SGD + homework.Coupled")
    trainings = trainings_of(SMALL, [0, 1], (0.02, 0.3))
    runs = train_all(SMALL, trainings, spec)
    assert not runs.stacked
    assert "net by net" in runs.remarks[0]
    for k, training in enumerate(trainings):
        losses, _ = plain_training(partial(SGD, lr=training.lr), [], training.seed)
        assert runs.history(k) == pytest.approx(losses, rel=1e-4)


def test_a_spec_with_schedules_can_be_sent_to_a_process():
    spec = parse_optimizer("SGD + StepLR(step_size=2)")
    assert pickle.loads(pickle.dumps(spec)) == spec


@pytest.mark.parametrize("ends", [[1e-4, 1e-3], [1.0, 3.0]])
def test_a_grid_that_grows_up_or_down_keeps_all_rates(ends):
    spec = parse_optimizer("SGD + CosineAnnealingLR(T_max=6)")
    runs = sweep(SMALL, trainings_of(SMALL, [0, 1], ends), spec)
    lrs = [training.lr for training in runs.trainings]
    assert len(lrs) > 4
    assert runs.lr_histories[0].tolist() == lrs
    assert (runs.lr_histories[-1] / runs.lr_histories[0]).tolist() == pytest.approx(
        [(1 - 3**0.5 / 2) / 2] * len(lrs)
    )
    best = Sweep(runs)
    assert best.lr_history()[0] == best.best_lr


def test_one_cycle_rises_to_the_optimizers_rate_where_it_names_no_other():
    spec = parse_optimizer(f"SGD(momentum=0.5) + OneCycleLR(total_steps={STEPS})")
    runs = train_all(SMALL, trainings_of(SMALL, [0, 1], (0.05, 0.2)), spec)
    assert runs.stacked
    for k, lr in enumerate((0.05, 0.05, 0.2, 0.2)):
        one_cycle = partial(lr_scheduler.OneCycleLR, max_lr=lr, total_steps=STEPS)
        losses, rates = plain_training(partial(SGD, lr=lr, momentum=0.5), [one_cycle], k % 2)
        assert runs.lr_histories[:, k].tolist() == pytest.approx(rates, rel=1e-12)
        assert runs.history(k) == pytest.approx(losses, rel=1e-4)


@pytest.mark.parametrize(
    ("spec", "sets"),
    [
        ("SGD", False),
        ("SGD + LinearLR()", False),
        (f"SGD + OneCycleLR(max_lr=1.0, total_steps={STEPS})", True),
        ("SGD + CyclicLR(base_lr=0.1, max_lr=1.0)", True),
        ("SGD + CyclicLR(base_lr=0.1, max_lr=1.0) + LinearLR()", True),
        ("SGD + homework.Fixed", True),
        ("SGD + homework.Halving", False),
        (f"SGD + OneCycleLR(total_steps={STEPS})", False),
        ("SGD + OneCycleLR(max_lr=1.0)", False),  # it cannot be made, as is told elsewhere
    ],
)
def test_whether_a_schedule_sets_the_rate(homework, spec, sets):
    homework(COUPLED)
    spec = parse_optimizer(spec, lr=0.25)
    assert schedules.set_the_lr(spec.schedulers) == sets
    assert ("lr" in spec.keywords) != sets


# ---------------------------------------------------------------- in the scripts


def test_on_a_surface_each_step_is_an_epoch():
    surface, start = SURFACES["valley"], (-3.0, 1.0)
    for text, makers in SCHEDULES.items():
        spec = parse_optimizer(f"SGD(lr=0.7, momentum=0.3) + {text}")
        ((_, run),) = compare_paths.compare(surface, {"it": spec}, start, steps=15)
        point = torch.tensor(start, dtype=torch.float64, requires_grad=True)
        optimizer = SGD([point], lr=0.7, momentum=0.3)
        schedulers = [make(optimizer) for make in makers]
        rates = []
        for step in range(1, 16):
            optimizer.zero_grad()
            loss = surface.formula(point)
            loss.backward()
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            assert torch.equal(run.path[step], point), text
            for scheduler in schedulers:
                by_loss = isinstance(scheduler, lr_scheduler.ReduceLROnPlateau)
                scheduler.step(*([loss.item()] if by_loss else []))
        assert run.lr_history == rates
        assert run.has_schedule


def test_a_batch_size_has_its_own_number_of_steps():
    spec = parse_optimizer("SGD(lr=0.2) + StepLR(step_size=2)")
    runs = dict(compare_batch_sizes.compare(spec, SMALL, [100, 25]))
    for size, run in runs.items():
        steps = 100 // size
        expected = [0.2 * 0.1 ** (epoch // 2) for epoch in range(6) for _ in range(steps)]
        assert [lr for lr, *_ in run.lrs] == pytest.approx(expected)
        losses, _ = plain_training(partial(SGD, lr=0.2), spec.schedulers, 81, size)
        assert len(losses) == len(run.lrs)
    lower = compare_batch_sizes.draw(runs).axes[2]
    one, other = (line.get_xdata().tolist() for line in lower.lines)
    assert one == pytest.approx([1, 2, 3, 4, 5, 6])
    assert other == pytest.approx([step / 4 for step in range(1, 25)])
    assert lower.get_xlabel() == "Epochs"


def test_all_scripts_name_the_full_call_and_draw_the_rates(homework, unrendered, capsys):
    homework("from tests.conftest import SMALL as small")
    spec, call = "dec=SGD + StepLR(step_size=2)", "SGD() + StepLR(step_size=2)"
    task = ["--task", "homework.small", "--no-show"]
    swept = ["--lr-range", "0.01", "0.1", "--lr-count", "2", "--seeds", "2", "--judges", "3"]
    words = {
        compare_optimizers: ["--lr", "0.1", *task, "--optimizers", spec, "SGD"],
        compare_learning_rates: [*task, *swept, "--optimizers", spec, "SGD"],
        compare_batch_sizes: ["--lr", "0.1", *task, "--optimizer", spec],
        compare_paths: ["--lr", "0.1", "--no-show", "--optimizers", spec, "SGD"],
        compare_tasks: [
            *["--tasks", "homework.small", "--no-show", "--jobs", "1"],
            *[*swept, "--optimizers", spec, "SGD"],
        ],
    }
    for script, arguments in words.items():
        assert exit_status(script.main, arguments) == 0
        is_told_apart = "--lr" not in arguments or script is compare_paths  # in a column
        expected = call if is_told_apart else call.replace("()", "(lr=0.1)", 1)
        assert expected in capsys.readouterr().out


def panels_of(figure):
    return [axes for axes in figure.axes if axes.get_ylabel() == "lr"]


def test_the_panel_shows_each_ones_rate():
    specs = parse_optimizers(["SGD(lr=0.1)", "dec=SGD(lr=0.2) + StepLR(step_size=2)"])
    runs = dict(compare_optimizers.compare(specs, SMALL, seeds=range(3)))
    figure = compare_optimizers.draw(runs)
    (panel,) = panels_of(figure)
    constant, falling = (line.get_ydata().tolist() for line in panel.lines)
    assert constant == [0.1] * STEPS
    assert falling == pytest.approx([0.2 * 0.1 ** (step // 8) for step in range(STEPS)])
    top = figure.axes[0]
    colors = {line.get_label(): line.get_color() for line in top.lines}
    assert [line.get_color() for line in panel.lines] == [colors["SGD(lr=0.1)"], colors["dec"]]
    assert panel.get_xlabel() == "Steps"
    assert top.get_xlabel() == ""
    assert panel.get_shared_x_axes().joined(panel, top)
    del runs["dec"]
    assert not panels_of(compare_optimizers.draw(runs))

    specs = parse_optimizers(["SGD", "dec=SGD + StepLR(step_size=2)"])
    few = {"lrs": [0.05, 0.1, 0.2], "seeds": range(3), "judges": range(3, 6)}
    runs = dict(compare_learning_rates.compare(specs, SMALL, **few))
    (panel,) = panels_of(compare_learning_rates.draw(runs))
    for line, run in zip(panel.lines, runs.values(), strict=True):
        assert line.get_ydata()[0] == run.best_lr

    cells = dict(compare_tasks.compare(specs, {"small": SMALL}, **few))
    figure = compare_tasks.draw(cells)
    (other,) = panels_of(figure)
    for one, two in zip(panel.lines, other.lines, strict=True):
        assert one.get_ydata().tolist() == two.get_ydata().tolist()

    surface = SURFACES["valley"]
    runs = dict(compare_paths.compare(surface, {"dec": specs["dec"]}, steps=9))
    (panel,) = panels_of(paths.draw(surface, runs))
    assert panel.lines[0].get_xdata().tolist() == list(range(1, 10))
    gallery = panels_of(paths.draw_gallery({"valley": runs, "bowl": runs}))
    assert [axes.lines[0].get_ydata().tolist() for axes in gallery] == 2 * [runs["dec"].lr_history]
    assert [axes.get_xlabel() for axes in gallery] == 2 * ["Steps"]
    runs = dict(compare_paths.compare(surface, {"SGD": specs["SGD"]}, steps=9))
    assert not panels_of(paths.draw(surface, runs))
    assert not panels_of(paths.draw_gallery({"valley": runs}))


@pytest.mark.parametrize("ratio", [5, 200])
def test_the_axis_of_rates_is_logarithmic_where_optimizers_differ_much(ratio):
    words = [f"a=SGD(lr={0.5 / ratio}) + LinearLR()", "b=SGD(lr=0.5)"]
    figure = compare_optimizers.draw(compare_optimizers.compare(parse_optimizers(words), SMALL))
    (panel,) = panels_of(figure)
    assert panel.get_yscale() == ("log" if ratio == 200 else "linear")
    assert (panel.get_ylim()[0] == 0) == (ratio == 5)


def test_seeds_and_rates_in_the_csv_are_those_of_plain_loops(workdir, homework):
    homework("from tests.conftest import SMALL as small")
    text = "ExponentialLR(gamma=0.7)"
    words = ["--task", "homework.small", "--optimizers", f"it=SGD(lr=0.3) + {text}"]
    words += ["--seeds", "2", "--seed", "7", "--csv", "a.csv", "--no-show"]
    assert exit_status(compare_optimizers.main, words) == 0
    with open("a.csv", newline="") as file:  # noqa: PTH123
        rows = list(csv.DictReader(file))
    for seed in (7, 8):
        losses, _ = plain_training(partial(SGD, lr=0.3), SCHEDULES[text], seed)
        mine = [float(row["loss"]) for row in rows if row["seed"] == str(seed)]
        assert mine == pytest.approx(losses, rel=1e-4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("StepLR", "StepLR needs step_size: write StepLR(step_size=...)"),
        ("StepLR(step_size=2, gama=1)", "StepLR has no 'gama'; did you mean gamma?"),
        ("StepL(step_size=2)", "unknown schedule 'StepL'; did you mean StepLR"),
        ("LambdaLR", "LambdaLR needs lr_lambda: write a class in a file of yours"),
        ("MultiplicativeLR", "MultiplicativeLR needs lr_lambda: write a class"),
        ("SequentialLR", "SequentialLR needs schedulers: join schedules by +"),
        ("ChainedScheduler", "ChainedScheduler needs schedulers: join schedules by +"),
        ("CyclicLR(base_lr=0.1)", "CyclicLR needs max_lr: write CyclicLR(max_lr=...)"),
        ("StepLR(step_size=n)", "only literal values"),
        ("StepLR(2)", "every value needs its keyword"),
        ("optimizers.Adam", "is not a torch.optim.lr_scheduler.LRScheduler"),
        ("LRScheduler", "unknown schedule"),
        ("OneCycleLR(max_lr=0.1)", "You must define either total_steps"),
        ("OneCycleLR(max_lr=0.1, total_steps=100)", "specified number of total steps is 100"),
        ("homework.Failing", "SGD() + homework.Failing() does not work here: ZeroDivision"),
        ("", "is not of the form"),
    ],
)
def test_what_is_refused(text, words, workdir, homework, capsys):
    homework(COUPLED)
    arguments = ["--no-show", "--optimizers", f"SGD + {text}"]
    assert_refused(compare_optimizers.main, arguments, words, workdir, capsys)


def test_optimizers_that_a_schedule_does_not_suit_are_refused(workdir, capsys):
    schedule = "OneCycleLR(max_lr=0.1, total_steps=384)"
    words = ["--no-show", "--optimizers", f"Adagrad + {schedule}"]
    assert_refused(compare_optimizers.main, words, "cycle_momentum", workdir, capsys)
    for script, flag in ((compare_learning_rates, "--task"), (compare_tasks, "--tasks")):
        words = ["--no-show", flag, "parabola", "--optimizers", f"SGD + {schedule}"]
        message = "has a schedule that sets its lr, but here every rate is tried; try it in compare"
        assert_refused(script.main, words, message, workdir, capsys)


def test_a_rate_is_tuned_where_the_schedule_leaves_it_open(workdir, capsys):
    cyclic = "CyclicLR(base_lr=0.01, max_lr=0.1, step_size_up=5)"
    words = ["--tune", "--no-show", "--steps", "20"]
    specs = ["a=SGD + StepLR(step_size=5)", f"b=SGD + {cyclic}"]
    assert exit_status(compare_paths.main, [*words, "--optimizers", *specs]) == 0
    out = capsys.readouterr().out
    assert "a=SGD() + StepLR(step_size=5)" in out
    assert f"b=SGD() + {cyclic}" in out.replace("\n ", "")
    lrs = [line.split()[1] for line in out.splitlines()[2:4]]
    assert float(lrs[0]) > 0.01 == float(lrs[1])  # as tuned, and as the schedule begins


def test_where_one_net_ends_earlier_its_rates_do_too():
    spec = parse_optimizer("LBFGS(lr=1.0) + ExponentialLR(gamma=0.9)")  # in turn: its closures
    runs = train_all(SMALL, trainings_of(SMALL, [0, 1]), spec)
    assert not runs.stacked
    assert runs.lr_histories.shape == runs.losses.shape
    assert runs.lr_histories[0].tolist() == [1, 1]
    spec = parse_optimizer("SGD(lr=50.0) + ExponentialLR(gamma=0.9)")
    runs = train_all(SMALL, trainings_of(SMALL, [0]), spec)
    assert runs.diverged_at()
    assert len(runs.lr_histories) == len(runs.history(0)) < STEPS
    assert math.isfinite(runs.lr_histories.sum())

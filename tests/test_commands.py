"""The command line's words."""

import argparse
import io
import math
import os
import sys
from dataclasses import replace
from pathlib import Path

from lab import commands, plotting

import matplotlib.pyplot as plt
import pytest
import torch
from conftest import SMALL, assert_refused, exit_status, posix_only
from matplotlib.colors import to_hex
from PIL import Image

import compare_optimizers
import settings
from tasks import TASKS


@pytest.fixture
def parser(workdir):
    parser = commands.Parser("What for?", "  python script.py", "figure.png")
    parser.add("--start", commands.finite_float, 0.0, "a number")
    return parser


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (commands.positive_int, {"1": 1, "12": 12}, ["0", "-1", "1.5", "", "x", "nan", "1" * 5000]),
        (commands.positive_int, {str(2**63 - 1): 2**63 - 1}, [str(2**63)]),
        (commands.positive_float, {"1e-3": 0.001}, ["0", "-1", "nan", "inf", "x", "", "1e999"]),
        (commands.non_negative_float, {"0": 0.0, "2": 2.0}, ["-0.1", "nan", "inf", "-inf", "x"]),
        (commands.finite_float, {"-1e-3": -0.001, "0": 0.0}, ["nan", "inf", "-inf", "1e999", "x"]),
        (commands.one_of(["bowl"], "surface"), {"bowl": "bowl"}, ["bow", "", "Bowl "]),
        (commands.seed, {"0": 0, "-3": -3, str(2**64 - 1): 2**64 - 1}, ["x", "1.0", str(2**64)]),
    ],
)
def test_numbers(kind, good, bad):
    assert {text: kind(text) for text in good} == good
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError):
            kind(text)


def test_paths(workdir):
    (workdir / "folder.png").mkdir()
    assert commands.figure_path("a.png").name == "a.png"
    for text in ("none/a.png", "folder.png", "a.xyz", "a", "/dev/null"):
        with pytest.raises(argparse.ArgumentTypeError):
            commands.figure_path(text)
    assert [path.name for path in workdir.iterdir()] == ["folder.png"]


@pytest.mark.parametrize("text", ["-1e-3", "-1.5E+2", "-.5", "-3", "-3.25"])
def test_a_negative_number_is_a_value_and_not_an_option(parser, text):
    assert parser.parse(["--start", text]).start == float(text)


def test_an_error_is_one_line_that_names_the_word(parser, capsys):
    with pytest.raises(SystemExit) as stop:
        parser.parse(["--start", "nowhere"])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "'nowhere' is not a finite number" in err


def test_what_is_refused_ends_in_one_line(parser, capsys):
    with pytest.raises(SystemExit) as stop, parser.refusing():
        raise ValueError("no\n  such thing")
    assert stop.value.code == 2
    assert capsys.readouterr().err.endswith("error: no such thing\n")


def test_every_default_is_said(parser, capsys):
    parser.add_optimizers(["Adam"], "one of them")
    parser.add_lr()
    parser.add_task()
    parser.add_batch_size()
    parser.add_seeds(7)
    parser.add_target()
    with pytest.raises(SystemExit) as stop:
        parser.parse(["--help"])
    assert stop.value.code == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "What for?" in out
    assert "examples: python script.py" in out
    options = parser.parse([])
    for name in ("seed", "output", "lr", "device"):
        assert f"(default: {getattr(options, name)})" in out
    assert f"(default: {settings.TASK})" in out
    assert options.task.epochs == TASKS[settings.TASK].epochs
    assert options.seeds == 7
    assert options.optimizers == ["Adam"]
    assert not options.no_show


# A task whose data are said to be large, without any memory being used.
LARGE = """
import torch
from torch.nn.functional import mse_loss
from torch.utils.data import TensorDataset
from tasks import Task


class Large(torch.Tensor):
    nbytes = 10**15


x = torch.zeros(100_000, 1)
data = TensorDataset(x, x)
data.tensors = (x.as_subclass(Large), x)
large = Task(lambda seed: (data, data), lambda: torch.nn.Linear(1, 1), mse_loss, 1, 1)
"""


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["--seeds", "100000000"], "--seeds 100000000"),
        (["--epochs", "1000000000"], "--epochs 1000000000"),
        (["--task", "sine(samples=1000000000000)"], "--task, of 1000000000000 samples"),
        (["--seeds", "2", "--task", "sine(samples=10000000000)"], "--task, of 10000000000 samples"),
        (["--task", "homework.large"], "--task, of 100000 samples"),
    ],
)
def test_a_size_that_cannot_be_had_is_refused_with_what_it_needs(
    words, name, parser, capsys, homework
):
    homework(LARGE)
    parser.add_task()
    parser.add_batch_size()
    parser.add_seeds(1)
    with pytest.raises(SystemExit) as stop:
        parser.parse(words)
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert f"error: {name}: this would need about " in err
    assert err.count("GB of memory, and there are") == err.count("\n") == 1


def test_four_fifths_of_the_memory_may_be_used(parser, monkeypatch):
    parser.add("--steps", commands.positive_int, 50, "steps")
    needed = commands.memory_needed(parser.parse([]))
    monkeypatch.setattr(commands, "available_memory", lambda: needed / 0.79)
    parser.parse([])
    monkeypatch.setattr(commands, "available_memory", lambda: needed / 0.81)
    with pytest.raises(SystemExit):
        parser.parse([])


def needed(task=SMALL, sizes=(1000, 100, 61), **counts):
    return commands.memory_needed(argparse.Namespace(task=task, batch_size=None, **counts), *sizes)


def test_the_memory_needed_grows_with_all_that_is_kept():
    base = {"seeds": 10, "lr_count": 9}
    for name in base:
        assert needed(**base | {name: base[name] * 2}) > 1.5 * needed(**base)
    assert needed(replace(SMALL, epochs=12), **base) > 1.2 * needed(**base)
    assert needed(replace(SMALL, batch_size=1), **base) > 5 * needed(**base)
    assert needed(**base, optimizers=["a"] * 8) > 2 * needed(**base)
    assert needed(sizes=(1000, 100, 10_000), **base) > 5 * needed(**base)
    assert needed(sizes=(1000, 10_000, 61), **base) > 5 * needed(**base)
    # Measured: 1000 seeds x 9 rates x 4 optimizers took 0.4 GB beyond what an empty run takes.
    task = replace(SMALL, epochs=12)
    assert 0.4e9 < needed(task, seeds=1000, lr_count=9, optimizers=["a"] * 4) < 2e9


def test_the_sizes_of_a_task():
    # 100 samples and 40 held out, of an x and a y, 4 bytes each; 1-6-1 units.
    assert commands.sizes_of(SMALL, 0) == (100, 140 * 8 / 100, 6 + 6 + 6 + 1)


def test_a_device_is_one_that_torch_has_here():
    assert commands.device("cpu") == "cpu"
    with pytest.raises(argparse.ArgumentTypeError) as refusal:
        commands.device("toaster")
    assert str(refusal.value).startswith("torch has no device 'toaster' here: RuntimeError: ")
    assert ". " not in str(refusal.value)  # torch goes on for lines


def test_the_memory_needed_worked_by_hand():
    # 10 data sets of 1000 samples; 90 trainings of 12 x 32 steps, twice, of 61 parameters.
    task = replace(SMALL, epochs=12)
    expected = 100 * 10_000 + 90 * (20_000 + 40 * 61 + 60 * 384 * 2)
    assert needed(task, seeds=10, lr_count=9, optimizers=["a", "b"]) == expected
    assert commands.memory_needed(argparse.Namespace(steps=50)) == 20_000 + 60 * 50


@posix_only
def test_the_memory_that_there_is_is_what_the_system_says(monkeypatch):
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0.01 * physical < commands.available_memory() <= physical

    def fails(*_):
        raise OSError

    monkeypatch.setattr(Path, "open", fails)  # no /proc
    assert commands.available_memory() == physical
    monkeypatch.setattr(os, "sysconf", fails)
    assert commands.available_memory() == math.inf


def test_the_option_that_is_largest_beside_its_default_is_named(parser, monkeypatch, capsys):
    parser.add_task()
    parser.add_batch_size()
    monkeypatch.setattr(commands, "memory_needed", lambda *_: 5e9)
    monkeypatch.setattr(commands, "available_memory", lambda: 2e9)
    with pytest.raises(SystemExit):
        parser.parse(["--epochs", "2000"])
    message = "--epochs 2000: this would need about 5 GB of memory, and there are 2\n"
    assert capsys.readouterr().err.endswith(message)


def test_no_show_asks_for_no_screen(parser, monkeypatch):
    used = []
    monkeypatch.setattr(commands.matplotlib, "use", used.append)
    parser.parse([])
    assert used == []
    parser.parse(["--no-show"])
    assert used == ["agg"]


# ---------------------------------------------------------------- a task


@pytest.fixture
def task_parser(parser):
    parser.add_task()
    parser.add_batch_size()
    parser.add_target()
    return parser


def test_a_task_has_its_own_settings_or_those_of_the_options(task_parser):
    task = task_parser.parse(["--task", "spirals"]).task
    own = TASKS["spirals"]
    for name in ("make_net", "loss", "epochs", "batch_size", "target"):
        assert getattr(task, name) == getattr(own, name)
    words = ["--task", "spirals", "--epochs", "3", "--batch-size", "7", "--target", "0.5"]
    task = task_parser.parse(words).task
    assert (task.epochs, task.batch_size, task.target) == (3, 7, 0.5)


def test_the_words_of_a_task_reach_its_data(task_parser):
    task = task_parser.parse(["--task", "sine(samples=50, noise=0.0, periods=2.0)"]).task
    train_set, held_out = task.make_data(4)
    assert len(train_set) == len(held_out) == 50
    x, y = train_set.tensors
    torch.testing.assert_close(y, (2 * torch.pi * x).sin())
    assert task.make_data(4) is task.make_data(4)  # made once


def test_the_data_are_on_the_device_that_is_asked_for():
    make_data = commands.data_on("meta", SMALL.make_data)  # a device that every torch has
    for dataset, own in zip(make_data(3), SMALL.make_data(3), strict=True):
        assert [tensor.device.type for tensor in dataset.tensors] == ["meta", "meta"]
        assert [t.shape for t in dataset.tensors] == [t.shape for t in own.tensors]


def test_the_list_of_tasks_says_what_each_teaches(task_parser, capsys):
    with pytest.raises(SystemExit) as stop:
        task_parser.parse(["--task", "list"])
    assert stop.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(maxsplit=1) for line in lines] == [
        [name, task.lesson] for name, task in TASKS.items()
    ]


def test_a_task_of_ones_own_is_found_in_the_working_directory(task_parser, homework):
    homework("from tasks import TASKS\nfrom dataclasses import replace\n"
             "mine = replace(TASKS['sine'], epochs=99)\n")  # fmt: skip
    assert task_parser.parse(["--task", "homework.mine(samples=20)"]).task.epochs == 99


def test_data_that_an_installation_lacks_are_told_in_a_line(task_parser, monkeypatch, capsys):
    def lacks(name):
        raise FileNotFoundError(name)

    monkeypatch.setattr("matplotlib.cbook.get_sample_data", lacks)
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    for name, what in (("terrain", "jacksboro_fault_dem.npz"), ("prose", "pydoc_data")):
        with pytest.raises(SystemExit) as stop:
            task_parser.parse(["--task", name])
        assert stop.value.code == 2
        err = capsys.readouterr().err
        assert what in err
        assert err.count("\n") == 1
    assert task_parser.parse(["--task", "sine"])


# ---------------------------------------------------------------- many tasks


@pytest.fixture
def tasks_parser(parser):
    parser.add_tasks()
    parser.add_seeds(2)
    return parser


def test_tasks_are_found_by_name_each_once_in_order(tasks_parser, homework):
    homework("from conftest import SMALL\n")
    words = ["--tasks", "logistic", "homework.SMALL", "sine(samples=40)", "logistic"]
    tasks = tasks_parser.parse(words).tasks
    assert list(tasks) == ["logistic", "homework.SMALL", "sine(samples=40)"]
    assert tasks["homework.SMALL"].epochs == SMALL.epochs
    assert len(tasks["sine(samples=40)"].make_data(0)[0]) == 40


def test_all_tasks_are_the_default_and_those_that_fail_are_left_out(
    tasks_parser, monkeypatch, capsys
):
    def fails(seed):
        raise ValueError("no data")

    for name in list(TASKS):
        if name != "logistic":
            monkeypatch.delitem(TASKS, name)
    monkeypatch.setitem(TASKS, "empty", replace(SMALL, make_data=fails))
    assert list(tasks_parser.parse([]).tasks) == ["logistic"]
    message = "task empty: its data cannot be made: ValueError: no data\n"
    assert capsys.readouterr().err == f"left out: {message}"
    with pytest.raises(SystemExit) as stop:  # but not where it was asked for
        tasks_parser.parse(["--tasks", "empty"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.endswith(f"error: {message}")


def test_many_tasks_are_refused_where_one_is_too_large(tasks_parser, homework, capsys):
    homework(LARGE)
    with pytest.raises(SystemExit):
        tasks_parser.parse(["--tasks", "logistic", "homework.large"])
    assert "--task, of 100000 samples: this would need" in capsys.readouterr().err


# ---------------------------------------------------------------- where the work is done


def test_there_is_a_job_for_each_processor_that_may_be_used(parser, monkeypatch):
    parser.add_jobs()
    assert parser.parse([]).jobs == commands.n_cores()
    monkeypatch.setattr(commands.os, "sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    monkeypatch.setattr(commands.os, "cpu_count", lambda: 8)
    assert commands.n_cores() == 3
    monkeypatch.delattr(commands.os, "sched_getaffinity")
    assert commands.n_cores() == 8
    monkeypatch.setattr(commands.os, "cpu_count", lambda: None)
    assert commands.n_cores() == 1


@pytest.mark.parametrize("address", ["tcp://10.0.0.1:8786", "localhost:8786", "tls://[::1]:1"])
def test_a_cluster_has_an_address(address, parser):
    parser.add_jobs()
    assert parser.parse(["--dask", address]).dask == address


@pytest.mark.parametrize("address", ["localhost", "tcp://localhost", "a b:1", ":x", ""])
def test_what_is_no_address_is_refused(address, parser, capsys):
    parser.add_jobs()
    with pytest.raises(SystemExit):
        parser.parse(["--dask", address])
    assert "is not an address" in capsys.readouterr().err


# ---------------------------------------------------------------- files and memory


def test_two_outputs_are_two_files(parser, workdir, capsys):
    with pytest.raises(SystemExit) as stop:
        parser.parse(["--output", "a.png", "--csv", "./a.png"])
    assert stop.value.code == 2
    assert "two outputs name the same file" in capsys.readouterr().err
    options = parser.parse(["--output", "a.png", "--csv", "a.csv"])
    assert (options.output, options.csv) == (Path("a.png"), Path("a.csv"))


def test_the_memory_that_there_is_is_read_in_kilobytes(monkeypatch):
    lines = io.StringIO("MemTotal: 9 kB\nMemAvailable:    3000 kB\n")
    monkeypatch.setattr(Path, "open", lambda path: lines)
    assert commands.available_memory() == 3000 * 1024


def test_an_animation_is_a_path_of_a_format_that_can_be_made(workdir):
    assert commands.animation_path("a.gif") == Path("a.gif")
    with pytest.raises(argparse.ArgumentTypeError, match=r"no \.gif"):
        commands.animation_path("a.png")


def test_a_style_sheet_changes_the_ground_and_not_the_colours(workdir, capsys):
    words = ["--no-show", "--epochs", "1", "--fit", "--optimizers", "SGD", "--style"]
    grounds = {}
    (workdir / "mine.mplstyle").write_text("figure.facecolor: red\n")
    for name in ("default", "dark", "mine.mplstyle"):
        with plt.rc_context():
            assert exit_status(compare_optimizers.main, [*words, name]) == 0
        colors = Image.open("compare_optimizers.png").convert("RGB").getcolors(99_999)
        grounds[name] = max(colors)[1]
        assert (63, 144, 218) in {color for _, color in colors}  # SGD's blue
    assert grounds["default"] == (255, 255, 255)
    assert grounds["dark"] == (0, 0, 0)
    figure, _ = plotting.new_figure()
    assert to_hex(figure.get_facecolor()) == "#ffffff"  # it has not stayed
    with plt.rc_context():
        assert exit_status(compare_optimizers.main, [*words, "mine.mplstyle"]) == 0
        figure, _ = plotting.new_figure()
        assert to_hex(figure.get_facecolor()) == "#ff0000"


def test_an_unknown_style_sheet_is_refused(workdir, capsys):
    words = ["--no-show", "--style", "darc"]
    message = "'darc' is no style sheet and no file; did you mean dark?"
    assert_refused(compare_optimizers.main, words, message, workdir, capsys)

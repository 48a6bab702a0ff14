"""The command line's words."""

import argparse
import math
import os
from pathlib import Path

from lab import commands

import pytest


@pytest.fixture
def parser():
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
    parser.add_training()
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
    for name in ("seed", "output", "lr", "epochs", "samples", "noise", "batch_size", "target"):
        assert f"(default: {getattr(options, name)})" in out
    assert options.seeds == 7
    assert options.optimizers == ["Adam"]
    assert not options.no_show


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["--seeds", "100000000"], "--seeds 100000000"),
        (["--epochs", "1000000000"], "--epochs 1000000000"),
        (["--samples", "1000000000000"], "--samples 1000000000000"),
        (["--seeds", "2", "--samples", "1000000000000"], "--samples 1000000000000"),
    ],
)
def test_a_size_that_cannot_be_had_is_refused_with_what_it_needs(words, name, parser, capsys):
    parser.add_training()
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


def test_the_memory_needed_grows_with_all_that_is_kept():
    def needed(**counts):
        return commands.memory_needed(argparse.Namespace(**counts))

    base = {"samples": 1000, "seeds": 10, "lr_count": 9, "epochs": 12, "batch_size": 32}
    for name, factor in (("samples", 2), ("seeds", 2), ("lr_count", 2), ("epochs", 2)):
        assert needed(**base | {name: base[name] * factor}) > 1.3 * needed(**base)
    assert needed(**base | {"batch_size": 1}) > 10 * needed(**base)
    assert needed(**base, optimizers=["a"] * 8) > 3 * needed(**base)
    # Measured: 1000 seeds x 9 rates x 4 optimizers took 0.4 GB beyond what an empty run takes.
    assert 0.4e9 < needed(**base | {"seeds": 1000}, optimizers=["a"] * 4) < 2e9


def test_a_device_is_one_that_torch_has_here():
    assert commands.device("cpu") == "cpu"
    with pytest.raises(argparse.ArgumentTypeError) as refusal:
        commands.device("toaster")
    assert str(refusal.value).startswith("torch has no device 'toaster' here: RuntimeError: ")
    assert ". " not in str(refusal.value)  # torch goes on for lines


def test_the_memory_needed_worked_by_hand():
    # 10 data sets of 1000 samples; 90 trainings of 12 x 32 steps, twice.
    options = argparse.Namespace(
        samples=1000, seeds=10, lr_count=9, epochs=12, batch_size=32, optimizers=["a", "b"]
    )
    expected = 100 * 10_000 + 90 * (20_000 + 60 * 384 * 2)
    assert commands.memory_needed(options) == expected
    assert commands.memory_needed(argparse.Namespace(steps=50)) == 100 + 20_000 + 60 * 50


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
    parser.add_training()
    parser.add_batch_size()
    monkeypatch.setattr(commands, "memory_needed", lambda options: 5e9)
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

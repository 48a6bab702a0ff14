"""The parser: one line for each error, and the options that every script has."""

import contextlib
import io
import re
from pathlib import Path

from lab.pictures import style

import matplotlib.pyplot as plt
import pytest
from conftest import assert_refused, exit_status
from matplotlib.colors import to_hex
from PIL import Image

import check_optimizer
import compare_axes
import compare_batch_sizes
import compare_budgets
import compare_classes
import compare_learning_rates
import compare_optimizers
import compare_paths
import compare_sharpness
import compare_tasks

SCRIPTS = [
    *(check_optimizer, compare_batch_sizes, compare_learning_rates, compare_optimizers),
    *(compare_axes, compare_budgets, compare_classes, compare_paths, compare_sharpness),
    compare_tasks,
]


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


@pytest.mark.parametrize("kind", [ValueError, RuntimeError, MemoryError])
def test_what_is_refused_ends_in_one_line(kind, parser, capsys):
    with pytest.raises(SystemExit) as stop, parser.refusing():
        raise kind("no\n  such thing")
    assert stop.value.code == 2
    assert capsys.readouterr().err.endswith("error: no such thing\n")


def test_no_show_asks_for_no_screen(parser, monkeypatch):
    used = []
    monkeypatch.setattr("matplotlib.use", used.append)
    parser.parse([])
    assert used == []
    parser.parse(["--no-show"])
    assert used == ["agg"]


def help_of(module, *words):
    """Return what a script's --help shows, as lines."""
    with contextlib.redirect_stdout(io.StringIO()) as out, pytest.raises(SystemExit) as stop:
        module.make_parser().parse(["--help", *words])
    assert stop.value.code == 0
    return out.getvalue().splitlines()


@pytest.mark.parametrize("module", SCRIPTS, ids=lambda module: module.__name__)
def test_the_help_shows_the_ten_options_that_most_need_and_all_if_asked(module, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    few, every = help_of(module), help_of(module, "all")
    shown, known = (re.findall(r"^  (--[\w-]+)", "\n".join(text), re.M) for text in (few, every))
    assert 4 <= len(shown) <= 10
    assert [flag for flag in known if flag in shown] == shown  # those come first, in this order
    options = {flag for flag in module.make_parser()._option_string_actions if flag[:2] == "--"}
    assert {*known, "--help"} == options
    assert {"--output", "--csv"} <= {*shown}
    assert not {"--device", "--seed", "--style", "--dask", "--jobs"} & {*shown}
    assert any("--help all" in line for line in few)
    assert max(map(len, every)) <= 80
    for action in module.make_parser()._actions:
        assert action.help
        if action.metavar in ("NAME", "ADDRESS", ("X", "Y")):  # what has a form has an example
            assert re.search(r"\bas |list shows|bowl, ", action.help), action.help


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("--tasks spirals", "unknown words: --tasks spirals; did you mean --task"),
        ("-seeds 3", "did you mean --seeds or --seed?"),
        ("\u2014seeds 3", "did you mean --seeds"),  # a text program has joined two hyphens
        ("--optim Adam", "did you mean --optimizers?"),
        ("--colour red", "; --help all lists the options"),
        ("Adam SGD", "; optimizers are named after --optimizers, as --optimizers Adam"),
        ("Muon|AdamW", '; optimizers are named after --optimizers, as --optimizers "Muon|AdamW"'),
    ],
)
def test_words_that_no_option_takes_are_told_where_they_belong(words, hint, workdir, capsys):
    assert_refused(compare_optimizers.main, words.split(), hint, workdir, capsys)


def test_without_optimizers_a_word_needs_some_option(workdir, capsys):
    words, hint = ["Adam"], "unknown words: Adam; each word needs an option before it"
    assert_refused(compare_batch_sizes.main, words, hint, workdir, capsys)


def test_two_outputs_are_two_files(parser, capsys):
    with pytest.raises(SystemExit) as stop:
        parser.parse(["--output", "a.png", "--csv", "./a.png"])
    assert stop.value.code == 2
    assert "two outputs name the same file" in capsys.readouterr().err
    options = parser.parse(["--output", "a.png", "--csv", "a.csv"])
    assert (options.output, options.csv) == (Path("a.png"), Path("a.csv"))


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
    figure, _ = style.new_figure()
    assert to_hex(figure.get_facecolor()) == "#ffffff"  # it has not stayed
    with plt.rc_context():
        assert exit_status(compare_optimizers.main, [*words, "mine.mplstyle"]) == 0
        figure, _ = style.new_figure()
        assert to_hex(figure.get_facecolor()) == "#ff0000"


def test_an_unknown_style_sheet_is_refused(workdir, capsys):
    words = ["--no-show", "--style", "darc"]
    message = "'darc' is no style sheet and no file; did you mean dark?"
    assert_refused(compare_optimizers.main, words, message, workdir, capsys)

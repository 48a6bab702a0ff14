"""Tables: cells in words and as numbers, and lines that fit."""

import math
import re
import unicodedata
from pathlib import Path

from lab.command_line.specs import parse_optimizers
from lab.outcome import Outcome
from lab.output.report import PIPE_WIDTH
from lab.output.table import (
    NUMBER,
    QUARTILES,
    SHARES,
    Column,
    Table,
    as_numbers,
    folded,
    in_digits,
    in_full,
    name_columns,
)
from lab.training.adapt import MakeOptimizer

import pytest
import torch
from conftest import SMALL
from hypothesis import given
from hypothesis import strategies as st

import compare_batch_sizes
import compare_learning_rates
import compare_optimizers
import compare_paths
import compare_tasks
from surfaces import SURFACES
from tasks import TASKS


def letters(text):
    """Return how wide a terminal shows a text."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


# ---------------------------------------------------------------- cells


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0542649, "0.05426"),
        (0.0106, "0.01060"),
        (1, "1.000"),
        (9.9999, "10.00"),
        (1234.5, "1234"),
        (99989, "99989"),
        (123456, "1.235e5"),
        (4.56764e17, "4.568e17"),
        (0.001, "0.001000"),
        (0.0009999, "9.999e-4"),
        (-0.4837, "-0.4837"),
        (0, "0"),
    ],
)
def test_a_number_has_four_digits(number, text):
    assert in_digits(number) == text


@given(st.floats(1e-99, 1e99))
def test_four_digits_are_near_and_short(number):
    text = in_digits(number)
    assert float(text) == pytest.approx(number, rel=5.1e-4)
    assert len(text) <= len("1.235e-99")
    assert len(re.sub(r"e.*|\.|^0\.0*", "", text)) in (4, 5)


def cell_of(value, **own):
    return Column("", "", lambda label, run: value, **own).told(value)


def test_a_cell_is_told_by_what_it_is():
    assert cell_of("words") == "words"
    assert cell_of(None) == "-"
    assert cell_of(3, kind="d") == "3"
    assert cell_of(0.25) == "0.2500"
    assert cell_of((0.001, 0.0316228), kind=".3g") == "0.001 to 0.0316"
    assert cell_of(math.inf) == cell_of(math.nan) == "-"
    assert cell_of(math.inf, infinite="never") == "never"


def test_of_many_runs_a_cell_is_the_median_and_the_quartiles():
    values = torch.tensor([1.0, 2, 3, 4, 5])
    assert cell_of(values) == "3.000 [2.00, 4.00]"
    assert cell_of(values, kind=".0f") == "3 [2, 4]"
    assert cell_of(values[:1]) == "1.000"
    values[2:] = math.inf
    assert cell_of(values, infinite="diverged") == "diverged [2.00, -]"
    values[3] = 3
    values[2] = 2.5
    assert cell_of(values) == "2.500 [2.00, 3.00]"
    assert cell_of(torch.full((3,), math.inf), infinite="never") == "never"


def test_the_table_as_numbers():
    columns = [
        *name_columns(["a"]),
        Column("loss", QUARTILES, lambda label, run: run),
        Column("good rates", "", lambda label, run: (0.1, 1.0)),
        Column("seconds", "", lambda label, run: 0.5),
    ]
    row = {"optimizer": "a", "loss": 2.0, "loss, 25 %": 1.5, "loss, 75 %": 2.5}
    row |= {"good rates, lowest": 0.1, "good rates, highest": 1.0, "seconds": 0.5}
    assert as_numbers(columns, {"a": torch.tensor([1.0, 2, 3])}) == [row]
    row = {k: v for k, v in row.items() if "%" not in k}
    assert as_numbers(columns, [("a", torch.tensor([2.0]))]) == [row]


def test_each_script_gives_its_table_as_numbers():
    adam: dict[str, MakeOptimizer] = {"Adam": torch.optim.Adam}
    runs = dict(compare_optimizers.compare(adam, SMALL, range(2)))
    ((row,), run) = compare_optimizers.rows(runs), runs["Adam"]
    assert row["optimizer"] == "Adam"
    assert row["held-out loss"] == pytest.approx(run.held_out_losses.mean().item())
    assert row["steps to 0.2"] == compare_optimizers.steps_to(run, 0.2).median()
    assert row["seconds"] == run.seconds
    (row,) = compare_optimizers.rows(compare_optimizers.compare(adam, SMALL))
    assert "loss, 25 %" not in row
    sweeps = dict(compare_learning_rates.compare(adam, SMALL, [0.01, 0.1], range(2)))
    (row,) = compare_learning_rates.rows(sweeps)
    assert row["best lr"] == sweeps["Adam"].best_lr
    results = dict(compare_tasks.compare(adam, {"small": SMALL}, [0.01, 0.1], range(2)))
    (row,) = compare_tasks.rows(results)
    assert (row["task"], row["optimizer"]) == ("small", "Adam")
    assert row["held-out loss"] > 0
    (row,) = compare_batch_sizes.rows(compare_batch_sizes.compare(None, SMALL, [50]))
    assert (row["method"], row["updates/epoch"]) == ("MBGD (50)", 2)
    valley = SURFACES["valley"]
    *_, row = compare_paths.rows(valley, compare_paths.compare(valley))
    assert row["steps to 0.01"] == math.inf
    assert row["lr"] == valley.lr


# ---------------------------------------------------------------- lines


def table(columns, width, *rows, note=""):
    """Return the lines of a table whose columns tell of a row by their titles."""
    fitted = Table(columns, width)
    lines = [fitted.head]
    for row in rows:
        cells = [column.told(column.cell(row, Outcome())) for column in fitted.columns]
        lines += fitted.line(cells, note).splitlines()
    return lines


def column(title, width, text, **own):
    return Column(title, width, lambda label, run: text, **own)


def test_chinese_labels_are_aligned():
    labels = ["动量", "SGD", "带动量的 Adam"]
    head, *lines = table([*name_columns(labels), column("loss", NUMBER, "1.000")], 80, *labels)
    assert head == "optimizer          loss"
    assert lines[1] == "SGD               1.000"
    assert {letters(line) for line in lines} == {23}


def test_columns_go_in_the_order_that_is_named():
    columns = [
        *name_columns(["SGD"]),
        column("a", ">10", "1", goes=3),
        column("b", ">10", "2"),
        column("c", ">10", "3", goes=1),
        column("d", ">10", "4", goes=2),
    ]
    kept = {width: "".join(Table(columns, width).head.split()[1:]) for width in range(70)}
    assert [kept[width] for width in (57, 56, 45, 44, 33, 32, 21, 20, 0)] == [
        *("abcd", "abd", "abd", "ab", "ab", "b", "b", "b", "b")
    ]
    assert Table(columns, 45).left_out == ["c"]
    assert Table(columns, 44).left_out == ["c", "d"]
    assert Table(columns, 57).left_out == []


def test_a_label_that_is_too_long_has_a_line_of_its_own():
    labels = ["SGD", "a label that is far too long for it"]
    columns = [*name_columns(labels), column("loss", NUMBER, "1.000")]
    assert table(columns, 30, *labels) == [
        "optimizer                 loss",
        "SGD                      1.000",
        "a label that is far too long for it",
        "                         1.000",
    ]


def test_a_long_label_stays_whole_where_columns_that_go_leave_it_room():
    label = "SGD(momentum=0.9, nesterov=True)"
    columns = [
        *name_columns([label]),
        column("loss", QUARTILES, "1.000", goes=2),
        column("held-out loss", QUARTILES, "2.000"),
        column("seconds", NUMBER, "0.1", goes=1),
    ]
    for width, titles in ((100, "loss held-out loss seconds"), (90, "loss held-out loss")):
        fitted = Table(columns, width)
        assert " ".join(column.title for column in fitted.columns[1:]) == titles
    _head, row = table(columns, 61, label)  # 32 + 2 + 27
    assert row.split() == ["SGD(momentum=0.9,", "nesterov=True)", "2.000"]
    _head, name, row = table(columns, 60, label)
    assert (name, row) == (label, "2.000".rjust(60))


def test_a_note_stands_beside_its_row_or_below_it():
    columns = [*name_columns(["SGD"]), column("loss", NUMBER, "1.000")]
    assert table(columns, 30, "SGD", note="it failed")[1:] == ["SGD           1.000  it failed"]
    assert table(columns, 29, "SGD", note="it failed")[1:] == ["SGD           1.000", "  it failed"]
    long = table(columns, 20, "SGD", note="it failed at step 3: boom")[1:]
    assert long == ["SGD           1.000", "  it failed at step", "  3: boom"]


def test_the_words_of_the_last_column_stay_in_it():
    columns = [*name_columns(["SGD"]), column("", "", "so many words that it takes two lines")]
    assert table(columns, 40, "SGD")[1:] == [
        "SGD        so many words that it takes",
        "           two lines",
    ]


def test_words_fill_a_line_to_its_end():
    assert folded(["ab", "cd"], 5) == "ab cd"
    assert folded(["ab", "cd"], 4) == "ab\n  cd"


@given(st.text("ab 中", max_size=60), st.integers(12, 40))
def test_folded_words_fit_and_are_all_there(text, width):
    words = text.split()
    lines = folded(words, width).splitlines()
    assert " ".join(lines).split() == words
    longest = max(map(letters, words), default=0)
    assert all(letters(line) <= max(width, longest + 2) for line in lines)


def test_what_a_label_leaves_unsaid_is_told_once():
    specs = parse_optimizers(
        {
            "SGD": "SGD()",
            "Adam": "Adam(betas=(0.9, 0.99))",
            "Momentum 0.9": "SGD(momentum=0.9)",
            "AdamW(lr=0.1)": "AdamW(lr=0.1)",
        }
    )
    specs |= parse_optimizers(["AdamW(eps=1)"], lr=0.1)
    assert in_full(specs, 100) == (
        "In full: Adam(betas=(0.9, 0.99)); Momentum 0.9=SGD(momentum=0.9); AdamW(lr=0.1, eps=1)"
    )
    assert in_full(parse_optimizers(["SGD()"]), 100) == ""


# ---------------------------------------------------------------- all scripts

LABELS = [
    "SGD",
    "Momentum 0.9",
    "动量",
    "SGD + LinearLR() + CosineAnnealingLR(T_max=12, eta_min=0)",
]
ACCURACY = TASKS["spirals"]


def columns_of_all(labels):
    """Yield the columns of every script and of every option that has its own."""
    for task in (SMALL, ACCURACY):
        training = compare_optimizers.trainings_of(task, [0])[0]
        metric = training.metric(task)
        for n_seeds in (1, 10):
            yield compare_optimizers.columns_of(labels, task, n_seeds, metric)
        yield compare_learning_rates.columns_of(labels, task, metric)
    yield compare_tasks.columns_of(TASKS, labels)
    yield compare_batch_sizes.COLUMNS
    yield from (compare_paths.columns_of(surface, labels) for surface in SURFACES.values())


WIDEST = {
    NUMBER: "1.234e-5",
    ">9": "1.235e-11",
    QUARTILES: "1.234e-5 [1.23e-6, 1.24e-4]",
    SHARES: "100.0% [100.0%, 100.0%]",
    ">17": "12000 [9000, 123]",
    ">18": "3.16e-05 to 0.0003",
    "<18": "(-123.4, -1.2e+10)",
}


@pytest.mark.parametrize("labels", [LABELS[:1], LABELS[:3], LABELS])
@pytest.mark.parametrize("width", [80, PIPE_WIDTH])
def test_every_table_fits(width, labels):
    for columns in columns_of_all(labels):
        fitted = Table(columns, width)
        titles = [column.title for column in fitted.columns]
        assert {"held-out loss", "end"} & {*titles}  # what the table is for
        for label in labels:
            cells = [
                label if column.title == "optimizer" else WIDEST.get(column.width, "x")
                for column in fitted.columns
            ]
            for line in [fitted.head, *fitted.line(cells, "diverged at step 12").splitlines()]:
                assert letters(line) <= width, line


def test_the_order_in_which_columns_go_is_that_of_the_page():
    order = {
        1: {"seconds", "lr", "ms/epoch"},
        2: {"steps", "at default lr"},
        3: {"loss"},
        4: {"good rates"},
    }
    for columns in columns_of_all(LABELS):
        for column in columns:
            if column.goes:
                assert column.title.split(" to ")[0] in order[column.goes], column.title
    page = (Path(__file__).parents[1] / "docs/tables.md").read_text()
    said = " ".join(page.split())
    assert (
        "first seconds, lr and ms/epoch, then steps and at default lr, then loss, then good rates"
        in said
    )


def test_each_column_of_each_script_is_explained_in_both_languages():
    titles = {column.title for columns in columns_of_all(LABELS) for column in columns}
    titles = {title.split(" to ")[0] for title in titles} - {"task", "method"}
    for name in ("tables.md", "tables.zh-CN.md"):
        page = (Path(__file__).parents[1] / "docs" / name).read_text(encoding="utf-8")
        rows = re.findall(r"^\| ([^|]*) \|", page, re.MULTILINE)
        assert titles <= {row.split(" to ")[0] for row in rows}, name


def test_at_80_columns_the_usual_tables_lack_nothing_but_seconds():
    for columns in columns_of_all(LABELS[:2]):
        titles = Table(columns, 80).left_out
        wide = any(column.width == QUARTILES for column in columns)
        assert wide or titles == []

"""A table: its columns, how its cells are told, and which columns go where there is no room.

docs/tables.md says what the columns of all scripts mean.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

from lab.pictures.style import width_of
from lab.training.statistics import quartiles

from torch import Tensor

K = TypeVar("K")  # what labels a run
R = TypeVar("R")  # a run
K_contra = TypeVar("K_contra", contravariant=True)
R_contra = TypeVar("R_contra", contravariant=True)

GAP = "  "  # between two columns
NUMBER, QUARTILES = ">8", ">27"  # wide enough for a number, and for three
SHARE, SHARES = ">8", ">23"  # likewise of those that are written as 100.0%
LONG_NAME, SHORT_NAME = 30, 9
STEPS = ">17"  # and of whole ones


@dataclass(frozen=True)
class Column(Generic[K_contra, R_contra]):
    """A column of a table: its title, how wide it is (a format such as '>8'), and each cell.

    A cell is a text, a number, or the numbers (n,) of n runs: see `told`. `kind` is the format of a
    number, `infinite` the word for one that is infinite. Where a terminal is too narrow, the
    columns that have a number in `goes` are left out, 1 first.
    """

    title: str
    width: str
    cell: Callable[[K_contra, R_contra], object]
    kind: str = ""
    infinite: str = "-"
    goes: int = 0

    @property
    def size(self) -> int:
        """How many letters wide the column is."""
        return max(int(self.width.strip("<>") or 0), width_of(self.title))

    @property
    def is_name(self) -> bool:
        """Whether it is flush left, as names are."""
        return not self.width.startswith(">")

    def pad(self, text: str) -> str:
        """Return the text, as wide as the column is."""
        spaces = " " * (self.size - width_of(text))
        return spaces + text if self.width.startswith(">") else text + spaces

    def told(self, cell: object) -> str:
        """Return a cell in words: a median in four digits, with its quartiles in three."""
        if isinstance(cell, tuple):
            return " to ".join(map(self.told, cell))
        if isinstance(cell, int | float):
            return self.number(cell) if math.isfinite(cell) else self.infinite
        if not isinstance(cell, Tensor):
            return "-" if cell is None else str(cell)
        if cell.isnan().all():  # unknown, as of what was interrupted before it began
            return "-"
        low, median, high = quartiles(cell).tolist()
        if len(cell) == 1 or math.isinf(low):
            return self.told(median)
        ends = ("-" if math.isinf(end) else self.number(end, digits=3) for end in (low, high))
        return f"{self.told(median)} [{', '.join(ends)}]"

    def number(self, number: float, digits: int = 4) -> str:
        return format(number, self.kind) if self.kind else in_digits(number, digits)


def in_digits(number: float, digits: int = 4) -> str:
    """Return a number in so many digits, short also where it is very small or large."""
    if number == 0 or not math.isfinite(number):
        return f"{number:g}"
    mantissa, exponent = f"{number:.{digits - 1}e}".split("e")
    if -3 <= int(exponent) <= 4:
        return f"{number:.{max(0, digits - 1 - int(exponent))}f}"
    return f"{mantissa}e{int(exponent)}"


def as_numbers(
    columns: Sequence[Column[K, R]], results: Mapping[K, R] | Iterable[tuple[K, R]]
) -> list[dict[str, Any]]:
    """Return the table as numbers: a dict for each row, which pandas.DataFrame takes.

    Of many runs there are the median and, as ", 25 %" and ", 75 %", the quartiles.
    """
    return [
        {
            key: value
            for column in columns
            for key, value in named_numbers(column.title, column.cell(label, run))
        }
        for label, run in dict(results).items()
    ]


def named_numbers(title: str, cell: object) -> Iterable[tuple[str, object]]:
    """Return what a cell holds, by the names that it has in a table of numbers."""
    if isinstance(cell, tuple):
        return zip((f"{title}, lowest", f"{title}, highest"), cell, strict=True)
    if not isinstance(cell, Tensor):
        return [(title, cell)]
    low, median, high = quartiles(cell).tolist()
    if len(cell) == 1:
        return [(title, median)]
    return [(title, median), (f"{title}, 25 %", low), (f"{title}, 75 %", high)]


def size_of(columns: Sequence[Column[K, R]]) -> int:
    """Return how many letters wide a table of these columns is."""
    return sum(column.size + len(GAP) for column in columns) - len(GAP)


def narrowed(columns: Sequence[Column[K, R]], width: int, least: int) -> list[Column[K, R]]:
    """Return the columns, the widest names narrower if the table is too wide, but no less.

    A name that is longer than its column gets a line of its own.
    """
    excess = size_of(columns) - width
    widest = max((c for c in columns if c.is_name), key=lambda column: column.size, default=None)
    if widest is None or excess <= 0 or widest.size <= least:
        return [*columns]
    narrower = replace(widest, width=f"<{max(least, widest.size - excess)}")
    return [narrower if column is widest else column for column in columns]


class Table(Generic[K, R]):
    """The lines of a table that fits into a width, in letters."""

    def __init__(self, columns: Sequence[Column[K, R]], width: int):
        self.width = width
        kept = list(columns)
        for column in sorted(columns, key=lambda column: column.goes):
            if column.goes and size_of(narrowed(kept, width, LONG_NAME)) > width:
                kept.remove(column)
        self.left_out = [column.title for column in columns if column not in kept]
        self.columns = narrowed(kept, width, SHORT_NAME)

    @property
    def head(self) -> str:
        return self.line([column.title for column in self.columns])

    def line(self, cells: Sequence[str], note: str = "") -> str:
        """Return a row; where a name or the note does not fit, it takes more than one line."""
        lines, line = [], ""
        for column, cell in zip(self.columns, cells, strict=True):
            start = width_of(line)
            if not column.width:  # words, in what room is left
                cell = folded(cell.split(), self.width - start, indent="")
                cell = cell.replace("\n", "\n" + " " * start)
            line += column.pad(cell) + GAP
            if column.is_name and column.width and width_of(cell) > column.size:
                lines.append(line.rstrip())
                line = " " * (start + column.size + len(GAP))
        lines.append(line.rstrip())
        if note and width_of(lines[-1] + GAP + note) <= self.width:
            lines[-1] += GAP + note
        elif note:
            lines.append(folded(note.split(), self.width, "  "))
        return "\n".join(lines)


def folded(words: Iterable[str], width: int, start: str = "", indent: str = "  ") -> str:
    """Return words in lines that fit into the width; all but the first are indented."""
    lines = [start]
    for word in words:
        line = f"{lines[-1]} {word}" if lines[-1].strip() else lines[-1] + word
        if width_of(line) > width and lines[-1].strip():
            lines.append(indent + word)
        else:
            lines[-1] = line
    return "\n".join(lines)


class HasCall(Protocol):
    """What was named on the command line: `call` is the full call."""

    @property
    def call(self) -> str: ...


def name_width(names: Iterable[str]) -> str:
    """Return the width of a column that holds these names."""
    return f"<{max(map(width_of, names), default=0)}"


def name_columns(optimizers: Iterable[str]) -> list[Column[str, Any]]:
    """Return the column that names an optimizer, wide enough for all labels."""
    return [Column("optimizer", name_width(optimizers), lambda label, run: label)]


def in_full(optimizers: Mapping[str, HasCall], width: int) -> str:
    """Return what the labels stand for, as one could type it; "" if they say it all."""
    calls = []
    for label, spec in optimizers.items():
        if spec.call not in (label, f"{label}()"):
            is_named = re.split(r"[^\w.]", label)[0] == spec.call.partition("(")[0]
            calls.append(spec.call if is_named else f"{label}={spec.call}")
    told = ";\0".join(dict.fromkeys(calls)).split("\0")
    return folded(["In full:", *told], width) if calls else ""

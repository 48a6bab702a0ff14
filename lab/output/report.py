"""What happens to a script's results: rows as they come, and all of them saved at the end."""

import os
import shutil
import sys
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Generic, TextIO, TypeVar, cast

from lab.outcome import Outcome, Progress, as_exceptions, describe, hushed
from lab.output import interruption
from lab.output.files import (
    missing_letters,
    save_animation,
    save_figure,
    show_figures,
    task_of,
    write_csv,
)
from lab.output.progress import ERASE, is_terminal, show_progress
from lab.output.table import Column, HasCall, Table, folded, in_digits, in_full

import matplotlib.pyplot as plt
from matplotlib.animation import FuncAnimation
from matplotlib.figure import Figure

K = TypeVar("K", bound=Hashable)  # what labels a run
R = TypeVar("R", bound=Outcome)  # a run
T = TypeVar("T")

PIPE_WIDTH = 100
MEANING = "What the columns mean: docs/tables.md"


class Report(Generic[K, R]):
    """A table on standard output, and at the end a figure and a CSV, each whole or not at all."""

    def __init__(
        self,
        output: Path,
        csv: Path | None,
        columns: Sequence[Column[K, R]],
        title: str = "",
        task: str = "",
    ):
        """Take the paths of figure and CSV; begin a table. `task` is what the figure is of."""
        self.output, self.csv, self.task = output, csv, task
        self.status = 0
        self.has_results = self.interrupted = False
        if sys.stdout is None:
            self.complain("standard output is closed: the table is not shown")
        self.table = Table(columns, page_width())
        if (other := task_of(output)) and other != task:
            self.tell(f"{output} is of {other} and will be replaced; --output PATH saves elsewhere")
        self.begin_table(columns, title)

    def begin_table(self, columns: Sequence[Column[K, R]], title: str = "") -> None:
        """Print a line above a table, if there is one, and the titles of its columns."""
        self.table = Table(columns, page_width())
        if title:
            self.tell(title)
        self.say(self.table.head)

    def say(self, text: str) -> None:
        """Print a line; where that cannot be done, go on without."""
        try:
            if is_terminal(sys.stderr):
                print(end=ERASE, file=sys.stderr, flush=True)
            print(text, flush=True)
        except OSError as error:  # a full disk, or a reader that left, as `| head` does
            self.complain(f"cannot write to standard output: {error.strerror}")
            silence(sys.stdout)

    def tell(self, text: str) -> None:
        """Print a sentence, in lines that fit."""
        self.say(folded(text.split(" "), self.table.width))

    def complain(self, text: str) -> None:
        """Say on standard error what went wrong: the exit status will be 1."""
        self.status = 1
        say_error(text)

    def collect(self, runs: Iterable[tuple[K, R]]) -> Iterator[tuple[K, R]]:
        """Pass on each (label, run) as it comes.

        A signal ends it with what is finished and what had begun; KeyboardInterrupt if that is
        nothing. While the caller works on a run, signals wait.
        """
        remaining = iter(runs)
        advance: Callable[[], tuple[K, R]] = partial(next, remaining)
        interruption.go_on()
        try:
            while True:
                with hushed(), as_exceptions():
                    label, run = advance()
                is_told = interruption.was_asked()
                interruption.wait()
                self.has_results = True
                yield label, run
                if interruption.was_asked() and not is_told:  # let it pass on what else is done
                    advance = partial(throw_into, remaining)
                else:
                    advance = partial(next, remaining)
                interruption.go_on()
        except StopIteration:
            return
        except KeyboardInterrupt:
            self.interrupted = True
            if not self.has_results:
                raise
        except Exception as error:  # lost workers, or a user's own code where nobody expects it
            if not self.has_results:
                raise
            words = str(error) if isinstance(error, ConnectionError) else describe(error)
            self.complain(f"stopped: {words}")
        finally:
            interruption.wait()

    def row(self, label: K, run: R, note: str | None = None) -> None:
        """Print the row of a run, and what else there is to know of it: a note, or the run's."""
        cells, failures = [], []
        for column in self.table.columns:
            try:
                with as_exceptions():
                    cells.append(column.told(column.cell(label, run)))
            except Exception as error:  # as of a user's own metric
                cells.append("-")
                failures.append(f"{label}: no {column.title}: {describe(error)}")
        self.say(self.table.line(cells, run.note if note is None else note))
        for failure in failures:
            self.complain(failure)
        for remark in run.remarks:
            self.tell(f"{label}: {remark}")
        if run.error and not run.interrupted:
            self.status = 1

    def explain(
        self, optimizers: Mapping[str, HasCall] | None = None, guess: float | None = None
    ) -> None:
        """Print below a table what its labels stand for, and where its columns are explained.

        `guess` is the held-out loss of the best constant guess.
        """
        if guess is not None:
            self.tell(f"The best constant guess has a held-out loss of {in_digits(guess)}.")
        if calls := in_full(optimizers or {}, self.table.width):
            self.say(calls)
        narrow = f" (no room here for {', '.join(self.table.left_out)})"
        self.tell(MEANING + narrow * bool(self.table.left_out))

    def conclude(self, sentences: Callable[[], Iterable[str]]) -> None:
        """Print what the numbers say, a sentence a line."""
        try:
            for sentence in sentences():
                self.tell(sentence)
        except Exception as error:
            self.complain(f"cannot sum it up: {describe(error)}")

    def progress(self, name: object) -> Progress:
        """Return what shows on a terminal how far the work of that name has come."""
        return partial(show_progress, name=name)

    def save(
        self,
        draw: Callable[[], Figure],
        header: Sequence[str],
        rows: Iterable[Sequence[object]],
        animations: Mapping[Path, Callable[[], FuncAnimation]] | None = None,
        draw_less: Callable[[], Figure] | None = None,
    ) -> int:
        """Save figure and CSV, and say so; open a window; return the exit status.

        `draw` makes the figure, or where it fails `draw_less`. `animations` maps their paths to
        what makes them, which a signal may end. Reports what cannot be made or saved, and saves
        the rest.
        """
        self.save_as(self.output, partial(self._draw, draw, draw_less))
        if self.csv:
            self.save_as(self.csv, partial(write_csv, header=header, rows=rows))
        interruption.go_on()
        try:
            for path, make in (animations or {}).items():
                if not self.was_interrupted():
                    self.save_as(path, partial(make_animation, make))
        except KeyboardInterrupt:
            self.interrupted = True
        if self.was_interrupted():
            say_error("interrupted: what had finished is saved")
            return 130
        try:
            show_figures()
        except Exception as error:  # as of a backend without its screen
            self.complain(f"cannot show the figure: {describe(error)}")
        return self.status

    def _draw(
        self, draw: Callable[[], Figure], draw_less: Callable[[], Figure] | None, path: Path
    ) -> None:
        try:
            with as_exceptions():
                figure = draw()
        except Exception as error:  # as of a net that takes the data, and nothing between them
            if not draw_less:
                raise
            plt.close("all")
            self.complain(f"cannot draw all: {describe(error)}")
            figure = draw_less()
        save_figure(figure, path, self.task)

    def save_as(self, path: Path, save: Callable[[Path], None]) -> None:
        """Save by `save(path)`, and say so, or why it cannot be done."""
        try:
            with missing_letters() as remarks, as_exceptions():
                save(path)
            self.say("; ".join([f"saved {path}", *remarks]))
        except OSError as error:
            self.complain(f"cannot save {path}: {error.strerror or error}")
        except Exception as error:  # what cannot be drawn
            self.complain(f"cannot make {path}: {describe(error)}")

    def was_interrupted(self) -> bool:
        """Tell whether a signal ended the work, or waits to be obeyed."""
        return self.interrupted or interruption.was_asked()


def page_width() -> int:
    """Return how many letters wide a line may be: a terminal is asked, a pipe has no width."""
    return shutil.get_terminal_size().columns if is_terminal(sys.stdout) else PIPE_WIDTH


def throw_into(runs: Iterator[T]) -> T:
    """Interrupt what makes the runs; return the next one that it has all the same."""
    if isinstance(runs, Generator):
        return cast(T, runs.throw(KeyboardInterrupt))
    raise KeyboardInterrupt


def make_animation(make: Callable[[], FuncAnimation], path: Path) -> None:
    save_animation(make(), path)


def say_error(text: str) -> None:
    """Print a line on standard error, if it is open."""
    if sys.stderr is not None:
        try:
            print(text, file=sys.stderr, flush=True)
        except OSError:
            silence(sys.stderr)


def silence(stream: TextIO) -> None:
    """Let all that is still to be written to the stream vanish."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())

"""What happens to a script's results: rows as they come, and all of them saved, whatever happens.

A run may come to grief: it has an `error`, and `remarks`, sentences that the reader has to know.
"""

import csv
import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TextIO

from lab import interruption
from lab.movies import save_movie
from lab.plotting import missing_letters, save_figure, show_figure, whole_file
from lab.specs import Spec, describe

from matplotlib.animation import Animation
from matplotlib.figure import Figure

NOT_COMPILED = "not compiled, which would be faster"  # a remark that is made once, for all


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while something ran: with what had been done by then."""

    def __init__(self, run: Any):
        super().__init__()
        self.run = run


@contextmanager
def keeping(run: Any) -> Iterator[None]:
    """Keep what `run` has become when the block fails, as a result, or is interrupted.

    Sets its `error`, and `stopped`: at which of its `steps`, and why. Raises Interrupted.
    """
    try:
        yield
    except Exception as error:  # whatever an optimizer may raise
        run.error, run.stopped = error, stop_in_words(error, run.steps + 1)
    except KeyboardInterrupt as error:
        run.error, run.stopped = error, stop_in_words(error, run.steps + 1)
        raise Interrupted(run) from None


def stop_in_words(error: BaseException, step: int, seed: int | None = None) -> str:
    """Return at which step, counted from 1, a run stopped, and why."""
    where = f"at step {step}" if seed is None else f"at step {step} of seed {seed}"
    if isinstance(error, KeyboardInterrupt):
        return f"interrupted {where}"
    return f"failed {where}: {describe(error)}"


class Report:
    """A table on standard output, and at the end a figure and a CSV, each whole or not at all."""

    def __init__(self, options: Namespace, columns: dict[str, str], title: str = ""):
        """Print the head of a table: `columns` maps each title to a format such as '>8'."""
        self.options = options
        self.layout = "  ".join(f"{{:{kind}}}" for kind in columns.values())
        self.columns = columns
        self.label = None
        self.status = 0
        self.has_results = self.interrupted = False
        if sys.stdout is None:
            self.complain("standard output is closed: the table is not shown")
        self.head(title)

    def head(self, title: str = "") -> None:
        """Print a line above the table, if there is one, and the titles of its columns."""
        if title:
            self.say(title)
        self.say(self.layout.format(*self.columns))

    def say(self, text: str) -> None:
        """Print a line; where that cannot be done, go on without."""
        try:
            if is_terminal(sys.stderr):
                print(end=ERASE, file=sys.stderr, flush=True)
            print(text, flush=True)
        except OSError as error:  # a full disk, or a reader that left, as `| head` does
            self.complain(f"cannot write to standard output: {error.strerror}")
            silence(sys.stdout)

    def complain(self, text: str) -> None:
        """Say on standard error what went wrong: the exit status will be 1."""
        self.status = 1
        say_error(text)

    def collect(
        self, runs: Iterable[tuple[Any, Any]], row: Callable[[Any, Any], Iterable]
    ) -> dict[Any, Any]:
        """Take each (label, run) as it comes, print `row(label, run)`, and return them all.

        A signal ends it with what is finished and what had begun; KeyboardInterrupt if that is
        nothing.
        """
        collected, said = {}, set()

        def take(label, run):
            collected[label], self.has_results = run, True
            *cells, note = row(label, run)
            self.say(f"{self.layout.format(*cells)}  {note}".rstrip())
            for remark in run.remarks:
                what = NOT_COMPILED if remark.startswith(NOT_COMPILED) else (label, remark)
                if what not in said:
                    self.say(f"{label}: {remark}")
                said.add(what)
            if isinstance(run.error, Exception):
                self.status = 1

        interruption.go_on()
        try:
            for label, run in runs:
                take(label, run)
        except KeyboardInterrupt as stop:
            self.interrupted = True
            if isinstance(stop, Interrupted):
                take(self.label, stop.run)
            if not self.has_results:
                raise
        except ConnectionError as loss:
            if not self.has_results:
                raise
            self.complain(f"stopped: {loss}")
        finally:
            interruption.wait()
        return collected

    def progress(self, label: Any) -> Callable[[Iterable, int], Iterator]:
        """Return a wrapper of an iterable that shows on a terminal how far it has come."""
        self.label = label
        return lambda items, total: show_progress(items, total, label)

    def save(
        self,
        figure: Figure,
        header: tuple[str, ...],
        rows: Iterable[tuple],
        films: dict[Path | None, Callable[[], Animation]] | None = None,
    ) -> int:
        """Save figure and CSV, and say so; open a window; return the exit status.

        `films` maps the paths of animations to what makes them, which a signal may end; None is
        no path. What cannot be saved is told, and the rest is.
        """
        options = self.options
        self.save_as(options.output, lambda: save_figure(figure, options.output))
        if options.csv:
            self.save_as(options.csv, lambda: write_csv(options.csv, header, rows))
        interruption.go_on()
        try:
            for path, make in (films or {}).items():
                if path and not self.was_interrupted():
                    self.save_as(path, lambda path=path, make=make: save_movie(make(), path))
        except KeyboardInterrupt:
            self.interrupted = True
        if self.was_interrupted():
            say_error("interrupted: what had finished is saved")
            return 130
        show_figure(figure)
        return self.status

    def save_as(self, path: Path, save: Callable[[], None]) -> None:
        """Save by `save()`, and say so, or why it cannot be done."""
        try:
            with missing_letters() as remarks:
                save()
            self.say("; ".join([f"saved {path}", *remarks]))
        except OSError as error:
            self.complain(f"cannot save {path}: {error.strerror or error}")

    def was_interrupted(self) -> bool:
        """Tell whether a signal ended the work, or waits to be obeyed."""
        return self.interrupted or interruption.was_asked()


def say_error(text: str) -> None:
    """Print a line on standard error, if it can be had."""
    if sys.stderr is not None:
        try:
            print(text, file=sys.stderr, flush=True)
        except OSError:
            silence(sys.stderr)


def silence(stream: TextIO) -> None:
    """Let all that is still to be written to the stream vanish."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def table(specs: dict[str, Spec], **columns: str) -> dict[str, str]:
    """Return the columns of a table of optimizers: label and call, wide enough, and the others."""
    label_width = max(map(len, ["optimizer", *specs]))
    call_width = max(len(spec.call) for spec in specs.values())
    return {"optimizer": f"<{label_width}", "call": f"<{call_width}", **columns}


ERASE = "\r\x1b[K"  # the line on which progress is shown


def is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def show_progress(
    items: Iterable, total: int, label: str, patience: float = 2.0, pause: float = 0.1
) -> Iterator:
    """Yield the items; after `patience` seconds show on a terminal how many of `total` are done.

    And about how long the others will take. The line is written anew every `pause` seconds, and
    erased at the end.
    """
    if not is_terminal(sys.stderr):
        yield from items
        return
    start = time.perf_counter()
    due, shown = start + patience, False
    try:
        for number, item in enumerate(items, start=1):
            yield item
            if (now := time.perf_counter()) > due:
                due, shown = now + pause, True
                left = (now - start) / number * (total - number)
                text = f"{label}: {number} of {total}, about {left:.0f} s left"
                print(f"{ERASE}{text}", end="", file=sys.stderr, flush=True)
    finally:
        if shown:
            print(end=ERASE, file=sys.stderr, flush=True)


def write_csv(path: Path | str, header: tuple[str, ...], rows: Iterable[tuple]) -> None:
    """Write a CSV whole or not at all. Floats are written so that they read back exactly."""
    with (
        whole_file(Path(path)) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def run_main(main: Callable[[], int]) -> NoReturn:
    """Run a script's `main` and exit with its status."""
    interruption.start()
    for number, stream in enumerate((sys.stdin, sys.stdout, sys.stderr)):
        if stream is None:  # closed: or the next file opened would be taken for it
            os.open(os.devnull, os.O_RDWR)
        elif number:
            stream.reconfigure(errors="replace")
    try:
        status = main()
        print(end="", flush=True)
    except SystemExit as stop:
        status = stop.code
    except KeyboardInterrupt:
        say_error("interrupted: nothing more is saved")
        status = 130
    except OSError as error:
        say_error(f"error: {describe(error)}")
        silence(sys.stdout)
        status = 1
    interruption.ignore()
    sys.exit(status)

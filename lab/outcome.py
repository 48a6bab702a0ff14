"""What all rooms share: what became of a piece of work, and how far it has come."""

import difflib
import io
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

T = TypeVar("T")

HERE = Path(__file__).resolve().parents[1]
PYTHON = Path(sysconfig.get_path("stdlib")).resolve()
OUR_NAMES = (  # of files and folders that a user's own file cannot have
    *("data", "models", "settings", "spaces", "surfaces", "tasks", "training", "tutorial"),
    *("benchmarks", "checks", "exercises", "figures", "lab", "optimizers", "tests"),
    *("check_optimizer", "optimizer_basics"),
)


class Progress(Protocol):
    """Passes items on, and shows how many of `total` have passed; `unit` is what each is."""

    def __call__(self, items: Iterable[T], total: int, unit: str = "", /) -> Iterable[T]: ...


class ProgressOf(Protocol):
    """Makes the progress of a piece of work that has a name."""

    def __call__(self, name: object, /) -> Progress: ...


def no_progress(items: Iterable[T], total: int, unit: str = "") -> Iterable[T]:
    """Return the items: a progress that shows nothing."""
    return items


doing: list[str] = []  # what takes its time before an item passes: the innermost last


@contextmanager
def saying(what: str) -> Iterator[None]:
    """Let the progress say what is done in the block, while no item passes."""
    doing.append(what)
    try:
        yield
    finally:
        doing.remove(what)


def show_none(name: object) -> Progress:
    """Show no progress, whatever the name of the work."""
    return no_progress


@dataclass(kw_only=True)
class Outcome:
    """What became of a piece of work, and what its reader has to know of it."""

    error: BaseException | None = None  # what ended it early
    stopped: str = ""  # where that was, and why
    remarks: list[str] = field(default_factory=list)

    @property
    def note(self) -> str:
        """What stands at the end of its row."""
        return self.stopped

    @property
    def interrupted(self) -> bool:
        return isinstance(self.error, KeyboardInterrupt)

    def raise_if_interrupted(self) -> None:
        """Raise KeyboardInterrupt if that has ended the work: no other is to begin."""
        if self.interrupted:
            raise KeyboardInterrupt from self.error

    def stop(self, error: BaseException, step: int, seed: int | None = None) -> None:
        """Take down what ended the work at this step, counted from 1."""
        where = f"at step {step}" if seed is None else f"at step {step} of seed {seed}"
        self.error = error
        if self.interrupted:
            self.stopped = f"interrupted {where}"
        else:
            self.stopped = f"failed {where}: {describe(error)}"


class CountsSteps(Protocol):
    """An Outcome that counts the steps it has taken."""

    steps: int

    def stop(self, error: BaseException, step: int) -> None: ...


@contextmanager
def keeping(run: CountsSteps) -> Iterator[None]:
    """Keep what `run` has become when the block fails or is interrupted."""
    try:
        yield
    except BaseException as error:  # whatever an optimizer may raise
        run.stop(error, run.steps + 1)


class RaisedError(Exception):
    """Stands for what a user's code raised that is no Exception, as SystemExit, its cause."""


@contextmanager
def as_exceptions() -> Iterator[None]:
    """Raise RaisedError, in words, in place of what is no Exception, but for Ctrl-C.

    For blocks without a `yield`: where a generator is given up, Python raises GeneratorExit there.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise RaisedError(describe(error)) from error


class Overheard(io.TextIOBase):
    """A stream for what others print while they work: each line goes to standard error once."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        for line in text.splitlines():
            if line.strip() and line not in self.seen and sys.stderr is not None:
                self.seen.add(line)
                print(line, file=sys.stderr)
        return len(text)


overheard = Overheard()


@contextmanager
def hushed() -> Iterator[None]:
    """Keep what a user's code prints out of the table."""
    with redirect_stdout(overheard):
        yield


def describe(error: BaseException) -> str:
    """Return an exception's own message on one line, and the line of a user's file it came from."""
    if isinstance(error, RaisedError):
        return str(error)
    message = "it calls exit()" if isinstance(error, SystemExit) else message_of(error)
    return f"{message}{place_of(error)}"


def refusal(error: BaseException) -> str:
    """Return the words of an error of ours as they are, of a user's own code with their place."""
    return describe(error) if place_of(error) else str(error)


def raised(error: BaseException) -> BaseException:
    """Return the error itself, or what RaisedError stands for."""
    return error.__cause__ or error if isinstance(error, RaisedError) else error


def message_of(error: BaseException) -> str:
    """Return an exception's own message on one line."""
    try:
        text = str(error)
    except Exception:  # one of a user's own may have no words
        text = ""
    return " ".join(f"{type(error).__name__}: {text}".split())


def place_of(error: BaseException) -> str:
    """Return the innermost line of a user's own file that an exception went through, if any."""
    for frame in reversed(traceback.extract_tb(raised(error).__traceback__)):
        if is_of_a_user(Path(frame.filename)):
            return f" ({Path(frame.filename).name}, line {frame.lineno})"
    return ""


def is_of_a_user(path: Path) -> bool:
    """Tell whether a file is none of ours, of an installed package's, or of Python's."""
    path = path.resolve()
    if not path.is_file() or is_installed(path):  # no file: as <string>
        return False
    if path.is_relative_to(HERE):
        top = path.relative_to(HERE).parts[0].removesuffix(".py")
        return top not in OUR_NAMES and not top.startswith("compare_")
    return True


def is_installed(path: Path) -> bool:
    """Tell whether a file is an installed package's or Python's, as in a .venv that lies here."""
    installed = {"site-packages", "dist-packages"} & {*path.parts}
    return bool(installed) or path.is_relative_to(PYTHON)


def nearest(word: str, known: list[str]) -> str:
    """Return a hint that offers the known names nearest to `word`, or else all of them.

    Of `optimizers.Lion`, the word may be near to the last part alone.
    """
    word = word.lower()
    names = {name.lower().rpartition(".")[2]: name for name in reversed(known)}
    names |= {name.lower(): name for name in reversed(known)}
    longer = [name for name in names if len(word) > 3 and word in name]
    near = difflib.get_close_matches(word, names) or longer
    close = dict.fromkeys(names[name] for name in near)
    return f"; did you mean {' or '.join(close)}?" if close else f"; known: {', '.join(known)}"

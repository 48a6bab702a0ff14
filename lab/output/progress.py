"""How far the work has come, on a terminal."""

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

from lab.outcome import doing

T = TypeVar("T")

ERASE = "\r\x1b[K"  # the line on which progress is shown
ENOUGH = 1.0  # seconds, of which it can be told how long the rest will take


def is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def show_progress(
    items: Iterable[T],
    total: int,
    unit: str = "",
    *,
    name: object,
    patience: float = 2.0,
    pause: float = 0.1,
) -> Iterator[T]:
    """Yield the items; after `patience` seconds show on a terminal how many of `total` are done.

    And about how long the others will take, counted from the first one that is done: what comes
    before it, as compiling, comes once. The line is written anew every `pause` seconds, and erased
    at the end.
    """
    if not is_terminal(sys.stderr):
        yield from items
        return
    what = f"{name}: {unit} " if unit else f"{name}: "
    waiting = threading.Timer(patience, lambda: show(f"{name}: {(doing or ['starting'])[-1]} ..."))
    waiting.daemon = True
    waiting.start()
    due, first = time.perf_counter() + patience, 0.0
    try:
        for number, item in enumerate(items, start=1):
            waiting.cancel()
            yield item
            now = time.perf_counter()
            first = first or now
            if now > due:
                due = now + pause
                show(f"{what}{number} of {total}{time_left(now - first, number, total)}")
    finally:
        waiting.cancel()
        if shown:
            show("")


shown: list[str] = []  # the line that is shown now


def show(text: str) -> None:
    """Show a line in the place of the last one; an empty one takes that away."""
    shown[:] = [text] if text else []
    print(f"{ERASE}{text}", end="", file=sys.stderr, flush=True)


def time_left(seconds: float, number: int, total: int) -> str:
    """Return about how long the rest will take, if it took so long from the first item to this."""
    if seconds < ENOUGH:
        return ""
    left = seconds / (number - 1) * (total - number)
    return f", about {left:.0f} s left" if left < 100 else f", about {left / 60:.0f} min left"

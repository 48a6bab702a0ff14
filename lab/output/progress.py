"""How far the work has come, on a terminal."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

T = TypeVar("T")

ERASE = "\r\x1b[K"  # the line on which progress is shown


def is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def show_progress(
    items: Iterable[T], total: int, name: object, patience: float = 2.0, pause: float = 0.1
) -> Iterator[T]:
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
                text = f"{name}: {number} of {total}, about {left:.0f} s left"
                print(f"{ERASE}{text}", end="", file=sys.stderr, flush=True)
    finally:
        if shown:
            print(end=ERASE, file=sys.stderr, flush=True)

"""Ctrl-C and SIGTERM: one line and exit status 130, whenever they come, and no work lost.

Three moments: while torch is imported, a signal ends the process; while a script trains, it raises
KeyboardInterrupt; while results are drawn and saved, that is finished first.
"""

import atexit
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, TypeAlias

Handler: TypeAlias = Callable[[int, FrameType | None], None] | signal.Handlers

SIGNALS = (signal.SIGINT, signal.SIGTERM)
IMPATIENCE = 1.0  # seconds; two signals within them are one

NEVER = -math.inf
asked_at = NEVER  # when the last signal came
waiting = False
before: dict[int, Any] = {}  # the handlers that were there before ours


def was_asked() -> bool:
    """Tell whether a signal has come."""
    return asked_at > NEVER


def end_quietly_while_importing() -> None:
    """Until `start`, let a signal end the process in one line, where it runs a script of ours."""
    script = getattr(sys.modules["__main__"], "__file__", None)
    if script and Path(script).resolve().parent == Path(__file__).resolve().parents[2]:
        _handle(_end)


def start() -> None:
    """From now on, let a signal raise KeyboardInterrupt, except between wait() and go_on()."""
    global asked_at
    asked_at = NEVER
    _handle(_interrupt)


def wait() -> None:
    """Let the first signal wait until `go_on`; another, later one raises all the same."""
    global waiting
    waiting = True


def go_on() -> None:
    """Let signals raise again."""
    global waiting
    waiting = False


def end() -> None:
    """The exit status is known: let no signal disturb the way out of the process.

    Where it goes on, as in a notebook's `%run`, signals do what they did before.
    """
    for number, handler in before.items():
        signal.signal(number, handler)
    before.clear()
    atexit.register(_handle, signal.SIG_IGN)


def _handle(handler: Handler) -> None:
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):  # as in `nohup`, `&`
                before.setdefault(number, signal.signal(number, handler))


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, b"interrupted: nothing is saved\n")
    os._exit(130)


def _interrupt(number: int, frame: FrameType | None) -> None:
    global asked_at
    first, last, asked_at = not was_asked(), asked_at, time.monotonic()
    if (first and waiting) or asked_at - last < IMPATIENCE:
        return
    raise KeyboardInterrupt

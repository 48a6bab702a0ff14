"""How a script begins and ends."""

import io
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from lab.outcome import describe
from lab.output import interruption
from lab.output.report import say_error, silence


def run_main(main: Callable[[], int]) -> NoReturn:
    """Run a script's `main` and exit with its status."""
    interruption.start()
    for number, stream in enumerate((sys.stdin, sys.stdout, sys.stderr)):
        if stream is None:  # closed: or the next file opened would be taken for it
            os.open(os.devnull, os.O_RDWR)
        elif number and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    status: str | int | None
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
    interruption.end()
    sys.exit(status)

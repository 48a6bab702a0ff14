"""How a script begins and ends."""

import io
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from lab.outcome import describe, place_of
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
    except KeyboardInterrupt:
        say_error("interrupted: nothing more is saved")
        status = 130
    except OSError as error:
        say_error(f"error: {describe(error)}")
        silence(sys.stdout)
        status = 1
    except BaseException as error:
        if place_of(error):  # a user's own code, where nobody expects it
            say_error(f"error: {describe(error)}")
            status = 1
        elif isinstance(error, SystemExit):
            status = error.code
        else:
            raise
    interruption.end()
    sys.exit(status)

"""The parser: errors in one line, and the options that every script has."""

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from lab.command_line.types import figure_path, output_path, seed_type, style_type
from lab.outcome import describe, overheard

import matplotlib
import matplotlib.pyplot as plt

import settings


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, with the options that every script has."""

    def __init__(self, description: str | None, examples: str, output: str):
        super().__init__(
            description=description,
            epilog=f"examples:\n{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        # A number like -1e-3 is a value, not an option (argparse before Python 3.14 lacks the e).
        self._negative_number_matcher = re.compile(r"-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")
        self.add("--seed", seed_type, settings.SEED, "fixes all that is random")
        self.add("--output", figure_path, output, "the figure; its extension is its format")
        self.add_argument("--csv", type=output_path, help="also write the numbers of the figure")
        self.add_argument(
            "--style",
            type=style_type,
            metavar="NAME",
            help="a style sheet of matplotlib or a file of yours; dark: for slides that are dark",
        )
        self.add_argument("--no-show", action="store_true", help="open no window")

    def add(self, flag: str, kind: Callable[[str], Any], default: Any, text: str) -> None:
        """Add an option that takes one value and says its default."""
        help_text = f"{text} (default: {default})"
        self.add_argument(flag, type=kind, default=default, help=help_text)

    def parse(self, argv: list[str] | None) -> argparse.Namespace:
        """Parse the words, and refuse what their types cannot see."""
        options = self.parse_args(argv)
        overheard.seen.clear()
        if options.style:
            plt.style.use(options.style)
        paths = [path for path in vars(options).values() if isinstance(path, Path)]
        if len({path.resolve() for path in paths}) < len(paths):
            self.error(f"two outputs name the same file among {', '.join(map(str, paths))}")
        try:
            seed_type(str(options.seed + getattr(options, "seeds", 1) - 1))
        except argparse.ArgumentTypeError as error:
            self.error(f"--seed and --seeds: {error}")
        use_a_backend(options.no_show)
        return options

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Say what is refused in the block, and why, in one line; exit with 2."""
        try:
            yield
        except (ValueError, RuntimeError, MemoryError) as error:  # torch's own are RuntimeErrors
            self.error(str(error))

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")


def use_a_backend(no_show: bool) -> None:
    """Load the backend of matplotlib now, or Agg, which draws without a screen, in its place."""
    if no_show:
        matplotlib.use("agg")
        return
    try:
        plt.switch_backend(matplotlib.get_backend())
    except Exception as error:  # a package that is missing, a display that does not answer
        print(f"no window will open: {describe(error)}", file=sys.stderr)
        plt.switch_backend("agg")

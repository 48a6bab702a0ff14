"""The parser: errors in one line, and the options that every script has."""

import argparse
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from lab.command_line.types import (
    figure_path,
    output_path,
    positive_int,
    seed_type,
    style_type,
)
from lab.outcome import as_exceptions, describe, nearest, overheard, place_of, refusal

import matplotlib
import matplotlib.pyplot as plt

import settings

# What --help shows, in this order. All that is not here is for few: `--help all` shows it, too.
GROUPS = {
    "what is compared": "--optimizers --optimizer --like --batch-sizes --lr --lr-range --lr-count"
    " --trials",
    "on what": "--task --tasks --surface --steps --noise --epochs --batch-size --seeds",
    "what comes out": "--fit --held-out --zh --output --csv",
}
MORE = "more"
DASHES = "-\u2013\u2014"  # the last two come from a text that a program has made pretty


class OneLineParser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")


class Parser(OneLineParser):
    """The options that every script has."""

    def __init__(self, description: str | None, examples: str, output: str):
        width = shutil.get_terminal_size().columns - 2  # as argparse has it
        paragraphs = (description or "").split("\n\n")
        super().__init__(
            description="\n\n".join(textwrap.fill(text, width) for text in paragraphs),
            epilog=f"examples:\n{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            add_help=False,
        )
        self.groups = {title: self.add_argument_group(title) for title in [*GROUPS, MORE]}
        text = "show this; --help all shows every option"
        self._optionals.title = "help"
        super().add_argument("-h", "--help", nargs="?", action=Help, metavar="all", help=text)
        # A number like -1e-3 is a value, not an option (argparse before Python 3.14 lacks the e).
        self._negative_number_matcher = re.compile(r"-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")
        self.add("--seed", seed_type, settings.SEED, "the random seed, or the first one")
        text = f"where to save the figure: .png, .pdf, .svg ... (default: {output})"
        self.add_argument("--output", metavar="PATH", type=figure_path, default=output, help=text)
        text = "also save the numbers behind the figure, as numbers.csv"
        self.add_argument("--csv", metavar="PATH", type=output_path, help=text)
        self.add_argument(
            "--style",
            type=style_type,
            metavar="NAME",
            help="the look of the figure: paper (a column), slide, dark (for dark slides), a style "
            "sheet of matplotlib, as ggplot, or a file of yours, as mine.mplstyle",
        )
        self.add_argument("--no-show", action="store_true", help="open no window")

    def add_argument(self, *flags: str, **settings: Any) -> argparse.Action:
        """Add an option to the group that has it, or an argument that is none."""
        if not flags[0].startswith("-"):
            return super().add_argument(*flags, **settings)
        title = next((title for title in GROUPS if flags[0] in GROUPS[title].split()), MORE)
        if settings.get("type") is positive_int:
            settings.setdefault("metavar", "N")
        return self.groups[title].add_argument(*flags, **settings)

    def add(self, flag: str, kind: Callable[[str], Any], default: Any, text: str) -> None:
        """Add an option that takes one value and says its default."""
        help_text = f"{text} (default: {default})"
        self.add_argument(flag, type=kind, default=default, help=help_text)

    def parse(self, argv: list[str] | None) -> argparse.Namespace:
        """Parse the words, and refuse what their types cannot see."""
        options, unknown = self.parse_known_args(argv)
        if unknown:
            self.error(f"unknown words: {' '.join(unknown)}{self.hint_at_options(unknown)}")
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

    def hint_at_options(self, unknown: Sequence[str]) -> str:
        """Return what to write in the place of words that no option takes."""
        options = self._option_string_actions
        for word in unknown:
            if word[0] in DASHES:
                hint = nearest(word.strip(DASHES), [flag.strip("-") for flag in options])
                hint = hint.replace("mean ", "mean --").replace(" or ", " or --")
                return hint if "did you mean" in hint else "; --help all lists the options"
        if "--optimizers" in options:
            word = unknown[0] if unknown[0].isalnum() else f'"{unknown[0]}"'
            return f"; optimizers are named after --optimizers, as --optimizers {word}"
        return "; each word needs an option before it: --help lists them"

    def format_help(self, everything: bool = False) -> str:
        """Return the help: the options that most people need, or all of them."""
        every, order = self._action_groups, " ".join(GROUPS.values()).split()
        for title in GROUPS:
            self.groups[title]._group_actions.sort(key=lambda it: order.index(it.option_strings[0]))
        words = [str(action.metavar) for action in self._positionals._group_actions]
        self.usage = " ".join(["%(prog)s", *words, "[options]"])
        self._action_groups = [group for group in every if everything or group.title != MORE]
        try:
            return super().format_help()
        finally:
            self._action_groups = every

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Say what is refused in the block, and why, in one line; exit with 2."""
        try:
            with as_exceptions():
                yield
        except (
            Exception
        ) as error:  # a user's own code may fail in any way; torch's are RuntimeErrors
            if not place_of(error) and not isinstance(
                error, ValueError | RuntimeError | MemoryError
            ):
                raise
            self.error(refusal(error))


class Help(argparse.Action):
    """Shows the help, with all options if it is asked for `all`, and ends."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option: str | None = None,
    ) -> NoReturn:
        assert isinstance(parser, Parser)
        print(parser.format_help(everything=values == "all"), end="")
        parser.exit(0)


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

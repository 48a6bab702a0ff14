"""Exercises: read one, or check your own file."""

import argparse
import json
import re
import runpy
import shutil
import sys
import textwrap
from pathlib import Path

from lab.command_line.parser import OneLineParser
from lab.outcome import as_exceptions, raised
from lab.output.main import run_main

import checks.finding
from exercises import ENDS, EXERCISES, RIGHT, check, failure
from exercises.checks import WrongAnswer

HERE = Path(__file__).parent


def number_type(text: str) -> list[int]:
    """Return the numbers of the exercises that a word names."""
    numbers = range(1, len(EXERCISES) + 1)
    if text != "all" and text not in map(str, numbers):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number from 1 to {len(numbers)}, or all"
        )
    return list(numbers) if text == "all" else [int(text)]


def make_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        "python -m exercises", description=__doc__, epilog="Run it in the folder of README.md."
    )
    text = f"which: 1 to {len(EXERCISES)}, or all"
    parser.add_argument("numbers", type=number_type, nargs="?", metavar="N", help=text)
    parser.add_argument("file", type=Path, nargs="?", help="your own file, as my_file.py")
    parser.add_argument("--zh", action="store_true", help="in Chinese (中文)")
    return parser


def texts(chinese: bool) -> list[str]:
    """Return the text of each exercise: a section of exercises/README.md."""
    page = HERE / ("README.zh-CN.md" if chinese else "README.md")
    _, *sections = re.split(r"^## (?=\d)", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [section.strip() for section in sections]


def check_file(number: int, path: Path) -> WrongAnswer | None:
    """Run a student's file; return what is wrong with it, None if it is right."""
    try:
        with as_exceptions():
            namespace = runpy.run_path(str(path))
    except Exception as error:  # a student's own code may fail in any way
        if isinstance(raised(error), SystemExit):
            return WrongAnswer(ENDS)
        return failure(error, str(path))
    return check(number, namespace)


def in_words(sentence: str, values: dict[str, object], chinese: bool) -> str:
    """Return a sentence, in English or Chinese, with the values filled in."""
    if chinese:
        sentence = json.loads((HERE / "chinese.json").read_text(encoding="utf-8"))[sentence]
    return checks.finding.say(sentence, chinese, **values)


def fill(section: str) -> str:
    """Return a section as wide as the terminal, 80 columns at most; commands stay whole."""
    width = min(80, shutil.get_terminal_size().columns)
    return "\n\n".join(
        block if block.startswith("```") else textwrap.fill(block, width)
        for block in section.split("\n\n")
    )


def main(argv: list[str] | None = None) -> int:
    parser = make_parser()
    options = parser.parse_args(argv)
    sections = texts(options.zh)
    if options.numbers is None:
        print("\n".join(section.splitlines()[0] for section in sections))
        return 0
    if options.file is None:
        chosen = [sections[number - 1] for number in options.numbers]
        print("\n\n".join(chosen if options.zh else map(fill, chosen)))
        return 0
    if not options.file.is_file():
        parser.error(f"there is no file {str(options.file)!r}")
    sys.path.insert(0, str(options.file.resolve().parent))  # so that it can import files beside it
    status = 0
    for number in options.numbers:
        finding = check_file(number, options.file)
        sentence, values = RIGHT, {"number": number}
        if finding:
            sentence, values, status = finding.sentence, finding.values, 1
        before = f"{number}. " if finding and len(options.numbers) > 1 else ""
        print(before + in_words(sentence, values, options.zh))
    return status


if __name__ == "__main__":
    run_main(main)

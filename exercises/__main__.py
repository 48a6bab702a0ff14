"""Ten exercises: read one, or check your own file."""

import argparse
import json
import re
import runpy
import sys
from pathlib import Path

from lab.output.main import run_main

import checks.finding
from exercises import ENDS, EXERCISES, RIGHT, check, failure
from exercises.checks import WrongAnswer

HERE = Path(__file__).parent


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m exercises", description=__doc__, epilog="Run it in the folder of README.md."
    )
    numbers = range(1, len(EXERCISES) + 1)
    parser.add_argument(
        "number", type=int, nargs="?", choices=numbers, metavar="N", help="which: 1 to 10"
    )
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
        namespace = runpy.run_path(str(path))
    except SystemExit:
        return WrongAnswer(ENDS)
    except Exception as error:  # a student's own code may fail in any way
        return failure(error, str(path))
    return check(number, namespace)


def in_words(sentence: str, values: dict[str, object], chinese: bool) -> str:
    """Return a sentence, in English or Chinese, with the values filled in."""
    if chinese:
        sentence = json.loads((HERE / "chinese.json").read_text(encoding="utf-8"))[sentence]
    return checks.finding.say(sentence, chinese, **values)


def main(argv: list[str] | None = None) -> int:
    parser = make_parser()
    options = parser.parse_args(argv)
    sections = texts(options.zh)
    if options.number is None:
        print("\n".join(section.splitlines()[0] for section in sections))
        return 0
    if options.file is None:
        print(sections[options.number - 1])
        return 0
    if not options.file.is_file():
        parser.error(f"there is no file {str(options.file)!r}")
    sys.path.insert(0, str(options.file.resolve().parent))  # so that it can import files beside it
    finding = check_file(options.number, options.file)
    if finding is None:
        print(in_words(RIGHT, {"number": options.number}, options.zh))
        return 0
    print(in_words(finding.sentence, finding.values, options.zh))
    return 1


if __name__ == "__main__":
    run_main(main)

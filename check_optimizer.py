"""What is wrong with my optimizer? Check a class of your own: its steps, its manners, its use.

With --like, it has to take the same steps as another optimizer, to nine digits. Where it does not,
the mistake is named, if its numbers are those of a mistake. Then: what every optimizer has to hold
to. And what it is good for: the hardest level it passes of little problems with one difficulty
each, beside SGD, Momentum and Adam.
"""

import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from lab.command_line.parser import Parser
from lab.command_line.specs import TORCH_CLASSES, PartedSpec, parse_optimizer
from lab.outcome import nearest
from lab.output.main import run_main
from lab.output.report import Report
from lab.output.table import Column
from lab.pictures.looks import PALETTE, letter_color
from lab.pictures.style import new_figure

import matplotlib.pyplot as plt
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure

from checks.contract import (
    CHECKS,
    Profile,
    Result,
    Subject,
    profile,
    run_all,
    run_check,
    subject_of,
)
from checks.finding import Wrong, failure, say
from checks.maker import Maker
from checks.mistakes import Mistake, formula_of, known_mistakes, named, told
from checks.problems import LEVELS, PROBLEMS, Solved, Solver, solve
from checks.same_steps import Comparison, compare
from settings import OPTIMIZERS

BESIDE = ["SGD", "Momentum", "Adam"]  # of settings.py: the other columns of the figure

EXAMPLES = """\
  python check_optimizer.py homework.MyAdam --like Adam
  python check_optimizer.py homework.MyMomentum --like "SGD(momentum=0.8)"
  python check_optimizer.py "homework.MyRule(gamma=0.5)" --zh"""

CSV_HEADER = ("problem", "optimizer", "levels")


# ---------------------------------------------------------------- the findings


@dataclass
class Findings:
    """All that is found about an optimizer; `sentences` are empty where all holds."""

    mine: Maker
    comparison: Comparison | None = None
    mistakes: list[Mistake] = field(default_factory=list)  # those that give the same numbers
    results: list[Result] = field(default_factory=list)  # what every optimizer has to hold to
    profile: Profile | None = None  # what it couples and costs

    @property
    def wrong(self) -> list[Wrong]:
        compared = self.comparison.findings if self.comparison else []
        return [*compared, *(result.finding for result in self.results if result.finding)]

    def sentences(self, chinese: bool = False) -> list[str]:
        return [finding.say(chinese) for finding in self.wrong]


def check(optimizer: str | type, like: str | type | None = None) -> Findings:
    """Return what is found about an optimizer: a SPEC, as on the command line, or a class."""
    findings = Findings(maker_of(optimizer))
    if like is not None:
        compare_with(findings, maker_of(like))
    hold_to(findings)
    return findings


def maker_of(optimizer: str | type) -> Maker:
    """Return a class with its hyperparameters. ValueError names what is wrong, in one line.

    A bare name of torch.optim is that class with its own defaults, and no preset of settings.py.
    """
    if isinstance(optimizer, type):
        return Maker(optimizer.__name__, optimizer)
    is_bare = optimizer in TORCH_CLASSES
    spec = parse_optimizer(f"{optimizer}={optimizer}()" if is_bare else optimizer)
    if isinstance(spec, PartedSpec):
        raise ValueError(f"{optimizer!r} is two optimizers: check each alone")
    if spec.schedulers:
        raise ValueError(f"{optimizer!r} has a schedule: check the optimizer alone")
    make = Maker(spec.label, spec.optimizer_class, spec.keywords)
    known = list(Maker("", spec.optimizer_class).hyperparameters)
    for name in spec.keywords:
        if name not in known and not make.takes_any_keyword:
            raise ValueError(f"{spec.label} takes no {name!r}{nearest(name, known)}")
    if make.missing:
        name = make.missing[0]
        raise ValueError(f"{spec.label} needs {name}: write {spec.label}({name}=...)")
    return make


def compare_with(findings: Findings, other: Maker) -> None:
    """Compare the steps with those of another optimizer; name the mistakes."""
    try:
        findings.comparison = compare(findings.mine, other)
    except Exception as error:
        raise ValueError(f"--like {other.label} cannot step: {failure(error)}") from error
    findings.mistakes = named(findings.comparison)


def hold_to(findings: Findings) -> Subject | None:
    """Check what every optimizer has to hold to; return what can be solved with, if it steps."""
    try:
        subject = subject_of(findings.mine)
    except Exception as error:  # its constructor fails
        findings.results = [Result(CHECKS[0].words, failure(error))]
        return None
    findings.results = run_all(subject)
    if findings.results[0].finding:
        return None
    try:
        findings.profile = profile(subject)
    except Exception as error:
        findings.results.append(Result("a tensor of 64 by 64 does no harm", failure(error)))
        return None
    return subject


def solvers(make: Maker, subject: Subject, coupled: Profile) -> dict[str, Solver]:
    """Return what solves the problems: the optimizer, and those beside it."""
    mine = Solver(make, subject.kind, coupled.elements, coupled.parameters)
    others = {label: maker_of(f"{label}={OPTIMIZERS[label]}") for label in BESIDE}
    return {make.label: mine} | {
        label: Solver(other, subject_of(other).kind)
        for label, other in others.items()
        if label != make.label
    }


def cases(optimizer: str | type, like: str | type | None = None) -> Callable[[str], None]:
    """Return a test for a test suite of your own, with a case for each check. It needs pytest.

    from check_optimizer import cases
    test_my_optimizer = cases("homework.MyAdam", like="Adam")
    """
    import pytest

    words = [one.words for one in CHECKS]
    same = f"the same steps as {like if isinstance(like, str) else getattr(like, '__name__', '')}"

    @pytest.mark.parametrize("what", words if like is None else [same, *words])
    def test(what: str) -> None:
        if what == same:
            findings = Findings(maker_of(optimizer))
            compare_with(findings, maker_of(like or optimizer))
            wrong = [str(finding) for finding in findings.wrong]
        else:
            result = run_check(CHECKS[words.index(what)], subject_of(maker_of(optimizer)))
            wrong = [str(result.finding)] if result.finding else []
        assert not wrong, "\n".join(wrong)

    return test


# ---------------------------------------------------------------- in words

LIKE = "The same steps as {other}, to nine digits: {walks} walks, over {shared}."
UNLIKE = "Not the same steps as {other}."
ONE_MISTAKE = "The numbers are those of {other} with this mistake:"
ONE_OF = "The numbers are those of {other} with one of these mistakes, which give the same numbers:"
AND_MORE = "Other changes of the rule that give the same numbers: {count}."
PARTLY = "So it is in the plainest walks; in others, there is another mistake, too."
NO_MISTAKE = (
    "These are the numbers of none of the {count} mistakes that are known. Are there two? Compare "
    "your first step with the line above, by hand."
)
NO_FORMULA = "No mistake is known by name: {other} is not written out in optimizers/."
RIGHT_LINE, WRONG_LINE = "right: {line}", "here:  {line}"
SEEN = "It has happened to others: {link}"
OK, WRONG, COLON, SEMICOLON = "ok", "WRONG", ": ", "; "
HOLDS = "What every optimizer has to hold to:"
COUPLES = "It couples {what}."
NOTHING, ELEMENTS = "nothing, so nets can be stacked", "the elements of a parameter"
PARAMETERS = "all parameters: no two nets can be stacked"
COSTS = (
    "Numbers it keeps for each of a parameter: {memory:.2g} (Adam: 2). Time of a step beside "
    "torch's Adam: {time:.2g}."
)
GOOD_FOR = "What it is good for: the hardest level it passes, of six, at its best rate."
ONLY_FIRST = "Before it steps, nothing else can be checked."
ALL_HOLDS = "All of this holds."
SOME_WRONG = "To be put right: {count}."


def lines(findings: Findings, chinese: bool = False) -> Iterator[str]:
    """Yield what was found, in lines: what is compared, the mistakes, what has to hold."""

    def words(sentence: str, **values: Any) -> str:
        return say(sentence, chinese, **values)

    if findings.comparison:
        yield from _compared(findings, words, chinese)
        yield ""
    yield words(HOLDS)
    for result in findings.results:
        mark = words(WRONG if result.finding else OK)
        after = result.finding.say(chinese) if result.finding else words(result.remark)
        yield f"  {mark:5}  {words(result.words)}{words(COLON) if after else ''}{after}"
    if len(findings.results) == 1:
        yield "  " + words(ONLY_FIRST)
    if findings.profile:
        coupled = findings.profile
        what = PARAMETERS if coupled.parameters else ELEMENTS if coupled.elements else NOTHING
        yield "  " + words(COUPLES, what=what)
        yield "  " + words(COSTS, memory=coupled.memory, time=coupled.time)
    count = len(findings.wrong)
    yield words(SOME_WRONG, count=count) if count else words(ALL_HOLDS)


def _compared(findings: Findings, words: Callable[..., str], chinese: bool) -> Iterator[str]:
    """Yield how the steps compare, and what mistake that is."""
    comparison = findings.comparison
    assert comparison
    other, mistakes = comparison.other, told(findings.mistakes)
    if not comparison.findings:
        shared = ", ".join(comparison.shared) or "-"
        yield words(LIKE, other=other.label, walks=len(comparison.walks), shared=shared)
        return
    yield words(UNLIKE, other=other.label)
    for finding in comparison.findings:
        yield "  " + finding.say(chinese)
    if comparison.first is None:
        return
    if not mistakes:
        rule = formula_of(other.optimizer_class)
        count = known_mistakes(other)
        yield words(NO_MISTAKE, count=count) if rule else words(NO_FORMULA, other=other.label)
        return
    yield words(ONE_MISTAKE if len(mistakes) == 1 else ONE_OF, other=other.label)
    for mistake in mistakes:
        yield "  " + words(mistake.sentence, **mistake.values)
        for form, line in ((RIGHT_LINE, mistake.right), (WRONG_LINE, mistake.wrong)):
            if line:
                yield "    " + words(form, line=line)
        if mistake.link:
            yield "    " + words(SEEN, link=mistake.link)
    if more := len(findings.mistakes) - len(mistakes):
        yield words(AND_MORE, count=more)
    if not mistakes[0].is_all:
        yield words(PARTLY)


# ---------------------------------------------------------------- the figure


def draw(solved: dict[str, Solved]) -> Figure:
    """Return the figure: a row for each problem, a column for each optimizer."""
    labels = list(next(iter(solved.values())).levels)
    figure, (axes,) = new_figure()
    figure.set_size_inches(2 + 1.4 * len(labels), 1 + 0.33 * len(solved))
    ground, blue = to_rgb(plt.rcParams["axes.facecolor"]), to_rgb(PALETTE[0])
    strong = [(one + other) / 2 for one, other in zip(blue, to_rgb(letter_color()), strict=True)]
    shades = LinearSegmentedColormap.from_list("levels", [ground, blue, strong])
    levels = [[run.levels.get(label) for label in labels] for run in solved.values()]
    numbers = [[float("nan") if level is None else level for level in row] for row in levels]
    axes.imshow(numbers, cmap=shades, vmin=0, vmax=LEVELS, aspect="auto")
    for y, row in enumerate(levels):
        for x, level in enumerate(row):
            shade = shades((level or 0) / LEVELS)
            color = "white" if sum(shade[:3]) < 1.7 else "black"
            axes.text(
                x, y, "-" if level is None else str(level), color=color, ha="center", va="center"
            )
    axes.axvline(0.5, color=ground, linewidth=6)  # its own column apart
    axes.set_xticks(range(len(labels)), [_in_lines(label) for label in labels])
    axes.set_yticks(range(len(solved)), list(solved))
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(f"hardest of {LEVELS} levels passed, at its best learning rate")
    return figure


def _in_lines(label: str) -> str:
    """Return a label in lines short enough for a column."""
    text = label.replace("$", r"\$").replace("(", " (").replace(".", ". ")
    return textwrap.fill(text, 15).replace(" (", "(").replace(". ", ".")


# ---------------------------------------------------------------- the script


def columns_of(labels: list[str], chinese: bool) -> list[Column[str, Solved]]:
    """Return the columns of the table: a problem, the level that each passes, what is hard."""

    def level_of(label: str) -> Callable[[str, Solved], str]:
        return lambda name, run: "-" if run.levels.get(label) is None else str(run.levels[label])

    def hardness(name: str, run: Solved) -> str:
        ends = f"h = {run.problem.levels[0]:g} ... {run.problem.levels[-1]:g}"
        return f"{say(run.problem.words, chinese)}{say(SEMICOLON, chinese)}{ends}"

    return [
        Column("problem", f"<{max(map(len, PROBLEMS))}", lambda name, run: name),
        *(Column(label, f">{len(label)}", level_of(label)) for label in labels),
        Column("", "", hardness),
    ]


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLES, "check_optimizer.png")
    parser.add_argument(
        "optimizer",
        metavar="NAME",
        help="the optimizer to check, as my_file.MyClass, or "
        '"my_file.MyClass(gamma=0.5)" in quotes, or a class of torch.optim or a package',
    )
    parser.add_argument(
        "--like",
        metavar="NAME",
        help="the optimizer whose steps it has to take, as Adam: the class with its own defaults; "
        'or as "SGD(lr=0.1, momentum=0.8)" in quotes. An lr goes to both (0.01 if there is none). '
        "Of the other hyperparameters, those that both take are compared at several values",
    )
    parser.add_argument("--zh", action="store_true", help="in Chinese (中文)")
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = make_parser()
    options = parser.parse(argv)
    findings = Findings(_made(parser, options.optimizer))
    if options.like:
        other = _made(parser, options.like)
        with parser.refusing():
            compare_with(findings, other)
    subject = hold_to(findings)
    for line in lines(findings, options.zh):
        print(line, flush=True)
    if subject is None or findings.profile is None:
        return 1

    teams = solvers(findings.mine, subject, findings.profile)
    columns = columns_of(list(teams), options.zh)
    report = Report(
        options.output, options.csv, columns, "\n" + say(GOOD_FOR, options.zh), options.optimizer
    )
    solved = {}
    runs = report.progress("problems")(solve(teams, options.seed), len(PROBLEMS))
    for name, run in report.collect(runs):
        solved[name] = run
        report.row(name, run)
    rows = (
        (name, label, "" if level is None else level)
        for name, run in solved.items()
        for label, level in run.levels.items()
    )
    return report.save(partial(draw, solved), CSV_HEADER, rows) or int(bool(findings.wrong))


def _made(parser: Parser, text: str) -> Maker:
    """Return what a SPEC names; where it is wrong, or its file fails, say so and exit with 2."""
    try:
        return maker_of(text)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    run_main(main)

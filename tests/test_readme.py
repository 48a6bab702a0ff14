"""README.md, docs/ and their translations: the commands, programs, figures, links and numbers."""

import importlib
import importlib.util
import inspect
import re
import runpy
import shlex
from pathlib import Path

from lab.command_line.spaces import parse_space
from lab.command_line.specs import TORCH_CLASSES, TORCH_SCHEDULERS, parse_optimizer, parse_task

import numpy
import pytest
from conftest import exit_status

import figures.__main__ as figures
import optimizers
from checks import problems
from figures.__main__ import FIGURES, TABLES
from tasks import TASKS

ROOT = Path(__file__).parents[1]
TEXTS = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("exercises/*.md")])
}
README = TEXTS["README.md"]
# README.fr.md is README.md in another language.
ORIGINALS = {
    name: original
    for name in TEXTS
    if (original := re.sub(r"\.[a-z]{2}(-[A-Z]{2})?\.md$", ".md", name)) != name
}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
YOURS = {"homework.py", "problem.py", "table.py", "my_file.py", "digits.py"}


def commands(text):
    """Return the commands of a page that run python, from its blocks and its lines."""
    blocks = "".join(code for language, code in BLOCK.findall(text) if language == "sh")
    lines = blocks.replace("\\\n", "").splitlines()
    inline = re.findall(r"`(python [^`]+)`", BLOCK.sub("", text))
    typed = [command for line in lines for command in re.sub(r"\s+#\s.*", "", line).split(" && ")]
    found = [" ".join(command.split()) for command in [*typed, *inline]]
    return [command for command in found if command.startswith("python ")]


def programs(text):
    """Return the programs of a page that a file is named for: (file, program)."""
    return [
        (re.findall(r"`(\w+\.py)`", text[: block.start()])[-1], block[2])
        for block in BLOCK.finditer(text)
        if block[1] == "python" and "from check_optimizer import" not in block[2]
    ]


def anchors(text):
    """Return the anchors that GitHub makes of a page's titles."""
    titles = re.findall(r"^#+ (.*)", BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links(text):
    """Return the links of a page to files of this repository: (path, anchor)."""
    found = re.findall(r"\]\(([^)#]*)#?([^)]*)\)", BLOCK.sub("", text))
    # A setting of the live page is a link to a page that a reader has made.
    return [(path, anchor) for path, anchor in found if not re.search("://|page.html$", path)]


def run(command):
    """Run the main of a command's script; return its exit status."""
    _, script, *words = shlex.split(command)
    return exit_status(importlib.import_module(script.removesuffix(".py")).main, words)


def numbers(text):
    return re.findall(r"\d+(?:[.,]\d+)*", text)


# ---------------------------------------------------------------- commands and programs


@pytest.fixture
def pasted(homework, unrendered):
    """A folder with all programs of the English pages, each in the file that its page names."""
    files = {}
    for name in sorted(TEXTS.keys() - ORIGINALS.keys()):
        for file, program in programs(TEXTS[name]):
            files[file] = files.get(file, "") + program
    assert files.keys() == YOURS
    rows = numpy.random.default_rng(0).normal(size=(60, 4))
    numpy.savetxt("mine.csv", rows, delimiter=",", header="age,income,score,y", comments="")
    for file, program in files.items():
        homework(program, file.removesuffix(".py"))


@pytest.mark.parametrize("name", TEXTS)
def test_each_command_is_one_that_its_script_takes(name, pasted):
    for command in commands(TEXTS[name]):
        _, script, *words = shlex.split(command)
        if script == "-m":
            script, *words = words
            if script != "exercises":
                assert importlib.util.find_spec(script), command
                continue
            script = "exercises.__main__"
        module = importlib.import_module(script.removesuffix(".py"))
        if not hasattr(module, "make_parser"):
            assert words == [], command
            continue
        if words == ["--task", "list"]:
            assert exit_status(module.make_parser().parse_args, words) == 0
            continue
        options = vars(module.make_parser().parse_args(words))
        # What the exercises ask for is in no page: the student writes it.
        for spec in options.get("optimizers", []):
            parse = parse_space if script == "compare_budgets.py" else parse_optimizer
            assert spec == "today" or spec.startswith("my_file.") or parse(spec)
        for task in [options.get("task"), *options.get("tasks", [])]:
            assert task in (None, "list", "all", "my_file.mine") or parse_task(task)


@pytest.mark.parametrize(
    ("page", "start", "says"),
    [
        ("README.md", "python compare_optimizers.py --optimizers Adam homework", "MyMomentum(lr="),
        ("README.md", "python compare_learning_rates.py --task problem.mine", "\nAdam "),
        ("docs/your_own.md", "python compare_learning_rates.py --task table.mine", "\nAdam "),
        pytest.param(
            "docs/your_own.md",
            "python compare_tasks.py --tasks problem.mine",
            "problem.mine  Adam ",
            marks=pytest.mark.slow,
        ),
        ("docs/your_own.md", "python compare_optimizers.py --optimizers SGD ", "Halving(every=3)"),
        pytest.param(
            "docs/real_size.md",
            "python compare_optimizers.py --task digits.images",
            "\nMomentum ",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_is_ones_own_works_when_pasted(page, start, says, pasted, capsys):
    (command,) = {command for command in commands(TEXTS[page]) if command.startswith(start)}
    short = "--epochs 1"
    if "compare_optimizers.py" not in command:
        short = "--optimizers Adam --lr-count 2 --seeds 2 --judges 2" + " --jobs 1" * (
            "tasks.py" in command
        )
    assert run(f"{command} {short} --no-show") == 0
    out, err = capsys.readouterr()
    assert says in out
    assert err == ""


def test_the_homework_is_like_pytorchs(pasted, monkeypatch):
    few = {name: problems.PROBLEMS[name] for name in ("valley", "noise")}
    monkeypatch.setattr(problems, "PROBLEMS", few)
    (command,) = [c for c in commands(README) if c.startswith("python check_optimizer.py")]
    assert "momentum=0.8" in command  # which is right: tests/test_real_surroundings.py
    assert run(command.replace("momentum=0.8", "momentum=0.7")) == 1


def test_the_set_up_commands_are_there_one_a_line_as_powershell_wants():
    lines = re.findall(
        r"^(pip install -r .*|python compare_optimizers\.py|python -m pytest)$", README, re.M
    )
    run_it = ["pip install -r requirements.txt", "python compare_optimizers.py"]
    assert lines == [*run_it, "pip install -r requirements-dev.txt", "python -m pytest"]
    assert "&&" not in README
    (pin,) = re.findall(r"pip install (torch==[\d.]+) --index-url", README)
    assert pin in (ROOT / "requirements.txt").read_text().splitlines()
    assert README.index("venv") < README.index(pin) < README.index(lines[0])


# ---------------------------------------------------------------- figures


def test_each_figure_is_listed_with_its_command_and_shown():
    files = {path.name for path in (ROOT / "figures").iterdir() if path.suffix in (".png", ".gif")}
    assert files == FIGURES.keys()
    shown = {Path(path).name for text in TEXTS.values() for path, _ in links(text)}
    assert files <= shown


@pytest.mark.parametrize("name", TEXTS)
def test_a_page_names_the_commands_of_its_figures(name):
    for path, _ in links(TEXTS[name]):
        if Path(path).name in FIGURES:
            assert FIGURES[Path(path).name] in commands(TEXTS[name]), path


def test_each_table_that_is_printed_again_is_named_by_a_page():
    assert set(TABLES) <= {command for text in TEXTS.values() for command in commands(text)}


def test_one_command_draws_all_figures_and_prints_all_tables(
    tmp_path_factory, workdir, monkeypatch, capfd
):
    table = tmp_path_factory.mktemp("script") / "table.py"
    table.write_text("import sys\nprint('Adam ', *sys.argv[1:])")
    drawn = {"down.png": "python compare_paths.py --steps 2"}
    monkeypatch.setattr(figures, "FIGURES", drawn)
    monkeypatch.setattr(figures, "TABLES", [f"python {table} --seeds 9"])
    figures.main(workdir)
    assert {path.name for path in workdir.iterdir()} == drawn.keys()
    out, err = capfd.readouterr()
    assert re.findall(r"^\$ (.*)", out, re.MULTILINE) == [*drawn.values(), *figures.TABLES]
    assert (out.count("\nAdam "), err) == (2, "")
    assert out.endswith("\nAdam  --seeds 9 --no-show\n")


# ---------------------------------------------------------------- links and names


@pytest.mark.parametrize("name", TEXTS)
def test_each_link_leads_somewhere(name):
    for path, anchor in links(TEXTS[name]):
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), path
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), (path, anchor)


@pytest.mark.parametrize("name", TEXTS)
def test_each_file_that_is_named_is_there(name):
    for path in re.findall(r"`([\w./]+\.(?:py|txt|toml|json|ipynb))`", TEXTS[name]):
        found = [folder / path for folder in (ROOT, (ROOT / name).parent)]
        assert path in YOURS or any(file.exists() for file in found), path


def test_readme_leads_to_every_page_of_docs():
    for name, text in TEXTS.items():
        if Path(name).name.startswith("README"):
            continue
        readme = "README.zh-CN.md" if name in ORIGINALS else "README.md"
        assert name in {path for path, _ in links(TEXTS[readme])}, name
        assert text.startswith("# ")


@pytest.mark.parametrize("name", [name for name in TEXTS if name.startswith("README")])
def test_the_readme_is_read_in_a_sitting(name):
    assert TEXTS[name].count("\n") <= 160


# ---------------------------------------------------------------- languages


def contents(section):
    """Return what a section has in any language: programs, commands, code, links, and numbers."""
    blocks = [
        re.sub(r" *#.*| --zh|, chinese=True", "", code)
        for language, code in BLOCK.findall(section)
        if language or not re.search("mistake|WRONG|错", code)  # what is printed, in its language
    ]
    text = BLOCK.sub("", section).replace(" --zh", "")
    code = set(re.findall(r"`([^`\n]+)`", text))
    text = re.sub(r"`[^`\n]+`", "", text)
    paths = sorted(re.sub(r"\.[a-z]{2}(-[A-Z]{2})?\.md$", ".md", path) for path, _ in links(text))
    return blocks, code, paths, sorted(numbers(re.sub(r"\]\([^)]+\)", "]", text)))


@pytest.mark.parametrize("name", ORIGINALS)
def test_a_translation_says_the_same(name):
    original = ORIGINALS[name]
    assert f"]({Path(name).name})" in TEXTS[original]
    assert f"]({Path(original).name})" in TEXTS[name]
    ours, theirs = (re.split(r"^## ", TEXTS[page], flags=re.MULTILINE) for page in (original, name))
    assert len(ours) == len(theirs)
    for section, other in zip(ours, theirs, strict=True):
        for one, two in zip(contents(section), contents(other), strict=True):
            assert one == two, other.splitlines()[0]


# ---------------------------------------------------------------- numbers


def assert_same_table(said, printed):
    """Assert the same words, and the same numbers but for rounding; the last column is seconds."""
    for line, other in zip(said.splitlines(), printed.splitlines(), strict=True):
        words, others = line.split(), other.split()
        if line.startswith("optimizer"):
            assert words == others
            continue
        for word, other_word in zip(words[:-1], others[:-1], strict=True):
            try:
                assert float(word) == pytest.approx(float(other_word), rel=0.02)
            except ValueError:
                assert word == other_word


def test_the_table_of_the_readme_is_what_its_command_prints(workdir, capsys):
    (said,) = [code for language, code in BLOCK.findall(README) if not language]
    assert run("python compare_optimizers.py --no-show") == 0
    out, _ = capsys.readouterr()
    assert_same_table(said, out.removesuffix("saved compare_optimizers.png\n"))


def test_the_numbers_over_100_seeds_are_what_the_command_prints(workdir, capsys):
    assert run("python compare_optimizers.py --seeds 100 --no-show --jobs 1") == 0
    out, _ = capsys.readouterr()
    rows = re.findall(
        r"^\| (\w+) \| (\S+ \[.*\]) \| (.*) \|$", TEXTS["docs/which_optimizer.md"], re.M
    )
    assert [label for label, *_ in rows] == ["SGD", "Momentum", "RMSprop", "Adam"]
    for label, loss, steps in rows:
        (row,) = re.findall(rf"^{label} .*", out, re.MULTILINE)
        cells = re.findall(r"[\d.-]+ \[[\d.-]+, [\d.-]+\]", row)
        assert [float(x) for x in numbers(loss)] == pytest.approx(
            [float(x) for x in numbers(cells[0])], rel=0.02
        )
        if steps == "never":
            assert row.split()[-2] == "never"
        else:
            assert [int(x) for x in numbers(steps)] == pytest.approx(
                [int(x) for x in numbers(cells[2])], abs=2
            )


def test_the_numbers_of_an_answer_stand_on_its_page():
    rows = re.findall(r"^\| \[[^]]*\]\((docs/[^)#]*)\S*\) \| (.*?) \| `", README, re.MULTILINE)
    assert len(rows) >= 6
    for page, answer in rows:
        assert set(numbers(answer)) <= set(numbers(TEXTS[page])), answer


def test_the_page_of_optimizers_has_all_of_torchs_classes_and_ours():
    named = set(re.findall(r"^\| (\w+) \|", TEXTS["docs/torch_optim.md"], re.MULTILINE)) - {"class"}
    others = {"LambdaLR", "MultiplicativeLR", "SequentialLR", "ChainedScheduler", "UpdateRule"}
    assert named == {*TORCH_CLASSES, *TORCH_SCHEDULERS, *optimizers.__all__} - others


def test_the_page_of_optimizers_has_their_default_rates():
    rows = re.findall(
        r"^\| (\w+) \|.*\| ([\d.]+) \| (?:[^|]|\\\|)* \|$", TEXTS["docs/torch_optim.md"], re.M
    )
    assert len(rows) == len(optimizers.__all__) - 1
    for name, lr in rows:
        parameters = inspect.signature(getattr(optimizers, name)).parameters
        assert parameters["lr"].default == float(lr), name


def test_the_page_of_tasks_has_all_tasks():
    assert set(re.findall(r"^\| `(\w+)` \|", TEXTS["docs/tasks.md"], re.MULTILINE)) == set(TASKS)


# ---------------------------------------------------------------- pip install .


def test_pip_is_told_that_nothing_is_to_be_installed():
    settings = (ROOT / "pyproject.toml").read_text()
    (name,) = re.findall('^build-backend = "(.*)"', settings, re.MULTILINE)
    (folder,) = re.findall(r'^backend-path = \["(.*)"\]', settings, re.MULTILINE)
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / folder / f"{name}.py"))
    assert "run the scripts where they lie, as `python compare_optimizers.py`" in stop.value.code
    assert "\n" not in stop.value.code

"""The README's programs, run as they stand there."""

import os
import re
import subprocess
import sys
from pathlib import Path

from lab.specs import TORCH_CLASSES, TORCH_SCHEDULERS

import pytest
from conftest import PATIENCE, start_script

import settings
from tasks import TASKS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_homework_trains_and_is_like_pytorchs(workdir):
    (homework,) = [program for program in PROGRAMS if "class MyMomentum" in program]
    Path("homework.py").write_text(homework, encoding="utf-8")
    (words,) = re.findall(r"^python (compare.*homework.MyMomentum)$", README, re.MULTILINE)
    script, *arguments = words.split()
    process = start_script(script, *arguments, "--epochs", "1", "--no-show")
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, "")
    assert f"\nhomework.MyMomentum  homework.MyMomentum(lr={settings.LR})" in out
    (check,) = re.findall(r'^python -c "(import torch, homework.*)"$', README, re.MULTILINE)
    wrong = check.split("; ")[-1].replace("momentum=0.8", "momentum=0.7")
    code = f"{check}\ntry: {wrong}\nexcept AssertionError: print('wrong')"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, workdir, ROOT / "tests")))
    }
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "wrong\n"), done.stderr


def test_a_problem_of_ones_own_works_when_pasted(workdir):
    (problem,) = [program for program in PROGRAMS if "mine = Task(" in program]
    Path("problem.py").write_text(problem, encoding="utf-8")
    (words,) = re.findall(r"^python (compare.*problem.mine)$", README, re.MULTILINE)
    script, *arguments = words.split()
    process = start_script(script, *arguments, "--epochs", "1", "--lr-count", "2", "--no-show")
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, "")
    assert "\nAdam" in out


def test_a_schedule_of_ones_own_works_when_pasted(workdir):
    page = (ROOT / "docs/torch_optim.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    Path("homework.py").write_text(program, encoding="utf-8")
    (spec,) = re.findall(r'"(SGD \+ homework.*?)"', page)
    process = start_script("compare_optimizers.py", "--no-show", "--optimizers", f"it={spec}")
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, "")
    assert "\nit         SGD(lr=0.01) + homework.Halving(every=3)  " in out


def test_the_page_of_optimizers_has_all_of_torchs_classes():
    page = (ROOT / "docs/torch_optim.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| (\w+) \|", page, re.MULTILINE)) - {"class"}
    others = {"LambdaLR", "MultiplicativeLR", "SequentialLR", "ChainedScheduler"}
    assert named == {*TORCH_CLASSES, *TORCH_SCHEDULERS} - others


def test_the_pages_of_docs_name_files_that_are_there():
    for page in (ROOT / "docs").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        for path in re.findall(r"\]\(([^)#]+)\)", text):
            assert (page.parent / path).exists(), path
    tasks = (ROOT / "docs/tasks.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", tasks, re.MULTILINE)) == set(TASKS)


def contents(section):
    """Return what a section has in any language: programs, code, links, and numbers."""
    programs = re.findall(r"```.*?```", section, re.DOTALL)
    programs = [re.sub(r" *#.*| --zh", "", program) for program in programs]
    text = re.sub(r"```.*?```", "", section, flags=re.DOTALL)
    code = set(re.findall(r"`([^`\n]+)`", text.replace(" --zh", "")))
    text = re.sub(r"`[^`\n]+`", "", text)
    links = sorted(re.findall(r"\]\(([^)]+)\)", text.replace(".zh-CN", "")))
    text = re.sub(r"\]\([^)]+\)", "]", text)
    return programs, code, links, sorted(re.findall(r"\d+(?:[.,]\d+)*", text))


@pytest.mark.parametrize("folder", [ROOT, ROOT / "exercises"])
def test_the_chinese_page_says_the_same(folder):
    english, chinese = (
        (folder / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md")
    )
    assert "](README.zh-CN.md)" in english
    assert "](README.md)" in chinese
    pages = [re.sub(r"\[[^]]*\]\(README\S*\.md\)", "", page) for page in (english, chinese)]
    ours, theirs = (re.split(r"^## ", page, flags=re.MULTILINE) for page in pages)
    assert len(ours) == len(theirs)
    for section, other in zip(ours, theirs, strict=True):
        for one, two in zip(contents(section), contents(other), strict=True):
            assert one == two, other.splitlines()[0]


def test_the_readme_is_read_in_a_sitting():
    assert README.count("\n") <= 300
    for path in re.findall(r"\]\((docs/[^)#]+)", README):
        assert (ROOT / path).exists(), path


def test_each_file_that_is_named_is_there():
    for path in re.findall(r"\]\((figures/[^)]+)\)", README):
        assert (ROOT / path).stat().st_size > 1000
    for name in re.findall(r"`([a-z_/]+\.(?:py|txt))`", README):
        assert name in ("homework.py", "problem.py") or (ROOT / name).exists(), name


@pytest.mark.parametrize("words", ["pip install -r requirements.txt", "python -m pytest"])
def test_the_set_up_commands_are_there(words):
    assert words in README
    pinned = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    assert re.search(r"torch==[\d.]+", README)[0] in pinned.splitlines()

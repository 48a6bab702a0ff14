"""The options that several scripts share."""

from lab.command_line import options

import pytest

import settings
from tasks import TASKS


def test_every_default_is_said(parser, capsys):
    options.add_optimizers(parser, {"mine": "Adam()"}, "one of them")
    options.add_lr(parser)
    options.add_task(parser)
    options.add_batch_size(parser)
    options.add_seeds(parser, 7)
    options.add_target(parser)
    with pytest.raises(SystemExit) as stop:
        parser.parse(["--help", "all"])
    assert stop.value.code == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "What for?" in out
    assert "examples: python script.py" in out
    parsed = parser.parse([])
    for name in ("seed", "output", "lr", "device", "seeds", "task"):
        assert f"(default: {getattr(parsed, name)})" in out
    assert "(default: one of them)" in out
    assert parsed.task == settings.TASK
    assert parsed.epochs is parsed.batch_size is parsed.target is None  # the task's own
    assert parsed.optimizers == ["mine=Adam()"]
    assert list(options.seeds_of(parsed)) == list(range(settings.SEED, settings.SEED + 7))
    assert not parsed.no_show


@pytest.mark.parametrize(
    ("add", "words"),
    [
        (options.add_task, ["--task", "list"]),
        (options.add_tasks, ["--tasks", "list"]),
        (options.add_tasks, ["--tasks", "sine", "list"]),
    ],
)
def test_the_list_of_tasks_says_what_each_teaches(add, words, parser, capsys):
    add(parser)
    with pytest.raises(SystemExit) as stop:
        parser.parse(words)
    assert stop.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(maxsplit=1) for line in lines] == [
        [name, task.lesson] for name, task in TASKS.items()
    ]


def test_there_is_a_job_for_each_processor_that_may_be_used(parser, monkeypatch):
    options.add_jobs(parser)
    assert parser.parse([]).jobs == options.n_cores()
    monkeypatch.setattr(options.os, "sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    monkeypatch.setattr(options.os, "cpu_count", lambda: 8)
    assert options.n_cores() == 3
    monkeypatch.delattr(options.os, "sched_getaffinity")
    assert options.n_cores() == 8
    monkeypatch.setattr(options.os, "cpu_count", lambda: None)
    assert options.n_cores() == 1

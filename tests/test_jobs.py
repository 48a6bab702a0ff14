"""A job has the numbers of plain loops, at every rate and at the default one."""

import math
import pickle

from lab.command_line.specs import parse_optimizer
from lab.training.jobs import TaskJob, default_lr_of, run_job

import pytest
import torch
from conftest import FAILS, SMALL, textbook_training
from torch.nn.functional import mse_loss

LRS = 0.01, 0.1, 1.0
JOB = TaskJob(SMALL, parse_optimizer("SGD"), LRS, (3, 4))


def held_out_loss(make_optimizer, seed):
    """Return a plain loop's loss on the held-out set."""
    train_set, held_out = SMALL.make_data(seed)
    _, net = textbook_training(
        train_set, SMALL.make_net, make_optimizer, mse_loss, seed, SMALL.epochs, SMALL.batch_size
    )
    x, y = held_out.tensors
    return mse_loss(net(x), y).item()


def test_a_job_has_the_numbers_of_plain_loops():
    result = run_job(JOB)
    assert result.sweep.lrs[:3] == list(LRS)
    assert not hasattr(result.sweep, "runs")  # they would be much to send
    for row, lr in enumerate(result.sweep.lrs):
        for k, seed in enumerate(JOB.seeds):
            expected = held_out_loss(lambda params, lr=lr: torch.optim.SGD(params, lr=lr), seed)
            expected = expected if math.isfinite(expected) else math.inf
            assert result.sweep.held_out_losses[row, k].item() == pytest.approx(expected, rel=1e-3)
    assert result.seconds > 0
    assert (result.error, result.remarks) == (None, [])
    assert result.note == "2 of 6 diverged, from step 22 on"  # at the highest rate


@pytest.mark.parametrize(
    ("spec", "lr"), [("Adagrad", 0.01), ("NAdam", 0.002), ("SGD(momentum=0.9)", 0.001)]
)
def test_the_default_rate_is_tried_whether_it_is_on_the_grid_or_not(spec, lr):
    make_optimizer = parse_optimizer(spec)
    result = run_job(TaskJob(SMALL, make_optimizer, LRS, (3, 4)))
    assert result.default_lr == lr == default_lr_of(make_optimizer)
    for k, seed in enumerate((3, 4)):
        expected = held_out_loss(make_optimizer, seed)  # it names no rate
        assert result.default_losses[k].item() == pytest.approx(expected, rel=1e-3)


def test_what_has_no_default_rate_has_none():
    def make(params, lr):
        return torch.optim.SGD(params, lr=lr)

    assert default_lr_of(make) is None
    assert default_lr_of(lambda params: None) is None
    assert default_lr_of(torch.optim.SGD) == 0.001


def test_an_optimizer_that_fails_is_a_result(homework):
    homework(FAILS)
    result = run_job(TaskJob(SMALL, parse_optimizer("homework.Fails"), LRS, (3, 4)))
    assert "failed at step 3 of seed 3: RuntimeError: boom" in result.note
    assert isinstance(result.error, RuntimeError)
    assert result.default_losses is None
    assert (
        str(pickle.loads(pickle.dumps(result)).error) == "RuntimeError: boom (homework.py, line 9)"
    )


def test_an_error_that_no_other_process_can_read_is_sent_in_words():
    class OwnError(Exception):  # found by no name, so not to be pickled
        pass

    class Fails(torch.optim.SGD):
        def step(self, closure=None):
            raise OwnError("boom")

    result = pickle.loads(pickle.dumps(run_job(TaskJob(SMALL, Fails, LRS, (3, 4)))))
    assert isinstance(result.error, RuntimeError)
    assert str(result.error) == "OwnError: boom"


def test_a_job_that_is_interrupted_keeps_what_there_is():
    class Stops(torch.optim.SGD):
        count = 0

        def step(self, closure=None):
            Stops.count += 1
            if Stops.count == 30:
                raise KeyboardInterrupt
            return super().step(closure)

    result = run_job(TaskJob(SMALL, Stops, (0.01,), (3, 4)))
    assert result.interrupted
    assert "interrupted at step" in result.note
    assert result.default_losses is None


def test_a_task_may_be_named_by_what_makes_it():
    job = TaskJob(lambda: SMALL, JOB.make_optimizer, LRS, (3, 4))
    expected = run_job(JOB).sweep.held_out_losses
    assert torch.equal(run_job(job).sweep.held_out_losses, expected)


def test_a_job_uses_one_thread_and_gives_it_back(two_threads):
    seen = []

    class Looks(torch.optim.SGD):
        def step(self, closure=None):
            seen.append(torch.get_num_threads())
            return super().step(closure)

    run_job(TaskJob(SMALL, Looks, (0.01,), (3, 4)))
    assert set(seen) == {1}
    assert torch.get_num_threads() == 2

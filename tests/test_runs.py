"""What came out of many trainings: divergence, nets, and two runs as one."""

import math
import re
from dataclasses import replace

from lab.outcome import no_progress
from lab.training.runs import Runs, joined
from lab.training.train import train_in_turn

import pytest
import torch
from conftest import SMALL, SmallNet, made_up, made_up_sweep, small_trainings

from tasks import TASKS


def test_a_last_step_to_infinity_is_divergence_too():
    inf = torch.tensor([math.inf])
    trainings = small_trainings(seeds=[4])
    runs = Runs(SMALL, trainings, torch.tensor([[2.0], [1.0]]), inf, inf, {}, 2, None)
    assert runs.diverged_at() == [3]
    assert runs.note == "diverged at step 3"
    runs.final_losses = torch.tensor([0.5])
    assert runs.diverged_at() == []
    assert runs.note == ""


def test_its_note_tells_both_divergence_and_what_stopped_it():
    runs = made_up([1.0])
    runs.losses = runs.losses.clone()
    runs.losses[2:, 1] = math.inf
    runs.losses[5:, 3] = math.nan
    runs.stop(ValueError("boom"), 7)
    assert runs.note == "2 of 5 diverged, from step 3 on; failed at step 7: ValueError: boom"
    assert runs.history(1) == [1, 1, math.inf]  # to its end
    assert len(runs.history(0)) == 8


class Normed(torch.nn.Sequential):
    """A net with buffers, which its training moves."""

    def __init__(self):
        super().__init__(SmallNet(), torch.nn.BatchNorm1d(1))


def test_a_net_is_given_back_as_trained():
    task, trainings = replace(SMALL, make_net=Normed), small_trainings()
    runs = train_in_turn(task, trainings, torch.optim.SGD, no_progress)
    x = trainings[0].held_out.tensors[0]
    for k, training in enumerate(trainings):
        net = runs.net(k)
        for name, value in net.named_parameters():
            assert torch.equal(value, runs.weights[name][k])
        assert not torch.equal(net[1].running_mean, training.make_net(task)[1].running_mean)
        assert torch.equal(runs.predict(x, k), net.eval()(x))


def test_of_classes_the_accuracy_is_the_share_that_is_right():
    task = replace(TASKS["logistic"], epochs=1)
    (training,) = small_trainings(seeds=[4])
    training = replace(training, dataset=task.make_data(4)[0], held_out=task.make_data(4)[1])
    runs = train_in_turn(task, [training, replace(training, lr=0.5)], torch.optim.SGD, no_progress)
    x, y = training.held_out.tensors
    right = [sum(map(torch.equal, runs.predict(x, k).argmax(1), y)) / len(y) for k in (0, 1)]
    assert runs.measured(training.metric(task)).tolist() == pytest.approx(right)
    assert runs.measured(training.metric(task), [1]).tolist() == pytest.approx(right[1:])


def test_a_constant_rate_is_the_same_at_each_step():
    runs = made_up([2.0, 1.0], [0.01, 0.1], seeds=2)
    assert runs.lr_history([2, 3]) == [0.1] * 8
    runs.lr_histories = torch.tensor([[1.0, 2.0, 4.0, math.nan]]).double()
    assert runs.lr_history([0, 1, 2]) == [2.0]  # their median
    assert runs.lr_history([2, 3]) == [4.0]  # one had ended
    runs.lr_histories, runs.lr = None, None  # an optimizer without a learning rate
    runs.trainings = [replace(training, lr=None) for training in runs.trainings]
    assert runs.lr_history([0]) == []


def test_of_two_runs_the_shorter_one_is_filled_up():
    one, other = made_up([1.0], [0.1]), made_up([2.0], [0.01])
    other.losses = other.losses[:3]
    runs = joined(one, other)
    assert [t.lr for t in runs.trainings] == [0.01] * 5 + [0.1] * 5
    assert runs.losses[:3].isfinite().all()
    assert runs.losses[3:, :5].isnan().all()
    assert runs.held_out_losses.tolist() == [2.0] * 5 + [1.0] * 5
    assert runs.final_losses.tolist() == [1.0] * 5 + [0.5] * 5


def test_a_notebook_shows_three_lines_of_it():
    runs = made_up([3.0, 1.0], [0.1, 1.0], seeds=5)
    head, middle, has = repr(runs).splitlines()
    assert head == "Runs of 10 trainings, 8 steps each, seeds 0 to 4"
    assert middle == "median final_losses 1, held_out_losses 2; 0.00 seconds"
    assert all(hasattr(runs, name) for name in re.findall(r"\w{4,}", has.partition(":")[2]))
    runs.final_losses[:] = math.inf
    assert "; 10 of 10 diverged, from step 9 on" in repr(runs)
    head, middle, has = repr(made_up_sweep([3.0, 1.0], [0.1, 1.0], seeds=5)).splitlines()
    assert head == "Sweep of 2 rates from 0.1 to 1, 5 seeds"
    assert middle == "best_lr 1, median held-out loss 1"

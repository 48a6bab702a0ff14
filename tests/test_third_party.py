"""Stacks of optimizers that nobody here wrote: those of the package pytorch_optimizer."""

from dataclasses import replace

from lab.outcome import no_progress
from lab.training.checks import take_a_step
from lab.training.runs import trainings_of
from lab.training.stack import train_stack
from lab.training.train import train_in_turn

import pytest
import torch
from conftest import SMALL

TASK = replace(SMALL, epochs=4)
TRAININGS = trainings_of(TASK, (1, 2))


def weights(runs, k):
    return torch.cat([value[k].flatten() for value in runs.weights.values()])


def distance_from_alone(runs, make):
    """Return how far the first net, which has no shadow, ended from where it ends alone.

    As a share of its way.
    """
    alone = weights(train_in_turn(TASK, TRAININGS[:1], make, no_progress), 0)
    first = torch.nn.utils.parameters_to_vector(TRAININGS[0].make_net(TASK).parameters())
    return ((weights(runs, 0) - alone).norm() / (alone - first.detach()).norm()).item()


@pytest.mark.filterwarnings("ignore")
def test_what_is_stacked_ends_where_each_net_ends_alone():
    import pytorch_optimizer

    classes = {
        name: value
        for name, value in vars(pytorch_optimizer).items()
        if isinstance(value, type) and issubclass(value, torch.optim.Optimizer)
    }
    stacked, wrong = [], {}
    for name, optimizer_class in classes.items():

        def make(params, optimizer_class=optimizer_class):
            return optimizer_class(params)

        try:
            take_a_step(TASK, TRAININGS[0], make)
        except Exception:  # wants other arguments, or other parameters than a net's
            continue
        try:
            runs = train_stack(TASK, TRAININGS, make, no_progress)
        except Exception:  # Unlike, or whatever a stack's optimizer raises
            continue
        stacked.append(name)
        if (distance := distance_from_alone(runs, make)) > 1e-3:
            wrong[name] = distance
    assert not wrong
    assert len(stacked) >= 50
    assert not {"Prodigy", "AdaNorm", "LARS", "Lamb"} & set(stacked)
    assert {"SGD", "Lion", "AdaBelief", "Yogi", "ScheduleFreeAdamW"} <= set(stacked)

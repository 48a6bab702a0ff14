"""Stacks of optimizers that nobody here wrote: those of the package pytorch_optimizer."""

from lab.stacking import train_stack
from lab.trainings import Problem, Training, take_a_step, train_in_turn, without_progress

import pytest
import torch
from conftest import SmallNet, small_data
from torch.nn.functional import mse_loss

PROBLEM = Problem(SmallNet, mse_loss, epochs=60, batch_size=32)
TRAININGS = [Training(seed, small_data(seed)) for seed in (1, 2)]


def weights(runs, k):
    return torch.cat([value[k].flatten() for value in runs.weights.values()])


def distance_from_alone(runs, make):
    """Return how far the worst of the nets has ended from where it ends alone, of its way."""
    worst = 0.0
    for k, training in enumerate(TRAININGS):
        alone = weights(train_in_turn(PROBLEM, [training], make, without_progress), 0)
        first = torch.nn.utils.parameters_to_vector(training.make_net(PROBLEM).parameters())
        way = (alone - first.detach()).norm()
        worst = max(worst, ((weights(runs, k) - alone).norm() / way).item())
    return worst


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
            take_a_step(PROBLEM, TRAININGS[0], make)
        except Exception:  # wants other arguments, or other parameters than a net's
            continue
        try:
            runs = train_stack(PROBLEM, TRAININGS, make, without_progress)
        except Exception:  # Unlike, or whatever a stack's optimizer raises
            continue
        stacked.append(name)
        if (distance := distance_from_alone(runs, make)) > 1e-3:
            wrong[name] = distance
    assert not wrong
    assert len(stacked) >= 50
    assert not {"Prodigy", "AdaNorm", "LARS", "Lamb"} & set(stacked)
    assert {"SGD", "Lion", "AdaBelief", "Yogi", "ScheduleFreeAdamW"} <= set(stacked)

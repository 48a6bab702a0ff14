"""The net, whatever layers a learner gives it."""

import torch

from data import parabola
from models import Net


def test_the_same_seed_gives_the_same_first_weights():
    def weights(seed):
        torch.manual_seed(seed)
        return torch.nn.utils.parameters_to_vector(Net().parameters())

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_it_takes_the_data_and_gives_outputs_of_the_shape_of_its_targets():
    x, y = parabola(0, samples=7)[0].tensors
    assert Net()(x).shape == y.shape

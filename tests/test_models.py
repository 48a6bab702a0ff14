"""The net."""

import torch

from models import Net, make_nets


def test_net_is_linear_relu_linear_with_the_tutorials_names():
    net = Net()
    shapes = {name: tuple(value.shape) for name, value in net.named_parameters()}
    assert shapes == {
        "hidden.weight": (20, 1),
        "hidden.bias": (20,),
        "predict.weight": (1, 20),
        "predict.bias": (1,),
    }
    x = torch.randn(7, 1)
    hidden = (x @ net.hidden.weight.T + net.hidden.bias).clamp(min=0)
    expected = hidden @ net.predict.weight.T + net.predict.bias
    assert torch.allclose(net(x), expected)


def test_sizes_can_be_chosen():
    assert Net(n_features=3, n_hidden=5, n_outputs=2)(torch.randn(4, 3)).shape == (4, 2)


def test_make_nets_starts_each_right_after_its_seed():
    for seed, net in zip((5, 6), make_nets((5, 6)), strict=True):
        torch.manual_seed(seed)
        expected = Net().state_dict()
        assert all(torch.equal(expected[name], value) for name, value in net.state_dict().items())

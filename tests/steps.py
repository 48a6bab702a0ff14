"""Steps of an optimizer on small problems, for the tests of optimizers/."""

import contextlib

import torch

import optimizers
from models import Net


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    yield
    torch.set_default_dtype(before)


@default_dtype(torch.float64)
def run_steps(make_optimizer, steps=26, seed=0, absent=0.0, dtype=torch.float64):
    """Return all parameters after each step: a net's, a scalar and a 3-d block.

    Their gradients come from a regression and from functions of curvature far from 1; each is
    missing in a share `absent` of the steps.
    """
    torch.set_default_dtype(dtype)
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    net = Net(2, 4, 1)
    scalar = torch.nn.Parameter(torch.tensor(0.7))
    block = torch.nn.Parameter(torch.randn(2, 1, 3))
    params = [*net.parameters(), scalar, block]
    optimizer = make_optimizer(params)
    path = []
    for _ in range(steps):
        x = torch.randn(8, 2, generator=generator)
        optimizer.zero_grad()
        loss = (net(x) - x.prod(1, keepdim=True)).square().mean()
        loss = (
            loss + 3 * (scalar - 2) ** 2 + (torch.arange(1.0, 7).reshape(2, 1, 3) * block**2).sum()
        )
        loss.backward()
        for param in params:
            if torch.rand((), generator=generator) < absent:
                param.grad = None
        optimizer.step()
        path.append(torch.cat([param.detach().flatten() for param in params]))
    return torch.stack(path)


def assert_same_steps(make_ours, make_reference, tolerance=1e-9, **how):
    """Assert that two optimizers take the same steps, to a relative `tolerance`."""
    ours, reference = run_steps(make_ours, **how), run_steps(make_reference, **how)
    assert not torch.equal(reference[0], reference[-1])
    torch.testing.assert_close(ours, reference, rtol=tolerance, atol=tolerance * 1e-3)


def of_ours(name, **options):
    return lambda params: getattr(optimizers, name)(params, **options)


def walk(optimizer_class, gradients, start=0.0, **options):
    """Return the positions of a scalar parameter that is given these gradients, one a step."""
    param = torch.nn.Parameter(torch.tensor(start))
    optimizer = optimizer_class([param], **options)
    positions = [start]
    for gradient in gradients:
        param.grad = torch.tensor(float(gradient))
        optimizer.step()
        positions.append(param.item())
    return torch.tensor(positions)

"""The sharpness against dense Hessians, and each limit against the roots of its recursion."""

import math
from dataclasses import replace
from functools import partial

from lab.training.rotation import turned_task
from lab.training.runs import state_of, trainings_of
from lab.training.sharpness import (
    Moment,
    check_curvature,
    clone,
    curvature_of_quadratic,
    descend,
    divisor,
    largest_eigenvalues,
    limit_of,
    sharpness,
    stable_lr,
)

import numpy
import pytest
import torch
from conftest import SMALL
from torch import nn
from torch.func import functional_call, jacrev
from torch.nn.functional import l1_loss, mse_loss
from torch.utils.data import TensorDataset

from tasks import TASKS, Task

# ---------------------------------------------------------------- eigenvalues


def symmetric(*eigenvalues, seed=0):
    generator = torch.Generator().manual_seed(seed)
    n = len(eigenvalues)
    q, _ = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    return q @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ q.T


def test_the_largest_eigenvalue_is_not_the_one_of_largest_size():
    matrices = torch.stack(
        [
            symmetric(3.0, -7.0, 1.0, 0.5),
            symmetric(2.0, 2.0, 2.0, 1.999, seed=1),
            symmetric(-1.0, -2.0, -3.0, -4.0, seed=2),
            symmetric(0.0, 0.0, 0.0, 0.0),
        ]
    )
    found = largest_eigenvalues(
        lambda v: (matrices @ v.unsqueeze(2)).squeeze(2), torch.ones(4, 4).double()
    )
    assert found[:3].tolist() == pytest.approx([3, 2, -1], abs=1e-6)
    assert found[3] == 0


def test_of_many_nearby_eigenvalues_it_is_the_largest():
    eigenvalues = torch.linspace(1, 2, 300).tolist()
    matrix = symmetric(*eigenvalues).float()
    starts = torch.randn(1, 300, generator=torch.Generator().manual_seed(0))
    found = largest_eigenvalues(lambda v: v @ matrix, starts)
    assert found.item() == pytest.approx(2, rel=1e-3)


# ---------------------------------------------------------------- the Hessian


def quadratic(seed=0, features=8):
    """A loss that is a quadratic, whose Hessian is 2·XᵀX/n."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(60, features, generator=generator) * torch.logspace(-1, 0.5, features)
    data = TensorDataset(x, x.sum(1, keepdim=True))
    task = Task(
        lambda seed: (data, data), partial(nn.Linear, features, 1, bias=False), mse_loss, 1, 60
    )
    return task, torch.linalg.eigvalsh(2 * x.double().T @ x.double() / 60)[-1].item()


def now(task, training):
    """The net of a training before its first step."""
    return Moment(0, clone(training.make_net(task)), None, None)


@pytest.mark.parametrize("seed", range(3))
def test_the_sharpness_of_a_quadratic_is_its_matrixs_largest_eigenvalue(seed):
    task, largest = quadratic(seed)
    (training,) = trainings_of(task, [seed])
    found = sharpness(task, training, [now(task, training)] * 2)
    assert found.tolist() == pytest.approx([largest] * 2, rel=1e-4)


def dense_hessian(task, training, state):
    net = training.make_net(task)
    names, shapes = zip(*((n, p.shape) for n, p in net.named_parameters()), strict=True)
    x, y = training.dataset.tensors

    def loss(theta):
        parts = theta.split([shape.numel() for shape in shapes])
        weights = {n: p.view(s) for n, p, s in zip(names, parts, shapes, strict=True)}
        return task.loss(functional_call(net, weights, (x,)), y)

    theta = torch.cat([state[name].flatten() for name in names])
    return jacrev(jacrev(loss))(theta).double()  # forward mode takes no mse_loss


def test_the_sharpness_of_a_net_is_that_of_its_dense_hessian_divided_or_not(monkeypatch):
    (training,) = trainings_of(SMALL, [3])
    start, moved = now(SMALL, training), now(SMALL, training)
    moved.state = {name: value + 0.3 for name, value in start.state.items()}
    divided = Moment(5, moved.state, torch.linspace(0.1, 3, 19), 7.0)
    found = sharpness(SMALL, training, [start, moved, divided])
    for moment, value in zip((start, moved, divided), found, strict=True):
        matrix = dense_hessian(SMALL, training, moment.state)
        if moment.divisor is not None:
            scale = moment.divisor.double().rsqrt()
            matrix = scale.unsqueeze(1) * matrix * scale
        assert value.item() == pytest.approx(torch.linalg.eigvalsh(matrix)[-1].item(), rel=1e-3)
    # In parts of one moment each, it is the same.
    monkeypatch.setattr("lab.training.sharpness.PART_BYTES", 1)
    parts = sharpness(SMALL, training, [start, moved, divided])
    assert parts.tolist() == pytest.approx(found.tolist(), rel=1e-4)


def test_turned_axes_have_the_same_sharpness():
    found = []
    for task in (SMALL, turned_task(SMALL, 1)):
        (training,) = trainings_of(task, [3])
        found.append(sharpness(task, training, [now(task, training)]).item())
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_what_does_not_learn_and_what_is_a_buffer_is_held_fast():
    def make_net():
        net = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1))
        net[0].weight.requires_grad_(False)
        return net

    task = replace(SMALL, make_net=make_net)
    (training,) = trainings_of(task, [0])
    one, other = now(task, training), now(task, training)
    other.state["1.running_var"] *= 4
    found = sharpness(task, training, [one, other])
    assert found[1] < found[0]


def test_a_loss_that_cannot_be_differentiated_twice_is_refused():
    check_curvature(SMALL, trainings_of(SMALL, [0])[0])

    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x

        @staticmethod
        def backward(ctx, grad):
            return grad

    task = replace(SMALL, loss=lambda outputs, y: Once.apply(mse_loss(outputs, y)))
    (training,) = trainings_of(task, [0])
    with pytest.raises(ValueError, match="curvature of its loss cannot be had"):
        check_curvature(task, training)


# ---------------------------------------------------------------- the limits

PARAM = [nn.Parameter(torch.ones(1))]


def radius(optimizer, curvature):
    """The largest size of a root of the recursion of θ on ½·curvature·θ², divided by 1."""
    group = optimizer.param_groups[0]
    lr, beta, gain, nesterov = group["lr"], 0.0, 1.0, 0.0
    if "betas" in group:
        beta = group["betas"][0]
        gain = 1 - beta
    elif "momentum" in group:
        beta = group["momentum"]
        gain = 1 - group.get("dampening", 0)
        nesterov = group.get("nesterov", False)
    slope = curvature + (group["weight_decay"] if isinstance(optimizer, torch.optim.SGD) else 0)
    # v' = beta·v + gain·slope·θ; θ' = θ - lr·v', or lr·(slope·θ + beta·v') with Nesterov's.
    velocity = numpy.array([beta, gain * slope])
    step = numpy.array([0, slope]) + beta * velocity if nesterov else velocity
    matrix = numpy.array([velocity, numpy.array([0, 1]) - lr * step])
    return abs(numpy.linalg.eigvals(matrix)).max()


@pytest.mark.parametrize(
    "optimizer",
    [
        torch.optim.SGD(PARAM, lr=0.3),
        torch.optim.SGD(PARAM, lr=0.3, momentum=0.9),
        torch.optim.SGD(PARAM, lr=0.3, momentum=0.9, dampening=0.4),
        torch.optim.SGD(PARAM, lr=0.3, momentum=0.7, nesterov=True),
        torch.optim.SGD(PARAM, lr=0.3, momentum=0.7, weight_decay=0.5),
        torch.optim.Adam(PARAM, lr=0.3),
        torch.optim.Adam(PARAM, lr=0.3, betas=(0.5, 0.9)),
        torch.optim.RMSprop(PARAM, lr=0.3),
        torch.optim.RMSprop(PARAM, lr=0.3, momentum=0.8),
    ],
)
def test_above_its_limit_the_steps_of_an_optimizer_grow_and_below_they_shrink(optimizer):
    limit = limit_of(optimizer)
    assert radius(optimizer, 0.999 * limit) < 1 < radius(optimizer, 1.001 * limit)


def test_the_limits_are_those_of_the_papers():
    assert limit_of(torch.optim.SGD(PARAM, lr=0.1)) == pytest.approx(2 / 0.1)
    assert limit_of(torch.optim.SGD(PARAM, lr=0.1, momentum=0.9)) == pytest.approx(3.8 / 0.1)
    assert limit_of(torch.optim.Adam(PARAM, lr=0.1)) == pytest.approx(38 / 0.1)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "dampening": 0.4},
        {"momentum": 0.7, "nesterov": True},
        {"momentum": 0.7, "weight_decay": 0.5},
    ],
)
def test_at_the_stable_lr_the_limit_is_the_curvature(settings):
    lr = stable_lr(torch.optim.SGD(PARAM, lr=0.3, **settings), 7.0)
    for factor in (0.999, 1.001):
        grows = radius(torch.optim.SGD(PARAM, lr=factor * lr, **settings), 7.0) > 1
        assert grows == (factor > 1)
    if settings == {"momentum": 0.9}:
        assert lr == pytest.approx(2 * (1 + 0.9) / 7)


def test_no_lr_is_stable_with_a_momentum_of_1_and_of_others_none_is_known():
    assert stable_lr(torch.optim.SGD(PARAM, lr=0.3, momentum=1.0), 7.0) == 0
    assert stable_lr(torch.optim.SGD(PARAM, lr=0.3, momentum=0.5, dampening=1), 7.0) is None
    for other in (torch.optim.Adam, torch.optim.RMSprop, torch.optim.ASGD):
        assert stable_lr(other(PARAM, lr=0.3), 7.0) is None


# ---------------------------------------------------------------- what is a quadratic


@pytest.mark.parametrize("seed", range(3))
def test_of_a_quadratic_the_curvature_is_known(seed):
    task, largest = quadratic(seed)
    (training,) = trainings_of(replace(task, batch_size=7), [seed])  # a mini-batch tells
    assert curvature_of_quadratic(task, training) == pytest.approx(largest, rel=1e-4)
    turned = turned_task(task, 1)
    assert curvature_of_quadratic(turned, training) == pytest.approx(largest, rel=1e-3)


def fails(outputs, targets):
    raise RuntimeError("no")


@pytest.mark.parametrize(
    ("make_net", "loss"),
    [
        (partial(nn.Linear, 8, 1), l1_loss),
        (partial(nn.Linear, 8, 1), lambda outputs, targets: (outputs - targets).mean()),
        (partial(nn.Linear, 8, 1), lambda outputs, targets: outputs.logsumexp(0).sum()),
        (lambda: nn.Sequential(nn.Linear(8, 1), nn.ReLU()), mse_loss),
        (lambda: nn.Sequential(nn.Linear(8, 3), nn.Linear(3, 1)), mse_loss),
        (lambda: nn.Sequential(nn.Dropout(), nn.Linear(8, 1)), mse_loss),
        (lambda: nn.Sequential(nn.Linear(8, 1), nn.BatchNorm1d(1)), mse_loss),
        (partial(nn.Linear, 8, 1), fails),
    ],
    ids=["of a kink", "linear", "convex", "relu", "deep", "dropout", "batch norm", "fails"],
)
def test_of_other_losses_no_one_curvature_is_known(make_net, loss):
    task = replace(quadratic()[0], make_net=make_net, loss=loss)
    (training,) = trainings_of(task, [0])
    assert curvature_of_quadratic(task, training) is None


@pytest.mark.parametrize(
    "optimizer",
    [
        torch.optim.Adagrad(PARAM),
        torch.optim.AdamW(PARAM),
        torch.optim.Adam(PARAM, amsgrad=True),
        torch.optim.Adam(PARAM, weight_decay=0.1),
        torch.optim.RMSprop(PARAM, centered=True),
        torch.optim.RMSprop(PARAM, weight_decay=0.1),
        torch.optim.SGD(PARAM, lr=0.1, maximize=True),
    ],
)
def test_of_others_no_limit_is_known_and_nothing_is_divided(optimizer):
    assert limit_of(optimizer) is None
    assert divisor(optimizer, PARAM, [torch.ones(1)]) is None


@pytest.mark.parametrize(
    "make",
    [
        partial(torch.optim.Adam, lr=0.1, betas=(0.0, 0.9), eps=0.03),
        partial(torch.optim.RMSprop, lr=0.1, alpha=0.9, eps=0.03),
    ],
)
def test_the_divisor_is_what_the_next_step_divides_by(make):
    params = [nn.Parameter(torch.tensor([1.0, -2.0])), nn.Parameter(torch.tensor([[0.5]]))]
    optimizer = make(params)
    for _ in range(4):
        grads = [3 * param.detach() ** 3 + 0.2 for param in params]
        before = torch.cat([param.detach().flatten() for param in params])
        divided = divisor(optimizer, params, grads)
        for param, grad in zip(params, grads, strict=True):
            param.grad = grad
        optimizer.step()
        after = torch.cat([param.detach().flatten() for param in params])
        step = 0.1 * torch.cat([grad.flatten() for grad in grads]) / divided
        torch.testing.assert_close(before - after, step, rtol=1e-4, atol=1e-6)
    sgd = torch.optim.SGD(params, lr=0.1)
    assert divisor(sgd, params, [param.grad for param in params]) is None


# ---------------------------------------------------------------- along a training


def at_rate(lr, **more):
    return lambda params: torch.optim.SGD(params, lr=lr, **more)


@pytest.mark.parametrize(("momentum", "limit"), [(0.0, 2.0), (0.5, 3.0)])
def test_descent_on_a_quadratic_diverges_just_above_its_limit(momentum, limit):
    task, largest = quadratic()
    (training,) = trainings_of(task, [0])
    below, above = (
        descend(task, training, at_rate(share * limit / largest, momentum=momentum), 400)
        for share in (0.99, 1.01)
    )
    assert below.losses[-1] < 0.05 * below.losses[0]
    assert above.losses[-1] > 10 * above.losses[0]
    assert above.losses[-1] > 2 * above.losses[-100]
    assert below.sharpness == pytest.approx([largest] * len(below.moments), rel=1e-4)


def test_a_descent_is_a_plain_loop_that_is_looked_at_now_and_then():
    task = replace(SMALL, batch_size=1000)
    (training,) = trainings_of(task, [3])
    run = descend(task, training, at_rate(0.1), 70)
    x, y = training.dataset.tensors
    net = training.make_net(task)
    optimizer, losses, states = torch.optim.SGD(net.parameters(), lr=0.1), [], []
    for _ in range(70):
        states.append(clone(net))
        optimizer.zero_grad()
        loss = mse_loss(net(x), y)
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
    assert run.losses == pytest.approx(losses, rel=1e-5)
    assert run.steps == 70
    assert run.moments == list(range(0, 70, 3))
    assert (run.lr, run.is_divided, set(run.limits)) == (0.1, False, {20.0})
    for k in (0, 4, 23):
        largest = torch.linalg.eigvalsh(dense_hessian(task, training, states[3 * k]))[-1]
        assert run.sharpness[k] == pytest.approx(largest.item(), rel=1e-3)


def test_mini_batches_are_counted_as_steps_and_judged_by_the_whole_set():
    (training,) = trainings_of(SMALL, [3])  # 100 samples, 32 in a batch
    run = descend(SMALL, training, at_rate(0.1), 10)
    assert (run.steps, run.moments) == (10, list(range(10)))
    whole = descend(replace(SMALL, batch_size=100), training, at_rate(0.1), 1)
    assert run.sharpness[0] == whole.sharpness[0]


def test_adam_is_measured_by_what_it_divides_by():
    task = replace(SMALL, batch_size=100)
    (training,) = trainings_of(task, [3])
    run = descend(task, training, partial(torch.optim.Adam, lr=0.01), 3)
    net = training.make_net(task)
    task.loss(net(training.dataset.tensors[0]), training.dataset.tensors[1]).backward()
    scale = (torch.cat([p.grad.flatten() for p in net.parameters()]).abs() + 1e-8).double().rsqrt()
    matrix = scale.unsqueeze(1) * dense_hessian(task, training, state_of(net)) * scale
    largest = torch.linalg.eigvalsh(matrix)[-1].item()
    assert run.sharpness[0] == pytest.approx(largest, rel=1e-2)
    assert run.is_divided
    assert run.limits == pytest.approx([3800.0] * 3)


def test_what_diverges_is_measured_as_long_as_it_is_finite():
    task, largest = quadratic()
    (training,) = trainings_of(task, [0])
    run = descend(task, training, at_rate(100 / largest), 100)
    assert run.diverged
    assert not math.isfinite(run.losses[-1])
    assert run.moments[0] == 0
    assert len(run.moments) == len(run.sharpness) == len(run.limits) < 10


def test_ctrl_c_leaves_what_was_measured_until_then():
    def interrupt(items, total, unit):
        for number, item in enumerate(items):
            if number == 5:
                raise KeyboardInterrupt
            yield item

    (training,) = trainings_of(SMALL, [3])
    run = descend(SMALL, training, at_rate(0.1), 20, interrupt)
    assert run.interrupted
    assert len(run.losses) == 5
    assert len(run.sharpness) == len(run.moments) == 6


def test_an_optimizer_that_calls_exit_ends_its_own_training_only():
    class Quits(torch.optim.SGD):
        def step(self, closure=None):
            self.taken = getattr(self, "taken", 0) + 1
            if self.taken == 4:
                raise SystemExit("enough")
            return super().step(closure)

    (training,) = trainings_of(SMALL, [3])
    run = descend(SMALL, training, lambda params: Quits(params, lr=0.1), 5)
    assert "failed at step 4: it calls exit()" in run.stopped
    assert len(run.sharpness) == 4


# ---------------------------------------------------------------- the lesson


def along(name, lr, steps):
    """The sharpness of ten seeds (moments, 10) while gradient descent trains at this rate."""
    task = replace(TASKS[name], batch_size=1000)
    trainings = trainings_of(task, range(81, 91))
    runs = [descend(task, training, at_rate(lr), steps) for training in trainings]
    return torch.tensor([run.sharpness for run in runs]).T


def test_on_the_parabola_no_seed_stays_above_its_limit():
    """At 0.2 it is 10. Four of ten start above; the sharpest that are left come to it and stay."""
    found = along("parabola", 0.2, 200)
    assert (found[0] > 10.3).sum() >= 3
    assert (found[4:] < 10.5).all()
    assert found[-1].max() > 9


@pytest.mark.slow
def test_on_sine_the_sharpness_rises_to_its_limit_and_hovers_there():
    found = along("sine", 0.1, 1000)  # 2/lr is 20
    late = found[-8:].median(0).values
    assert (found[0] < 16).all()
    assert 18 < late.median() < 22
    assert (late > 14).sum() >= 8
    assert (late < 24).all()


@pytest.mark.slow
def test_on_spirals_a_higher_rate_ends_where_it_is_flatter():
    low, high = along("spirals", 0.3, 1000), along("spirals", 1.0, 1000)
    assert (low[0] < 3).all()
    peaks = low.max(0).values
    assert 5.5 < peaks.median() < 7.7  # 2/lr is 6.7
    assert (peaks > 4).all()
    assert (peaks < 9).all()
    assert (high[-8:].median(0).values < 2.3).all()  # 2/lr is 2

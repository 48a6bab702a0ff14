"""Optimizers as people write them, one by one: how they step, and where their learning rate is."""

from lab.training import adapt

import pytest
import torch


class Textbook(torch.optim.SGD):
    """Steps after a backward pass."""

    def step(self):
        return super().step()


class NoRate(torch.optim.Optimizer):
    """Has a rate in its groups only."""

    def __init__(self, params):
        super().__init__(params, {"lr": 0.5})

    @torch.no_grad()
    def step(self, closure):
        loss = loss_of(closure)
        for group in self.param_groups:
            for param in group["params"]:
                param -= group["lr"] * param.grad
        return loss


class Fixed(NoRate):
    """Takes a rate, and does not use it."""

    def __init__(self, params, eta=0.1):
        super().__init__(params)

    def step(self, closure):
        loss = loss_of(closure)
        for group in self.param_groups:
            for param in group["params"]:
                param.data -= 0.1 * param.grad
        return loss


class Second(NoRate):
    """Differentiates the gradients once more."""

    def step(self, closure):
        loss = loss_of(closure)
        for group in self.param_groups:
            grads = [param.grad for param in group["params"]]
            again = torch.autograd.grad(sum(g.sum() for g in grads), group["params"])
            with torch.no_grad():
                for param, curvature in zip(group["params"], again, strict=True):
                    param -= group["lr"] * curvature
        return loss


def loss_of(closure):
    with torch.enable_grad():
        return closure()


@pytest.fixture(autouse=True)
def _nothing_is_known(monkeypatch):
    monkeypatch.setattr(adapt, "manners", {})


def test_the_rate_has_the_name_that_its_constructor_gives_it():
    assert adapt.lr_keyword(torch.optim.Adam) == "lr"
    assert adapt.lr_keyword(Fixed) == "eta"
    assert adapt.lr_keyword(NoRate) is None
    assert adapt.lr_keyword(dict) is None  # it has no signature


@pytest.mark.parametrize(
    ("make", "manner"), [(Textbook, "textbook"), (NoRate, "closure"), (Second, "graph")]
)
def test_a_step_does_what_torchs_do_whatever_its_manner(make, manner):
    assert adapt.manner_of(make) == manner
    assert adapt.needs_graph(make) == (manner == "graph")
    (param,) = params = [torch.nn.Parameter(torch.tensor([3.0]))]
    calls = []
    optimizer = adapt.make(make, params, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25]
    loss = optimizer.step(adapt.scratch_closure(params, calls))  # the square
    assert len(calls) == 1
    assert loss.item() == 9
    assert param.item() == (3 - 0.25 * 2 if manner == "graph" else 3 - 0.25 * 6)


def parameter():
    return torch.nn.Parameter(torch.tensor([3.0]))


@pytest.mark.parametrize(("make", "own"), [(torch.optim.SGD, 1e-3), (NoRate, 0.5), (Fixed, 0.5)])
def test_without_a_rate_it_keeps_its_own(make, own):
    assert [group["lr"] for group in adapt.make(make, [parameter()]).param_groups] == [own]


def test_other_settings_come_as_arguments():
    optimizer = adapt.make(torch.optim.SGD, [parameter()], 0.1, {"momentum": 0.7})
    assert optimizer.defaults["momentum"] == 0.7
    assert "step" not in vars(optimizer)  # torch's own is left as it is


class Lazy(NoRate):
    """Calls its closure at its second step only, and never returns the loss as a tensor."""

    def step(self, closure=None):
        self.count = getattr(self, "count", 0) + 1
        return super().step(closure).item() if closure and self.count == 2 else None


def test_a_closure_that_is_not_called_is_an_error_and_the_loss_is_a_tensor():
    param, manner = parameter(), "closure"
    optimizer = adapt.adapted(Lazy([param]), manner)
    closure = adapt.scratch_closure([param], [])
    with pytest.raises(RuntimeError, match="step has not called its closure"):
        optimizer.step(closure)
    assert torch.equal(optimizer.step(closure), torch.tensor(9.0))
    assert optimizer.step() is None  # a closure is not asked for where there is none


def test_only_who_has_both_modes_is_put_into_one():
    class Half(torch.optim.SGD):
        def train(self):
            raise AssertionError

    adapt.set_mode(Half([parameter()]), "train")


@pytest.mark.parametrize(
    ("step", "manner"),
    [
        (lambda self, closure=None: None, "textbook"),
        (lambda self, closure=None: closure() and 1 / 0, "closure"),
        (lambda self: None, "textbook"),
        (lambda self, closure=None: 1 / 0, "textbook"),
    ],
)
def test_how_it_steps_is_seen_from_whether_it_calls(step, manner):
    assert adapt.manner_of(type("Own", (torch.optim.SGD,), {"step": step})) == manner


def test_a_rate_that_is_in_no_group_is_in_no_group():
    class Hidden(torch.optim.Optimizer):
        def __init__(self, params, lr=0.1):
            super().__init__(params, {})
            self.lr = lr

        @torch.no_grad()
        def step(self):
            for param in self.param_groups[0]["params"]:
                param -= self.lr * param.grad

    assert adapt.depends_on_lr(Hidden)
    assert not adapt.depends_on_lr(Hidden, in_group=True)


def test_groups_keep_their_own_rates():
    params = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
    groups = [{"params": [p], "lr": lr} for p, lr in zip(params, (0.1, 0.2), strict=True)]
    optimizer = adapt.make(NoRate, groups, 0.3)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.2]


def test_whether_its_steps_depend_on_a_rate_is_found_out():
    assert adapt.depends_on_lr(torch.optim.SGD)
    assert adapt.depends_on_lr(NoRate)
    assert adapt.depends_on_lr(NoRate, in_group=True)
    assert not adapt.depends_on_lr(Fixed)
    assert not adapt.depends_on_lr(Fixed, in_group=True)
    assert adapt.depends_on_lr(lambda params: 1 / 0)  # nobody knows
    assert not adapt.needs_graph(lambda params: 1 / 0)


def test_torchs_own_are_not_tried(monkeypatch):
    tried = []
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self, closure=None: tried.append(self))
    assert adapt.depends_on_lr(torch.optim.SGD)
    assert not adapt.needs_graph(torch.optim.SGD)
    assert not tried


def test_the_trial_draws_nothing_from_torchs_generator():
    class Draws(NoRate):
        def step(self, closure):
            torch.rand(1)
            return super().step(closure)

    before = torch.get_rng_state()
    adapt.depends_on_lr(Draws)
    assert torch.equal(torch.get_rng_state(), before)


def test_judged_elsewhere_it_goes_on_from_where_it_was_to_the_bit():
    modes = []

    class Modal(torch.optim.SGD):
        def train(self):
            modes.append("train")
            self.param_groups[0]["params"][0].data -= 1  # which rounds

        def eval(self):
            modes.append("eval")
            self.param_groups[0]["params"][0].data += 1
            torch.rand(1)

    param = torch.nn.Parameter(torch.tensor([0.1]))
    optimizer = Modal([param], lr=0.1)
    state = torch.get_rng_state()
    with adapt.judged(optimizer):
        assert param.item() == pytest.approx(1.1)
    assert torch.equal(param, torch.tensor([0.1]))
    assert torch.equal(torch.get_rng_state(), state)
    assert modes == ["eval", "train"]
    adapt.set_mode(torch.optim.SGD([param]), "eval")  # which has none


def test_a_step_that_calls_no_closure_is_told():
    class Never(NoRate):
        calls = 0

        def step(self, closure):
            Never.calls += 1
            if Never.calls == 1:  # the trial
                return super().step(closure)
            return None

    optimizer = adapt.make(Never, [torch.nn.Parameter(torch.ones(1))])
    with pytest.raises(RuntimeError, match="step has not called its closure"):
        optimizer.step(lambda: None)

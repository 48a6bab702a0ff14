"""Our optimizers against torch.optim, and against facts about the formulas."""

import copy
import inspect
import io
import math
import pickle
import pydoc
from functools import partial

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from steps import assert_same_steps, default_dtype, of_ours, run_steps, walk
from torch.optim.lbfgs import _strong_wolfe
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, StepLR

import optimizers
from models import Net
from optimizers import lbfgs, matrices

RULES = [name for name in optimizers.__all__ if name != "UpdateRule"]
TORCHS = [name for name in RULES if hasattr(torch.optim, name)]
# Muon takes matrices only, SparseAdam sparse gradients, LBFGS one group: they have their own tests.
APART = {"Muon", "SparseAdam", "LBFGS"}
NAMES = [name for name in TORCHS if name not in APART]
# Those that torch.optim has not: test_optimizers_since_2020.py holds their steps to others.
YOUNG = [name for name in RULES if name not in TORCHS]
SPEED_SWITCHES = {"foreach", "fused", "capturable", "differentiable"}


@pytest.fixture(autouse=True)
def _float64():
    """Float64 as the default too: or torch keeps some scalars of NAdam and ASGD in float32."""
    with default_dtype(torch.float64):
        yield


def of_torch(name, **options):
    options |= {"foreach": False}
    return lambda params: getattr(torch.optim, name)(params, **options)


# ---------------------------------------------------------------- the same as torch.optim

rates = st.floats(1e-4, 0.1)
betas = st.tuples(st.floats(0, 0.99), st.floats(0.5, 0.9999))
epsilons = st.sampled_from([1e-8, 1e-3])
fractions = st.floats(0.1, 0.99)
decays = st.sampled_from([0, 0.01, 0.3])

OPTIONS = {
    "SGD": {
        "momentum": st.just(0) | fractions,
        "dampening": st.just(0) | fractions,
        "nesterov": st.booleans(),
        "weight_decay": decays,
    },
    "Adagrad": {
        "lr_decay": st.sampled_from([0, 0.01, 1]),
        "weight_decay": decays,
        "initial_accumulator_value": st.sampled_from([0, 0.1]),
        "eps": st.sampled_from([1e-10, 1e-3]),
    },
    "RMSprop": {
        "alpha": st.floats(0.8, 0.999),
        "eps": epsilons,
        "weight_decay": decays,
        "momentum": st.just(0) | fractions,
        "centered": st.booleans(),
    },
    "Adadelta": {"rho": fractions, "eps": st.sampled_from([1e-6, 1e-2]), "weight_decay": decays},
    "Adam": {
        "betas": betas,
        "eps": epsilons,
        "weight_decay": decays,
        "amsgrad": st.booleans(),
        "decoupled_weight_decay": st.booleans(),
    },
    "AdamW": {"betas": betas, "eps": epsilons, "weight_decay": decays, "amsgrad": st.booleans()},
    "Adafactor": {
        "beta2_decay": st.sampled_from([-0.8, -0.3, 0.0]),
        "eps": st.tuples(st.sampled_from([None, 1e-30, 1e-3]), st.sampled_from([1e-3, 0.5])),
        "d": st.sampled_from([1.0, 3.0]),
        "weight_decay": decays,
    },
    "Adamax": {"betas": betas, "eps": epsilons, "weight_decay": decays},
    "NAdam": {
        "betas": betas,
        "eps": epsilons,
        "weight_decay": decays,
        "momentum_decay": st.sampled_from([0, 4e-3, 0.5]),
        "decoupled_weight_decay": st.booleans(),
    },
    "RAdam": {
        "betas": betas,
        "eps": epsilons,
        "weight_decay": decays,
        "decoupled_weight_decay": st.booleans(),
    },
    "Rprop": {
        "etas": st.tuples(st.floats(0.2, 0.9), st.floats(1.05, 2)),
        "step_sizes": st.tuples(st.sampled_from([1e-6, 1e-3]), st.sampled_from([0.05, 50])),
    },
    "ASGD": {
        "lambd": st.sampled_from([1e-4, 0.1]),
        "alpha": st.floats(0.1, 1),
        "t0": st.sampled_from([0, 5, 1e6]),
        "weight_decay": decays,
    },
}


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_equal_to_torch_with_any_options(name, data):
    kinds = {"lr": rates, "maximize": st.booleans()} | OPTIONS[name]
    options = data.draw(st.fixed_dictionaries({}, optional=kinds))
    if options.get("nesterov") and not options.get("momentum"):
        options["momentum"] = 0.9
    if options.get("nesterov"):
        options["dampening"] = 0
    if options.get("maximize"):
        options["lr"] = min(options.get("lr", 1e-3), 1e-3)
    absent = data.draw(st.sampled_from([0.0, 0.3]))
    seed = data.draw(st.integers(0, 9))
    assert_same_steps(of_ours(name, **options), of_torch(name, **options), seed=seed, absent=absent)


@pytest.mark.parametrize("name", NAMES)
def test_each_option_is_drawn_and_means_something(name):
    """Every option of the constructor is in OPTIONS, and changes the steps taken."""
    parameters = inspect.signature(getattr(optimizers, name)).parameters
    assert set(parameters) - {"params", "lr", "maximize"} == set(OPTIONS[name])
    changed = {
        "momentum": 0.5, "weight_decay": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.5,
        "eps": 0.1, "alpha": 0.3, "centered": True, "rho": 0.3, "betas": (0.2, 0.7),
        "amsgrad": True, "momentum_decay": 0.5, "etas": (0.3, 1.7), "step_sizes": (1e-3, 2e-3),
        "lambd": 0.3, "lr": 0.05, "maximize": True, "beta2_decay": -0.2, "d": 5.0,
    }  # fmt: skip
    company = {"lr": 0.01}
    if name == "Adafactor":
        changed["eps"] = (1.0, 1.0)
    if name == "Adam":
        company["betas"] = (0.9, 0.5)  # or the largest second moment is the last
    plain = run_steps(of_ours(name, **company))
    for option in set(parameters) & set(changed):
        other = run_steps(of_ours(name, **(company | {option: changed[option]})))
        assert not torch.equal(plain, other), option
    for option in {"dampening": 0.5, "nesterov": True} if name == "SGD" else {}:
        with_momentum = run_steps(of_ours(name, momentum=0.5))
        other = run_steps(
            of_ours(name, momentum=0.5, **{option: 0.5 if option[0] == "d" else True})
        )
        assert not torch.equal(with_momentum, other), option


@pytest.mark.parametrize("name", TORCHS)
def test_a_signature_is_torchs_and_help_shows_it(name):
    """Names, order, defaults, and which are keyword-only: in ours, all after a missing switch."""

    def signature(cls):
        found, is_keyword_only = [], False
        for parameter in inspect.signature(cls).parameters.values():
            is_keyword_only |= parameter.kind is parameter.KEYWORD_ONLY
            if parameter.name in SPEED_SWITCHES:
                is_keyword_only = True
            else:
                found.append((parameter.name, parameter.default, is_keyword_only))
        return found

    ours = getattr(optimizers, name)
    assert signature(ours) == signature(getattr(torch.optim, name))
    page = pydoc.render_doc(ours, renderer=pydoc.plaintext)
    for parameter in inspect.signature(ours).parameters.values():
        assert parameter.annotation is not parameter.empty
        assert str(parameter) in page


@pytest.mark.parametrize("name", NAMES)
def test_a_learning_rate_may_be_a_0_dim_tensor(name):
    assert_same_steps(of_ours(name, lr=torch.tensor(0.01)), of_torch(name, lr=0.01))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "schedule",
    [
        lambda optimizer: StepLR(optimizer, 4, gamma=0.3),
        lambda optimizer: CosineAnnealingLR(optimizer, 20),
    ],
)
def test_learning_rate_schedules(name, schedule):
    def scheduled(make):
        def build(params):
            optimizer = make(params)
            scheduler = schedule(optimizer)
            optimizer.register_step_post_hook(lambda *_: scheduler.step())
            return optimizer

        return build

    assert_same_steps(scheduled(of_ours(name)), scheduled(of_torch(name)))


def test_a_schedule_of_learning_rate_and_momentum():
    def scheduled(make):
        def build(params):
            optimizer = make(params)
            scheduler = OneCycleLR(optimizer, max_lr=0.1, total_steps=60)
            optimizer.register_step_post_hook(lambda *_: scheduler.step())
            return optimizer

        return build

    for name in ("SGD", "RMSprop", "Adam"):
        options = {} if name == "Adam" else {"momentum": 0.9}
        assert_same_steps(scheduled(of_ours(name, **options)), scheduled(of_torch(name, **options)))


@pytest.mark.parametrize("name", NAMES)
def test_param_groups_have_their_own_hyperparameters(name):
    def grouped(make):
        def build(params):
            groups = [{"params": params[:2], "lr": 0.05}, {"params": params[2:4]}]
            optimizer = make(groups)
            optimizer.add_param_group({"params": params[4:], "lr": 0.003, "maximize": False})
            if "weight_decay" in optimizer.defaults:
                optimizer.param_groups[1]["weight_decay"] = 0.2
            return optimizer

        return build

    assert_same_steps(grouped(of_ours(name)), grouped(of_torch(name)))


def test_float32_stays_float32():
    for name in NAMES:
        ours, torchs = (run_steps(of(name), dtype=torch.float32) for of in (of_ours, of_torch))
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, torchs, rtol=1e-4, atol=1e-5)


def test_float64_parameters_are_exact_under_a_float32_default():
    """Scalars are Python floats, so no step is rounded to float32 on its way."""

    def steps(name):
        param = torch.nn.Parameter(torch.tensor([1.0, -3.0], dtype=torch.float64))
        optimizer = getattr(optimizers, name)([param], lr=0.01)
        path = []
        for _ in range(30):
            optimizer.zero_grad()
            (param**4).sum().backward()
            optimizer.step()
            path.append(param.detach().clone())
        return torch.stack(path)

    names = [*NAMES, *YOUNG]
    in_float64 = [steps(name) for name in names]
    torch.set_default_dtype(torch.float32)
    for name, expected in zip(names, in_float64, strict=True):
        assert torch.equal(steps(name), expected), name


# ---------------------------------------------------------------- what the base class promises


class Trial:
    """A net, an optimizer and a stream of mini-batches that can be stopped and resumed."""

    def __init__(self, name, dtype, **options):
        torch.manual_seed(3)
        self.net = Net(2, 5, 1).to(dtype)
        self.optimizer = getattr(optimizers, name)(self.net.parameters(), lr=0.01, **options)
        self.dtype = dtype

    def loss(self, step):
        x = torch.randn(6, 2, generator=torch.Generator().manual_seed(step), dtype=self.dtype)
        return (self.net(x) - x.sum(1, keepdim=True).sin()).square().mean()

    def closure(self, step):
        self.optimizer.zero_grad()
        loss = self.loss(step)
        loss.backward()
        return loss

    def run(self, first, last):
        for step in range(first, last):
            if isinstance(self.optimizer, optimizers.LBFGS):
                self.optimizer.step(partial(self.closure, step))
            else:
                self.closure(step)
                self.optimizer.step()
        return torch.nn.utils.parameters_to_vector(self.net.parameters()).detach().clone()


EXTRAS = {"SGD": {"momentum": 0.9}, "RMSprop": {"momentum": 0.9, "centered": True}}
EXTRAS |= {"Adam": {"amsgrad": True}, "ASGD": {"t0": 3}}
EXTRAS |= {"SOAP": {"precondition_frequency": 3}, "Prodigy": {"d0": 0.1, "growth_rate": 1.1}}
EXTRAS |= {"LBFGS": {"line_search_fn": "strong_wolfe", "max_iter": 3}}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("default", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [*NAMES, *YOUNG, "LBFGS"])
def test_training_resumed_from_a_file_goes_on_bit_for_bit(name, default, dtype):
    torch.set_default_dtype(default)
    options = EXTRAS.get(name, {})
    expected = Trial(name, dtype, **options).run(0, 20)
    stopped = Trial(name, dtype, **options)
    stopped.run(0, 9)
    file = io.BytesIO()
    torch.save([stopped.net.state_dict(), stopped.optimizer.state_dict()], file)
    file.seek(0)
    resumed = Trial(name, dtype, **options)
    net_state, optimizer_state = torch.load(file, weights_only=True)
    resumed.net.load_state_dict(net_state)
    resumed.optimizer.load_state_dict(optimizer_state)
    assert torch.equal(resumed.run(9, 20), expected)


@pytest.mark.parametrize("name", [*NAMES, *YOUNG, "LBFGS"])
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_deepcopy_and_pickle(name, duplicate):
    trial = Trial(name, torch.float64, **EXTRAS.get(name, {}))
    trial.run(0, 9)
    twin = duplicate(trial)
    assert torch.equal(twin.run(9, 20), trial.run(9, 20))


@pytest.mark.parametrize("name", [*NAMES, *YOUNG])
def test_step_with_a_closure(name):
    plain, closed = Trial(name, torch.float64), Trial(name, torch.float64)

    expected = plain.loss(0).item()
    assert closed.optimizer.step(partial(closed.closure, 0)).item() == expected
    assert torch.equal(plain.run(0, 1), closed.run(0, 0))
    assert plain.optimizer.step() is None


def test_step_hooks_run_around_the_update():
    trial, seen = Trial("Adam", torch.float64), []
    trial.optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    trial.optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    trial.run(0, 1)
    assert seen == ["before", "after"]


def test_a_gradient_zeroed_in_place_does_not_reach_the_state():
    param = torch.nn.Parameter(torch.ones(2))
    optimizer = optimizers.SGD([param], lr=1, momentum=0.5)
    param.grad = torch.ones(2)
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    optimizer.step()
    assert param.tolist() == [-0.5, -0.5]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *[(name, {"lr": lr}) for name in NAMES for lr in (-1, math.nan, torch.tensor([1.0, 2.0]))],
        *[(name, {"weight_decay": -1}) for name in NAMES if "weight_decay" in OPTIONS[name]],
        *[(name, {"eps": -1}) for name in NAMES if name != "Adafactor" and "eps" in OPTIONS[name]],
        *[(name, {"betas": (1, 0.9)}) for name in NAMES if "betas" in OPTIONS[name]],
        *[(name, {"betas": (0.9, -0.1)}) for name in NAMES if "betas" in OPTIONS[name]],
        ("SGD", {"momentum": -1}),
        ("SGD", {"nesterov": True}),
        ("SGD", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}),
        ("Adagrad", {"lr_decay": -1}),
        ("Adagrad", {"initial_accumulator_value": -1}),
        ("RMSprop", {"alpha": -1}),
        ("RMSprop", {"momentum": -1}),
        ("Adadelta", {"rho": 1.5}),
        ("Adafactor", {"beta2_decay": 0.1}),
        ("Adafactor", {"d": 0.9}),
        ("Adafactor", {"eps": (-1.0, 1e-3)}),
        ("Adafactor", {"eps": (None, -1.0)}),
        ("Muon", {"lr": -1}),
        ("Muon", {"momentum": -1}),
        ("Muon", {"weight_decay": -1}),
        ("Muon", {"adjust_lr_fn": "mine"}),
        ("SparseAdam", {"lr": 0}),
        ("SparseAdam", {"lr": -1}),
        ("SparseAdam", {"eps": 0}),
        ("SparseAdam", {"betas": (0.9, 1.0)}),
        ("LBFGS", {"lr": -1}),
        ("LBFGS", {"lr": math.nan}),
        ("LBFGS", {"lr": torch.tensor([1.0, 2.0])}),
        ("NAdam", {"momentum_decay": -1}),
        ("Rprop", {"etas": (1.2, 0.5)}),
    ],
)
def test_values_out_of_range_are_named_and_refused_as_by_torch(name, options):
    params = [torch.nn.Parameter(torch.ones(1, 1))]
    (key, value), *_ = options.items()
    with pytest.raises(ValueError, match="Nesterov" if key == "nesterov" else f"Invalid {key}"):
        getattr(optimizers, name)(params, **options)
    if not (name == "SGD" and value is math.nan):  # torch's SGD takes a nan
        with pytest.raises(ValueError, match=r".*"):
            getattr(torch.optim, name)(params, **options)


@pytest.mark.parametrize("kind", ["sparse", "complex"])
def test_gradients_that_no_formula_here_covers_are_refused(kind):
    if kind == "sparse":
        param = torch.nn.Parameter(torch.ones(2))
        param.grad = torch.ones(2).to_sparse()
    else:
        param = torch.nn.Parameter(torch.ones(2, dtype=torch.complex128))
        param.grad = torch.ones(2, dtype=torch.complex128)
    with pytest.raises(RuntimeError, match="Adam takes dense, real gradients only"):
        optimizers.Adam([param]).step()


# ---------------------------------------------------------------- sparse gradients


def embedding_path(make_optimizer, words, steps=26):
    """Return an embedding after each step; `words` gives the rows that a step touches."""
    torch.manual_seed(5)
    embed = torch.nn.Embedding(12, 3, sparse=True)
    optimizer, path = make_optimizer(embed.parameters()), []
    for step in range(steps):
        optimizer.zero_grad()
        ((embed(words(step)) - 1) ** 4).sum().backward()
        optimizer.step()
        path.append(embed.weight.detach().clone())
    return torch.stack(path)


def some_words(step):
    """Return words, some of them twice, of which the last two never come."""
    return torch.randint(10, (6,), generator=torch.Generator().manual_seed(step))


@settings(max_examples=20, deadline=None)
@given(
    options=st.fixed_dictionaries(
        {}, optional={"lr": rates, "betas": betas, "eps": epsilons, "maximize": st.booleans()}
    )
)
def test_sparse_adam_is_that_of_torch(options):
    if options.get("maximize"):
        options["lr"] = 1e-3
    ours = embedding_path(of_ours("SparseAdam", **options), some_words)
    expected = embedding_path(lambda p: torch.optim.SparseAdam(p, **options), some_words)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)


def test_sparse_adam_moves_only_the_rows_it_is_told_of():
    path = embedding_path(of_ours("SparseAdam", lr=0.1), some_words)
    for step in range(1, len(path)):
        moved = (path[step] != path[step - 1]).any(1).nonzero().flatten().tolist()
        assert moved == sorted(set(some_words(step).tolist()))


def test_with_every_row_touched_it_is_adam():
    def all_words(step):
        return torch.arange(12)

    sparse = embedding_path(of_ours("SparseAdam", lr=0.1, eps=1e-30), all_words)

    def dense(params):
        (weight,) = params
        adam = optimizers.Adam([weight], lr=0.1, eps=1e-30)
        adam.register_step_pre_hook(
            lambda *_: setattr(weight, "grad", weight.grad.to_dense())  # to what Adam takes
        )
        return adam

    torch.testing.assert_close(sparse, embedding_path(dense, all_words), rtol=1e-6, atol=1e-9)


def test_sparse_adam_takes_an_empty_gradient():
    def few_words(step):
        return some_words(step)[: 0 if step % 3 == 0 else 6]

    expected = embedding_path(lambda p: torch.optim.SparseAdam(p, lr=0.1), few_words)
    ours = embedding_path(of_ours("SparseAdam", lr=0.1), few_words)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)


def test_sparse_adam_refuses_what_torchs_refuses():
    param = torch.nn.Parameter(torch.ones(2))
    param.grad = torch.ones(2)
    with pytest.raises(RuntimeError, match="SparseAdam takes sparse, real gradients only"):
        optimizers.SparseAdam([param]).step()
    for wrong in (torch.ones(2).to_sparse(), torch.ones(2, dtype=torch.complex128)):
        for module in (torch.optim, optimizers):
            with pytest.raises(ValueError, match="SparseAdam"):
                module.SparseAdam([torch.nn.Parameter(wrong)])


# ---------------------------------------------------------------- matrices


def matrix_path(make_optimizer, shape, steps=25):
    """Return a matrix after each step towards the identity, by gradients that are noisy."""
    generator = torch.Generator().manual_seed(6)
    matrix = torch.nn.Parameter(torch.randn(shape, generator=generator))
    optimizer, path = make_optimizer([matrix]), []
    for _ in range(steps):
        matrix.grad = (
            matrix.detach() - torch.eye(*shape) + 0.1 * torch.randn(shape, generator=generator)
        )
        optimizer.step()
        path.append(matrix.detach().clone())
    return torch.stack(path)


@pytest.mark.parametrize("shape", [(3, 7), (7, 3), (4, 4), (1, 5)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"nesterov": False},
        {"momentum": 0.5},
        {"weight_decay": 0.9},
        {"adjust_lr_fn": "original"},
        {"adjust_lr_fn": "match_rms_adamw"},
        {"ns_steps": 2},
        {"ns_coefficients": (2.0, -1.5, 0.5)},
        {"eps": 10.0},
    ],
)
def test_muon_is_that_of_torch_to_bfloat16(shape, options):
    options = {"lr": 0.1} | options
    ours = matrix_path(of_ours("Muon", **options), shape)
    expected = matrix_path(lambda params: torch.optim.Muon(params, **options), shape)
    torch.testing.assert_close(ours, expected, rtol=1e-2, atol=1e-2)
    assert (ours - expected).norm() < 1e-2 * (expected - expected[0]).norm()


@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (25, 25)])
def test_an_orthogonalized_matrix_has_its_own_directions_at_about_one_length(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(7))
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    muons = (3.4445, -4.7750, 2.0315)
    result = matrices.orthogonalize(matrix, muons, steps=5, eps=1e-7)
    assert result.dtype == matrix.dtype
    lengths = (u.T @ result @ vt.T).diagonal()
    assert 0.5 < lengths.min() < lengths.max() < 1.5
    # Coefficients that converge give U·Vᵀ itself, to bfloat16.
    result = matrices.orthogonalize(matrix, (2.0, -1.5, 0.5), steps=40, eps=1e-7)
    torch.testing.assert_close(result, u @ vt, rtol=0.03, atol=0.03)


def test_muon_refuses_what_torchs_refuses():
    vector = torch.nn.Parameter(torch.ones(3))
    for module in (torch.optim, optimizers):
        with pytest.raises(ValueError, match="Muon"):
            module.Muon([vector])
        matrix = torch.nn.Parameter(torch.ones(2, 2))
        matrix.grad = torch.ones(2, 2)
        for wrong in ({"ns_steps": 100}, {"ns_coefficients": (1.0, 2.0)}):
            with pytest.raises(ValueError, match=r"100|three|3 values"):
                module.Muon([matrix], **wrong).step()


# ---------------------------------------------------------------- LBFGS


def lbfgs_path(optimizer_class, seed=0, steps=25, new_batches=False, **options):
    """Return parameters and losses after each step, and how often the closure was called."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    net = Net(2, 4, 1)
    scalar, unused = (torch.nn.Parameter(torch.tensor(x)) for x in (0.7, 1.0))
    params = [*net.parameters(), scalar, unused]
    optimizer = optimizer_class(params, **options)
    path, calls = [], 0

    def closure():
        nonlocal calls
        calls += 1
        optimizer.zero_grad()
        loss = (net(x) - x.prod(1, keepdim=True)).square().mean() + 3 * (scalar - 2) ** 4
        loss.backward()
        return loss

    x = torch.randn(16, 2, generator=generator)
    for _ in range(steps):
        if new_batches:
            x = torch.randn(16, 2, generator=generator)
        loss = optimizer.step(closure)
        path.append(torch.cat([param.detach().flatten() for param in [*params, loss]]))
    return torch.stack(path), calls


@settings(max_examples=10, deadline=None)
@given(
    new_batches=st.booleans(),
    seed=st.integers(0, 99),
    options=st.fixed_dictionaries(
        {},
        optional={
            "lr": st.floats(0.01, 1.5),
            "max_iter": st.integers(0, 20),
            "max_eval": st.integers(1, 25),
            "tolerance_grad": st.sampled_from([1e-7, 1e-2, 1.0]),
            "tolerance_change": st.sampled_from([1e-9, 1e-3, 0.1]),
            "history_size": st.integers(1, 6),
            "line_search_fn": st.sampled_from([None, "strong_wolfe"]),
        },
    ),
)
@example(True, 4, {"tolerance_change": 1e-3, "line_search_fn": "strong_wolfe"})
def test_lbfgs_is_that_of_torch(new_batches, seed, options):
    ours, theirs = (
        lbfgs_path(optimizer_class, seed, 8, new_batches, **options)
        for optimizer_class in (optimizers.LBFGS, torch.optim.LBFGS)
    )
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-8, atol=1e-10, equal_nan=True)
    assert ours[1] == theirs[1]


@pytest.mark.parametrize("line_search_fn", [None, "strong_wolfe"])
def test_lbfgs_takes_a_tensor_for_its_number(line_search_fn):
    ours = lbfgs_path(optimizers.LBFGS, lr=torch.tensor(0.3), line_search_fn=line_search_fn)
    theirs = lbfgs_path(torch.optim.LBFGS, lr=0.3, line_search_fn=line_search_fn)
    torch.testing.assert_close(ours, theirs)


def minimum_of_a_quadratic(optimizer, curvature, start):
    """Minimize ½·θᵀ·curvature·θ; return the distance from 0 after each step."""
    (theta,) = optimizer.param_groups[0]["params"]
    theta.data = start.clone()
    distances = []

    def closure():
        optimizer.zero_grad()
        loss = 0.5 * theta @ curvature @ theta
        loss.backward()
        return loss

    for _ in range(12):
        optimizer.step(closure)
        distances.append(theta.norm().item())
    return distances


@pytest.mark.parametrize("seed", range(5))
def test_lbfgs_needs_few_steps_where_descent_needs_hundreds(seed):
    generator = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(4, 4, generator=generator))
    curvature = basis @ torch.diag(torch.tensor([1.0, 10, 30, 100])) @ basis.T
    start = torch.randn(4, generator=generator)
    theta = torch.nn.Parameter(torch.zeros(4))
    lbfgs = optimizers.LBFGS([theta], max_iter=2, max_eval=9, line_search_fn="strong_wolfe")
    assert minimum_of_a_quadratic(lbfgs, curvature, start)[-1] < 1e-5 * start.norm()
    descent = optimizers.SGD([theta], lr=0.018)  # near the highest that does not diverge
    assert minimum_of_a_quadratic(descent, curvature, start)[-1] > 0.02 * start.norm()


def test_the_history_is_an_inverse_hessian():
    """It maps each change of the gradient to its step: for the newest pair in any case."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(5, 5, generator=generator)
    hessian = root @ root.T + torch.eye(5)
    history = []
    for _ in range(3):
        s = torch.randn(5, generator=generator)
        history.append((s, hessian @ s, 1 / (s @ hessian @ s)))
    s, y, _ = history[-1]
    torch.testing.assert_close(lbfgs.inverse_hessian_times(y, history), s)
    grad = torch.randn(5, generator=generator)
    assert torch.equal(lbfgs.inverse_hessian_times(grad, []), grad)

    # The same from the textbook's matrices: H ← V'·H·V + rho·s·s', for V = I - rho·y·s'.
    inverse = torch.eye(5) * (s @ y) / (y @ y)
    for s, y, rho in history:
        v = torch.eye(5) - rho * torch.outer(y, s)
        inverse = v.T @ inverse @ v + rho * torch.outer(s, s)
    torch.testing.assert_close(lbfgs.inverse_hessian_times(grad, history), inverse @ grad)


@pytest.mark.parametrize("first", [1e-3, 0.1, 1.0, 30.0])
@pytest.mark.parametrize(
    "loss",
    [
        lambda t: (t - 3) ** 2,
        lambda t: (t - 3) ** 4 + 0.1 * t,
        lambda t: -t / (t**2 + 2),  # Moré and Thuente, ACM TOMS 20, 1994
        lambda t: (t + 0.004) ** 5 - 2 * (t + 0.004) ** 4,  # likewise
    ],
)
def test_the_line_search_ends_where_both_of_wolfes_conditions_hold(loss, first):
    def at(t):
        t = torch.as_tensor(t, dtype=torch.float64).detach().requires_grad_()
        value = loss(t)
        (slope,) = torch.autograd.grad(value, t)
        return lbfgs.Point(t.detach(), value.item(), slope.reshape(1), slope)

    start = at(0.0)
    end = lbfgs.strong_wolfe(at, start, first, max_tries=50, min_width=1e-12)
    assert end.loss <= start.loss + 1e-4 * end.t * start.slope
    assert abs(end.slope) <= 0.9 * abs(start.slope)
    assert end.t > 0


@settings(max_examples=300)
@given(
    coefficients=st.lists(st.floats(-3, 3), min_size=3, max_size=3),
    steepness=st.floats(1, 40),
    first=st.sampled_from([0.01, 0.3, 1.0, 7.0, 90.0]),
    most=st.integers(1, 25),
)
def test_the_line_search_tries_the_points_that_torchs_tries(coefficients, steepness, first, most):
    a, b, c = coefficients
    direction = torch.ones(1)

    def evaluate(t, tried):
        t = torch.as_tensor(t, dtype=torch.float64).detach().requires_grad_()
        loss = a * (steepness * t).sin() + b * t.cos() + (t - c) ** 2 + (t * steepness - 9).relu()
        (slope,) = torch.autograd.grad(loss, t)
        tried.append(t.item())
        return loss.item(), slope.reshape(1)

    def at(t):
        loss, grad = evaluate(t, ours)
        return lbfgs.Point(t, loss, grad, grad @ direction)

    ours, theirs = [], []
    start = at(0.0)
    ours.clear()
    if not start.slope < 0:
        return
    end = lbfgs.strong_wolfe(at, start, first, most, 1e-9)
    loss, _, t, _ = _strong_wolfe(
        lambda _, t, __: evaluate(t, theirs),
        None,
        first,
        direction,
        start.loss,
        start.grad,
        start.slope,
        max_ls=most,
    )
    assert ours == theirs
    assert (float(end.t), end.loss) == (float(t), loss)


@given(st.floats(0.1, 3), st.floats(-2, 2), st.floats(0.2, 4), st.floats(0.2, 4))
def test_a_cubics_minimum_is_found(a, middle, before, after):
    """Of a·x³ - 3a·x + c, moved to `middle`: it lies at middle + 1."""

    def point(t):
        x = torch.tensor(t - middle)
        return lbfgs.Point(t, (a * x**3 - 3 * a * x).item(), None, 3 * a * x**2 - 3 * a)

    one, other, wide = point(middle + 1 - before), point(middle + 1 + after), (-99.0, 99.0)
    for pair in ((one, other), (other, one)):
        assert lbfgs.minimum_of_cubic(*pair, wide).item() == pytest.approx(middle + 1, abs=1e-5)
        narrow = middle + 1.5, middle + 2
        assert float(lbfgs.minimum_of_cubic(*pair, narrow)) == narrow[0]


def test_lbfgs_refuses_what_torchs_refuses():
    one, other = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    for optimizer_class in (optimizers.LBFGS, torch.optim.LBFGS):
        with pytest.raises(ValueError, match="group"):
            optimizer_class([{"params": [one]}, {"params": [other]}])
        with pytest.raises(TypeError):
            optimizer_class([one]).step()
    with pytest.raises(ValueError, match="one param group"):  # torch's says so at the next step
        optimizers.LBFGS([one]).add_param_group({"params": [other]})
    with pytest.raises(ValueError, match="Invalid line_search_fn value: wolfe"):  # likewise
        optimizers.LBFGS([one], line_search_fn="wolfe")


def test_lbfgs_moves_parameters_in_place_and_takes_sparse_gradients():
    whole = torch.ones(4)
    views = [part.requires_grad_() for part in whole.split(2)]
    optimizer = optimizers.LBFGS(views)

    def closure():
        views[0].grad = torch.tensor([0.0, 3.0]).to_sparse()
        return torch.tensor(1.0)

    optimizer.step(closure)
    assert whole[1] < 1
    assert whole[[0, 2, 3]].tolist() == [1, 1, 1]


# ---------------------------------------------------------------- the three by themselves

PATHS = {
    "SparseAdam": lambda make: embedding_path(make, some_words),
    "Muon": lambda make: matrix_path(make, (3, 7)),
    "LBFGS": lambda make: lbfgs_path(make, max_iter=3)[0],
}


def with_hook(make_optimizer, hook, before=True):
    """Return what makes such an optimizer, with a hook before or after each of its steps."""

    def make(params, **options):
        optimizer = make_optimizer(params, **options)
        register = "register_step_pre_hook" if before else "register_step_post_hook"
        act = hook(optimizer)
        getattr(optimizer, register)(lambda *_: act())
        return optimizer

    return make


def through_a_file(optimizer):
    def act():
        file = io.BytesIO()
        torch.save(optimizer.state_dict(), file)
        file.seek(0)
        optimizer.load_state_dict(torch.load(file, weights_only=True))

    return act


def through_a_pickle(optimizer):
    def act():
        twin = pickle.loads(pickle.dumps(optimizer))
        assert type(twin) is type(optimizer)
        optimizer.load_state_dict(twin.state_dict())

    return act


@pytest.mark.parametrize("hook", [through_a_file, through_a_pickle])
@pytest.mark.parametrize("name", PATHS)
def test_their_state_is_saved_whole(name, hook):
    make = getattr(optimizers, name)
    assert torch.equal(PATHS[name](with_hook(make, hook)), PATHS[name](make))


@pytest.mark.parametrize("name", PATHS)
def test_they_follow_a_schedule_as_torchs_do(name):
    def falling(optimizer):
        return StepLR(optimizer, 4, gamma=0.3).step

    ours, theirs = (
        PATHS[name](with_hook(getattr(module, name), falling, before=False))
        for module in (optimizers, torch.optim)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-2 if name == "Muon" else 1e-8, atol=1e-4)
    assert not torch.allclose(ours, PATHS[name](getattr(optimizers, name)), atol=1e-4)


@pytest.mark.parametrize("name", ["SparseAdam", "Muon"])
def test_a_group_that_joins_later_has_its_own_rate(name):
    ends = []
    for module in (optimizers, torch.optim):
        one, other = (torch.nn.Parameter(torch.ones(2, 2)) for _ in range(2))
        optimizer = getattr(module, name)([one], lr=0.1)
        optimizer.add_param_group({"params": [other], "lr": 0.01})

        def closure(params=(one, other)):
            for param in params:
                grad = torch.tensor([[1.0, 2.0], [-3.0, 0.5]])
                param.grad = grad.to_sparse() if name == "SparseAdam" else grad
            return sum(param.sum() for param in params)

        assert optimizer.step(closure).item() == 8
        ends.append(torch.stack([one.detach(), other.detach()]))
    torch.testing.assert_close(*ends, rtol=1e-2, atol=1e-4)
    one, other = (1 - ends[0]).abs().mean((1, 2))
    assert one > 5 * other > 0


# ---------------------------------------------------------------- PyTorch's own list


@pytest.mark.slow
def test_every_configuration_of_pytorchs_optimizer_database():
    from torch.testing._internal.common_optimizers import optim_db  # slow to import

    assert {info.optim_cls.__name__ for info in optim_db} == set(TORCHS)
    count = 0
    for info in optim_db:
        name = info.optim_cls.__name__
        for given_options in info.optim_inputs_func(device="cpu"):
            options = given_options.kwargs
            ours, theirs = getattr(optimizers, name), info.optim_cls
            path = {
                "LBFGS": lambda make: lbfgs_path(make)[0],
                "SparseAdam": lambda make: embedding_path(make, some_words),
                "Muon": lambda make: matrix_path(make, (3, 7)),
            }.get(name, run_steps)
            tolerance = {"Muon": 2e-2}.get(name, 1e-8)
            torch.testing.assert_close(
                path(partial(ours, **options)),
                path(partial(theirs, **options)),
                rtol=tolerance,
                atol=tolerance * 1e-2,
                msg=lambda text, name=name, options=options: f"{name} {options}: {text}",
            )
            count += 1
    assert count == 91


# ---------------------------------------------------------------- facts about the formulas


@given(st.floats(1e-5, 1e5), st.floats(1e-4, 1), st.sampled_from([-1, 1]))
def test_adams_first_step_has_length_lr_whatever_the_gradients_scale(size, lr, sign):
    step = walk(optimizers.Adam, [sign * size], lr=lr, eps=0).diff()
    assert step.item() == pytest.approx(-sign * lr, rel=1e-9)


@given(st.floats(1e-3, 1e3))
def test_adagrads_steps_shrink_like_one_over_root_t_under_a_constant_gradient(size):
    steps = -walk(optimizers.Adagrad, [size] * 50, lr=0.1, eps=0).diff()
    torch.testing.assert_close(steps, 0.1 / torch.arange(1.0, 51).sqrt())


def test_rmsprop_forgets_a_large_gradient_and_adagrad_does_not():
    gradients = [100.0] + [1.0] * 200
    adagrad = -walk(optimizers.Adagrad, gradients, lr=0.1).diff()[-1].item()
    rmsprop = -walk(optimizers.RMSprop, gradients, lr=0.1, alpha=0.9).diff()[-1].item()
    assert rmsprop == pytest.approx(0.1, rel=1e-3)
    assert adagrad == pytest.approx(0.1 / math.sqrt(100**2 + 200))


@settings(max_examples=20)
@given(st.floats(0.1, 0.9), st.floats(-5, 5).filter(lambda g: abs(g) > 1e-3))
def test_momentums_terminal_velocity(momentum, gradient):
    steps = walk(optimizers.SGD, [gradient] * 400, lr=0.01, momentum=momentum).diff()
    assert steps[-1].item() == pytest.approx(-0.01 * gradient / (1 - momentum))


def test_nesterov_brakes_before_momentum_does():
    gradients = [1, 1, 1, -1]
    plain = walk(optimizers.SGD, gradients, lr=1, momentum=0.5).diff()
    nesterov = walk(optimizers.SGD, gradients, lr=1, momentum=0.5, nesterov=True).diff()
    # Velocities 1, 1.5, 1.75, -0.125; Nesterov's steps are gradient + half the velocity.
    assert plain.tolist() == [-1, -1.5, -1.75, 0.125]
    assert nesterov.tolist() == [-1.5, -1.75, -1.875, 1.0625]


def test_adamws_decay_shrinks_all_weights_alike_and_adams_does_not():
    def weight(optimizer_class, gradient):
        return walk(optimizer_class, [gradient], start=1.0, lr=0.1, weight_decay=0.5)[-1].item()

    assert weight(optimizers.AdamW, 100.0) == pytest.approx(1 - 0.1 * 0.5 - 0.1)
    assert weight(optimizers.AdamW, 0.0) == pytest.approx(1 - 0.1 * 0.5)
    assert weight(optimizers.Adam, 100.0) == pytest.approx(1 - 0.1)


@given(st.floats(1e-3, 1e3))
def test_rprop_does_not_care_how_large_the_gradient_is(scale):
    signs = torch.tensor([1.0, 1, -1, -1, 1, 1, 1])
    assert torch.equal(walk(optimizers.Rprop, signs), walk(optimizers.Rprop, signs * scale))


def test_rprops_step_sizes_worked_by_hand():
    # 0.1; agrees: 0.12; turned: 0.06 and no step; no sign to compare with: 0.06; agrees: 0.072.
    steps = walk(optimizers.Rprop, [1, 1, -1, -1, -1], lr=0.1).diff()
    torch.testing.assert_close(steps, torch.tensor([-0.1, -0.12, 0, 0.06, 0.072]))


def test_asgd_keeps_the_average_of_its_path_after_t0():
    param = torch.nn.Parameter(torch.tensor(1.0))
    optimizer = optimizers.ASGD([param], lr=0.1, t0=4)
    path = []
    for step in range(20):
        param.grad = torch.tensor(math.sin(step))
        optimizer.step()
        path.append(param.item())
        kept = optimizer.state[param]["average"].item()
        tail = path[5:] or path[-1:]  # from step t0 + 2 on
        assert kept == pytest.approx(sum(tail) / len(tail))


def test_adadelta_does_not_care_about_the_gradients_unit():
    gradients = torch.tensor([1.0, -2, 3, 0.5, 1])
    once = walk(optimizers.Adadelta, gradients, eps=1e-30)
    scaled = walk(optimizers.Adadelta, 1000 * gradients, eps=1e-30)
    torch.testing.assert_close(once[1:] / once[1], scaled[1:] / scaled[1], rtol=1e-6, atol=0)


def test_radam_starts_as_momentum_and_ends_as_adam():
    gradients = [1.0, 100.0, 1.0]
    assert walk(optimizers.RAdam, gradients, lr=1).diff()[:2].tolist() == pytest.approx(
        [-1, -(0.9 * 0.1 * 1 + 0.1 * 100) / (1 - 0.81)]
    )
    many = torch.sin(torch.arange(8000.0)) + 1.5
    radam, adam = (walk(c, many, lr=1).diff()[-1] for c in (optimizers.RAdam, optimizers.Adam))
    assert radam.item() == pytest.approx(adam.item(), rel=0.02)


def test_asgd_is_judged_at_its_average_if_it_has_one():
    # From t0 on, the average is the plain mean of the path; by default t0 is never reached.
    for t0 in (0, 1e6):
        param = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
        optimizer = optimizers.ASGD([param], lr=0.1, lambd=0.0, t0=t0)
        optimizer.train()
        path = []
        for _ in range(9):
            optimizer.zero_grad()
            param.square().sum().backward()
            optimizer.step()
            path.append(param.detach().clone())
        for _ in range(2):  # a second call changes nothing
            optimizer.eval()
            mean = torch.stack(path[1:]).mean(0) if t0 == 0 else path[-1]
            torch.testing.assert_close(param.detach(), mean)
        for _ in range(2):
            optimizer.train()
            assert torch.equal(param.detach(), path[-1])

"""The optimizers that torch has not: against their authors' packages, and facts about them.

What every rule has to keep (files, copies, closures, groups, empty and absent gradients) is tested
over all of them in test_optimizers.py and test_check_optimizer.py.
"""

import inspect
import itertools
import math
import pydoc
from functools import partial
from types import SimpleNamespace
from unittest import mock

import prodigyopt
import pytest
import pytorch_optimizer
import schedulefree
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pytorch_optimizer.optimizer import soap
from steps import assert_same_steps, default_dtype, run_steps, walk
from torch.func import vmap
from torch.optim.lr_scheduler import CosineAnnealingLR, StepLR

import optimizers
from optimizers.after_adam import Cautious

TORCHS = [name for name in optimizers.__all__ if hasattr(torch.optim, name)]
NAMES = [name for name in optimizers.__all__ if name not in [*TORCHS, "UpdateRule"]]


@pytest.fixture(autouse=True)
def _float64():
    with default_dtype(torch.float64):
        yield


# ---------------------------------------------------------------- the references


class SteppingSOAP(pytorch_optimizer.SOAP):
    """As its authors have it: the step that only looks is not counted, bases are in θ's dtype."""

    debias = staticmethod(lambda beta, step: 1 - beta ** (step - 1))

    def update_pre_conditioner(self, grad, state, step, **options):
        with mock.patch.object(soap, "torch", SimpleNamespace(**vars(torch) | DOUBLE)):
            super().update_pre_conditioner(grad, state, step - 1, **options)


DOUBLE = {"float32": torch.float64}


class PerGroup:
    """The authors' Prodigy for each param group: d is its own."""

    def __init__(self, groups, **options):
        groups = groups if isinstance(groups[0], dict) else [{"params": groups}]
        self.each = [prodigyopt.Prodigy([group], **options) for group in groups]
        self.param_groups = [one.param_groups[0] for one in self.each]

    def zero_grad(self):
        for one in self.each:
            one.zero_grad()

    def step(self):
        for one in self.each:
            one.step()


def apply_cautious(update, grad):
    """As the authors' package has it; pytorch_optimizer has the paper's."""
    mask = (update * grad > 0).to(grad.dtype)
    update.mul_(mask / mask.mean().clamp(min=1e-3))


class CautiousLion(Cautious, optimizers.Lion):
    pass


class CautiousADOPT(Cautious, optimizers.ADOPT):
    pass


def in_training(optimizer_class):
    def make(params, **options):
        optimizer = optimizer_class(params, foreach=False, **options)
        optimizer.train()
        return optimizer

    return make


def ademamix(params, alpha_warmup=None, beta3_warmup=None, **options):
    assert alpha_warmup == beta3_warmup  # it has one number for both
    options = {"alpha": 2.0, "weight_decouple": True, "t_alpha_beta3": alpha_warmup} | options
    return pytorch_optimizer.AdEMAMix(params, **options)


def adopt(params, decoupled_weight_decay=False, **options):
    options |= {"weight_decouple": decoupled_weight_decay}
    return pytorch_optimizer.ADOPT(params, clip_lambda=lambda t: (t - 1) ** 0.25, **options)


def prodigy(params, decoupled_weight_decay=True, **options):
    return PerGroup(params, decouple=decoupled_weight_decay, **options)


def soap_of(params, max_precond_dim=10000, shampoo_beta=-1, **options):
    beta = shampoo_beta if shampoo_beta >= 0 else None
    return SteppingSOAP(params, max_precondition_dim=max_precond_dim, shampoo_beta=beta, **options)


class MaskedAdamW(torch.optim.AdamW):
    """AdamW whose step is masked afterwards, from the positions before and after."""

    @torch.no_grad()
    def step(self):
        decayed = [
            param * (1 - group["lr"] * group["weight_decay"])
            for group in self.param_groups
            for param in group["params"]
        ]
        super().step()
        params = [param for group in self.param_groups for param in group["params"]]
        for param, start in zip(params, decayed, strict=True):
            update = start - param
            sign = -1 if self.param_groups[0]["maximize"] else 1
            apply_cautious(update, sign * param.grad)
            param.copy_(start - update)


REFERENCES = {
    "Lion": pytorch_optimizer.Lion,
    "AdEMAMix": ademamix,
    "ADOPT": adopt,
    "CautiousAdamW": partial(MaskedAdamW, foreach=False),
    "SGDScheduleFree": in_training(schedulefree.SGDScheduleFree),
    "AdamWScheduleFree": in_training(schedulefree.AdamWScheduleFree),
    "Prodigy": prodigy,
    "SOAP": soap_of,
}


# Rates at which nothing diverges. SOAP's first bases are kept: where gradients are 0 in some
# direction, as in these nets, what is in the later ones is no more than rounding.
USUAL = {
    "SGDScheduleFree": {"lr": 0.1},
    "SOAP": {"precondition_frequency": 100},
}


def of_reference(name, **options):
    return lambda params: REFERENCES[name](params, **USUAL.get(name, {}) | options)


def of_ours(name, **options):
    return lambda params: getattr(optimizers, name)(params, **USUAL.get(name, {}) | options)


def matrix_walk(make, gradients, start):
    matrix = torch.nn.Parameter(start.clone())
    optimizer, path = make([matrix]), []
    for grad in gradients:
        matrix.grad = grad.clone()
        optimizer.step()
        path.append(matrix.detach().clone())
    return torch.stack(path)


def some_matrices(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_there_is_a_reference_for_each():
    assert set(REFERENCES) == set(NAMES)


betas = st.tuples(st.floats(0.1, 0.99), st.floats(0.5, 0.9999))
epsilons = st.sampled_from([1e-8, 1e-3])
decays = st.sampled_from([0, 0.01, 0.3])
averaging = {
    "warmup_steps": st.sampled_from([0, 1, 7, 40]),
    "r": st.sampled_from([0.0, 2.5]),
    "weight_lr_power": st.sampled_from([0.0, 1.0, 2.0]),
}
adamw = {"betas": betas, "eps": epsilons, "weight_decay": decays}

OPTIONS = {
    "Lion": {"betas": betas, "weight_decay": decays},
    "AdEMAMix": adamw
    | {
        "betas": st.tuples(st.floats(0.1, 0.99), st.floats(0.5, 0.9999), st.floats(0.99, 0.99999)),
        "alpha": st.sampled_from([0.0, 2.0, 8.0]),
        "alpha_warmup": st.sampled_from([None, 1, 10, 100]),
        "beta3_warmup": st.none(),
    },
    "ADOPT": adamw | {"decoupled_weight_decay": st.booleans()},
    "CautiousAdamW": adamw | {"amsgrad": st.booleans()},
    "SGDScheduleFree": {"momentum": st.floats(0.05, 0.99), "weight_decay": decays} | averaging,
    "AdamWScheduleFree": adamw | averaging,
    "Prodigy": adamw
    | {
        "lr": st.sampled_from([1.0, 0.5]),
        "beta3": st.none() | st.floats(0.5, 0.999),
        "decoupled_weight_decay": st.booleans(),
        "use_bias_correction": st.booleans(),
        "safeguard_warmup": st.booleans(),
        "d0": st.sampled_from([1e-6, 1e-3, 0.1]),
        "d_coef": st.sampled_from([1.0, 0.5, 2.0]),
        "growth_rate": st.sampled_from([math.inf, 1.02, 2.0]),
    },
    "SOAP": adamw
    | {
        "shampoo_beta": st.sampled_from([-1, 0.6, 0.99]),
        "precondition_frequency": st.sampled_from([1, 3, 10]),
        "max_precond_dim": st.sampled_from([10000, 3, 1]),
        "precondition_1d": st.booleans(),
    },
}


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=6)
@given(data=st.data())
def test_equal_to_the_reference_with_any_options(name, data):
    kinds = {"lr": st.floats(1e-4, 0.1)} | OPTIONS[name]
    options = data.draw(st.fixed_dictionaries({}, optional=kinds))
    if name == "AdEMAMix":
        options["beta3_warmup"] = options.get("alpha_warmup")
    options.pop("precondition_frequency", None)  # see USUAL, and below
    seed = data.draw(st.integers(0, 9))
    ours, reference = of_ours(name, **options), of_reference(name, **options)
    assert_same_steps(ours, reference, tolerance=1e-6, seed=seed)


OTHERS = {
    "lr": 0.05, "maximize": True, "betas": (0.2, 0.7), "eps": 0.1, "weight_decay": 0.1,
    "decoupled_weight_decay": True, "amsgrad": True, "alpha": 7.0, "alpha_warmup": 30,
    "beta3_warmup": 30, "momentum": 0.5, "warmup_steps": 9, "r": 1.0, "weight_lr_power": 0.5,
    "beta3": 0.5, "use_bias_correction": True, "safeguard_warmup": True, "d0": 0.01, "d_coef": 0.7,
    "growth_rate": 1.05, "shampoo_beta": 0.5, "precondition_frequency": 2, "max_precond_dim": 2,
    "precondition_1d": True,
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_each_option_is_drawn_and_means_something(name):
    parameters = inspect.signature(getattr(optimizers, name)).parameters
    assert set(parameters) - {"params", "lr", "maximize"} == set(OPTIONS[name]) - {"lr"}
    others = OTHERS | ({"betas": (0.2, 0.7, 0.9)} if name == "AdEMAMix" else {})
    others |= {"decoupled_weight_decay": False} if name == "Prodigy" else {}
    company = {"lr": 0.02} | ({"betas": (0.9, 0.5)} if name == "CautiousAdamW" else {})
    company |= {"warmup_steps": 3} if "ScheduleFree" in name else {}  # the weights are not equal
    company |= {"lr": 0.9, "d0": 1e-3} if name == "Prodigy" else {}  # so it grows soon
    company |= {"weight_decay": 0.01} if "decoupled_weight_decay" in parameters else {}
    plain = run_steps(of_ours(name, **company), steps=8)
    for option in set(parameters) - {"params"}:
        other = run_steps(of_ours(name, **(company | {option: others[option]})), steps=8)
        assert not torch.equal(plain, other), option


@settings(max_examples=6)
@example(options={"precondition_frequency": 1}, shape=(4, 3), seed=0)
@given(
    options=st.fixed_dictionaries({}, optional=OPTIONS["SOAP"]),
    shape=st.sampled_from([(4, 3), (3, 4), (2, 3, 2), (3,)]),
    seed=st.integers(0, 9),
)
def test_soaps_later_bases_are_the_references(options, shape, seed):
    if shape == (3,) and options.get("precondition_frequency") == 1:
        options["precondition_frequency"] = 2  # after two gradients, products have no third axis
    gradients, start = some_matrices(25, *shape, seed=seed), some_matrices(*shape, seed=seed + 1)
    ours, reference = (
        matrix_walk(partial(make, **options), gradients, start)
        for make in (optimizers.SOAP, soap_of)
    )
    torch.testing.assert_close(ours, reference, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_help_shows_the_signature(name):
    ours = getattr(optimizers, name)
    page = pydoc.render_doc(ours, renderer=pydoc.plaintext)
    for parameter in inspect.signature(ours).parameters.values():
        assert parameter.annotation is not parameter.empty
        assert str(parameter) in page


@pytest.mark.parametrize(
    ("package", "name", "renamed", "missing"),
    [
        (schedulefree, "SGDScheduleFree", {}, {"foreach"}),
        (schedulefree, "AdamWScheduleFree", {}, {"foreach"}),
        (
            prodigyopt,
            "Prodigy",
            {"decouple": "decoupled_weight_decay"},
            {"fsdp_in_use", "slice_p"},
        ),
    ],
)
def test_arguments_are_the_authors(package, name, renamed, missing):
    """By name, order and default; all of them, but for those that the docstring calls missing."""

    def arguments(cls):
        found = inspect.signature(cls).parameters.values()
        return [(renamed.get(one.name, one.name), one.default) for one in found]

    theirs = [one for one in arguments(getattr(package, name)) if one[0] not in missing]
    assert arguments(getattr(optimizers, name)) == [*theirs, ("maximize", False)]


@pytest.mark.parametrize("name", NAMES)
def test_a_learning_rate_may_be_a_0_dim_tensor(name):
    assert_same_steps(of_ours(name, lr=torch.tensor(0.01)), of_ours(name, lr=0.01))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "schedule",
    [
        lambda optimizer: StepLR(optimizer, 4, gamma=0.3),
        lambda optimizer: CosineAnnealingLR(optimizer, 40),
    ],
)
def test_learning_rate_schedules(name, schedule):
    def scheduled(make):
        def build(params):
            optimizer = make(params)
            inner = optimizer.each[0] if isinstance(optimizer, PerGroup) else optimizer
            scheduler = schedule(inner)
            step_outside = optimizer.step

            def step_both():  # a hook of torch's runs twice where a step calls super's
                step_outside()
                scheduler.step()

            return SimpleNamespace(step=step_both, zero_grad=optimizer.zero_grad)

        return build

    assert_same_steps(scheduled(of_ours(name)), scheduled(of_reference(name)), tolerance=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_param_groups_have_their_own_hyperparameters(name):
    def grouped(make):
        return lambda params: make(
            [
                {"params": params[:2], "lr": 0.05},
                {"params": params[2:4], "weight_decay": 0.2},
                {"params": params[4:], "lr": 0.003},
            ]
        )

    assert_same_steps(grouped(of_ours(name)), grouped(of_reference(name)), tolerance=1e-6)


def test_float32_stays_float32():
    for name in NAMES:
        ours, reference = (
            run_steps(of(name), dtype=torch.float32, steps=12) for of in (of_ours, of_reference)
        )
        assert ours.dtype == torch.float32
        assert ours.isfinite().all()
        if name != "SOAP":  # whose bases of eigenvalues near 0 are, in float32, rounding errors
            torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_configurations_of_pytorchs_optimizer_database(name):
    """Those of all its optimizers whose keywords ours takes, too; each once."""
    from torch.testing._internal.common_optimizers import optim_db  # slow to import

    takes = inspect.signature(getattr(optimizers, name)).parameters
    every = [one.kwargs for info in optim_db for one in info.optim_inputs_func(device="cpu")]
    fitting = [one for one in every if set(one) <= set(takes) and len(one.get("betas", "12")) == 2]
    distinct = {repr(sorted(one.items())): one for one in fitting}.values()
    for options in distinct:
        ours = of_ours(name, **options)
        others = {key: plain(value) for key, value in options.items() if key != "maximize"}
        make = of_reference(name, **others)
        assert_same_steps(ours, uphill(make) if options.get("maximize") else make, tolerance=1e-6)
    assert len(distinct) >= 10


def plain(value):
    return value.item() if isinstance(value, torch.Tensor) else value


def uphill(make):
    """Return what makes such an optimizer, which sees gradients of the other sign."""

    def build(params):
        optimizer = make(params)
        step = optimizer.step

        def turned():
            for param in params:
                param.grad = -param.grad
            step()

        optimizer.step = turned
        return optimizer

    return build


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *[(name, {"lr": lr}) for name in NAMES for lr in (-1, math.nan, torch.tensor([1.0, 2.0]))],
        *[(name, {"weight_decay": -1}) for name in NAMES],
        *[(name, {"eps": -1}) for name in NAMES if "eps" in OPTIONS[name]],
        *[(name, {"betas": (1, 0.9)}) for name in NAMES if "betas" in OPTIONS[name]],
        ("AdEMAMix", {"betas": (0.9, 0.9, 1.0)}),
        ("AdEMAMix", {"alpha": -1}),
        ("SGDScheduleFree", {"momentum": 0}),
        ("SGDScheduleFree", {"momentum": 1}),
        ("AdamWScheduleFree", {"betas": (0, 0.9)}),
        ("Prodigy", {"d0": 0}),
        ("Prodigy", {"beta3": 1}),
        ("Prodigy", {"beta3": -0.1}),
        ("SOAP", {"shampoo_beta": 1}),
        ("SOAP", {"precondition_frequency": 0}),
    ],
)
def test_values_out_of_range_are_named_and_refused(name, options):
    (key,) = options
    with pytest.raises(ValueError, match=f"Invalid {key}"):
        getattr(optimizers, name)([torch.nn.Parameter(torch.ones(1, 1))], **options)


# ---------------------------------------------------------------- many nets at once


def numbers_and_tensors(state):
    tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
    return {key: value for key, value in state.items() if key not in tensors}, tensors


def mapped_step(rule, params, grads, states, lrs):
    """Take a step of each row of these, by `vmap`, at a rate of its own."""
    numbers = [numbers_and_tensors(state)[0] for state in states]
    kept = []

    def step(params, grads, tensors, lr):
        params = [param.clone() for param in params]
        own = [{**number, **tensor} for number, tensor in zip(numbers, tensors, strict=True)]
        rule.step_group(params, grads, own, rule.param_groups[0] | {"lr": lr})
        kept[:] = [numbers_and_tensors(state)[0] for state in own]
        return params, [numbers_and_tensors(state)[1] for state in own]

    tensors = [numbers_and_tensors(state)[1] for state in states]
    params, tensors = vmap(step)(params, grads, tensors, lrs)
    return params, [{**number, **tensor} for number, tensor in zip(kept, tensors, strict=True)]


VARIANTS = [(name, {}) for name in NAMES] + [
    ("SOAP", {"precondition_frequency": 3, "precondition_1d": True}),
    ("Prodigy", {"growth_rate": 1.5, "use_bias_correction": True, "weight_decay": 0.1}),
    ("AdamWScheduleFree", {"warmup_steps": 4, "weight_decay": 0.1}),
    ("AdEMAMix", {"alpha_warmup": 5, "beta3_warmup": 5}),
]


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_five_nets_at_once_are_as_five_alone(name, options):
    """By `torch.func.vmap` over the formula, each with its own lr."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(5, 3, 4), (5, 3), (5,)]
    params = [torch.randn(shape, generator=generator) for shape in shapes]
    lrs = torch.logspace(-3, -1, 5)
    alone = [[param[k].clone().requires_grad_() for param in params] for k in range(5)]
    rules = [
        getattr(optimizers, name)(one, lr=lr.item(), **options)
        for one, lr in zip(alone, lrs, strict=True)
    ]
    states = [{} for _ in params]
    for _ in range(6):
        grads = [torch.randn(shape, generator=generator) + 0.3 for shape in shapes]
        params, states = mapped_step(rules[0], params, grads, states, lrs)
        for k, rule in enumerate(rules):
            for param, grad in zip(alone[k], grads, strict=True):
                param.grad = grad[k]
            rule.step()
    for k in range(5):
        for param, one in zip(params, alone[k], strict=True):
            torch.testing.assert_close(param[k], one.detach(), rtol=1e-9, atol=1e-12)


# ---------------------------------------------------------------- facts: after Adam


@given(st.floats(1e-5, 1e5), st.floats(1e-4, 1))
def test_each_element_of_lions_step_has_length_lr(size, lr):
    signs = [1, -1, -1, 1, 1, -1]
    steps = walk(optimizers.Lion, [size * sign for sign in signs], lr=lr).diff()
    torch.testing.assert_close(steps.abs(), torch.full_like(steps, lr))


def test_lions_newest_gradient_counts_more_in_the_step_than_in_its_memory():
    # m is 1, 1.98, 2.9602 hundredths; 0.9·m + 0.1·g is below 0 for g = -0.27, and not for -0.26.
    for last, way in ((-0.27, 0.1), (-0.26, -0.1)):
        assert walk(optimizers.Lion, [1, 1, 1, last], lr=0.1).diff()[-1].item() == pytest.approx(
            way
        )


def test_ademamix_without_its_slow_average_is_adamw():
    options = {"lr": 0.01, "weight_decay": 0.3}
    assert_same_steps(of_ours("AdEMAMix", alpha=0, **options), of_ours("AdamW", **options))


def test_ademamix_goes_on_for_thousands_of_steps_after_the_gradients_end():
    gradients = [1.0] * 100 + [0.0] * 400
    ends = {}
    for rule in (optimizers.AdEMAMix, optimizers.AdamW):
        path = walk(rule, gradients, lr=0.01, weight_decay=0)
        ends[rule] = -(path[-1] - path[-101]).item()
    # s is 1 - 0.9999¹⁰⁰, and hardly fades; √v̂ falls from 1 to √((1 - 0.999¹⁰⁰)/(1 - 0.999⁵⁰⁰)).
    assert ends[optimizers.AdEMAMix] > 0.01
    assert abs(ends[optimizers.AdamW]) < 1e-6


@pytest.mark.parametrize(
    ("options", "third"),
    [
        # Under a constant gradient m̂/√v̂ is 1: what is left is alpha times the slow average.
        ({}, 2 * (1 - 0.9**3)),
        ({"alpha_warmup": 6}, 1 * (1 - 0.9**3)),
        # The memory, -1/ln β, grows from 1 to 9 steps in 4: to 3, 5 and 7 by now.
        ({"beta3_warmup": 4}, 2 * (1 - math.exp(-1 / 3 - 1 / 5 - 1 / 7))),
        ({"beta3_warmup": 2}, 2 * (1 - math.exp(-1 / 5 - 1 / 9 - 1 / 9))),
    ],
)
def test_each_warm_up_of_ademamix_by_hand(options, third):
    betas = (math.exp(-1), 0.99, math.exp(-1 / 9) if "beta3_warmup" in options else 0.9)
    steps = walk(optimizers.AdEMAMix, [1.0] * 3, lr=0.1, eps=0, betas=betas, **options).diff()
    assert steps[-1].item() == pytest.approx(-0.1 * (1 + third))


def test_ademamix_may_have_no_fast_average_at_all():
    # β1 = 0 has no memory: that of s grows from nothing to 9 steps in 2, and so is 4.5 and 9.
    betas = (0.0, 0.99, math.exp(-1 / 9))
    steps = walk(
        optimizers.AdEMAMix, [1.0] * 2, lr=0.1, eps=0, betas=betas, alpha=1.0, beta3_warmup=2
    ).diff()
    assert steps[-1].item() == pytest.approx(-0.1 * (2 - math.exp(-2 / 9 - 1 / 9)))


def test_adopt_looks_first_and_then_divides_by_what_it_saw():
    steps = walk(optimizers.ADOPT, [4.0, 2.0, 100.0], lr=0.1, betas=(0.5, 0.75)).diff()
    # v is 16, then 0.75·16 + 0.25·4 = 13; 100/√13 is cut off at 2^¼, and the average halves.
    assert steps.tolist() == pytest.approx([0, -0.1 * 0.25, -0.1 * (0.125 + 2**0.25 / 2)])


def test_adam_climbs_where_adopt_goes_down():
    """One gradient in three is 3, the others are -1: the loss falls downwards, at any β2."""
    gradients = [3.0, -1.0, -1.0] * 100
    adam, adopt = (
        walk(rule, gradients, lr=0.01, betas=(0.0, 0.1))[-1].item()
        for rule in (optimizers.Adam, optimizers.ADOPT)
    )
    assert adam > 0.5
    assert adopt < -0.5


# ---------------------------------------------------------------- facts: caution


@pytest.mark.parametrize(
    ("ours", "reference"), [(CautiousLion, pytorch_optimizer.Lion), (CautiousADOPT, adopt)]
)
@pytest.mark.parametrize("weight_decay", [0, 0.1])
def test_any_rule_can_be_cautious(ours, reference, weight_decay):
    options = {"lr": 0.01, "weight_decay": weight_decay}
    if ours is CautiousADOPT:
        options["decoupled_weight_decay"] = True
    static = staticmethod(apply_cautious)
    with mock.patch.object(
        pytorch_optimizer.base.optimizer.BaseOptimizer, "apply_cautious", static
    ):
        assert_same_steps(
            partial(ours, **options), partial(reference, cautious=True, **options), tolerance=1e-6
        )


def test_a_cautious_step_never_goes_against_the_gradient():
    generator = torch.Generator().manual_seed(0)
    param = torch.nn.Parameter(torch.zeros(50))
    optimizer = optimizers.CautiousAdamW([param], lr=0.1, weight_decay=0)
    plain = torch.nn.Parameter(torch.zeros(50))
    other = optimizers.AdamW([plain], lr=0.1, weight_decay=0)
    for _ in range(9):
        before, unmasked = param.detach().clone(), plain.detach().clone()
        param.grad = plain.grad = torch.randn(50, generator=generator)
        optimizer.step()
        other.step()
        step, whole = param.detach() - before, plain.detach() - unmasked
        assert (step * param.grad <= 0).all()
        stays = whole * param.grad > 0
        assert torch.equal(step == 0, stays)
        torch.testing.assert_close(step[~stays] * (~stays).sum() / 50, whole[~stays])


# ---------------------------------------------------------------- facts: no schedule


def descent_of_a_parabola(optimizer, param, steps=9):
    """Return where the parameter was at each step, the gradient's place, and z after it."""
    places, ends = [], []
    for _ in range(steps):
        places.append(param.detach().clone())
        param.grad = 2 * param.detach()
        optimizer.step()
        ends.append(optimizer.state[param]["z"].clone())
    return torch.stack(places), torch.stack(ends)


@pytest.mark.parametrize("rule", ["SGDScheduleFree", "AdamWScheduleFree"])
def test_schedule_free_is_judged_at_the_average_of_its_points_z(rule):
    param = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = getattr(optimizers, rule)([param], lr=0.1)
    optimizer.eval()  # before the first step there is nothing to put there
    optimizer.train()
    places, ends = descent_of_a_parabola(optimizer, param)
    last = param.detach().clone()
    for _ in range(2):  # twice is as once
        optimizer.eval()
        torch.testing.assert_close(param.detach(), ends.mean(0))
    for _ in range(2):
        optimizer.train()
        assert torch.equal(param.detach(), last)
    for k in range(1, len(places)):  # gradients are taken a tenth of the way from x to z
        torch.testing.assert_close(places[k], 0.9 * ends[:k].mean(0) + 0.1 * ends[k - 1])


def test_its_average_counts_a_warm_up_less():
    """Each point z has the square of the largest rate until then for a weight."""
    param = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = optimizers.SGDScheduleFree([param], lr=0.1, warmup_steps=4)
    _, ends = descent_of_a_parabola(optimizer, param, steps=6)
    optimizer.eval()
    weights = torch.tensor([1.0, 4, 9, 16, 16, 16])
    torch.testing.assert_close(param.detach(), weights @ ends / weights.sum())


def test_a_rate_of_zero_does_no_harm():
    """A schedule may start there."""
    param = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = optimizers.SGDScheduleFree([param], lr=0.0)
    descent_of_a_parabola(optimizer, param, steps=2)
    torch.testing.assert_close(param.detach(), torch.tensor([1.0, -2.0]))
    optimizer.param_groups[0]["lr"] = 0.1
    descent_of_a_parabola(optimizer, param, steps=1)
    torch.testing.assert_close(param.detach(), 0.8 * torch.tensor([1.0, -2.0]))


def test_a_step_at_the_average_is_refused():
    param = torch.nn.Parameter(torch.ones(2))
    optimizer = optimizers.AdamWScheduleFree([param])
    param.grad = torch.ones(2)
    optimizer.step()
    optimizer.eval()
    with pytest.raises(RuntimeError, match=r"train\(\) before step"):
        optimizer.step()
    optimizer.train()
    optimizer.step()


def test_noise_that_keeps_sgd_away_averages_out():
    def distance(rule):
        generator = torch.Generator().manual_seed(0)
        param = torch.nn.Parameter(torch.ones(50))
        optimizer = rule([param], lr=1.0)
        for _ in range(300):
            param.grad = param.detach() + torch.randn(50, generator=generator)
            optimizer.step()
        getattr(optimizer, "eval", lambda: None)()
        return param.detach().norm().item()

    assert distance(optimizers.SGD) > 5 * distance(optimizers.SGDScheduleFree)


# ---------------------------------------------------------------- facts: Prodigy


def prodigys_d(distance, scale=1.0, steps=150, **options):
    """Return the d that is found on the way to points at this distance."""
    generator = torch.Generator().manual_seed(0)
    target = distance * torch.randn(20, generator=generator).sign()
    params = [torch.nn.Parameter(torch.zeros(size)) for size in (15, 5)]
    optimizer = optimizers.Prodigy(params, **options)
    for _ in range(steps):
        for param, goal in zip(params, target.split([15, 5]), strict=True):
            param.grad = scale * (param.detach() - goal)
        optimizer.step()
    ds = {state["d"].item() for state in optimizer.state.values()}
    assert len(ds) == 1  # all parameters have one
    return ds.pop()


@pytest.mark.parametrize("distance", [0.01, 1.0, 300.0])
def test_prodigy_finds_the_distance_whatever_it_is(distance):
    assert distance / 4 < prodigys_d(distance) < 1.5 * distance
    assert prodigys_d(distance, scale=100.0) == pytest.approx(prodigys_d(distance), rel=1e-3)


def test_prodigys_d_grows_no_faster_than_allowed_once_it_has_grown():
    found = [prodigys_d(1.0, steps=steps, growth_rate=1.5) for steps in range(1, 25)]
    ratios = [later / sooner for sooner, later in itertools.pairwise(found)]
    assert max(ratios[2:]) == pytest.approx(1.5)
    assert min(ratios) >= 1


def test_a_gradient_of_zero_leaves_prodigys_d_alone():
    param = torch.nn.Parameter(torch.ones(2))
    optimizer = optimizers.Prodigy([param])
    for _ in range(3):
        param.grad = torch.zeros(2)
        optimizer.step()
    assert optimizer.state[param]["d"].item() == 1e-6
    assert param.tolist() == [1, 1]


# ---------------------------------------------------------------- facts: SOAP


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 2), (5,)])
def test_soap_without_bases_is_adam_a_step_later(shape):
    gradients, start = some_matrices(12, *shape), some_matrices(*shape, seed=1)
    options = {"lr": 0.01, "betas": (0.9, 0.99), "eps": 1e-30}
    with_none = matrix_walk(
        of_ours("SOAP", max_precond_dim=0, weight_decay=0, **options), gradients, start
    )
    assert torch.equal(with_none[0], start)
    adam = matrix_walk(of_ours("Adam", **options), gradients[1:], start)
    torch.testing.assert_close(with_none[1:], adam)
    if len(shape) > 1:
        turned = matrix_walk(of_ours("SOAP", weight_decay=0, **options), gradients, start)
        assert (turned - with_none).norm() > 0.1 * (with_none - start).norm()


def test_soap_does_not_see_how_a_problem_is_turned_and_adam_does():
    generator = torch.Generator().manual_seed(2)
    u, v = (torch.linalg.qr(torch.randn(3, 3, generator=generator)).Q for _ in range(2))
    gradients, start = some_matrices(15, 3, 3), some_matrices(3, 3, seed=1)
    for name, sees in (("SOAP", False), ("Adam", True)):
        make = of_ours(name, lr=0.1, **({} if sees else {"precondition_frequency": 2}))
        path = matrix_walk(make, gradients, start)
        turned = matrix_walk(make, u @ gradients @ v.T, u @ start @ v.T)
        assert torch.allclose(turned, u @ path @ v.T, atol=1e-6) is not sees


def test_soaps_bases_become_the_eigenvectors():
    """Of the gradients' products; the largest eigenvalue first, in `second_moment` as well."""
    gradients = torch.tensor([1.0, 10.0, 3.0]).diag() @ some_matrices(400, 3, 3)
    matrix = torch.nn.Parameter(torch.zeros(3, 3))
    optimizer = optimizers.SOAP([matrix], precondition_frequency=2)
    for grad in gradients:
        matrix.grad = grad
        optimizer.step()
    state = optimizer.state[matrix]
    for dim in (0, 1):
        basis, products = state[f"basis_{dim}"], state[f"products_{dim}"]
        torch.testing.assert_close(basis.T @ basis, torch.eye(3))
    basis, products = state["basis_0"], state["products_0"]
    turned = basis.T @ products @ basis
    assert (turned - turned.diagonal().diag()).norm() < 0.2 * turned.norm()
    assert turned.diagonal().tolist() == sorted(turned.diagonal().tolist(), reverse=True)
    assert state["second_moment"].mean(1).argmax() == 0


# ---------------------------------------------------------------- what they keep


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("Lion", 1),
        ("AdEMAMix", 3),
        ("ADOPT", 2),
        ("CautiousAdamW", 2),
        ("SGDScheduleFree", 1),
        ("AdamWScheduleFree", 2),
        ("Prodigy", 4),
        ("SOAP", 2 + 4),
    ],
)
def test_memory_in_numbers_for_each_weight(name, numbers):
    """Of a square matrix; what is one number for all of it does not count."""
    matrix = torch.nn.Parameter(torch.ones(8, 8))
    optimizer = getattr(optimizers, name)([matrix])
    for grad in some_matrices(3, 8, 8):
        matrix.grad = grad
        optimizer.step()
    kept = [value for value in optimizer.state[matrix].values() if isinstance(value, torch.Tensor)]
    assert sum(value.numel() for value in kept if value.ndim) == numbers * 64

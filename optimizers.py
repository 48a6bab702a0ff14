"""Every update rule written out: what torch.optim computes, as the papers have it.

Each class stands in for the class of the same name in torch.optim, with the same arguments in the
same order and the same results, less its speed switches (foreach, fused, capturable,
differentiable). Read `UpdateRule` first, then any of them: a constructor and one formula.

In the formulas θ is a parameter, g its gradient, t the step counted from 1; products, squares and
roots are element by element. Hyperparameters are those of PyTorch's documentation.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

__all__ = [
    "ASGD",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Muon",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SparseAdam",
    "UpdateRule",
]

NOT_NEGATIVE = (
    "lr",
    "eps",
    "initial_accumulator_value",
    "lr_decay",
    "momentum",
    "momentum_decay",
    "weight_decay",
)


class UpdateRule(torch.optim.Optimizer):
    """The books that every optimizer keeps, so that a subclass is its formula, `update`.

    For each parameter that has a gradient, `step` counts the step, turns the gradient round where
    the group says `maximize`, adds its `weight_decay`, and calls `update`. Learning rates may be
    0-dim tensors. Gradients have to be real, and dense, or sparse where the rule `is_sparse`;
    others raise RuntimeError.
    """

    is_sparse = False

    def __init__(self, params: ParamsT, defaults: dict[str, Any]):
        """Take parameters or param groups, and every hyperparameter by name.

        Raises ValueError for a value out of range.
        """
        lr = defaults.get("lr")
        if isinstance(lr, Tensor) and lr.numel() != 1:
            raise ValueError(f"Invalid lr value: {lr} has not one element")
        for name in NOT_NEGATIVE:
            value = defaults.get(name, 0)
            parts = value if isinstance(value, tuple) else (value,)
            if not all(part is None or part >= 0 for part in parts):
                raise ValueError(f"Invalid {name} value: {value}")
        if not all(0 <= beta < 1 for beta in defaults.get("betas", ())):
            raise ValueError(f"Invalid betas value: {defaults['betas']}")
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Update every parameter that has a gradient; return the closure's loss, if one is given.

        The closure clears the gradients, computes the loss, calls its backward and returns it.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    self._step_one(param, param.grad, self.state[param], group)
        return loss

    def _step_one(self, param: Tensor, grad: Tensor, state: dict, group: dict) -> None:
        if grad.is_sparse != self.is_sparse or grad.is_complex():
            kind = "sparse" if self.is_sparse else "dense"
            raise RuntimeError(f"{type(self).__name__} takes {kind}, real gradients only")
        state["step"] = state.get("step", 0) + 1
        if group.get("maximize"):
            grad = -grad
        self.update(param, self.decay(param, grad, group), state, group)

    def decay(self, param: Tensor, grad: Tensor, group: dict) -> Tensor:
        """Return the gradient with the weight decay added, or shrink `param` by a decoupled one."""
        if weight_decay := group.get("weight_decay", 0):
            if not group.get("decoupled_weight_decay"):
                return grad + weight_decay * param
            param *= 1 - group["lr"] * weight_decay
        return grad

    def update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict) -> None:
        """Change `param` in place (`param -= ...`), given its gradient.

        `state` is the parameter's own memory: its `step`, and whatever the rule keeps there.
        `group` holds the hyperparameters.
        """
        raise NotImplementedError


class SGD(UpdateRule):
    """Stochastic gradient descent, with momentum and Nesterov's momentum if asked for.

        plain       θ ← θ - lr·g
        momentum    v ← momentum·v + (1 - dampening)·g,    θ ← θ - lr·v
        Nesterov    v as above,                            θ ← θ - lr·(g + momentum·v)

    The velocity v starts as the first gradient. Momentum answers plain descent's zigzag across a
    narrow valley: steps that alternate cancel and steps that agree add up, to 1/(1 - momentum)
    times their length. Nesterov's looks ahead along the velocity and so brakes earlier.

    Robbins and Monro, "A Stochastic Approximation Method", 1951; Polyak, "Some methods of speeding
    up the convergence of iteration methods", 1964; Nesterov, 1983, in the form of Sutskever et
    al., "On the importance of initialization and momentum in deep learning", ICML 2013.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ):
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError(
                f"Nesterov momentum needs momentum above 0 and dampening 0, "
                f"not {momentum} and {dampening}"
            )
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "maximize": maximize,
            },
        )

    def update(self, param, grad, state, group):
        momentum = group["momentum"]
        direction = grad
        if momentum != 0:
            if "velocity" in state:
                velocity = momentum * state["velocity"] + (1 - group["dampening"]) * grad
            else:
                velocity = grad.clone()
            state["velocity"] = velocity
            direction = grad + momentum * velocity if group["nesterov"] else velocity
        param -= group["lr"] * direction


class Adagrad(UpdateRule):
    """A learning rate for each element, smaller the more gradient it has seen.

        s ← s + g²                                  s starts at initial_accumulator_value
        θ ← θ - lr / (1 + (t-1)·lr_decay) · g / (√s + eps)

    It answers momentum's one learning rate for all: elements with rare or small gradients move as
    fast as the others, which suits sparse features and ill-conditioned valleys.

    Duchi, Hazan and Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic
    Optimization", JMLR 12, 2011.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ):
        super().__init__(
            params,
            {
                "lr": lr,
                "lr_decay": lr_decay,
                "weight_decay": weight_decay,
                "initial_accumulator_value": initial_accumulator_value,
                "eps": eps,
                "maximize": maximize,
            },
        )

    def update(self, param, grad, state, group):
        lr = group["lr"] / (1 + (state["step"] - 1) * group["lr_decay"])
        state["sum"] = state.get("sum", group["initial_accumulator_value"]) + grad**2
        param -= lr * grad / (state["sum"].sqrt() + group["eps"])


class RMSprop(UpdateRule):
    """Adagrad with a memory that fades, so that its steps do not die out.

        s ← alpha·s + (1 - alpha)·g²
        centered    m ← alpha·m + (1 - alpha)·g,  and √(s - m²) in place of √s below
        θ ← θ - lr·g / (√s + eps)
        momentum    b ← momentum·b + g / (√s + eps),  θ ← θ - lr·b

    It answers Adagrad's ever growing sum: an average over about the last 1/(1 - alpha) steps
    forgets, so that the learning rate recovers when the gradients become small.

    Tieleman and Hinton, "Neural Networks for Machine Learning", Coursera lecture 6e, 2012;
    centered: Graves, "Generating Sequences With Recurrent Neural Networks", arXiv:1308.0850, 2013.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ):
        if not alpha >= 0:
            raise ValueError(f"Invalid alpha value: {alpha}")
        super().__init__(
            params,
            {
                "lr": lr,
                "alpha": alpha,
                "eps": eps,
                "weight_decay": weight_decay,
                "momentum": momentum,
                "centered": centered,
                "maximize": maximize,
            },
        )

    def update(self, param, grad, state, group):
        alpha, momentum = group["alpha"], group["momentum"]
        second_moment = alpha * state.get("second_moment", 0) + (1 - alpha) * grad**2
        state["second_moment"] = variance = second_moment
        if group["centered"]:
            state["first_moment"] = alpha * state.get("first_moment", 0) + (1 - alpha) * grad
            variance = second_moment - state["first_moment"] ** 2
        direction = grad / (variance.sqrt() + group["eps"])
        if momentum > 0:
            state["velocity"] = direction = momentum * state.get("velocity", 0) + direction
        param -= group["lr"] * direction


class Adadelta(UpdateRule):
    """RMSprop whose steps are measured by the steps before them, and need no tuned lr.

        s ← rho·s + (1 - rho)·g²
        Δ = √(d + eps) / √(s + eps) · g
        d ← rho·d + (1 - rho)·Δ²
        θ ← θ - lr·Δ

    It answers Adagrad's decay as RMSprop does, and besides gives the step the unit of the
    parameter, not that of lr: with lr = 1 there is none to choose.

    Zeiler, "ADADELTA: An Adaptive Learning Rate Method", arXiv:1212.5701, 2012.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
    ):
        if not 0 <= rho <= 1:
            raise ValueError(f"Invalid rho value: {rho}")
        super().__init__(
            params,
            {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize},
        )

    def update(self, param, grad, state, group):
        rho, eps = group["rho"], group["eps"]
        squared_grad = rho * state.get("squared_grad", 0) + (1 - rho) * grad**2
        squared_delta = state.get("squared_delta", 0)
        delta = ((squared_delta + eps) / (squared_grad + eps)).sqrt() * grad
        state["squared_grad"] = squared_grad
        state["squared_delta"] = rho * squared_delta + (1 - rho) * delta**2
        param -= group["lr"] * delta


class Adam(UpdateRule):
    """Momentum and RMSprop joined, with their slow start corrected.

        m ← β1·m + (1 - β1)·g,       m̂ = m / (1 - β1ᵗ)
        v ← β2·v + (1 - β2)·g²,      v̂ = v / (1 - β2ᵗ)
        θ ← θ - lr·m̂ / (√v̂ + eps)
        amsgrad    the largest v so far in place of v

    It answers RMSprop's lack of momentum and its first steps, where an average that starts at 0
    is still far too small: the first step has length lr whatever the gradient's scale.

    Kingma and Ba, "Adam: A Method for Stochastic Optimization", arXiv:1412.6980, 2014; amsgrad:
    Reddi, Kale and Kumar, "On the Convergence of Adam and Beyond", arXiv:1904.09237, 2018.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
    ):
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "amsgrad": amsgrad,
                "maximize": maximize,
                "decoupled_weight_decay": decoupled_weight_decay,
            },
        )

    def update(self, param, grad, state, group):
        beta1, beta2 = group["betas"]
        m, v = moments(grad, state, beta1, beta2)
        if group["amsgrad"]:
            v = torch.maximum(state.get("largest_second_moment", v), v)
            state["largest_second_moment"] = v
        m_hat = m / (1 - beta1 ** state["step"])
        v_hat = v / (1 - beta2 ** state["step"])
        param -= group["lr"] * m_hat / (v_hat.sqrt() + group["eps"])


def moments(grad: Tensor, state: dict, beta1: float, beta2: float) -> tuple[Tensor, Tensor]:
    """Update Adam's moments in `state`, averages of g and of g² that fade; return both."""
    state["first_moment"] = beta1 * state.get("first_moment", 0) + (1 - beta1) * grad
    state["second_moment"] = beta2 * state.get("second_moment", 0) + (1 - beta2) * grad**2
    return state["first_moment"], state["second_moment"]


class AdamW(Adam):
    """Adam whose weight decay shrinks the weights and leaves the gradient alone.

        θ ← θ - lr·weight_decay·θ,    then Adam's step

    It answers Adam's way with weight decay, which, added to the gradient, is divided by √v̂ too
    and so hardly holds back the weights whose gradients are large.

    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", arXiv:1711.05101, 2017.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ):
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            maximize=maximize,
            decoupled_weight_decay=True,
        )


class SparseAdam(UpdateRule):
    """Adam for sparse gradients, which moves only the elements that a gradient names.

        for those    Adam's step, its eps added to √v before the correction:
                     θ ← θ - lr·√(1 - β2ᵗ)/(1 - β1ᵗ) · m / (√v + eps)
        all others   θ, m and v stay as they are

    It answers Adam's cost on a large embedding (`nn.Embedding(..., sparse=True)`), of which a
    mini-batch touches a few rows: Adam works on all of them at each step, and moves them all, as
    their momentum goes on. Here a row that is not touched rests. t counts steps, not touches.

    PyTorch's form of Kingma and Ba's (see Adam). Gradients that are not sparse raise RuntimeError.
    """

    is_sparse = True

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        maximize: bool = False,
    ):
        for name, value in {"lr": lr, "eps": eps}.items():
            if isinstance(value, float | int) and value == 0:
                raise ValueError(f"Invalid {name} value: {value}")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "maximize": maximize})
        for group in self.param_groups:
            for param in group["params"]:
                if param.is_sparse or param.is_complex():
                    raise ValueError("SparseAdam takes dense, real parameters only")

    def update(self, param, grad, state, group):
        beta1, beta2 = group["betas"]
        grad = grad.coalesce()  # every element once
        named, g = tuple(grad.indices()), grad.values()
        m = state.setdefault("first_moment", torch.zeros_like(param))
        v = state.setdefault("second_moment", torch.zeros_like(param))
        m[named] = beta1 * m[named] + (1 - beta1) * g
        v[named] = beta2 * v[named] + (1 - beta2) * g**2
        correction = math.sqrt(1 - beta2 ** state["step"]) / (1 - beta1 ** state["step"])
        param[named] -= group["lr"] * correction * m[named] / (v[named].sqrt() + group["eps"])


class Adamax(UpdateRule):
    """Adam with the largest gradient, fading, in place of the root mean square.

        m ← β1·m + (1 - β1)·g
        u ← max(β2·u, |g| + eps)
        θ ← θ - lr / (1 - β1ᵗ) · m / u

    It answers Adam's second moment where gradients are rare and large: a maximum jumps to them at
    once, needs no correction at the start, and bounds each step by about lr.

    Kingma and Ba, "Adam: A Method for Stochastic Optimization", section 7.1, arXiv:1412.6980, 2014.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
    ):
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "maximize": maximize,
            },
        )

    def update(self, param, grad, state, group):
        beta1, beta2 = group["betas"]
        state["first_moment"] = beta1 * state.get("first_moment", 0) + (1 - beta1) * grad
        largest = state.get("largest_grad", torch.zeros_like(grad))
        state["largest_grad"] = torch.maximum(beta2 * largest, grad.abs() + group["eps"])
        m_hat = state["first_moment"] / (1 - beta1 ** state["step"])
        param -= group["lr"] * m_hat / state["largest_grad"]


class NAdam(UpdateRule):
    """Adam with Nesterov's momentum, which grows during the first steps.

        μₜ = β1·(1 - ½·0.96^(t·momentum_decay)),    Mₜ = μ₁·μ₂·…·μₜ
        m, v and v̂ as in Adam
        m̂ = μₜ₊₁·m / (1 - Mₜ·μₜ₊₁) + (1 - μₜ)·g / (1 - Mₜ)
        θ ← θ - lr·m̂ / (√v̂ + eps)

    It answers Adam's plain momentum: the step uses the momentum of the next one, and so reacts to
    the newest gradient sooner.

    Dozat, "Incorporating Nesterov Momentum into Adam", ICLR workshop, 2016.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
    ):
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "momentum_decay": momentum_decay,
                "decoupled_weight_decay": decoupled_weight_decay,
                "maximize": maximize,
            },
        )

    def update(self, param, grad, state, group):
        (beta1, beta2), decay, step = group["betas"], group["momentum_decay"], state["step"]
        m, v = moments(grad, state, beta1, beta2)
        mu = beta1 * (1 - 0.5 * 0.96 ** (step * decay))
        next_mu = beta1 * (1 - 0.5 * 0.96 ** ((step + 1) * decay))
        mu_product = state["mu_product"] = state.get("mu_product", 1.0) * mu
        m_hat = next_mu * m / (1 - mu_product * next_mu) + (1 - mu) * grad / (1 - mu_product)
        v_hat = v / (1 - beta2**step)
        param -= group["lr"] * m_hat / (v_hat.sqrt() + group["eps"])


class RAdam(UpdateRule):
    """Adam that does not trust its second moment before it has seen enough gradients.

        m̂ as in Adam
        ρ∞ = 2/(1 - β2) - 1,    ρ = ρ∞ - 2t·β2ᵗ/(1 - β2ᵗ)    the length of the average so far
        ρ > 5    r = √((ρ-4)(ρ-2)ρ∞ / ((ρ∞-4)(ρ∞-2)ρ)),  θ ← θ - lr·r·m̂·√(1 - β2ᵗ) / (√v + eps)
        else     θ ← θ - lr·m̂

    It answers Adam's need of a warm-up: the first steps divide by an estimate made from a handful
    of gradients, whose variance r makes up for.

    Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", arXiv:1908.03265, 2019.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
    ):
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "decoupled_weight_decay": decoupled_weight_decay,
                "maximize": maximize,
            },
        )

    def update(self, param, grad, state, group):
        (beta1, beta2), step = group["betas"], state["step"]
        m, v = moments(grad, state, beta1, beta2)
        correction = 1 - beta2**step
        longest = 2 / (1 - beta2) - 1
        length = longest - 2 * step * beta2**step / correction
        direction = m / (1 - beta1**step)
        if length > 5:
            now, limit = ((rho - 4) * (rho - 2) / rho for rho in (length, longest))
            rectification = math.sqrt(now / limit)
            direction *= rectification * math.sqrt(correction) / (v.sqrt() + group["eps"])
        param -= group["lr"] * direction


class Rprop(UpdateRule):
    """A step size for each element, changed by the gradient's sign alone.

        s ← s·η⁺ where g agrees in sign with the last one, s·η⁻ where it does not, within step_sizes
        θ ← θ - s·sign(g),   but no step where the sign has changed

    s starts at lr, and (η⁻, η⁺) are `etas`. It answers the gradient's scale, which says little
    about how far to go; with mini-batches, though, the sign is noise, which led to RMSprop.

    Riedmiller and Braun, "A Direct Adaptive Method for Faster Backpropagation Learning: The RPROP
    Algorithm", ICNN 1993.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        maximize: bool = False,
    ):
        if not 0 < etas[0] < 1 < etas[1]:
            raise ValueError(f"Invalid etas value: {etas}")
        super().__init__(
            params, {"lr": lr, "etas": etas, "step_sizes": step_sizes, "maximize": maximize}
        )

    def update(self, param, grad, state, group):
        shrink, grow = group["etas"]
        agreement = grad * state.get("previous_grad", 0)
        factor = torch.ones_like(grad)
        factor[agreement > 0] = grow
        factor[agreement < 0] = shrink
        state["step_size"] = (state.get("step_size", group["lr"]) * factor).clamp(
            *group["step_sizes"]
        )
        state["previous_grad"] = torch.where(agreement < 0, 0, grad)
        param -= state["step_size"] * state["previous_grad"].sign()


class ASGD(UpdateRule):
    """Gradient descent whose answer is the average of its path, kept in state["average"].

        θ ← (1 - lambd·η)·θ - η·g
        a ← a + (θ - a) / max(1, t - 1 - t0)        a follows θ until step t0
        η ← lr / (1 + lambd·lr·t)^alpha             η starts at lr

    It answers the noise that mini-batches leave in the last iterate, which the average evens out.

    Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", SIAM J. Control
    and Optimization 30, 1992.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
    ):
        super().__init__(
            params,
            {
                "lr": lr,
                "lambd": lambd,
                "alpha": alpha,
                "t0": t0,
                "weight_decay": weight_decay,
                "maximize": maximize,
            },
        )

    def update(self, param, grad, state, group):
        lr, lambd, step = group["lr"], group["lambd"], state["step"]
        eta = state.get("eta", lr)
        param *= 1 - lambd * eta
        param -= eta * grad
        average = state.get("average", param)
        state["average"] = average + (param - average) / max(1, step - 1 - group["t0"])
        state["eta"] = float(lr / (1 + lambd * lr * step) ** group["alpha"])


class Adafactor(UpdateRule):
    """Adam's second moment from one number a row and one a column, and steps as long as θ asks.

        1 - β2 = t^beta2_decay
        r ← β2·r + (1 - β2)·mean of g² over each row,    c likewise over each column
        v = r·c / mean of r                              (of a vector: v ← β2·v + (1 - β2)·g²)
        u = g / max(√v, eps1),    u ← u / max(1, rms(u)/d)
        s = max(eps2, rms(θ)) · min(lr, 1/√t)
        θ ← θ - lr·weight_decay·θ - s·u

    rms is the root of the mean square. eps is (eps1, eps2); eps1 None is the precision of the
    numbers. It answers Adam's memory, two numbers for each weight, which large nets cannot spare:
    an n × m matrix takes n + m. And lr says how large a step is beside the weights themselves.

    Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost",
    arXiv:1804.04235, 2018, in PyTorch's form.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ):
        if not beta2_decay <= 0:
            raise ValueError(f"Invalid beta2_decay value: {beta2_decay}")
        if not d >= 1:
            raise ValueError(f"Invalid d value: {d}")
        super().__init__(
            params,
            {
                "lr": lr,
                "beta2_decay": beta2_decay,
                "eps": eps,
                "d": d,
                "weight_decay": weight_decay,
                "maximize": maximize,
            },
        )

    def decay(self, param, grad, group):
        return grad  # update does it, once it has measured θ

    def update(self, param, grad, state, group):
        step, lr, (eps1, eps2) = state["step"], float(group["lr"]), group["eps"]
        eps1 = torch.finfo(param.dtype).eps if eps1 is None else eps1
        beta2 = 1 - step ** group["beta2_decay"]
        length = max(eps2, rms(param)) * min(lr, 1 / math.sqrt(step))
        param *= 1 - lr * group["weight_decay"]

        def average(name: str, value: Tensor) -> Tensor:
            state[name] = beta2 * state.get(name, 0) + (1 - beta2) * value
            return state[name]

        if grad.ndim > 1:
            rows = average("rows", (grad**2).mean(-1, keepdim=True))
            columns = average("columns", (grad**2).mean(-2, keepdim=True))
            v = rows * columns / rows.mean(-2, keepdim=True).clamp(min=eps1)
        else:
            v = average("second_moment", grad**2)
        direction = grad / v.clamp(min=eps1**2).sqrt()
        param -= length * direction / max(1, rms(direction) / group["d"])


def rms(values: Tensor) -> float:
    """Return the root of the mean square."""
    return values.square().mean().sqrt().item()


class Muon(UpdateRule):
    """Momentum whose step, a matrix, is made to turn and stretch all directions alike.

        v ← momentum·v + (1 - momentum)·g
        u = (1 - momentum)·g + momentum·v               (without nesterov: u = v)
        θ ← θ - lr·weight_decay·θ - lr·scale·orthogonal(u)

    For u = U·S·Vᵀ, orthogonal(u) is about U·Vᵀ: see `orthogonalized`. The scale of an n × m matrix
    is √max(1, n/m) ("original", the default) or 0.2·√max(n, m) ("match_rms_adamw", so that AdamW's
    learning rates do). It answers a step ruled by the few directions in which a gradient is large:
    here those in which it is small count as much. It is for the hidden layers' matrices, and takes
    no others; let AdamW train biases and embeddings.

    Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; Liu et al.,
    "Muon is Scalable for LLM Training", arXiv:2502.16982, 2025.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ):
        if adjust_lr_fn not in (None, "original", "match_rms_adamw"):
            raise ValueError(f"Invalid adjust_lr_fn value: {adjust_lr_fn}")
        super().__init__(
            params,
            {
                "lr": lr,
                "weight_decay": weight_decay,
                "momentum": momentum,
                "nesterov": nesterov,
                "ns_coefficients": ns_coefficients,
                "eps": eps,
                "ns_steps": ns_steps,
                "adjust_lr_fn": adjust_lr_fn,
                "decoupled_weight_decay": True,
            },
        )
        for group in self.param_groups:
            for param in group["params"]:
                if param.ndim != 2:
                    raise ValueError(f"Muon takes matrices only, not shape {tuple(param.shape)}")

    def update(self, param, grad, state, group):
        momentum, (rows, columns) = group["momentum"], param.shape
        velocity = momentum * state.get("velocity", 0) + (1 - momentum) * grad
        state["velocity"] = velocity
        direction = velocity
        if group["nesterov"]:
            direction = (1 - momentum) * grad + momentum * velocity
        if group["adjust_lr_fn"] == "match_rms_adamw":
            scale = 0.2 * math.sqrt(max(rows, columns))
        else:
            scale = math.sqrt(max(1, rows / columns))
        direction = orthogonalized(
            direction, group["ns_coefficients"], group["ns_steps"], group["eps"]
        )
        param -= group["lr"] * scale * direction


def orthogonalized(
    matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Tensor:
    """Return about U·Vᵀ for the matrix U·S·Vᵀ, by Newton and Schulz's iteration, in bfloat16.

        X ← a·X + (b·A + c·A²)·X    for A = X·Xᵀ

    Each step moves every singular value x of X to a·x + b·x³ + c·x⁵. Muon's coefficients lift small
    ones fast, and bring all from 0.003 on to between 0.7 and 1.2. ValueError if there are not
    three of them, or 100 steps and more.
    """
    if len(coefficients) != 3 or steps >= 100:
        raise ValueError("the iteration takes three coefficients and fewer than 100 steps")
    a, b, c = coefficients
    is_tall = matrix.shape[0] > matrix.shape[1]  # then it is cheaper lying down
    x = (matrix.T if is_tall else matrix).bfloat16()
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if is_tall else x).to(matrix.dtype)

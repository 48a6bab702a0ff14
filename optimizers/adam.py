"""Adam, which has both momentum and adaptive learning rates, and the variants of it."""

import math

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from optimizers.update_rule import State, UpdateRule


class Adam(UpdateRule):
    """Momentum and RMSprop combined, with a correction for their averages, which start at 0.

        m ← β1·m + (1 - β1)·g,       m̂ = m / (1 - β1ᵗ)
        v ← β2·v + (1 - β2)·g²,      v̂ = v / (1 - β2ᵗ)
        θ ← θ - lr·m̂ / (√v̂ + eps)
        amsgrad    the largest v so far in place of v

    Fixes two faults of RMSprop: it has no momentum, and at its first steps the average, which
    starts at 0, is still far too small. Adam's first step has length lr whatever the gradient's
    scale.

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
        defaults = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad)
        defaults |= dict(maximize=maximize, decoupled_weight_decay=decoupled_weight_decay)
        super().__init__(params, defaults)

    def update(self, param, grad, state, group):
        beta1, beta2 = group["betas"]
        m, v = moments(grad, state, beta1, beta2)
        if group["amsgrad"]:
            v = torch.maximum(state.get("largest_second_moment", v), v)
            state["largest_second_moment"] = v
        m_hat = m / (1 - beta1 ** state["step"])
        v_hat = v / (1 - beta2 ** state["step"])
        param -= group["lr"] * m_hat / (v_hat.sqrt() + group["eps"])


def moments(grad: Tensor, state: State, beta1: float, beta2: float) -> tuple[Tensor, Tensor]:
    """Update and return Adam's moments in `state`, the moving averages of g and of g²."""
    state["first_moment"] = beta1 * state.get("first_moment", 0) + (1 - beta1) * grad
    state["second_moment"] = beta2 * state.get("second_moment", 0) + (1 - beta2) * grad**2
    return state["first_moment"], state["second_moment"]


class AdamW(Adam):
    """Adam whose weight decay shrinks the weights and leaves the gradient alone.

        θ ← θ - lr·weight_decay·θ,    then Adam's step

    Fixes the weight decay of Adam, which is added to the gradient and so divided by √v̂, too: it
    hardly holds back the weights whose gradients are large.

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
        switches = dict(maximize=maximize, decoupled_weight_decay=True)
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, **switches)


class SparseAdam(UpdateRule):
    """Adam for sparse gradients: it moves only the elements that are listed in the gradient.

        listed      Adam's step, with eps added to √v before the correction:
                    θ ← θ - lr·√(1 - β2ᵗ)/(1 - β1ᵗ) · m / (√v + eps)
        not listed  θ, m and v stay as they are

    Fixes the cost of Adam on a large embedding (`nn.Embedding(..., sparse=True)`), of which a
    mini-batch uses only a few rows. Adam updates all rows at each step, and moves them all, since
    their momentum goes on. SparseAdam leaves an unused row as it is. t counts all steps, not only
    those that use the row.

    PyTorch's form of Kingma and Ba's method (see Adam). Gradients that are not sparse raise
    RuntimeError.
    """

    takes_sparse_gradients = True

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
        defaults = dict(lr=lr, betas=betas, eps=eps, maximize=maximize)
        super().__init__(params, defaults)
        for group in self.param_groups:
            for param in group["params"]:
                if param.is_sparse or param.is_complex():
                    raise ValueError("SparseAdam takes dense, real parameters only")

    def update(self, param, grad, state, group):
        beta1, beta2 = group["betas"]
        grad = grad.coalesce()  # lists every element once
        listed, g = tuple(grad.indices()), grad.values()
        m = state.setdefault("first_moment", torch.zeros_like(param))
        v = state.setdefault("second_moment", torch.zeros_like(param))
        m[listed] = beta1 * m[listed] + (1 - beta1) * g
        v[listed] = beta2 * v[listed] + (1 - beta2) * g**2
        correction = math.sqrt(1 - beta2 ** state["step"]) / (1 - beta1 ** state["step"])
        param[listed] -= group["lr"] * correction * m[listed] / (v[listed].sqrt() + group["eps"])


class Adamax(UpdateRule):
    """Adam with the largest gradient, which fades, in place of the root mean square.

        m ← β1·m + (1 - β1)·g
        u ← max(β2·u, |g| + eps)
        θ ← θ - lr / (1 - β1ᵗ) · m / u

    Fixes the second moment of Adam where gradients are rare and large: a maximum rises to them at
    once, needs no correction at the start, and limits each step to about lr.

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
        defaults = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, maximize=maximize)
        super().__init__(params, defaults)

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

    Fixes the delay of plain momentum in Adam: a step uses the momentum of the next step already,
    and so reacts sooner to the newest gradient.

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
        defaults = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        defaults |= dict(momentum_decay=momentum_decay, maximize=maximize)
        defaults |= dict(decoupled_weight_decay=decoupled_weight_decay)
        super().__init__(params, defaults)

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
    """Adam that uses its second moment only after it has seen enough gradients.

        m̂ as in Adam
        ρ∞ = 2/(1 - β2) - 1,    ρ = ρ∞ - 2t·β2ᵗ/(1 - β2ᵗ)    the length of the average so far
        if ρ > 5    r = √((ρ-4)(ρ-2)ρ∞ / ((ρ∞-4)(ρ∞-2)ρ)),  θ ← θ - lr·r·m̂·√(1 - β2ᵗ) / (√v + eps)
        else        θ ← θ - lr·m̂

    Fixes Adam's need for a warm-up: its first steps divide by an estimate from a few gradients,
    which varies much; the factor r corrects for this variance.

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
        defaults = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        defaults |= dict(decoupled_weight_decay=decoupled_weight_decay, maximize=maximize)
        super().__init__(params, defaults)

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

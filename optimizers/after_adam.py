"""What came after Adam: signs, a long memory, a division that converges, and caution."""

import math

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from optimizers.adam import AdamW, moments
from optimizers.update_rule import UpdateRule


class Lion(UpdateRule):
    """The sign of momentum: each element moves by lr, up or down.

        θ ← θ - lr·weight_decay·θ - lr·sign(β1·m + (1 - β1)·g)
        m ← β2·m + (1 - β2)·g

    Fixes the memory that Adam needs for its second moment: a sign has the same length everywhere,
    so nothing is divided, and one number for each weight is enough. The step uses g more than m
    does (β1 < β2), as Nesterov's momentum does. What it costs: its steps do not get smaller near a
    minimum, so lr is three to ten times lower than Adam's, weight_decay so much higher, and a
    schedule should end at a low rate.

    Chen et al., "Symbolic Discovery of Optimization Algorithms", arXiv:2302.06675, 2023. A program
    found it, by trying out formulas.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ):
        defaults = dict(lr=lr, betas=betas, weight_decay=weight_decay, maximize=maximize)
        super().__init__(params, defaults | dict(decoupled_weight_decay=True))

    def update(self, param, grad, state, group):
        beta1, beta2 = group["betas"]
        m = state.get("first_moment", 0)
        param -= group["lr"] * (beta1 * m + (1 - beta1) * grad).sign()
        state["first_moment"] = beta2 * m + (1 - beta2) * grad


class AdEMAMix(UpdateRule):
    """AdamW with a second momentum, which remembers ten thousand steps.

        m, v, m̂ and v̂ as in Adam
        s ← β3·s + (1 - β3)·g
        θ ← θ - lr·weight_decay·θ - lr·(m̂ + alpha·s) / (√v̂ + eps)
        alpha_warmup    alpha grows from 0 during so many steps, in proportion to t
        beta3_warmup    the length of s's memory, -1/ln β3, grows so from that of m

    Fixes a choice that one average cannot escape: with a high β1 it uses old gradients, which help
    for long, and reacts late to new ones. Two averages do both. s starts at 0 and is not corrected.
    What it costs: a third number for each weight. Without the two warm-ups, trainings may diverge
    early: let both last as long as the training.

    Pagliardini, Ablin and Grangier, "The AdEMAMix Optimizer: Better, Faster, Older",
    arXiv:2409.03137, 2024. alpha is 2 in the authors' package, 5 to 10 in the paper. Their package
    adds 1e-8 to β3 within its logarithm: here the formula is the paper's.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
        alpha: float = 2.0,
        beta3_warmup: int | None = None,
        alpha_warmup: int | None = None,
        eps: float = 1e-8,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
    ):
        if not alpha >= 0:
            raise ValueError(f"Invalid alpha value: {alpha}")
        defaults = dict(lr=lr, betas=betas, beta3_warmup=beta3_warmup, alpha_warmup=alpha_warmup)
        defaults |= dict(alpha=alpha, eps=eps, weight_decay=weight_decay, maximize=maximize)
        super().__init__(params, defaults | dict(decoupled_weight_decay=True))

    def update(self, param, grad, state, group):
        (beta1, beta2, beta3), step = group["betas"], state["step"]
        m, v = moments(grad, state, beta1, beta2)
        length = warmed_up(memory(beta1), memory(beta3), step, group["beta3_warmup"])
        beta3 = math.exp(-1 / length) if length else 0.0
        s = state["slow_moment"] = beta3 * state.get("slow_moment", 0) + (1 - beta3) * grad
        alpha = warmed_up(0, group["alpha"], step, group["alpha_warmup"])
        m_hat = m / (1 - beta1**step)
        v_hat = v / (1 - beta2**step)
        param -= group["lr"] * (m_hat + alpha * s) / (v_hat.sqrt() + group["eps"])


def memory(beta: float) -> float:
    """Return after how many steps a gradient has 1/e of its weight in an average."""
    return -1 / math.log(beta) if beta else 0.0


def warmed_up(start: float, end: float, step: int, steps: int | None) -> float:
    """Return what grows from `start` to `end` during so many steps, in equal parts."""
    share = min(1, step / steps) if steps else 1
    return (1 - share) * start + share * end


class ADOPT(UpdateRule):
    """Adam whose gradient is divided by the root of the v before it, and then averaged.

        t = 1    v ← g², and no step
        t > 1    m ← β1·m + (1 - β1)·clip(g / max(√v, eps)),    clip to ±(t - 1)^¼
                 θ ← θ - lr·m
                 v ← β2·v + (1 - β2)·g²

    Fixes a fault in Adam's proof: v depends on the gradient that it divides, so Adam may go to the
    wrong place unless β2 is chosen for the problem, close enough to 1. With the v before, any β2
    converges. An element whose gradient was 0 at first would then move by g/eps: the limit, which
    grows slowly, holds that back. It costs no more than Adam, and one mini-batch, the first.

    Taniguchi et al., "ADOPT: Modified Adam Can Converge with Any β2 with the Optimal Rate",
    arXiv:2411.02853, 2024. The authors' package has a function, clip_lambda, for the limit, which
    is always the paper's here; calls decoupled_weight_decay decouple; and does not shrink θ in the
    first step, either.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.9999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
    ):
        defaults = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, maximize=maximize)
        super().__init__(params, defaults | dict(decoupled_weight_decay=decoupled_weight_decay))

    def update(self, param, grad, state, group):
        beta1, beta2 = group["betas"]
        if state["step"] == 1:
            state["first_moment"] = torch.zeros_like(grad)
            state["second_moment"] = grad**2
            return
        m, v, limit = state["first_moment"], state["second_moment"], (state["step"] - 1) ** 0.25
        direction = (grad / v.sqrt().clamp(min=group["eps"])).clamp(-limit, limit)
        state["first_moment"] = beta1 * m + (1 - beta1) * direction
        state["second_moment"] = beta2 * v + (1 - beta2) * grad**2
        param -= group["lr"] * state["first_moment"]


class Cautious(UpdateRule):
    """Makes any rule cautious: no element moves against its newest gradient.

        Δ is the step of the rule; φ is 1 where Δ goes downhill, Δ·g < 0, and else 0
        θ ← θ + Δ·φ / max(mean of φ, 0.001)

    Fixes the overshooting of momentum, which goes on for a while after a gradient has turned. The
    division keeps the length of the step about the same. Decoupled weight decay is left as it is.
    It costs a copy of θ during the step. Any rule is made cautious by a class of two lines, which
    names Cautious first:

        class CautiousLion(Cautious, Lion):
            pass

    Liang et al., "Cautious Optimizers: Improving Training with One Line of Code",
    arXiv:2411.16085, 2024. The paper divides by (number of ones + 1) / (number of elements), which
    halves each step of a parameter with one element; the authors' package has what stands here.
    """

    def update(self, param, grad, state, group):
        before = param.clone()
        super().update(param, grad, state, group)
        step = param - before
        downhill = (step * grad < 0).to(step.dtype)
        param.copy_(before + step * downhill / downhill.mean().clamp(min=1e-3))


class CautiousAdamW(Cautious, AdamW):
    """AdamW of which no element moves against its newest gradient: see Cautious.

    It has AdamW's formula, hyperparameters and memory.
    """

"""Optimizers that need no schedule of the learning rate, or find out the rate itself."""

import math

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from optimizers.adam import moments
from optimizers.update_rule import Group, State, UpdateRule


class SGDScheduleFree(UpdateRule):
    """Gradient descent from between its last point and the average of its path.

        θ is y = (1 - momentum)·z + momentum·x in training, and x where it is judged
        z ← z - η·g                                    g is the gradient at y
        x ← x + c·(z - x)                              the average of the points z
        η = lr·min(1, t/warmup_steps)
        c = w / sum of all w so far,    w = t^r·(largest η so far)^weight_lr_power

    Fixes the schedule, which needs to know when the training will end. The average of the path,
    which makes up for the noise as a falling rate does, is taken at any time; and momentum pulls
    the gradient's place towards it, where plain averaging (see ASGD) has it at z, far away. There
    is one number for each weight, as for momentum. What it costs: `optimizer.eval()` puts x into
    the net before it is judged or saved, `optimizer.train()` puts y back. It starts in training.

    Defazio et al., "The Road Less Scheduled", arXiv:2405.15682, 2024. The authors' package wants a
    call of `train()` before the first step, too, and counts steps for all parameters of a group
    together.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1.0,
        momentum: float = 0.9,
        weight_decay: float = 0,
        warmup_steps: int = 0,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
        *,
        maximize: bool = False,
    ):
        if not 0 < momentum < 1:
            raise ValueError(f"Invalid momentum value: {momentum}")
        defaults = dict(lr=lr, momentum=momentum, weight_decay=weight_decay, maximize=maximize)
        defaults |= dict(warmup_steps=warmup_steps, r=r, weight_lr_power=weight_lr_power)
        super().__init__(params, defaults)

    def update(self, param, grad, state, group):
        move_between(param, grad, state, group, self.momentum_of(group))

    def momentum_of(self, group: Group) -> float:
        return group["momentum"]

    @torch.no_grad()
    def eval(self) -> None:
        """Put the averages x in θ's place, until `train`. Twice is the same as once."""
        for group in self.param_groups:
            for param in group["params"]:
                state = self.state.get(param, {})
                if "z" in state:
                    y = state.setdefault("y", param.clone())
                    param.copy_(average(y, state["z"], self.momentum_of(group)))

    @torch.no_grad()
    def train(self) -> None:
        """Put the points y back, at which gradients are taken."""
        for param, state in self.state.items():
            param.copy_(state.pop("y", param))


def average(y: Tensor, z: Tensor, momentum: float) -> Tensor:
    """Return x, of which y = (1 - momentum)·z + momentum·x."""
    return (y - (1 - momentum) * z) / momentum


def move_between(y: Tensor, direction: Tensor, state: State, group: Group, momentum: float) -> None:
    """Take a Schedule-Free step: move z against the direction, and y towards z and x."""
    if "y" in state:
        raise RuntimeError("call the optimizer's train() before step(): eval() was called")
    step = state["step"]
    z = state.get("z", y.clone())
    x = average(y, z, momentum)
    lr = group["lr"] * min(1, step / max(1, group["warmup_steps"]))
    largest = state["largest_lr"] = state.get("largest_lr", y.new_zeros(())).clamp(min=lr)
    weight = step ** group["r"] * largest ** group["weight_lr_power"]
    total = state["weight_sum"] = state.get("weight_sum", 0) + weight
    z = state["z"] = z - lr * direction
    x = x + torch.where(total > 0, weight / total, 0) * (z - x)
    y.copy_((1 - momentum) * z + momentum * x)


class AdamWScheduleFree(SGDScheduleFree):
    """Schedule-Free descent along Adam's directions: no schedule, and rates for each weight.

        v and v̂ as in Adam
        Schedule-Free SGD's step, with β1 as its momentum, and for g
        g / (√v̂ + eps) + weight_decay·y

    Fixes for AdamW what SGDScheduleFree fixes for SGD, at the same cost; Adam's first moment is
    not needed. warmup_steps matters here, as in Adam: some hundred are usual.

    Defazio et al., "The Road Less Scheduled", arXiv:2405.15682, 2024.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.0025,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        warmup_steps: int = 0,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
        *,
        maximize: bool = False,
    ):
        if not betas[0] > 0:
            raise ValueError(f"Invalid betas value: {betas}")
        defaults = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, maximize=maximize)
        defaults |= dict(warmup_steps=warmup_steps, r=r, weight_lr_power=weight_lr_power)
        UpdateRule.__init__(self, params, defaults)

    def momentum_of(self, group):
        return group["betas"][0]

    def apply_weight_decay(self, param, grad, group):
        return grad  # `update` adds it, after the division

    def update(self, param, grad, state, group):
        beta1, beta2 = group["betas"]
        v = state["second_moment"] = beta2 * state.get("second_moment", 0) + (1 - beta2) * grad**2
        v_hat = v / (1 - beta2 ** state["step"])
        direction = grad / (v_hat.sqrt() + group["eps"]) + group["weight_decay"] * param
        move_between(param, direction, state, group, beta1)


class Prodigy(UpdateRule):
    """Adam whose learning rate is lr times d, an estimate of the distance to the solution.

        η = d·lr,    times √(1 - β2ᵗ)/(1 - β1ᵗ) with use_bias_correction
        m ← β1·m + (1 - β1)·d·g,    v ← β2·v + (1 - β2)·d²·g²
        n ← β3·n + d/d0·η·⟨g, θ₀ - θ⟩
        s ← β3·s + d/d0·η·g                  (with safeguard_warmup, d in place of this η)
        d̂ = d_coef · sum of n / sum of |s|,    over all parameters
        d ← the largest of d and all d̂ so far,    but at most growth_rate·d, once it has grown
        θ ← θ - η·weight_decay·θ - η·m / (√v + d·eps)        with the new d, and the η from before

    θ₀ is where the training began, β3 is √β2 if it is not given, d starts at d0. Fixes the search
    for a learning rate: leave lr at 1, and give it a schedule that falls. What it costs: two
    numbers more for each weight than Adam has, θ₀ and s; and d never falls, so that one large
    estimate stays.

    Mishchenko and Defazio, "Prodigy: An Expeditiously Adaptive Parameter-Free Learner",
    arXiv:2306.06101, 2023. Each param group has a d of its own here, and so may have its own lr;
    the authors' package shares one d among them, and refuses rates that differ. A parameter without
    a gradient does not count, neither in d nor as a step. Their decouple is called
    decoupled_weight_decay; fsdp_in_use and slice_p are missing.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1.0,
        betas: tuple[float, float] = (0.9, 0.999),
        beta3: float | None = None,
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = True,
        use_bias_correction: bool = False,
        safeguard_warmup: bool = False,
        d0: float = 1e-6,
        d_coef: float = 1.0,
        growth_rate: float = float("inf"),
        *,
        maximize: bool = False,
    ):
        if not d0 > 0:
            raise ValueError(f"Invalid d0 value: {d0}")
        if beta3 is not None and not 0 <= beta3 < 1:
            raise ValueError(f"Invalid beta3 value: {beta3}")
        defaults = dict(lr=lr, betas=betas, beta3=beta3, eps=eps, weight_decay=weight_decay)
        defaults |= dict(decoupled_weight_decay=decoupled_weight_decay, maximize=maximize)
        defaults |= dict(use_bias_correction=use_bias_correction, d0=d0, d_coef=d_coef)
        defaults |= dict(safeguard_warmup=safeguard_warmup, growth_rate=growth_rate)
        super().__init__(params, defaults)

    def apply_weight_decay(self, param, grad, group):
        if group["decoupled_weight_decay"]:
            return grad  # `step_group` shrinks θ, after all have been measured
        return grad + group["weight_decay"] * param

    def step_group(self, params, grads, states, group):
        """Measure along all parameters, estimate d from all of them, and then move them all."""
        if not params:
            return
        for param, state in zip(params, states, strict=True):
            state.setdefault("d", param.new_zeros(()) + group["d0"])
            state.setdefault("largest_d", state["d"])
        d, largest = (torch.stack([s[key] for s in states]).max() for key in ("d", "largest_d"))
        for param, grad, state in zip(params, grads, states, strict=True):
            state["d"] = d
            self._step_one(param, grad, state, group)
        n, s = (torch.stack([state[key] for state in states]).sum() for key in ("n", "size_of_s"))
        largest = torch.where(s > 0, largest.maximum(group["d_coef"] * n / s), largest)
        new_d = torch.where(d > group["d0"], largest.minimum(d * group["growth_rate"]), largest)
        for param, state in zip(params, states, strict=True):
            rate = self.rate(state, group)
            if group["decoupled_weight_decay"]:
                param.copy_(param * (1 - rate * group["weight_decay"]))
            denominator = state["second_moment"].sqrt() + new_d * group["eps"]
            param -= rate * state["first_moment"] / denominator
            state["d"], state["largest_d"] = new_d, largest

    def update(self, param, grad, state, group):
        """Measure: `step_group` moves θ."""
        d, d0, (beta1, beta2), beta3 = state["d"], group["d0"], group["betas"], group["beta3"]
        beta3 = math.sqrt(beta2) if beta3 is None else beta3
        rate = self.rate(state, group)
        moments(d * grad, state, beta1, beta2)
        start = state.setdefault("start", param.clone())
        n = d / d0 * rate * (grad * (start - param)).sum()
        state["n"] = beta3 * state.get("n", 0) + n
        s = d / d0 * (d if group["safeguard_warmup"] else rate) * grad
        state["s"] = beta3 * state.get("s", 0) + s
        state["size_of_s"] = state["s"].abs().sum()

    def rate(self, state: State, group: Group) -> Tensor:
        """Return η."""
        (beta1, beta2), step = group["betas"], state["step"]
        rate = state["d"] * group["lr"]
        if group["use_bias_correction"]:
            rate = rate * math.sqrt(1 - beta2**step) / (1 - beta1**step)
        return rate

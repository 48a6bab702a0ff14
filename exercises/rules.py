"""Update rules as formulas: the right ones, and the usual mistakes in them.

A rule takes the memory of a parameter, its gradient g, the number of the step t (from 1), the
parameter θ, and the learning rate. It returns what has to be subtracted from θ. The sources
are in optimizers/, that of Lion in exercises/README.md.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

Rule = Callable[[dict[str, Any], Tensor, int, Tensor, float], Tensor]
EPS = 1e-8


def sgd(memory, g, t, theta, lr, decay=0.1):
    return lr * (g + decay * theta)


def decay_without_lr(memory, g, t, theta, lr):
    return lr * g + 0.1 * theta


def decay_with_lr_twice(memory, g, t, theta, lr):
    return lr * (g + lr * 0.1 * theta)


def momentum(memory, g, t, theta, lr, mu=0.8, new=1.0):
    memory["v"] = mu * memory.get("v", 0) + new * g
    return lr * memory["v"]


def momentum_with_lr_inside(memory, g, t, theta, lr):
    memory["v"] = 0.8 * memory.get("v", 0) + lr * g
    return memory["v"]


def momentum_of_the_step_before(memory, g, t, theta, lr):
    before = memory.get("v", torch.zeros_like(g))
    memory["v"] = 0.8 * before + g
    return lr * before


def nesterov(memory, g, t, theta, lr):
    memory["v"] = 0.8 * memory.get("v", 0) + g
    return lr * (g + 0.8 * memory["v"])


def average_from_the_first(memory, g, t, theta, lr):
    memory["m"] = 0.8 * memory["m"] + 0.2 * g if "m" in memory else g
    return 5 * lr * memory["m"]


def corrected_average(memory, g, t, theta, lr):
    memory["m"] = 0.8 * memory.get("m", 0) + 0.2 * g
    return 5 * lr * memory["m"] / (1 - 0.8**t)


def rmsprop(memory, g, t, theta, lr, alpha=0.9, root=torch.sqrt, square=torch.square, first=0):
    memory["s"] = alpha * memory.get("s", first) + (1 - alpha) * square(g)
    return lr * g / (root(memory["s"]) + EPS)


def rmsprop_of_the_step_before(memory, g, t, theta, lr):
    before = memory.get("s", torch.zeros_like(g))
    memory["s"] = 0.9 * before + 0.1 * g**2
    return lr * g / (before.sqrt() + EPS)


def adagrad(memory, g, t, theta, lr):
    memory["s"] = memory.get("s", 0) + g**2
    return lr * g / (memory["s"].sqrt() + EPS)


def adam(
    memory, g, t, theta, lr, betas=(0.9, 0.999), correct="mv", root=torch.sqrt, square=torch.square
):
    memory["m"] = betas[0] * memory.get("m", 0) + (1 - betas[0]) * g
    memory["v"] = betas[1] * memory.get("v", 0) + (1 - betas[1]) * square(g)
    m = memory["m"] / (1 - betas[0] ** t) if "m" in correct else memory["m"]
    v = memory["v"] / (1 - betas[1] ** t) if "v" in correct else memory["v"]
    return lr * m / (root(v) + EPS)


def adam_with_one_correction_for_all(memory, g, t, theta, lr):
    return adam(memory, g, 1, theta, lr)


def adam_that_keeps_what_it_corrects(memory, g, t, theta, lr):
    memory["m"] = (0.9 * memory.get("m", 0) + 0.1 * g) / (1 - 0.9**t)
    memory["v"] = (0.999 * memory.get("v", 0) + 0.001 * g**2) / (1 - 0.999**t)
    return lr * memory["m"] / (memory["v"].sqrt() + EPS)


def adamw(memory, g, t, theta, lr, decay=0.1):
    return adam(memory, g, t, theta, lr) + lr * decay * theta


def adamw_without_lr(memory, g, t, theta, lr):
    return adam(memory, g, t, theta, lr) + 0.1 * theta


def adam_with_l2(memory, g, t, theta, lr):
    return adam(memory, g + 0.1 * theta, t, theta, lr)


def adamw_with_l2(memory, g, t, theta, lr):
    return adam_with_l2(memory, g, t, theta, lr) + lr * 0.1 * theta


def lion(memory, g, t, theta, lr, beta1=0.9, beta2=0.99, sign=torch.sign):
    m = memory.get("m", torch.zeros_like(g))
    memory["m"] = beta2 * m + (1 - beta2) * g
    return lr * sign(beta1 * m + (1 - beta1) * g)


def lion_of_the_new_average(memory, g, t, theta, lr, beta=0.99):
    memory["m"] = beta * memory.get("m", 0) + (1 - beta) * g
    return lr * torch.sign(memory["m"])


def lion_that_averages_signs(memory, g, t, theta, lr):
    m = memory.get("m", torch.zeros_like(g))
    memory["m"] = 0.99 * m + 0.01 * g.sign()
    return lr * (0.9 * m + 0.1 * g).sign()


def lion_of_the_gradient(memory, g, t, theta, lr):
    return lr * g.sign()


# Each mistake, as a sentence and as the rule that makes it. chinese.json has the Chinese sentences.
DECAY_WITHOUT_LR = "The decay is not multiplied by lr: at a lower lr it is just as strong."
DECAY_AWAY = "The decay has the wrong sign: it pushes θ away from 0."
SGD_MISTAKES: dict[str, Rule] = {
    "The decay is missing: add weight_decay·θ to the gradient.": partial(sgd, decay=0),
    DECAY_AWAY: partial(sgd, decay=-0.1),
    DECAY_WITHOUT_LR: decay_without_lr,
    "The decay is multiplied by lr twice: add weight_decay·θ to the gradient.": decay_with_lr_twice,
    "The decay counts twice: UpdateRule adds a group's weight_decay by itself.": partial(
        sgd, decay=0.2
    ),
}
MOMENTUM_MISTAKES: dict[str, Rule] = {
    "The new gradient is multiplied by 1 - momentum, as in an average: add the whole gradient.": (
        partial(momentum, new=0.2)
    ),
    "lr is inside the velocity, so that a new lr acts too late: multiply by lr when θ moves.": (
        momentum_with_lr_inside
    ),
    "That is Nesterov's momentum, which looks one step ahead.": nesterov,
    "The velocity is forgotten from step to step: keep it in `state`.": partial(momentum, mu=0),
    "θ moves by the velocity of the step before: first update the velocity, then move θ.": (
        momentum_of_the_step_before
    ),
    "The velocity never fades: multiply the old one by momentum.": partial(momentum, mu=1),
}
AVERAGING_MISTAKES: dict[str, Rule] = {
    "The average starts as the first gradient: let it start at 0.": average_from_the_first,
    "The steps are five times too long: the new gradient is added whole and not times 1 - 0.8, or "
    "the average is multiplied by 5.": partial(momentum, new=5.0),
    "0.8 and 0.2 are swapped: the old average has the weight 0.8.": partial(
        momentum, mu=0.2, new=4.0
    ),
    "The average is corrected for its start at 0, as in Adam: leave that out.": corrected_average,
    "The average is forgotten from step to step: keep it in `state`.": partial(momentum, mu=0),
}
RMSPROP_MISTAKES: dict[str, Rule] = {
    "The root is missing: divide by √s, and not by s.": partial(rmsprop, root=lambda s: s),
    "alpha and 1 - alpha are swapped: the old average has the weight alpha.": partial(
        rmsprop, alpha=0.1
    ),
    "The squares add up, as in Adagrad: average them, by alpha and 1 - alpha.": adagrad,
    "alpha is torch's default, 0.99: here it has to be 0.9.": partial(rmsprop, alpha=0.99),
    "s averages |g|, and not g².": partial(rmsprop, square=torch.abs),
    "s averages g, and not g²: it can be negative, and then it has no root.": partial(
        rmsprop, square=lambda g: g
    ),
    "s starts at 1: let it start at 0.": partial(rmsprop, first=1),
    "θ moves by the s of the step before: first update s, then move θ.": rmsprop_of_the_step_before,
}
ADAM_MISTAKES: dict[str, Rule] = {
    "The bias correction is forgotten: divide m by 1 - beta1**t and v by 1 - beta2**t.": partial(
        adam, correct=""
    ),
    "v is not corrected: divide it by 1 - beta2**t.": partial(adam, correct="m"),
    "m is not corrected: divide it by 1 - beta1**t.": partial(adam, correct="v"),
    "The correction divides by 1 - beta at every step: it has to be 1 - beta**t.": (
        adam_with_one_correction_for_all
    ),
    "The corrected m and v go into the memory: the next step needs them uncorrected.": (
        adam_that_keeps_what_it_corrects
    ),
    "v averages |g|, and not g².": partial(adam, square=torch.abs),
    "The root is missing: divide by √v, and not by v.": partial(adam, root=lambda v: v),
    "The betas are swapped: beta1 belongs to m, beta2 to v.": partial(adam, betas=(0.999, 0.9)),
}
ADAMW_MISTAKES: dict[str, Rule] = {
    "The decay is added to the gradient, and so divided by √v: shrink θ itself, by "
    "lr·weight_decay·θ.": adam_with_l2,
    "The decay counts twice: UpdateRule adds a group's weight_decay to the gradient, unless the "
    "group has decoupled_weight_decay.": adamw_with_l2,
    DECAY_WITHOUT_LR: adamw_without_lr,
    "The decay is missing: θ has to shrink by lr·weight_decay·θ.": adam,
    DECAY_AWAY: partial(adamw, decay=-0.1),
    "weight_decay is torch's default, 0.01: here it has to be 0.1.": partial(adamw, decay=0.01),
}
LION_MISTAKES: dict[str, Rule] = {
    "The sign is missing: every element moves by lr.": partial(lion, sign=lambda values: values),
    "The step is the sign of the new m: it has to be that of beta1·m + (1 - beta1)·g, with the old "
    "m.": lion_of_the_new_average,
    "The betas are swapped: beta1 belongs to the step, beta2 to m.": partial(
        lion, beta1=0.99, beta2=0.9
    ),
    "beta1 is used for m, too: m needs beta2.": partial(lion, beta2=0.9),
    "m averages the signs of the gradients, and not the gradients.": lion_that_averages_signs,
    "That is the sign of the gradient alone: m is missing.": lion_of_the_gradient,
}

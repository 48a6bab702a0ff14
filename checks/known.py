"""The mistakes that have a name of their own: usual ones, and real ones, with their links.

Each changes the source of a function of optimizers/ (as `ast` writes it) wherever all its old
pieces are found.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """A sentence; the functions in which it is looked for; (old, new) pieces of source; a link."""

    sentence: str
    functions: tuple[str, ...]
    changes: tuple[tuple[str, str], ...]
    link: str = ""


GITHUB = "https://github.com/"
M_HAT = "m / (1 - beta1 ** state['step'])"
V_HAT = "v / (1 - beta2 ** state['step'])"
UPDATE = "self.update(param, self.apply_weight_decay(param, grad, group), state, group)"
IF_DECOUPLED = "if not group.get('decoupled_weight_decay'):"
VELOCITY = "velocity = momentum * state['velocity'] + (1 - group['dampening']) * grad"


def eps_mistakes(root: str, quotient: str) -> list[Known]:
    """Return the mistakes with eps in the rule that divides by this root, in this quotient."""
    right = f"({root}.sqrt() + group['eps'])"
    outside = "eps is added to the quotient, and not to its denominator: write a / (b + eps)."
    inside = "eps is inside the root: it is added to the root itself."
    textbook = GITHUB + "d2l-ai/d2l-en/issues/2691"
    keras = GITHUB + "keras-team/keras/issues/17391"
    new = [
        (outside, f"{quotient} / {root}.sqrt() + group['eps']", textbook),
        (outside, f"{quotient} / {root}.sqrt() - group['eps']", textbook),
        (outside, f"({quotient} / {root}.sqrt() + group['eps'])", textbook),
        (inside, f"{quotient} / ({root} + group['eps']).sqrt()", keras),
    ]
    return [
        Known(sentence, ("update",), ((f"{quotient} / {right}", text),), link)
        for sentence, text, link in new
    ]


# Real errors, as they stood in libraries and textbooks.
REAL = [
    *eps_mistakes("v_hat", "m_hat"),
    *eps_mistakes("variance", "grad"),
    *eps_mistakes("state['sum']", "grad"),
    Known(
        "The decay comes after the step, from weights already moved: shrink θ first.",
        ("_step_one",),
        (
            (
                UPDATE,
                "if group.get('decoupled_weight_decay'):"
                "\n        self.update(param, grad, state, group)"
                "\n        self.apply_weight_decay(param, grad, group)"
                f"\n    else:\n        {UPDATE}",
            ),
        ),
        GITHUB + "huggingface/transformers/issues/14539",
    ),
    Known(
        "eps is scaled by the bias correction: add it to √v̂, where v is corrected already.",
        ("update",),
        (
            (
                "v_hat.sqrt() + group['eps']",
                "(v.sqrt() + group['eps']) / (1 - beta2 ** state['step']) ** 0.5",
            ),
        ),
        GITHUB + "tensorflow/tensorflow/issues/9047",
    ),
    Known(
        "amsgrad does not keep its maximum: store it in `state`, for the next step.",
        ("update",),
        (("state['largest_second_moment'] = v", "pass"),),
        GITHUB + "pytorch/pytorch/issues/78807",
    ),
    Known(
        "The decay is added to the gradient, and so divided by √v: shrink θ itself, by "
        "lr·weight_decay·θ.",
        ("apply_weight_decay",),
        ((IF_DECOUPLED, "if True:"),),
        GITHUB + "pytorch/pytorch/issues/88836",
    ),
    Known(
        "The decay adds the parameter's number in its group, and not the parameter.",
        ("apply_weight_decay",),
        (
            (
                "grad + weight_decay * param",
                "grad + weight_decay * (1 + [id(p) for p in group['params']].index(id(param)))",
            ),
        ),
        GITHUB + "mlverse/torch/issues/821",
    ),
    Known(
        "The decay adds the gradient, and not the parameter.",
        ("apply_weight_decay",),
        (("grad + weight_decay * param", "grad + weight_decay * grad"),),
    ),
]

# What students write.
USUAL = [
    Known(
        "The bias correction is forgotten: divide m by 1 - beta1**t and v by 1 - beta2**t.",
        ("update",),
        ((M_HAT, "m"), (V_HAT, "v")),
    ),
    Known("v is not corrected: divide it by 1 - beta2**t.", ("update",), ((V_HAT, "v"),)),
    Known("m is not corrected: divide it by 1 - beta1**t.", ("update",), ((M_HAT, "m"),)),
    Known(
        "The correction divides by 1 - beta at every step: it is 1 - beta**t.",
        ("update",),
        ((M_HAT, "m / (1 - beta1)"), (V_HAT, "v / (1 - beta2)")),
    ),
    Known(
        "The corrected m and v go into the memory: keep them as they were, for the next step.",
        ("update",),
        (
            ("m_hat = m", "m_hat = state['first_moment'] = m"),
            ("v_hat = v", "v_hat = state['second_moment'] = v"),
        ),
    ),
    Known(
        "The corrected m goes into the memory: keep it as it was, for the next step.",
        ("update",),
        (("m_hat = m", "m_hat = state['first_moment'] = m"),),
    ),
    Known(
        "The corrected v goes into the memory: keep it as it was, for the next step.",
        ("update",),
        (("v_hat = v", "v_hat = state['second_moment'] = v"),),
    ),
    Known(
        "The root is missing: divide by √v, and not by v.",
        ("update",),
        (("v_hat.sqrt()", "v_hat"),),
    ),
    Known("v averages |g|, and not g².", ("moments",), (("grad ** 2", "grad.abs()"),)),
    Known(
        "The betas are swapped: beta1 is m's, beta2 is v's.",
        ("update",),
        (("beta1, beta2 = group['betas']", "beta2, beta1 = group['betas']"),),
    ),
    Known(
        "The root is missing: divide by √s, and not by s.",
        ("update",),
        (("variance.sqrt()", "variance"),),
    ),
    Known(
        "The squares are summed up, as in Adagrad: let old ones fade, by alpha.",
        ("update",),
        (
            (
                "alpha * state.get('second_moment', 0) + (1 - alpha) * grad ** 2",
                "state.get('second_moment', 0) + grad ** 2",
            ),
        ),
    ),
    Known(
        "s averages |g|, and not g².",
        ("update",),
        (("(1 - alpha) * grad ** 2", "(1 - alpha) * grad.abs()"),),
    ),
    Known(
        "alpha and 1 - alpha are swapped: the old average has the weight alpha.",
        ("update",),
        (("alpha, momentum = (group['alpha']", "alpha, momentum = (1 - group['alpha']"),),
    ),
    Known(
        "The new gradient is multiplied by 1 - momentum: that is an average. Add it whole.",
        ("update",),
        (
            (
                VELOCITY,
                "velocity = momentum * state['velocity'] + (1 - momentum) * grad",
            ),
            ("velocity = grad.clone()", "velocity = (1 - momentum) * grad"),
        ),
    ),
    Known(
        "The new gradient is multiplied by 1 - momentum, but for the first: add it whole.",
        ("update",),
        ((VELOCITY, "velocity = momentum * state['velocity'] + (1 - momentum) * grad"),),
    ),
    Known(
        "lr is inside the velocity, where a schedule comes too late: multiply by it when θ moves.",
        ("update",),
        (
            (VELOCITY, f"{VELOCITY} * group['lr']"),
            ("velocity = grad.clone()", "velocity = group['lr'] * grad"),
            ("param -= group['lr'] * direction", "param -= direction"),
        ),
    ),
    Known(
        "That is Nesterov's momentum, which looks one step ahead.",
        ("update",),
        (("group['nesterov']", "True"), ("velocity = grad.clone()", "velocity = grad")),
    ),
    Known(
        "The velocity is forgotten from step to step: keep it in `state`.",
        ("update",),
        (("state['velocity'] = velocity", "pass"),),
    ),
    Known(
        "The velocity never fades: multiply the old one by momentum.",
        ("update",),
        (("momentum * state['velocity']", "state['velocity']"),),
    ),
    Known(
        "θ moves by the velocity of the step before: first renew it, then move.",
        ("update",),
        (
            ("direction = grad\n", "direction = grad\n    before = state.get('velocity', 0)\n"),
            ("else velocity", "else before"),
        ),
    ),
    Known(
        "The decay is not multiplied by lr: a lower rate decays as much.",
        ("apply_weight_decay",),
        (("group['lr'] * weight_decay", "weight_decay"),),
    ),
    Known(
        "The decay is not multiplied by lr: a lower rate decays as much.",
        ("apply_weight_decay",),
        (("return grad + weight_decay * param", "param *= 1 - weight_decay"),),
    ),
    Known(
        "The decay is missing.",
        ("apply_weight_decay",),
        (("if (weight_decay := group.get('weight_decay', 0)):", "if (weight_decay := 0):"),),
    ),
    Known(
        "The decay has the wrong sign: it pushes θ away from 0.",
        ("apply_weight_decay",),
        (("grad + weight_decay * param", "grad - weight_decay * param"),),
    ),
    Known(
        "The decay has the wrong sign: it pushes θ away from 0.",
        ("apply_weight_decay",),
        (("1 - group['lr'] * weight_decay", "1 + group['lr'] * weight_decay"),),
    ),
    Known(
        "The decay counts twice: UpdateRule adds a group's weight_decay by itself.",
        ("apply_weight_decay",),
        (("grad + weight_decay * param", "grad + 2 * weight_decay * param"),),
    ),
    Known(
        "The decay counts twice: UpdateRule adds a group's weight_decay to the gradient, unless "
        "the group has decoupled_weight_decay.",
        ("apply_weight_decay",),
        (
            (
                "param.copy_(param * (1 - group['lr'] * weight_decay))",
                "param.copy_(param * (1 - group['lr'] * weight_decay))\n"
                "        return grad + weight_decay * param",
            ),
        ),
    ),
    Known(
        "The steps go uphill: a parameter moves against its gradient, by `param -= ...`.",
        ("_step_one",),
        (("if group.get('maximize'):", "if not group.get('maximize'):"),),
    ),
    Known(
        "All parameters share one memory: keep what you remember in `state`, which is the "
        "parameter's own, and not in `self`.",
        ("step",),
        (("self.state[param]", "self.state[self.param_groups[0]['params'][0]]"),),
    ),
    Known(
        "All parameters share one memory: keep what you remember in `state`, which is the "
        "parameter's own, and not in `self`.",
        ("_step_one",),
        (
            (
                "state['step'] = state.get('step', 0) + 1",
                "own = state\n    own['step'] = "
                "own.get('step', 0) + 1\n    state = vars(self).setdefault('memory', {})\n"
                "    state['step'] = own['step']",
            ),
        ),
    ),
    Known(
        "The memory is new at each step: keep what you remember in `state`.",
        ("_step_one",),
        (
            (
                "state['step'] = state.get('step', 0) + 1",
                "own = state\n    own['step'] = "
                "own.get('step', 0) + 1\n    state = {'step': own['step']}",
            ),
        ),
    ),
    Known(
        "The count grows with every parameter: all of them have one number a step, "
        "`state['step']`.",
        ("_step_one",),
        (
            (
                "state['step'] = state.get('step', 0) + 1",
                "self.count = 1 + vars(self).get('count', 0)\n    state['step'] = self.count",
            ),
        ),
    ),
    Known(
        "The first step is counted as 0: count it as 1. With 0, the correction divides by "
        "1 - beta**0, which is 0.",
        ("_step_one",),
        (("state.get('step', 0) + 1", "state.get('step', -1) + 1"),),
    ),
    Known(
        "Parameters whose gradient is 0 are skipped: their memory has to fade, too.",
        ("_step_one",),
        (
            (
                "state['step'] = state.get('step', 0) + 1",
                "if not grad.any():\n        return\n    state['step'] = state.get('step', 0) + 1",
            ),
        ),
    ),
    Known(
        "The decay is forgotten where the gradient is 0.",
        ("apply_weight_decay",),
        (("grad + weight_decay * param", "grad + weight_decay * param * bool(grad.any())"),),
    ),
]

KNOWN = [*REAL, *USUAL]

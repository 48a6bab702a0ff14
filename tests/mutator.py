"""A mutator of optimizers/ that knows nothing of checks/: it changes a word of the text at random.

    python -m tests.mutator 0 300

makes 300 changes, of seeds 0 to 299, and counts how many of those that change a number are found.
"""

import ast
import inspect
import io
import keyword
import random
import re
import sys
import tokenize
import types
import warnings
from pathlib import Path

import torch

import optimizers

FOLDER = Path(optimizers.__file__).parent
FILES = ["update_rule", "gradient_descent", "adaptive", "adam", "matrices", "lbfgs"]
RULES = [name for name in optimizers.__all__ if hasattr(torch.optim, name) and name != "LBFGS"]
OPERATORS = {
    "+": "-*", "-": "+*", "*": "/+", "/": "*-", "<": ["<=", ">"], ">": [">=", "<"],
    "-=": ["+="], "*=": ["/="], "**": ["*"],
}  # fmt: skip
NO_VALUES = {
    *keyword.kwlist,
    "self",
    "state",
    "group",
    "torch",
    "math",
    "params",
    "closure",
    "loss",
}
NUMBERS = ["0", "1", "2", "0.5", "3"]


def text_of(name):
    return (FOLDER / f"{name}.py").read_text(encoding="utf-8")


METHODS = ("step", "_step_one", "apply_weight_decay", "update")


def functions_of(rule):
    """Return (file, first line, last line, name) of the functions that a rule goes through."""
    update = getattr(optimizers, rule).update
    file, owner = update.__module__.split(".")[-1], update.__qualname__.split(".")[0]
    called = set(re.findall(r"\w+", inspect.getsource(update)))
    found = []
    for name, theirs in (("update_rule", "UpdateRule"), (file, owner)):
        for node in ast.parse(text_of(name)).body:
            if isinstance(node, ast.ClassDef) and node.name == theirs:
                methods = [item for item in node.body if isinstance(item, ast.FunctionDef)]
                found += [(name, item) for item in methods if item.name in METHODS]
            elif isinstance(node, ast.FunctionDef) and node.name in called:
                found.append((name, node))
    return [
        (name, node.body[1 if ast.get_docstring(node) else 0].lineno, node.end_lineno, node.name)
        for name, node in found
        if (name, node.name) != ("update_rule", "update")
    ]


def change_line(line, words, chance):
    """Return the line with one word changed, or None where nothing comes to mind."""
    stripped = line.strip()
    kind = chance.choice(["word"] * 8 + ["method", "brackets", "gone"])
    if kind == "gone":
        return line.replace(stripped, "pass")
    if kind == "method":
        return re.sub(r"\.(sqrt|abs|sign|clone|square|mean)\(\)", "", line, count=1)
    if kind == "brackets":
        return re.sub(r"\(([^()]*)\)", r"\1", line, count=1)
    tokens = list(tokenize.generate_tokens(io.StringIO(stripped).readline))
    tokens = [t for t in tokens if t.string and (
        t.string in OPERATORS or t.type == tokenize.NUMBER
        or (t.type == tokenize.NAME and t.string in words and not keyword.iskeyword(t.string))
    )]  # fmt: skip
    if not tokens:
        return None
    token = chance.choice(tokens)
    if token.string in OPERATORS:
        new = chance.choice(list(OPERATORS[token.string]))
    elif token.type == tokenize.NUMBER:
        new = chance.choice([number for number in NUMBERS if number != token.string])
    else:
        new = chance.choice([word for word in words if word != token.string])
    (_, start), (_, end) = token.start, token.end
    return line.replace(stripped, stripped[:start] + new + stripped[end:])


def mutant(seed):
    """Return a rule's name, its class with one change, the function changed and its source."""
    chance = random.Random(seed)
    while True:
        rule = chance.choice(RULES)
        file, first, last, name = chance.choice(functions_of(rule))
        lines = text_of(file).splitlines()
        number = chance.randrange(first - 1, last)
        body = "\n".join(lines[first - 1 : last])
        words = sorted(set(re.findall(r"\b[a-z_0-9]*[a-z]\b(?=[^'\"(=.\w]|$)", body)) - NO_VALUES)
        try:
            line = change_line(lines[number], words, chance)
            if line is None or line == lines[number]:
                continue
            lines[number] = line
            built = build("\n".join(lines), file, rule)
        except (SyntaxError, tokenize.TokenError, IndexError):
            continue
        tree = ast.parse("\n".join(lines))
        (changed,) = [
            node for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and node.name == name
            and node.body[0].lineno <= first <= node.end_lineno
        ]  # fmt: skip
        if ast.get_docstring(changed):
            del changed.body[0]
        return rule, built, name, ast.unparse(changed), f"{file}: {line.strip()}"


def build(text, changed, rule):
    """Return a class of the package with this text for one of its files."""
    package = f"mutants_{abs(hash(text))}"
    sys.modules[package] = types.ModuleType(package)
    for file in FILES:
        module = types.ModuleType(f"{package}.{file}")
        sys.modules[module.__name__] = module
        source = text if file == changed else text_of(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(source.replace("from optimizers.", f"from {package}."), vars(module))
        vars(sys.modules[package]).update(vars(module))
    found = getattr(sys.modules[package], rule)
    for name in [name for name in sys.modules if name.startswith(package)]:
        del sys.modules[name]
    return found


# ---------------------------------------------------------------- does it change a number?

VALUES = {
    "momentum": [0, 0.5, 0.9], "dampening": [0, 0.3], "nesterov": [False, True],
    "weight_decay": [0, 0.3], "maximize": [False, True], "lr_decay": [0, 0.2],
    "initial_accumulator_value": [0, 0.3], "eps": [None, 1e-3], "alpha": [0.5, 0.95],
    "centered": [False, True], "rho": [0.5, 0.95], "betas": [(0.5, 0.8), (0.9, 0.99)],
    "amsgrad": [False, True], "decoupled_weight_decay": [False, True],
    "momentum_decay": [4e-3, 0.3], "etas": [(0.5, 1.2), (0.3, 1.7)],
    "step_sizes": [(1e-6, 50), (1e-2, 3e-2)], "lambd": [1e-4, 0.3], "t0": [1e6, 2],
    "beta2_decay": [-0.8, -0.2], "d": [1.0, 2.0], "ns_steps": [5, 2],
    "adjust_lr_fn": [None, "match_rms_adamw"],
}  # fmt: skip


def walk(rule, make, seed):
    """Return where a rule goes from a random start, with random options and gradients."""
    chance = random.Random(seed)
    takes = inspect.signature(getattr(torch.optim, rule)).parameters
    options = {k: chance.choice(VALUES[k]) for k in sorted(VALUES) if k in takes}
    options = {k: v for k, v in options.items() if v is not None}
    if "eps" in options and rule == "Adafactor":
        options["eps"] = (1e-3, 0.1)
    if options.get("nesterov") and rule == "SGD":
        options |= {"momentum": 0.9, "dampening": 0}
    generator = torch.Generator().manual_seed(seed)
    shapes = [(3, 2), (2, 3)] if rule in ("Muon", "SparseAdam") else [(3, 2), (4,), ()]
    params = [torch.nn.Parameter(torch.randn(s, generator=generator)) for s in shapes]
    groups = [{"params": params[:1]}, {"params": params[1:], "lr": 0.02}]
    optimizer = make(groups, lr=0.05, **options)
    size, points = 10.0 ** chance.choice([0, 0, 0, -8, 6]), []
    for step in range(15):
        for group in optimizer.param_groups:
            group["lr"] *= chance.choice([1, 1, 0.7])
        for param in params:
            grad = torch.randn(param.shape, generator=generator) * size * (step != 3)
            grad = grad.to_sparse() if rule == "SparseAdam" else grad
            param.grad = None if chance.random() < 0.1 else grad
        optimizer.step()
        points.append(torch.cat([param.detach().flatten() for param in params]))
    return torch.stack(points)


def changes_a_number(rule, made):
    """Whether a class goes another way than torch's, to nine digits, on any of many walks."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        for seed in range(40):
            right = walk(rule, getattr(torch.optim, rule), seed)
            try:
                mine = walk(rule, made, seed)
            except Exception:
                return True
            if not torch.allclose(mine, right, rtol=1e-9, atol=1e-12, equal_nan=True):
                return True
        return False
    finally:
        torch.set_default_dtype(before)


def judge(seed):
    """Return (changes a number, is found, is in the catalogue, is named) of a mutant, in words."""
    from checks.maker import Maker
    from checks.mistakes import catalogue, named
    from checks.same_steps import compare

    rule, made, name, source, words = mutant(seed)
    changes = changes_a_number(rule, made)
    comparison = compare(Maker("mutant", made), Maker(rule, getattr(torch.optim, rule)))
    found = bool(comparison.findings)
    known = [m for m in catalogue(getattr(optimizers, rule)) if m.source == (name, source)]
    is_named = None
    if known and comparison.first is not None and comparison.thetas:
        sources = [mistake.source for mistake in named(comparison)]
        is_named = known[0].source in sources
    return changes, found, bool(known), is_named, f"{seed} {rule}.{name}: {words}"


def main(first, last):
    tally = {"changed": 0, "found": 0, "known": 0, "named": 0}
    for seed in range(first, last):
        changes, found, _known, is_named, words = judge(seed)
        tally["changed"] += changes
        tally["found"] += changes and found
        tally["known"] += is_named is not None
        tally["named"] += bool(is_named)
        if changes and not found:
            print("not found:", words, flush=True)
        if found and not changes:
            print("found, though the judge saw no change:", words, flush=True)
        if is_named is False:
            print("not named:", words, flush=True)
    print(tally)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*map(int, sys.argv[1:]))

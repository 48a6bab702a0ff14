"""Hundreds of mistakes for each rule of optimizers/, made by changing its source in one place.

A rule is a few functions: `update`, what it calls in its own file, and the books around it in
`UpdateRule`. Their source is read, changed (`changes`), and compiled again. So a mistake is an
optimizer, whose steps can be held against those of another.
"""

import ast
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import optimizers
from checks.known import KNOWN
from checks.maker import Maker, quietly
from checks.same_steps import NO_FORMULA, Comparison, Walk, follows, path_of
from optimizers import UpdateRule

SIGN = "A sign is wrong."
MISSING = "`{part}` is missing."
TWICE = "`{part}` is there twice."
INSTEAD = "`{wrong}` stands where `{right}` belongs."
EXCHANGED = "It multiplies where it has to divide, or the other way round."
FORGOTTEN = "{key} is forgotten from step to step: keep it in `state`."
STARTS = "{key} starts at `{wrong}`, and has to start at `{right}`."
SWAPPED = "Two names are swapped."
CONDITION = "A condition is wrong."
POWER = "A power is wrong."
NO_LINE = "A line is missing."
ORDER = "Two lines stand in the wrong order."
READ_ONCE = (
    "The group's own `{name}` is not used, nor what a schedule makes of it: read it from the group "
    "at each step."
)
COUNT = "The step is counted from another number: the first is 1."
OTHER_VALUE = "It has {name}={wrong}, where {other} has {name}={right}."
OTHER_RULE = "Those are the steps of {name}."


@dataclass(frozen=True)
class Mistake:
    """A mistake in words, as lines of the rule, and as what makes an optimizer that has it."""

    sentence: str
    values: dict[str, str]
    make: Callable[[Maker], Maker]
    right: str = ""
    wrong: str = ""
    link: str = ""
    is_known: bool = False  # it has a sentence of its own
    source: tuple[str, str] = ("", "")  # the function that is changed, and what it is then
    is_all: bool = True  # with it, all numbers are those of the optimizer compared


@dataclass(frozen=True)
class Part:
    """A function that a rule consists of: its name, its source, and whose method it is."""

    name: str
    source: str
    module: str
    is_method: bool


@dataclass(frozen=True)
class Change:
    """What was changed: in words, the line before and after, and the function's new source."""

    sentence: str
    source: str
    right: str = ""
    wrong: str = ""
    values: dict[str, str] = field(default_factory=dict)
    link: str = ""


KNOWN_SENTENCES = {known.sentence for known in KNOWN}
BOOKS = ("step", "step_group", "_step_one")  # of the base class, which nobody knows by heart

# ---------------------------------------------------------------- a rule, and one with a change


def formula_of(optimizer_class: type) -> type | None:
    """Return the class whose formula is written out: itself, or ours of the name in torch.optim."""
    if issubclass(optimizer_class, UpdateRule):
        return optimizer_class
    if optimizer_class.__module__.startswith("torch.optim"):
        return getattr(optimizers, optimizer_class.__name__, None)
    return None


@cache
def parts_of(rule: type) -> tuple[Part, ...]:
    """Return the functions that a rule consists of: methods, and what they call in their files."""
    methods: dict[str, Part] = {}
    for owner in rule.__mro__:
        if not issubclass(owner, UpdateRule):
            break
        for name, value in vars(owner).items():
            if inspect.isfunction(value) and name not in ("__init__", "add_param_group"):
                source = _source(value).replace("super()", f"super({owner.__name__}, self)")
                part = Part(name, source, value.__module__, is_method=True)
                methods.setdefault(name, part)
    parts, waiting = [], list(methods.values())
    while waiting:
        part = waiting.pop(0)
        parts.append(part)
        for node in ast.walk(ast.parse(part.source)):
            name = node.id if isinstance(node, ast.Name) else ""
            value = vars(sys.modules[part.module]).get(name)
            if inspect.isfunction(value) and value.__module__ == part.module:
                helper = Part(value.__name__, _source(value), part.module, is_method=False)
                waiting += [helper] if helper not in [*parts, *waiting] else []
    return tuple(parts)


def _source(function: Callable[..., Any]) -> str:
    """Return a function's source as `ast` writes it, without its docstring."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    (definition,) = tree.body
    assert isinstance(definition, ast.FunctionDef)
    if ast.get_docstring(definition):
        del definition.body[0]
    return ast.unparse(tree)


def with_change(rule: type, part: Part, source: str) -> type:
    """Return the rule with another source for one of its parts."""
    namespace = dict(vars(sys.modules[part.module]))
    same_file = [one for one in parts_of(rule) if one.module == part.module]
    for one in same_file:
        text = source if one == part else one.source
        exec(_compiled(text), namespace)  # our own source, with a change
    methods = {one.name: namespace[one.name] for one in same_file if one.is_method}
    return type(rule.__name__, (rule,), methods)


@cache
def _compiled(source: str) -> Any:
    return compile(f"from __future__ import annotations\n{source}", "<mistake>", "exec")


# ---------------------------------------------------------------- all changes of a function


def all_changes(part: Part, hyperparameters: dict[str, Any]) -> Iterator[Change]:
    """Yield the part with each change: the known mistakes first, then one of each place."""
    for known in KNOWN:
        source = part.source
        for old, new in known.changes:
            source = source.replace(old, new)
        if part.name in known.functions and all(old in part.source for old, _ in known.changes):
            right, wrong = "", ""
            if part.name not in BOOKS:
                right, wrong = _lines_that_differ(part.source, source)
            yield Change(known.sentence, source, right, wrong, link=known.link)
    tree = ast.parse(part.source)
    names = _names_of(tree)
    names = names if len(names) <= MOST_NAMES else []
    for holder, key, node, statement in places(tree):
        for sentence, values, new in changes(node, names, hyperparameters):
            right = _line(statement)
            holder[key] = new
            try:
                wrong = _line(new if node is statement else statement)
                yield Change(sentence, ast.unparse(tree), right, wrong, values)
            finally:
                holder[key] = node
    yield from _changes_of_lines(tree)


MOST_NAMES = 16  # in a longer function, as LBFGS has, each for each other would be thousands


def _names_of(tree: ast.AST) -> list[str]:
    """Return the names that a function gives itself: its arguments, and what it assigns."""
    names = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return sorted(names - {"self", "state", "group"})


def _lines_that_differ(one: str, other: str) -> tuple[str, str]:
    ours, theirs = one.splitlines(), other.splitlines()
    right = [line.strip() for line in ours if line not in theirs]
    wrong = [line.strip() for line in theirs if line not in ours]
    return "; ".join(right), "; ".join(wrong)


def _line(statement: ast.AST) -> str:
    return ast.unparse(statement).splitlines()[0]


Place = tuple[Any, Any, ast.AST, ast.AST]


def places(tree: ast.AST, statement: ast.AST | None = None) -> Iterator[Place]:
    """Yield where each node hangs, holder[key]; the node; the statement that it is part of."""
    for name, value in ast.iter_fields(tree):
        is_call = name == "args" and isinstance(value, list)
        if name in ("args", "annotation", "returns", "decorator_list", "ctx") and not is_call:
            continue
        holder: Any = value if isinstance(value, list) else vars(tree)
        keys: Any = range(len(value)) if isinstance(value, list) else [name]
        for key in keys:
            node = holder[key]
            if isinstance(node, ast.AST):
                of = node if isinstance(node, ast.stmt) else statement
                if of is not None:
                    yield holder, key, node, of
                yield from places(node, of)


Changes = Iterator[tuple[str, dict[str, str], Any]]


def changes(node: ast.AST, names: list[str], hyperparameters: dict[str, Any]) -> Changes:
    """Yield what may stand in a node's place, by mistake: a sentence, its values, another node."""
    if isinstance(node, ast.BinOp):
        yield from _of_a_term(node)
    elif isinstance(node, ast.Call):
        yield from _of_a_call(node)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in names:
        yield from _of_a_name(node, names)
    elif isinstance(node, ast.Subscript):
        yield from _of_a_key(node, hyperparameters)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        for other in dict.fromkeys((0, 1, -node.value, node.value + 1, node.value - 1, 2)):
            if other != node.value:
                yield _instead(node, str(other))
    elif isinstance(node, ast.Compare):
        for operator in (ast.Gt, ast.GtE, ast.Lt, ast.LtE, ast.Eq):
            if not isinstance(node.ops[0], operator | ast.In | ast.Is | ast.IsNot):
                yield CONDITION, {}, ast.Compare(node.left, [operator()], node.comparators)
    elif isinstance(node, ast.If):
        for test in _other_tests(node.test):
            yield CONDITION, {}, ast.If(test, node.body, node.orelse)
    elif isinstance(node, ast.IfExp):
        for test in _other_tests(node.test):
            yield CONDITION, {}, ast.IfExp(test, node.body, node.orelse)
    elif isinstance(node, ast.UnaryOp):
        yield SIGN, {}, node.operand
    elif isinstance(node, ast.AugAssign):
        turned = {ast.Sub: ast.Add, ast.Add: ast.Sub, ast.Mult: ast.Div}.get(type(node.op))
        if turned:
            yield SIGN, {}, ast.AugAssign(node.target, turned(), node.value)
    elif isinstance(node, ast.Tuple) and len(node.elts) == 2 and _is_stored(node):
        one, two = node.elts
        yield SWAPPED, {}, ast.Tuple([two, one], node.ctx)


def _other_tests(test: ast.expr) -> list[ast.expr]:
    return [_parse(text) for text in ("True", "False", f"not ({ast.unparse(test)})")]


def _of_a_term(node: ast.BinOp) -> Changes:
    left, right = ast.unparse(node.left), ast.unparse(node.right)
    whole = ast.unparse(node)
    if isinstance(node.op, ast.Add):
        yield SIGN, {}, ast.BinOp(node.left, ast.Sub(), node.right)
        yield MISSING, {"part": right}, node.left
        yield MISSING, {"part": left}, node.right
    elif isinstance(node.op, ast.Sub):
        yield SIGN, {}, ast.BinOp(node.left, ast.Add(), node.right)
        yield SIGN, {}, ast.BinOp(node.right, ast.Sub(), node.left)
        yield MISSING, {"part": f"- {right}"}, node.left
        yield MISSING, {"part": f"{left} -"}, node.right
    elif isinstance(node.op, ast.Mult):
        yield EXCHANGED, {}, ast.BinOp(node.left, ast.Div(), node.right)
        yield MISSING, {"part": right}, node.left
        yield MISSING, {"part": left}, node.right
        yield TWICE, {"part": right}, ast.BinOp(node, ast.Mult(), node.right)
        yield TWICE, {"part": left}, ast.BinOp(node, ast.Mult(), node.left)
    elif isinstance(node.op, ast.Div):
        yield EXCHANGED, {}, ast.BinOp(node.left, ast.Mult(), node.right)
        yield EXCHANGED, {}, ast.BinOp(node.right, ast.Div(), node.left)
        yield MISSING, {"part": f"/ {right}"}, node.left
        yield TWICE, {"part": f"/ {right}"}, ast.BinOp(node, ast.Div(), node.right)
        if isinstance(node.right, ast.BinOp) and isinstance(node.right.op, ast.Add):
            yield _instead(node, f"({left}) / ({ast.unparse(node.right.left)}) "
                                 f"+ {ast.unparse(node.right.right)}")  # fmt: skip
    elif isinstance(node.op, ast.Pow):
        yield POWER, {}, node.left
        yield POWER, {}, _parse(f"{left} * ({right})")
        yield POWER, {}, _parse(f"{left} ** (1 + {right})")
        yield POWER, {}, _parse(f"{left} ** ({right} - 1)")
        if right == "2":
            yield POWER, {}, _parse(f"abs({left})")
    if whole.endswith((f" + {right}", f" - {right}")) and left.endswith(".sqrt()"):
        yield _instead(node, f"({left.removesuffix('.sqrt()')} + {right}).sqrt()")
        yield _instead(node, f"({left.removesuffix('.sqrt()')} + {right} ** 2).sqrt()")
        yield _instead(node, f"{left}.clamp(min={right})")


def _of_a_call(node: ast.Call) -> Changes:
    text = ast.unparse(node)
    if isinstance(node.func, ast.Attribute):
        method, inner = node.func.attr, node.func.value
        if method == "get" and len(node.args) == 2:
            key, first = node.args[0], ast.unparse(node.args[1])
            name = str(ast.literal_eval(key)) if isinstance(key, ast.Constant) else "the memory"
            for other in dict.fromkeys(("0", "1", "grad", "-1")):
                if other != first:
                    values = {"key": name, "wrong": other, "right": first}
                    yield STARTS, values, _parse(text.replace(f", {first})", f", {other})"))
            yield FORGOTTEN, {"key": name}, node.args[1]
            return
        if isinstance(inner, ast.Name) and inner.id in ("torch", "math"):
            for argument in node.args:
                yield MISSING, {"part": f"{inner.id}.{method}"}, argument
            for one, two in (("maximum", "minimum"), ("minimum", "maximum")):
                if method == one:
                    yield _instead(node, text.replace(one, two, 1))
        else:
            yield MISSING, {"part": f".{method}()"}, inner
            if inner_sum := _sum(inner):
                yield _instead(node, f"({inner_sum[0]}).{method}() + {inner_sum[1]}")
            for one, two in (("abs", "square"), ("sqrt", "abs"), ("square", "abs")):
                if method == one:
                    yield _instead(node, f"({ast.unparse(inner)}).{two}()")
    elif isinstance(node.func, ast.Name) and node.func.id in ("max", "min"):
        other = {"max": "min", "min": "max"}[node.func.id]
        yield _instead(node, text.replace(node.func.id, other, 1))
        for argument in node.args:
            yield MISSING, {"part": node.func.id}, argument


def _sum(node: ast.AST) -> tuple[str, str] | None:
    """Return the two terms of a sum."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return ast.unparse(node.left), ast.unparse(node.right)
    return None


FRACTIONS = ("beta", "momentum", "alpha", "rho", "mu", "dampening")


def _of_a_name(node: ast.Name, names: list[str]) -> Changes:
    for name in names:
        if name != node.id:
            yield _instead(node, name)
    if node.id.startswith(FRACTIONS):
        yield _instead(node, f"1 - {node.id}")
    yield SIGN, {}, _parse(f"-{node.id}")


def _of_a_key(node: ast.Subscript, hyperparameters: dict[str, Any]) -> Changes:
    text, of = ast.unparse(node), ast.unparse(node.value)
    key = ast.unparse(node.slice)
    if of == "group" and isinstance(node.ctx, ast.Load):
        name = key.strip("'")
        if name != "params":
            yield READ_ONCE, {"name": name}, _parse(f"self.defaults[{key}]")
        kind = type(hyperparameters.get(name))
        for other, value in hyperparameters.items():
            is_number = {kind, type(value)} <= {int, float}
            if other not in NO_FORMULA - {"lr"} and other != name and is_number:
                yield _instead(node, f"group['{other}']")
        if name == "betas":
            for which in (0, 1):
                yield _instead(node, f"2 * (group['betas'][{which}],)")
        elif kind in (int, float):
            yield _instead(node, f"(1 - {text})")
            yield SIGN, {}, _parse(f"-{text}")
    elif text == "state['step']" and isinstance(node.ctx, ast.Load):
        yield COUNT, {}, _parse("(state['step'] - 1)")
        yield COUNT, {}, _parse("(state['step'] + 1)")


def _instead(node: ast.AST, text: str) -> tuple[str, dict[str, str], Any]:
    return INSTEAD, {"right": ast.unparse(node), "wrong": text}, _parse(text)


def _parse(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def _is_stored(node: ast.Tuple) -> bool:
    return isinstance(node.ctx, ast.Store)


def _changes_of_lines(tree: ast.AST) -> Iterator[Change]:
    """Yield the function without each of its lines, and with each two in the other order."""
    bodies = [
        body
        for node in ast.walk(tree)
        for name in ("body", "orelse")
        if isinstance(body := getattr(node, name, None), list) and node is not tree
    ]
    for body in bodies:
        for k, line in enumerate(list(body)):
            body[k] = ast.Pass()
            yield Change(NO_LINE, ast.unparse(tree), _line(line))
            body[k] = line
            if k + 1 < len(body):
                after = body[k + 1]
                body[k : k + 2] = [after, line]
                both = f"{_line(line)}; {_line(after)}", f"{_line(after)}; {_line(line)}"
                yield Change(ORDER, ast.unparse(tree), *both)
                body[k : k + 2] = [line, after]


# ---------------------------------------------------------------- the catalogue


@cache
def catalogue(rule: type) -> tuple[Mistake, ...]:
    """Return every mistake that is made from the rule's source, each source once."""
    given = Maker(rule.__name__, rule).hyperparameters
    found: dict[tuple[str, str], Mistake] = {}
    for part in parts_of(rule):
        for change in all_changes(part, given):
            if change.source != part.source:
                found.setdefault(
                    (part.name, change.source),
                    Mistake(
                        change.sentence,
                        change.values,
                        _maker(rule, part, change.source),
                        change.right,
                        change.wrong,
                        change.link,
                        change.sentence in KNOWN_SENTENCES,
                        (part.name, ast.unparse(ast.parse(change.source))),
                    ),
                )
    return tuple(found.values())


def _maker(rule: type, part: Part, source: str) -> Callable[[Maker], Maker]:
    @cache
    def changed() -> type:
        return with_change(rule, part, source)

    return lambda other: Maker(other.label, changed(), other.keywords)


# Values that are taken for each other.
VALUES: dict[str, tuple[Any, ...]] = {
    "alpha": (0.9, 0.99, 0.999, 0.95),
    "betas": ((0.9, 0.999), (0.9, 0.99), (0.9, 0.9), (0.99, 0.999), (0.95, 0.98), (0.999, 0.9)),
    "dampening": (0, 0.1, 0.2, 0.5, 0.9),
    "eps": (0, 1e-12, 1e-10, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3),
    "momentum": (0, 0.5, 0.8, 0.9, 0.95, 0.99, 1),
    "rho": (0.9, 0.95, 0.99),
    "weight_decay": (0, 1e-4, 1e-2, 0.1),
}


def other_values(comparison: Comparison) -> Iterator[Mistake]:
    """Yield the rule with another value for what the class compared does not take by name."""
    for name, right in comparison.other.hyperparameters.items():
        if name in comparison.shared:
            continue
        values = VALUES.get(name, ())
        if isinstance(right, bool):
            values = (not right,)
        elif name == "weight_decay" and right:
            values = (*values, 2 * right, -right)
        for value in values:
            if value != right:
                words = {"name": name, "right": str(right), "wrong": str(value)}
                words["other"] = comparison.other.label
                yield Mistake(OTHER_VALUE, words, partial(_with, {name: value}))


def other_rules(comparison: Comparison) -> Iterator[Mistake]:
    """Yield the other rules of optimizers/, with what they share of the hyperparameters."""
    for name in optimizers.__all__:
        rule = getattr(optimizers, name)
        if name == "UpdateRule" or rule is formula_of(comparison.other.optimizer_class):
            continue
        takes = Maker(name, rule).hyperparameters
        keywords = {k: v for k, v in comparison.other.keywords.items() if k in takes}
        yield Mistake(OTHER_RULE, {"name": name}, partial(_instead_of, Maker(name, rule, keywords)))


def _with(keywords: dict[str, Any], other: Maker) -> Maker:
    return other.with_keywords(**keywords)


def _instead_of(maker: Maker, other: Maker) -> Maker:
    return maker


def known_mistakes(other: Maker) -> int:
    """Return how many mistakes are made from the formula of an optimizer."""
    rule = formula_of(other.optimizer_class)
    return len(catalogue(rule)) if rule else 0


def named(comparison: Comparison) -> list[Mistake]:
    """Return the mistakes whose numbers are those of the optimizer that was compared.

    On all walks; or else, where it has one mistake more, on those with the usual hyperparameters.
    """
    rule = formula_of(comparison.other.optimizer_class)
    if rule is None or comparison.first is None:
        return []
    keywords = {k: v for k, v in comparison.other.keywords.items() if k not in NO_FORMULA - {"lr"}}
    other = Maker(comparison.other.label, rule, keywords)
    every = [*catalogue(rule), *other_values(comparison), *other_rules(comparison)]
    first, numbers = comparison.first, range(len(comparison.walks))
    usual = [k for k in numbers if _is_usual(comparison.walks[k])]
    with quietly():
        near = [mistake for mistake in every if fits(mistake.make(other), comparison, [first])]
        full = [m for m in near if fits(m.make(other), comparison, numbers)]
        if full or first not in usual:
            return full
        return [replace(m, is_all=False) for m in near if fits(m.make(other), comparison, usual)]


def _is_usual(walk: Walk) -> bool:
    return not walk.keywords and walk.groups is None


def fits(make: Maker, comparison: Comparison, numbers: Iterable[int]) -> bool:
    """Tell whether an optimizer takes the steps of the one compared, on the walks so numbered."""
    try:
        return all(
            follows(path_of(make, comparison.walks[k], comparison.kind), comparison.thetas[k])
            for k in numbers
        )
    except Exception:  # a change may break the rule in any way
        return False


def told(mistakes: Iterable[Mistake], most: int = 4) -> list[Mistake]:
    """Return those to be told: the known ones, or else the first few; no sentence twice."""
    by_words = {(m.sentence, *m.values.values(), m.right, m.wrong): m for m in mistakes}
    distinct = list(by_words.values())
    return [mistake for mistake in distinct if mistake.is_known][:most] or distinct[:most]

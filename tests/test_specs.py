"""The language that names optimizers."""

import ast
import contextlib
import keyword
import math
from pathlib import Path

from lab.command_line import specs

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import settings


def params():
    return [torch.nn.Parameter(torch.zeros(2, 2))]


@pytest.mark.parametrize("name", specs.TORCH_CLASSES)
def test_every_class_of_torch_optim_can_be_named(name):
    spec = specs.parse_optimizer(f"{name}()", lr=0.125)
    optimizer = spec(params())
    assert type(optimizer) is getattr(torch.optim, name)
    assert optimizer.param_groups[0]["lr"] == 0.125


def test_a_call_takes_no_preset_and_its_own_lr_wins():
    spec = specs.parse_optimizer("Adam(lr=0.5)", lr=0.01)
    assert spec.label == "Adam(lr=0.5)"
    assert spec.keywords == {"lr": 0.5}
    assert specs.parse_optimizer("Adam(eps=1e-3)", lr=0.1).call == "Adam(lr=0.1, eps=0.001)"


@pytest.mark.parametrize(
    ("text", "label", "call"),
    [
        ("big=SGD(lr=1.0)", "big", "SGD(lr=1.0)"),
        (" mine = SGD ( momentum = 0.8 ) ", "mine", "SGD(lr=0.01, momentum=0.8)"),
        ("two words=torch.optim.Adam", "two words", "torch.optim.Adam(lr=0.01)"),
        ("AdamW ( amsgrad = True )", "AdamW ( amsgrad = True )", "AdamW(lr=0.01, amsgrad=True)"),
        ("Rprop(etas=(.4, 2))", "Rprop(etas=(.4, 2))", "Rprop(lr=0.01, etas=(0.4, 2))"),
    ],
)
def test_labels_and_calls(text, label, call):
    spec = specs.parse_optimizer(text, lr=0.01)
    assert (spec.label, spec.call) == (label, call)


literals = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple),
    max_leaves=5,
)
words = st.from_regex(r"[a-z_]{1,8}", fullmatch=True).filter(
    lambda word: not keyword.iskeyword(word) and word != "lr"
)


@given(
    name=st.sampled_from(sorted(specs.TORCH_CLASSES)),
    keywords=st.dictionaries(words, literals, max_size=3),
    lr=st.floats(1e-300, 1e300),
)
def test_what_is_printed_parses_back(name, keywords, lr):
    pairs = ((key, ast.unparse(ast.Constant(value))) for key, value in keywords.items())
    spec = specs.parse_optimizer(f"{name}({', '.join(f'{k}={v}' for k, v in pairs)})", lr)
    again = specs.parse_optimizer(spec.call)
    assert (again.call, again.optimizer_class) == (spec.call, spec.optimizer_class)
    assert again.keywords == spec.keywords == {"lr": lr} | keywords


def test_an_infinite_literal_parses_back_too():
    spec = specs.parse_optimizer("Adam(eps=([1e999], -1e999, 'inf'))")
    assert spec.keywords == {"eps": ([math.inf], -math.inf, "inf")}
    assert specs.parse_optimizer(spec.call).keywords == spec.keywords


@given(st.text(max_size=40) | st.text("SGD()=.,lr1e-'\"[]{}*:\\", max_size=25))
def test_any_text_is_a_spec_or_a_value_error(text):
    with contextlib.suppress(ValueError):  # anything else would be a traceback for the user
        spec = specs.parse_optimizer(text, lr=0.01)
        assert issubclass(spec.optimizer_class, torch.optim.Optimizer)


expressions = st.sampled_from(
    ["1 + 1", "x", "f()", "[i for i in 'a']", "lambda: 0", "__import__('os')", "f'{1}'", "a.b",
     "1 if 1 else 2", "(1).real", "'a' 'b'.upper()", "not 1", "1 < 2", "(x := 1)", "2 ** 9", "-x"]
)  # fmt: skip


@given(expressions, st.sampled_from(["{}", "({}, 1)", "[1, {}]", "{{'a': {}}}", "{{{}}}"]))
def test_only_literals_get_past(expression, wrapping):
    with pytest.raises(ValueError, match="only literal values"):
        specs.parse_optimizer(f"SGD(lr={wrapping.format(expression)})")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Adma", "'Adma'; did you mean Adamax or Adam"),
        ("adam", "did you mean Adam "),
        ("sdg", "did you mean SGD"),
        ("qqqqq", "known: "),
        ("SGD(0.1)", "needs its keyword"),
        ("SGD(**{'lr': 1})", "needs its keyword"),
        ("SGD(*(1,))", "needs its keyword"),
        ("SGD(lr=1, lr=2)", "twice"),
        ("SGD(lr=1", "is not of the form"),
        ("", "no printable label"),
        ("=SGD", "no printable label"),
        ("a\nb=SGD", "no printable label"),
        ("a=", "is not of the form"),
        ("SGD; SGD", "is not of the form"),
        ("SGD - SGD", "is not of the form"),
        ("(" * 5000, "is not of the form"),
        ("SGD(lr=" + "-" * 5000 + "1)", ""),
        ("SGD" + ".a" * 5000, ""),
        ("SGD(x='\0')", "no printable label"),
        ("SGD(lr=0)", "lr=0"),
        ("SGD(lr=-1.0)", "lr=-1.0"),
        ("SGD(lr=1e999)", "lr=inf"),
        ("nowhere.Adam", "cannot import nowhere"),
        ("torch.optim.Adamm", "did you mean Adam "),
        ("torch.nn.Linear", "not a torch.optim.Optimizer"),
        ("math.sin", "not a torch.optim.Optimizer"),
    ],
)
def test_bad_specs_say_what_is_wrong(text, words):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the words are checked below)
        specs.parse_optimizer(text)
    assert words in str(caught.value)


def test_the_same_label_twice():
    with pytest.raises(ValueError, match="two optimizers are labelled 'SGD'"):
        specs.parse_optimizers(["SGD", "Adam", "SGD"])


def test_an_optimizer_of_ones_own_file(homework):
    homework("import torch\nclass Mine(torch.optim.SGD):\n    pass\n")
    spec = specs.parse_optimizer("homework.Mine(momentum=0.5)", lr=0.25)
    assert spec.call == "homework.Mine(lr=0.25, momentum=0.5)"
    assert type(spec(params())).__name__ == "Mine"


def test_an_optimizer_without_a_learning_rate(homework):
    homework(
        "import torch\n"
        "class Mine(torch.optim.Optimizer):\n"
        "    def __init__(self, params):\n"
        "        super().__init__(params, {})\n"
    )
    assert specs.parse_optimizer("homework.Mine", lr=0.1).call == "homework.Mine()"


def test_a_file_that_fails_is_an_error_in_one_line(homework):
    homework("def broken(:\n")
    with pytest.raises(ValueError, match="cannot import homework: SyntaxError"):
        specs.parse_optimizer("homework.Mine")


def test_a_name_of_settings_py_is_looked_up_there_each_time(monkeypatch):
    monkeypatch.setitem(settings.OPTIMIZERS, "Momentum", "SGD(momentum=0.75)")
    assert specs.parse_optimizer("Momentum", lr=0.5).call == "SGD(lr=0.5, momentum=0.75)"


def test_optimizers_come_as_texts_or_by_their_labels():
    texts = specs.parse_optimizers(["SGD", "big=SGD(lr=1.0)"], lr=0.5)
    assert texts == specs.parse_optimizers({"SGD": "SGD", "big": "SGD(lr=1.0)"}, lr=0.5)
    assert {label: spec.call for label, spec in texts.items()} == {
        "SGD": "SGD(lr=0.5)",
        "big": "SGD(lr=1.0)",
    }
    assert list(texts) == [spec.label for spec in texts.values()]


@pytest.mark.parametrize(
    ("text", "own"),
    [
        ("SGD", False),
        ("SGD(lr=0.1)", True),
        ("SGD + StepLR(step_size=2)", False),
        ("SGD + CyclicLR(base_lr=0.1, max_lr=1.0)", True),
    ],
)
def test_where_every_rate_is_tried_none_may_name_its_own(text, own):
    spec = specs.parse_optimizer(text)
    assert spec.has_own_lr == own
    if own:
        with pytest.raises(ValueError, match="but here every rate is tried"):
            specs.parse_optimizers([text], sweeping=True)
    else:
        assert specs.parse_optimizers([text], sweeping=True) == {text: spec}
        assert spec.with_lr(0.5).call == text.replace("SGD", "SGD(lr=0.5)")


def test_a_schedule_is_named_as_it_was_typed(homework):
    homework("from torch.optim.lr_scheduler import StepLR\nclass Slow(StepLR):\n    pass\n")
    text = "SGD(lr=0.1) + homework.Slow(step_size=2) + LinearLR()"
    spec = specs.parse_optimizer(text)
    assert [scheduler.name for scheduler in spec.schedulers] == ["homework.Slow", "LinearLR"]
    assert spec.call == text


HERE = {
    "homework.py": "import torch\n\n\nclass MySGD(torch.optim.SGD):\n    pass\n",
    "my-file.py": "",
    "306_file.py": "",
    "mine.csv": "1,2\n",
    "mytask.py": "from tasks import TASKS\n\nmine = TASKS['sine']\n",
}


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("Adam,", "; leave out the commas: Adam"),
        ("Adam,SGD", "; leave out the commas: Adam SGD"),
        ("Adam(lr=0.1),SGD", "; leave out the commas: Adam SGD"),
        ("Adam(lr=0.1,", '; put what has brackets in quotes, as "Adam(lr=0.1)"'),
        ("lr=0.1", "; put what has brackets in quotes"),
        ("+", '; put a sum in quotes, as "Adam + StepLR(step_size=4)"'),
        ("Adam\uff08lr=0.1\uff09", "with the letters of an English keyboard it is Adam(lr=0.1)"),
        ("SGD(0.1)", ": every value needs its keyword, as keyword=value"),
        ("Adam(beta=(0.1, 1))", "Adam has no 'beta'; did you mean betas?"),
        ("SGD(learning_rate=1)", "SGD has no 'learning_rate'; known: lr, momentum"),
        ("SGD + Cosine", "unknown schedule 'Cosine'; did you mean CosineAnnealing"),
        ("adam", "did you mean Adam"),
        ("Lion", "unknown optimizer 'Lion'; did you mean optimizers.Lion?"),
        ("Lyon", "; did you mean optimizers.Lion?"),
        ("prodgy", "; did you mean optimizers.Prodigy?"),
        ("ScheduleFree", "; did you mean optimizers.SGDScheduleFree or optimizers.AdamWSch"),
        ("Mine", "known: SGD, Momentum"),
        ("Mine", "; in a file or a package, as homework, it is homework.Mine"),
        ("homework", "unknown optimizer 'homework'; of the file homework.py, write homework.NAME"),
        ("homework.py", "homework has no 'py'; write homework.MySGD, without .py"),
        ("homework.py.MySGD", "; write homework.MySGD, without folder and .py"),
        ("./homework.MySGD", "; write homework.MySGD, without folder and .py"),
        ("homework.mysgd", "homework has no 'mysgd'; did you mean MySGD?"),
        ("my-file.MySGD", "; Python cannot import my-file.py by that name: rename it"),
        ("306_file.MySGD", "; Python cannot import 306_file.py by that name: rename it"),
    ],
)
def test_a_word_that_people_write_is_told_what_they_mean(text, hint, homework):
    for name, source in HERE.items():
        Path(name).write_text(source)
    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        specs.parse_optimizers([text])
    assert hint in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("sine,scales", "; leave out the commas: sine scales"),
        ("spiral", "unknown task 'spiral'; did you mean spirals?"),
        ("mytask", "unknown task 'mytask'; of the file mytask.py, write mytask.NAME"),
        ("mytask.py", "mytask has no 'py'; write mytask.mine, without .py"),
        ("my-file.mine", "; Python cannot import my-file.py by that name: rename it, as my_file"),
        ("mine.csv", "mine.csv is not a name; to read the file mine.csv, see docs/your_own.md"),
    ],
)
def test_so_is_a_word_for_a_task(text, hint, homework):
    for name, source in HERE.items():
        Path(name).write_text(source)
    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        specs.parse_task(text)
    assert hint in str(refusal.value)

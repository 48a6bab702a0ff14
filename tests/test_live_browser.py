"""The live page in a real browser, without a screen: skipped where there is no Chromium."""

import base64
import json
import re
import shutil
from contextlib import contextmanager
from functools import partial

from lab.command_line.specs import parse_optimizers
from lab.live.page import Page

import pytest
import torch
from conftest import textbook_training
from torch.nn.functional import mse_loss

from settings import LR, OPTIMIZERS
from tasks import TASKS

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium (apt: chromium)")

QUIET = ("gpu", "quic", "background-networking", "component-update", "sync")
SETTLED = """
    (live.isHidden || (live.lab.isDone && !live.isDirty)) && !live.isStale
    && document.querySelector("#check").className
"""


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("live") / "page.html"
    Page(TASKS["parabola"], parse_optimizers(OPTIMIZERS, LR), 81).save(path)
    return path


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=CHROMIUM,
            chromium_sandbox=False,  # which a root has to do without
            args=["--no-first-run", *(f"--disable-{name}" for name in QUIET)],
        )
        yield chromium
        chromium.close()


@contextmanager
def opened(browser, path, address="", width=1280, height=800, **context):
    """The page, settled. In the end its console has to be silent, and nothing fetched."""
    context = {"locale": "en-US", "reduced_motion": "reduce"} | context
    with browser.new_context(viewport={"width": width, "height": height}, **context) as session:
        page, said, fetched = session.new_page(), [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: fetched.append(request.url))
        page.goto(f"{path.as_uri()}{address}")
        settle(page)
        yield page
        assert said == []
        assert {url.partition("#")[0] for url in fetched if not url.startswith("data:")} == {
            path.as_uri()
        }


def settle(page):
    page.wait_for_function(SETTLED)


def picture(page, canvas="#loss-chart"):
    return page.eval_on_selector(canvas, "(canvas) => canvas.toDataURL()")


def numbers(page):
    """The table, as rows of text."""
    return page.eval_on_selector_all(
        "#table tbody tr", "(rows) => rows.map((row) => [...row.cells].map((it) => it.textContent))"
    )


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1920, "dark")])
def test_it_opens_from_disk_and_checks_itself(browser, page_file, width, scheme):
    size = {"width": width, "height": 1080 if width > 400 else 740}
    with opened(browser, page_file, "#inside&step=9", **size, color_scheme=scheme) as page:
        line = page.inner_text("#check summary")
        assert line == f"✓ Agrees with PyTorch {torch.__version__[:6]} at 16 settings, to 5 digits"
        assert page.evaluate("document.documentElement.scrollWidth") == width
        ground = page.eval_on_selector(".losses", "(it) => getComputedStyle(it).backgroundColor")
        assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(28, 29, 32)"}[scheme]
        colors = page.eval_on_selector(
            "#loss-chart",
            """(canvas) => {
              const pen = canvas.getContext("2d");
              const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
              return new Set(new Uint32Array(data.buffer)).size;
            }""",
        )
        assert colors > 100  # four curves and their edges, and not an empty canvas


def test_the_table_has_the_numbers_of_compare_optimizers(browser, page_file):
    with opened(browser, page_file) as page:
        for (label, loss, held_out, _), text in zip(
            numbers(page), OPTIMIZERS.values(), strict=True
        ):
            assert OPTIMIZERS[label] == text
            assert [loss, held_out] == torchs_end(partial_of(label))


def partial_of(label, **own):
    return lambda params: parse_optimizers({label: OPTIMIZERS[label]}.values(), own.get("lr", LR))[
        OPTIMIZERS[label]
    ](params)


def torchs_end(make_optimizer):
    task = TASKS["parabola"]
    train, held_out = task.make_data(81)
    _, net = textbook_training(train, task.make_net, make_optimizer, mse_loss, 81, 12, 32)
    with torch.no_grad():
        return [f"{mse_loss(net(x), y):.5f}" for x, y in (train.tensors, held_out.tensors)]


def test_a_dragged_slider_trains_again(browser, page_file):
    with opened(browser, page_file) as page:
        before = {canvas: picture(page, canvas) for canvas in ("#loss-chart", "#fit-charts canvas")}
        box = page.locator("input[name='SGD lr']").bounding_box()
        x, y = box["x"] + box["width"] * 0.4, box["y"] + box["height"] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 15, y, steps=4)
        page.mouse.up()
        settle(page)
        lr = page.evaluate("live.setting.optimizers[0].lr")
        assert lr > LR
        assert numbers(page)[0][:3] == ["SGD", *torchs_end(partial(torch.optim.SGD, lr=lr))]
        assert f"SGD, lr={lr}" in page.inner_text("#legend")
        for canvas, picture_before in before.items():
            assert picture(page, canvas) != picture_before


def test_the_keyboard_moves_a_slider(browser, page_file):
    with opened(browser, page_file) as page:
        page.focus("input[name=batchSize]")
        page.keyboard.press("ArrowRight")
        settle(page)
        assert page.evaluate("live.lab.runs[3].trainings[0].batchSize") == 64
        assert page.get_attribute("input[name=batchSize]", "aria-valuetext") == "64"


def test_arrow_keys_go_from_step_to_step(browser, page_file):
    with opened(browser, page_file, "#inside&of=Adam&weight=3&step=40") as page:
        page.wait_for_function("live.lab.recorder.training.isDone")
        seen = []
        for key in ("ArrowRight", "ArrowRight", "ArrowLeft"):
            page.keyboard.press(key)
            settle(page)
            seen.append(page.inner_text("#terms"))
        assert page.evaluate("live.setting.step") == 41
        assert seen[0] == seen[2] != seen[1]
        assert "41 of 384" in page.inner_text("#inside-controls")
        for name in ("g", "m", "v", "m̂ / (√v̂ + eps)", "step"):
            assert f"\n{name}\n" in seen[0]


def test_a_weight_is_chosen_by_a_tap(browser, page_file):
    with opened(browser, page_file, "#inside", width=360, height=740, has_touch=True) as page:
        page.wait_for_function("live.lab.recorder.training.isDone && live.boxes.length")
        box = page.evaluate("live.boxes[45]")
        page.tap("#weights", position={"x": box["x"] + 5, "y": box["y"] + 5})
        assert page.evaluate("live.setting.weight") == 45
        page.wait_for_function("live.lab.recorder.weight === 45")
        assert "layer 2: from input 6 to unit 1" in page.inner_text("#terms")


def test_the_address_restores_a_setting(browser, page_file):
    with opened(browser, page_file) as page:
        page.uncheck("input[aria-label='Train RMSprop']")
        page.select_option("select[name=add]", "Lion")
        page.click("button[aria-label='Remove Momentum']")
        page.focus("input[name=noise]")
        page.keyboard.press("End")
        page.check("input[name=seeds]")
        settle(page)
        page.wait_for_function("location.hash.includes('seeds=10')")
        address, shown = page.evaluate("location.hash"), numbers(page)
        assert [row[0] for row in shown] == ["SGD", "Adam", "Lion"]
        with opened(browser, page_file, address) as other:
            assert numbers(other) == shown
            assert picture(other) == picture(page)
            other.click("#reset")
            settle(other)
            other.wait_for_function("location.hash === ''")
            assert [row[0] for row in numbers(other)] == list(OPTIMIZERS)


def test_a_wrong_loss_turns_the_line_red(browser, page_file, tmp_path):
    text = page_file.read_text(encoding="utf-8")
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    losses = json.loads(data)["checks"][8]["losses"]
    wrong = torch.frombuffer(bytearray(base64.b64decode(losses)), dtype=torch.float32).clone()
    wrong[11] *= 1.001
    broken = tmp_path / "broken.html"
    broken.write_text(text.replace(losses, base64.b64encode(wrong.numpy().tobytes()).decode()))
    with opened(browser, broken) as page:
        line = page.inner_text("#check summary")
        assert line.startswith("✗ Does not agree with PyTorch")
        color = page.eval_on_selector("#check summary", "(it) => getComputedStyle(it).color")
        red, green, blue = map(int, re.findall(r"\d+", color))
        assert red > 2 * max(green, blue)
        page.click("#check summary")
        assert "11 of 32 steps; then" in page.inner_text("#check li.bad")


def test_guess_first_hides_asks_trains_and_counts(browser, page_file):
    with opened(browser, page_file) as page:
        page.click("#guess-button")
        page.wait_for_selector("body.is-hidden")
        for hidden in ("#loss-chart", "#rate-chart", "#fit-charts canvas", "#legend"):
            assert not page.is_visible(hidden)
        assert "ends at" not in page.get_attribute("#loss-chart", "aria-label")
        assert numbers(page) == []
        for _ in range(2):  # the right order, and then, of the same question, another
            order = ["Adam", "RMSprop", "Momentum", "SGD"]
            for label in order if not page.evaluate("live.guess.asked") else order[::-1]:
                page.click(f"#guess button:has-text('{label}')")
            page.click("#guess button.main")
            page.wait_for_function("live.guess.phase === 'told'")
            assert not page.evaluate("document.body.classList.contains('is-hidden')")
            last = page.inner_text("#guess")
            page.evaluate("live.become(live.setting)")
        assert "So far: 1 of 2 all right" in last
        assert "of 6 pairs in the right order" in last


def test_in_chinese_nothing_is_left_in_english(browser, page_file):
    with opened(browser, page_file, "#inside&seeds=10", locale="zh-CN") as page:
        assert page.get_attribute("html", "lang") == "zh-CN"
        text = re.sub(
            "|".join(["AdamW", *OPTIMIZERS, "PyTorch", "English"]), "", page.inner_text("body")
        )
        names = {
            "lr",
            "alpha",
            "eps",
            "weight",
            "decay",
            "momentum",
            "sign",
            "g",
            "m",
            "v",
            "s",
            "x",
        }
        assert set(re.findall(r"[A-Za-z]+", text)) <= names | {"Nesterov", "Adagrad", "Lion"}
        page.click("#language")
        assert page.get_attribute("html", "lang") == "en"
        assert page.inner_text("h1") == "Optimizers, live"


def test_all_that_one_moves_or_sees_has_a_name(browser, page_file):
    with opened(browser, page_file, "#inside&guess") as page:
        page.click("#guess-button")
        settle(page)
        nameless = page.evaluate(
            """[...document.querySelectorAll("input, select, button, canvas, fieldset")]
              .filter((it) => !(it.getAttribute("aria-label") || it.textContent.trim()
                || it.closest("label")?.textContent.trim())).map((it) => it.outerHTML)"""
        )
        assert nameless == []

"""The page in a real Chromium, against a real service. Left out where no browser is installed.

`make test-browser` runs all of these, `make test` the quick ones. SCREENSHOTS=folder keeps a picture of each
state to look at.
"""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.service.access.trials import KeyFile
from tests.serving import PHOTOGRAPHS, Service, run_service

CHROMIUM = shutil.which("chromium")
QUIET = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
SIZES = {"desk": (1280, 900), "phone": (390, 844)}

pytestmark = pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("playwright") is None,
    reason="needs Chromium and playwright: make test-browser",
)

slow = pytest.mark.skipif(not os.environ.get("BROWSER_SLOW"), reason="many seconds long: make test-browser")


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with run_service() as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, "--disable-sync"])
        yield running
        running.close()


@pytest.fixture(params=SIZES)
def page(request: pytest.FixtureRequest, browser: Any, service: Service) -> Iterator[Any]:
    width, height = SIZES[request.param]
    opened = browser.new_page(viewport={"width": width, "height": height})
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.goto(service.http)
    opened.wait_for_selector("#model option", state="attached")
    yield opened
    shoot(opened, f"{request.node.originalname}-{request.param}")
    width_used = opened.evaluate("document.documentElement.scrollWidth")
    opened.close()
    assert faults == []
    assert width_used <= width, "the page scrolls sideways"


def shoot(page: Any, name: str) -> None:
    """Keep a picture of the page, if asked to."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def ask(page: Any, path: Path) -> None:
    """Choose a file and wait for its answer or its problem."""
    page.set_input_files("#file", path)
    page.wait_for_selector("#answer .ranks li, #problem:not([hidden])", timeout=30_000)


def test_cat_is_called_a_cat_and_its_map_lies_over_it(page: Any) -> None:
    ask(page, PHOTOGRAPHS / "cat.jpg")
    assert page.locator("#answer .ranks li").first.inner_text().startswith("cat")
    assert page.locator("#answer .ranks li").count() == 5
    page.wait_for_selector("#heat:not([hidden])")
    picture, heat = page.locator("#picture").bounding_box(), page.locator("#heat").bounding_box()
    assert abs(picture["width"] - heat["width"]) < 1
    assert abs(picture["height"] - heat["height"]) < 1
    page.locator("#slider").fill("0")
    assert page.locator("#heat").evaluate("one => one.style.opacity") == "0"


def test_samples_are_one_click_away_and_say_whose_they_are(page: Any) -> None:
    samples = page.locator("#samples button")
    for number, label in enumerate(("cat", "deer")):
        samples.nth(number).click()
        page.locator("#answer .ranks li:first-child", has_text=label).wait_for()
    assert all("by " in title for title in samples.evaluate_all("all => all.map(one => one.title)"))


def test_policy_chosen_is_the_policy_used_and_its_cost_is_told(page: Any) -> None:
    ask(page, PHOTOGRAPHS / "cat.jpg")
    page.select_option("#tta", "ten_crop")
    page.locator("#facts", has_text="ten_crop, 10 views").wait_for()
    assert "of computing" in page.locator("#policy-note").inner_text()
    assert "tta=ten_crop" in page.locator("#curl").inner_text()


def test_broken_file_gets_a_clear_problem_and_the_next_picture_works(page: Any, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes((PHOTOGRAPHS / "cat.jpg").read_bytes()[:3000])
    ask(page, broken)
    assert "cannot be decoded" in page.locator("#problem").inner_text()
    shoot(page, f"broken-file-{page.viewport_size['width']}")
    page.set_input_files("#file", PHOTOGRAPHS / "cat.jpg")
    page.wait_for_selector("#answer .ranks li")
    assert page.locator("#problem").is_hidden()
    assert page.locator("#picture").is_visible()


def test_40_megapixel_photograph_is_answered(page: Any, tmp_path: Path) -> None:
    large = tmp_path / "large.jpg"
    with Image.open(PHOTOGRAPHS / "cat.jpg") as cat:
        cat.resize((7752, 5160)).save(large, quality=80)
    ask(page, large)
    assert page.locator("#answer .ranks li").count() == 5


def test_each_policy_is_told_once_and_the_rest_at_a_click(page: Any) -> None:
    page.wait_for_selector(".model details")
    cells = page.locator(".model").first.locator("table:visible tbody tr").all_inner_texts()
    told = [(row.split("\t")[0], row.split("\t")[2]) for row in cells]
    assert len(told) == len(set(told)) > 3
    page.locator(".model summary").first.click()
    assert page.locator(".model").first.locator("table:visible tbody tr").count() > len(told)


def test_dark_mode_has_dark_ground(page: Any) -> None:
    page.emulate_media(color_scheme="dark")
    ask(page, PHOTOGRAPHS / "cat.jpg")
    red, *_ = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert red < 60


def test_keyboard_reaches_every_control(page: Any) -> None:
    reached = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
    assert {"file", "model", "tta", "wants-map", "curl", "copy", "API"} <= reached


def test_everything_has_a_name_for_a_screen_reader(page: Any) -> None:
    ask(page, PHOTOGRAPHS / "cat.jpg")
    unnamed = page.evaluate(
        "[...document.querySelectorAll('input, select, button, img:not([hidden])')].filter(one => "
        "!(one.labels?.length || one.textContent.trim() || one.hasAttribute('alt') || one.title)).length"
    )
    assert unnamed == 0


@slow
def test_server_that_went_away_is_told_and_found_again(browser: Any) -> None:
    page = browser.new_page()
    with run_service() as gone:
        page.goto(gone.http)
        page.wait_for_selector("#model option", state="attached")
    page.set_input_files("#file", PHOTOGRAPHS / "cat.jpg")
    page.wait_for_selector("#problem:not([hidden])")
    assert "cannot be reached" in page.locator("#problem").inner_text()
    page.wait_for_selector("#health.is-down", timeout=15_000)
    shoot(page, "server-down")
    page.close()


@slow
def test_key_is_asked_for_where_the_server_wants_one(browser: Any, tmp_path: Path) -> None:
    key = KeyFile(tmp_path / "keys.json").add("classify")
    page = browser.new_page(viewport={"width": 390, "height": 844})
    with run_service(api_keys=tmp_path / "keys.json") as service:
        page.goto(service.http)
        page.wait_for_selector("#key-form:not([hidden])", timeout=30_000)
        shoot(page, "key-asked")
        page.fill("#key", key)
        page.press("#key", "Enter")
        page.wait_for_selector("#model option", state="attached")
        ask(page, PHOTOGRAPHS / "cat.jpg")
        assert page.locator("#answer .ranks li").first.inner_text().startswith("cat")
        assert "Bearer KEY" in page.locator("#curl").inner_text()
        assert key not in page.content()
    page.close()

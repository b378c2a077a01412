"""The page of `micropref serve` in a real browser: Chromium, driven by Selenium."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from browser_cases import browsing, on_screen
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from serve_cases import WISH, fitted, running

from micropref.serve._settings import Settings

EVIL = '<img src=x onerror="window.evil=1"><script>window.evil=2</script>'


@pytest.fixture(scope="module")
def driver():
    with browsing() as found:
        yield found


class Page:
    """What a user sees."""

    def __init__(self, driver: Any, port: int, width: int = 1400, scheme: str = "light"):
        self.driver = driver
        on_screen(driver, width, scheme)
        driver.get(f"http://127.0.0.1:{port}/healthz")
        driver.execute_script("sessionStorage.clear()")  # a user of a test before
        driver.get_log("browser"), driver.get_log("performance")
        driver.get(f"http://127.0.0.1:{port}/")

    def __getitem__(self, id: str) -> Any:
        return self.driver.find_element(By.ID, id)

    def until(self, is_so: Any) -> None:
        end = time.monotonic() + 20
        while not is_so():
            assert time.monotonic() < end, self["alert"].text or self.driver.get_log("browser")
            time.sleep(0.03)

    def weights(self) -> list[str]:
        return [one.text for one in self.driver.find_elements(By.CSS_SELECTOR, ".head output")]

    def ranking(self) -> list[str]:
        return [one.text for one in self.driver.find_elements(By.CSS_SELECTOR, ".ranked .text")]

    def ready(self) -> None:
        self.until(lambda: self["question"].is_displayed() and self["first"].is_enabled() and self.ranking())

    def answered(self, n: int) -> None:
        self.until(lambda: self["count"].text.startswith(f"{n} choice") and self["first"].is_enabled())


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(fitted("routed"), tmp_path_factory.mktemp("page") / "users.sqlite") as found:
        yield found


def test_answers_move_weights_and_ranking(driver, server):
    """By mouse and by key; the votes are on the server, and are gone when the user wants it."""
    page = Page(driver, server.ask.port)
    page.ready()
    weights, ranking, question = page.weights(), page.ranking(), page["prompt"].text
    assert len(weights) == 4
    shown = {
        page["first"].find_element(By.TAG_NAME, "span").text,
        page["second"].find_element(By.TAG_NAME, "span").text,
    }
    assert len(shown) == 2
    page["first"].click()
    page.answered(1)
    for n in range(2, 7):
        driver.find_element(By.TAG_NAME, "body").send_keys("2" if n % 2 else "1")
        page.answered(n)
    assert page.weights() != weights
    assert page.ranking() != ranking
    assert sorted(page.ranking()) == sorted(ranking)
    user = page["me"].text
    assert server.ask("GET", f"/users/{user}").content["votes"] == 6
    driver.refresh()
    page.ready()
    page.answered(6)
    before = page["prompt"].text, page["first"].text
    driver.find_element(By.TAG_NAME, "body").send_keys("s")
    page.until(lambda: (page["prompt"].text, page["first"].text) != before and page["first"].is_enabled())
    page["forget"].click()
    page.until(
        lambda: page["count"].text == "no choices yet" and page["me"].text != user and page["first"].is_enabled()
    )
    assert server.ask("GET", f"/users/{user}").status == 404
    assert page.weights() == weights
    assert page["prompt"].text == question


def test_what_is_asked_for_while_an_answer_is_on_its_way_is_done(driver, server):
    """A wish applies, and a user is forgotten, after the vote that was on its way."""
    page = Page(driver, server.ask.port)
    page.ready()
    user, weights = page["me"].text, page.weights()
    driver.execute_script(
        "document.getElementById('wish').value = 'keep it short';"
        "document.getElementById('first').click();"
        "document.getElementById('wish-form').requestSubmit();"
    )
    page.answered(1)
    assert page.weights() != weights
    topic = server.ask("GET", "/examples").content["topics"][0]
    rank = {**topic, "context": "keep it short", "user": user, "explain": True}
    found = server.ask("POST", "/rank", rank).content["weights"]
    assert page.weights() == [f"{int(100 * weight + 0.5)} %" for weight in found]
    driver.execute_script("document.getElementById('first').click(); document.getElementById('forget').click();")
    page.until(lambda: page["me"].text != user and page["first"].is_enabled())
    assert server.ask("GET", f"/users/{user}").status == 404


def test_a_wish_changes_the_ranking(driver, server):
    page = Page(driver, server.ask.port)
    page.ready()
    weights = page.weights()
    page["wish"].send_keys(WISH + Keys.ENTER)
    page.until(lambda: page.weights() != weights)
    chip = page["wishes"].find_elements(By.TAG_NAME, "button")[0]
    chip.click()
    page.until(lambda: chip.get_attribute("aria-pressed") == "true" and page["first"].is_enabled())
    assert page["wish"].get_attribute("value") == chip.text
    page["wish"].send_keys("1")  # a letter of a wish is no answer
    time.sleep(0.2)
    assert page["count"].text == "no choices yet"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_it_fits_and_can_be_read(driver, server, width, scheme, tmp_path):
    """Nothing is wider than the window, text stands out from its ground, and nothing comes from another host."""
    page = Page(driver, server.ask.port, width, scheme)
    page.ready()
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    columns = {
        driver.execute_script(f"return document.getElementById('{id}').getBoundingClientRect().left")
        for id in ("heads", "question")
    }
    assert len(columns) == (1 if width == 400 else 2)
    for selector in ("h1", ".lead", ".answer span", ".ranked .text", ".far", "footer", ".chip"):
        assert contrast(driver, selector) >= 4.5, selector
    assert not driver.get_log("browser")
    asked = [entry for entry in driver.get_log("performance") if '"Network.requestWillBeSent"' in entry["message"]]
    assert asked
    assert all("127.0.0.1" in entry["message"] or '"url":"data:' in entry["message"] for entry in asked)
    picture = Path(tmp_path / "page.png")
    driver.save_screenshot(str(picture))
    assert picture.stat().st_size > 10_000


def contrast(driver: Any, selector: str) -> float:
    """Of a text to the ground behind it, as WCAG measures it."""
    return driver.execute_script(
        """
        const linear = (v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
        const light = (c) => {
            const [r, g, b] = c.match(/[\\d.]+/g).map((v) => linear(Number(v) / 255));
            return .2126 * r + .7152 * g + .0722 * b;
        };
        let node = document.querySelector(arguments[0]);
        const ink = light(getComputedStyle(node).color);
        while (getComputedStyle(node).backgroundColor === "rgba(0, 0, 0, 0)") node = node.parentElement;
        const ground = light(getComputedStyle(node).backgroundColor);
        return (Math.max(ink, ground) + .05) / (Math.min(ink, ground) + .05);
        """,
        selector,
    )


def test_texts_are_no_code(driver, tmp_path):
    rows = [
        {"prompt": EVIL, "chosen": f"{EVIL} {i}", "rejected": f"</script>{EVIL}", "context": EVIL} for i in range(3)
    ]
    with running(fitted("routed"), tmp_path / "users.sqlite", questions=rows) as server:
        page = Page(driver, server.ask.port)
        page.ready()
        page["first"].click()
        page.answered(1)
        page["wish"].send_keys(EVIL + Keys.ENTER)
        page.until(lambda: page["first"].is_enabled())
        assert page["prompt"].text == EVIL
        assert driver.execute_script("return window.evil") is None
        assert driver.find_elements(By.TAG_NAME, "img") == []


def test_a_token_is_asked_for(driver, tmp_path):
    with running(fitted("routed"), tmp_path / "users.sqlite", Settings(token=b"s3cret")) as server:
        page = Page(driver, server.ask.port)
        page.until(lambda: page["token-form"].is_displayed())
        assert "token" in page["alert"].text
        page["token"].send_keys("s3cret" + Keys.ENTER)
        page.ready()
        assert not page["alert"].is_displayed()


def test_one_reward_for_all_is_said(driver, tmp_path):
    with running(fitted("one"), tmp_path / "users.sqlite") as server:
        page = Page(driver, server.ask.port)
        page.until(lambda: "one reward for all users" in page["no-question"].text)
        assert page.weights() == ["100 %"]


def test_a_server_that_is_gone_is_said(driver, tmp_path):
    with running(fitted("routed"), tmp_path / "users.sqlite") as server:
        page = Page(driver, server.ask.port)
        page.ready()
    page["first"].click()
    page.until(lambda: "does not answer" in page["alert"].text)
    assert page["first"].is_enabled()

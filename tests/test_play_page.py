"""The page to play with, in a real browser: its numbers against `micropref.theory`, its controls, its looks."""

from __future__ import annotations

import json
from itertools import combinations_with_replacement, pairwise
from math import factorial
from pathlib import Path

import numpy as np
import pytest
from browser_cases import browsing, on_screen
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from micropref.kernels._pointwise import sigmoid
from micropref.theory import error_decomposition, irreducible_error_bounds

PAGE = (Path(__file__).parents[1] / "docs/extra/play.html").as_uri()
PLACES = np.array([[-np.sqrt(3) / 2, -0.5], [np.sqrt(3) / 2, -0.5], [0.0, 1.0]])
FIRST, SECOND = np.array([0, 0, 1]), np.array([1, 2, 2])
START = {"share": 0.5, "noise": 1, "told": 0, "votes": 3, "order": 0.5, "a": [-2.2, -0.4], "b": [2.2, -0.4]}
EDGES = [
    {**START, "share": 0.0},
    {**START, "share": 1.0, "told": 1.0},
    {**START, "told": 1.0, "order": 1.0},
    {**START, "noise": 0.3, "a": [3.0, 0.0], "b": [-3.0, 0.0]},
    {**START, "a": [0.0, 0.0], "b": [0.0, 0.0]},
]


@pytest.fixture(scope="module")
def driver():
    with browsing() as found:
        yield found


@pytest.fixture
def page(driver):
    def opened(address="", width=1400, scheme="light"):
        on_screen(driver, width, scheme)
        driver.get("about:blank")  # a change of the fragment alone loads nothing
        driver.get(PAGE + address)
        return driver

    return opened


def settings(seed):
    rng = np.random.default_rng(seed)
    length, angle = rng.uniform(0, 3, 2), rng.uniform(0, 2 * np.pi, 2)
    tastes = (length * np.array([np.cos(angle), np.sin(angle)])).T.tolist()
    return {
        "share": rng.uniform(0.02, 0.98),
        "noise": rng.uniform(0.3, 3),
        "told": rng.uniform(0, 1),
        "votes": int(rng.integers(0, 11)),
        "order": rng.uniform(0.5, 1),
        "a": tastes[0],
        "b": tastes[1],
    }


def flat(state):
    return np.hstack([state[name] for name in START])


def values(driver, state):
    """What the page computes for a state, which it then shows."""
    return driver.execute_script("set(arguments[0]); return {...compute(state), state}", state)


def expected(state):
    """The same by the library: rows are two kinds of prompts times three pairs in both orders."""
    tastes = np.array([state["a"], state["b"]])
    reward = PLACES @ tastes.T / state["noise"]
    sigma = sigmoid(reward[FIRST] - reward[SECOND])
    share = np.array([state["share"], 1 - state["share"]])
    told = state["told"]
    joint = np.array([[1 + told, 1 - told], [1 - told, 1 + told]]) / 2 * share
    mass = joint.sum(axis=1)
    pi = joint[mass > 0] / mass[mass > 0, None]
    mass = mass[mass > 0]
    n = len(mass)
    probs = np.tile(np.vstack([sigma, 1 - sigma]), (n, 1))
    weights, prompt = np.repeat(pi, 6, axis=0), np.repeat(np.arange(n), 6)
    order = np.repeat([state["order"], 1 - state["order"]], 3) / 3
    sample_weight = np.repeat(mass, 6) * np.tile(order, n)
    first, second = (np.tile(ids, n) for ids in (np.r_[FIRST, SECOND], np.r_[SECOND, FIRST]))
    terms = error_decomposition(weights, probs, sample_weight=sample_weight, responses=(first, second))
    fixed = error_decomposition(weights, probs, single_probs=probs @ share, sample_weight=sample_weight)
    bounds = irreducible_error_bounds(weights, probs, prompt, sample_weight)
    return {
        "noise": terms.label_noise,
        "hidden": terms.group_information,
        "wrong": terms.misspecification,
        "oneReward": terms.cross_entropy,
        "fixed": fixed.misspecification,
        "information": bounds.information,
        "pairwise": bounds.pairwise,
        "averaged": bounds.averaged,
        "theorem": bounds.theorem_3_2,
        "rho": bounds.diversity,
        "after votes": after_votes(sigma, pi, mass, state["votes"]),
    }


def after_votes(sigma, pi, mass, n_votes):
    """The hidden group that votes leave: a population whose rows are all answers that a user may have given."""
    outcomes = np.vstack([sigma, 1 - sigma]) / 3
    given = [np.bincount(votes, minlength=6) for votes in combinations_with_replacement(range(6), n_votes)]
    counts = np.array(given, dtype=float).reshape(len(given), 6)
    ways = np.array([factorial(n_votes) / np.prod([float(factorial(int(c))) for c in row]) for row in counts])
    likelihood = ways[:, None] * np.exp(counts @ np.log(outcomes))
    joint = (mass[:, None, None] * pi[:, None, :] * likelihood).reshape(-1, 2)
    joint = joint[joint.sum(axis=1) > 1e-300]
    weights = np.repeat(joint / joint.sum(axis=1, keepdims=True), 3, axis=0)
    probs = np.tile(sigma, (len(joint), 1))
    mean = (weights * probs).sum(axis=1)
    found = error_decomposition(weights, probs, single_probs=mean, sample_weight=np.repeat(joint.sum(axis=1), 3))
    return found.group_information


def assert_same(found, state):
    found["after votes"] = found["votes"][state["votes"]]
    for name, value in expected(state).items():
        assert abs(found[name] - value) < 1e-9, (name, found[name], value, state)


def test_numbers_are_those_of_the_library(page):
    """Fifty populations at random, and the ends of the ranges, to 1e-9."""
    driver = page()
    states = [settings(seed) for seed in range(50)]
    found = [values(driver, state) for state in states]
    for name in ("noise", "hidden", "wrong", "fixed", "theorem"):
        assert np.ptp([one[name] for one in found]) > 0.05, f"{name} hardly varies"
    for one, state in zip(found, states, strict=True):
        assert flat(one["state"]) == pytest.approx(flat(state))
        assert_same(one, state)
        left = one["votes"]
        assert all(later <= earlier + 1e-12 for earlier, later in pairwise(left))
    for state in EDGES:
        assert_same(values(driver, state), state)


def test_what_is_shown_is_what_was_computed(page):
    driver = page()
    for seed in range(50, 56):
        found = values(driver, settings(seed))
        votes = found["votes"][found["state"]["votes"]]
        noise, hidden, wrong, fixed = (found[name] for name in ("noise", "hidden", "wrong", "fixed"))
        rungs = [(noise, hidden, wrong), (noise, hidden, fixed), (noise, hidden, 0), (noise, votes, 0), (noise, 0, 0)]
        for n, parts in enumerate(rungs):
            rung = driver.find_element(By.ID, f"rung-{n}")
            assert rung.find_element(By.CLASS_NAME, "number").text == f"{sum(parts):.3f}"
            bar = rung.find_element(By.CLASS_NAME, "bar")
            widths = [part.rect["width"] for part in bar.find_elements(By.TAG_NAME, "div")]
            assert widths == pytest.approx([bar.rect["width"] * part / np.log(2) for part in parts], abs=0.6)
        chain = [hidden + wrong, *(found[name] for name in ("information", "pairwise", "averaged", "theorem"))]
        shown = [driver.find_element(By.ID, f"bound-{n}").find_element(By.CLASS_NAME, "number").text for n in range(5)]
        assert shown == [f"{max(value, 0):.3f}" for value in chain]
        cells = [float(cell.text) for cell in driver.find_elements(By.CSS_SELECTOR, "#table td")]
        rows = [[*row, p, q] for row, p, q in zip(found["sigma"], found["population"], found["q"], strict=True)]
        assert cells == pytest.approx((100 * np.array(rows)).ravel(), abs=0.0501)


def test_the_python_of_the_page_gives_its_numbers(page):
    """What a reader copies runs as it is."""
    driver = page()
    found = values(driver, settings(99))
    code = driver.find_element(By.ID, "python").get_attribute("textContent")
    names = {}
    exec(code.replace("print(", "shown = (").replace(', sep="\\n"', ""), names)
    terms, bounds = names["shown"]
    ours = (found["noise"], found["hidden"], found["wrong"], found["theorem"])
    theirs = (terms.label_noise, terms.group_information, terms.misspecification, bounds.theorem_3_2)
    assert ours == pytest.approx(theirs, abs=1e-9)


def test_with_mouse_and_keys(page):
    driver = page()
    total = driver.find_element(By.CSS_SELECTOR, "#rung-0 .number")
    taste = driver.find_element(By.ID, "taste-a")
    before = total.text
    ActionChains(driver).drag_and_drop_by_offset(taste, 60, -80).perform()
    x, y = driver.execute_script("return state.a")
    assert x > -1.9
    assert y > 0.3
    assert total.text != before
    assert "Playful" in taste.get_attribute("aria-valuetext")
    taste.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    assert driver.execute_script("return state.a") == pytest.approx([x + 0.1, y - 0.1])
    ActionChains(driver).drag_and_drop_by_offset(taste, 300, 0).perform()
    assert np.hypot(*driver.execute_script("return state.a")) == pytest.approx(3)  # the edge
    for name in ("share", "noise", "told", "votes", "order"):
        slider, before = driver.find_element(By.ID, name), driver.execute_script("return state")[name]
        slider.send_keys(Keys.ARROW_RIGHT)
        after = driver.execute_script("return state")[name]
        assert after == pytest.approx(before + float(slider.get_attribute("step")))
        assert driver.find_element(By.ID, f"{name}-value").text
    focused = []
    driver.find_element(By.TAG_NAME, "a").send_keys(Keys.NULL)
    for _ in range(20):
        ActionChains(driver).send_keys(Keys.TAB).perform()
        focused.append(driver.switch_to.active_element.get_attribute("id"))
    assert {"taste-a", "taste-b", "share", "noise", "told", "votes", "order"} <= set(focused)


def test_every_example_shows_what_it_says(page):
    """The buttons: each is marked while it is shown, and its population has the property that its text names."""
    driver, found = page(), {}
    for button in driver.find_elements(By.CSS_SELECTOR, "#presets button"):
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
        found[button.text] = driver.execute_script("return compute(state)")
        assert len(driver.find_element(By.ID, "story").text) > 60
    assert found["Opposites"]["hidden"] > 0.3
    assert found["Opposites"]["theorem"] == pytest.approx(0, abs=1e-15)
    assert found["Same taste"]["hidden"] == found["Same taste"]["wrong"] == pytest.approx(0, abs=1e-12)
    assert found["The prompt tells"]["hidden"] < found["Opposites"]["hidden"] / 2
    assert found["Not Bradley-Terry"]["wrong"] > 0.05
    assert found["Always one order"]["theorem"] > 0.05
    assert found["A minority"]["rho"] == pytest.approx(0.15)


def test_the_address_holds_the_settings(page):
    state = settings(7)
    state = {name: np.round(value, 3).tolist() for name, value in state.items()}
    driver = page()
    values(driver, state)
    driver.execute_async_script("setTimeout(arguments[0], 400)")
    address = driver.current_url.partition("#")[2]
    assert flat(page("#" + address).execute_script("return state")) == pytest.approx(flat(state))


@pytest.mark.parametrize(
    "address", ["#", "#share=x&a=1", "#a=1,2,3&votes=NaN&noise=", "#__proto__=1&other=2", "#share=1e999"]
)
def test_an_address_without_sense_changes_nothing(page, address):
    driver = page(address)
    assert driver.execute_script("return state") == START
    assert not [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


def test_settings_outside_their_range_are_brought_back(page):
    state = page("#share=7&votes=2.6&noise=-1&a=30,40").execute_script("return state")
    assert (state["share"], state["votes"], state["noise"]) == (1, 3, 0.3)
    assert state["a"] == pytest.approx([1.8, 2.4])


@pytest.mark.parametrize("width", [1400, 800, 400, 320])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_screens_of_any_width_in_both_themes(page, width, scheme):
    driver = page(width=width, scheme=scheme)
    assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    lightness = driver.execute_script(
        "return ['backgroundColor', 'color'].map(name => getComputedStyle(document.body)[name].match(/[0-9]+/g)"
        ".slice(0, 3).reduce((total, value) => total + Number(value), 0) / 765)"
    )
    assert abs(lightness[0] - lightness[1]) > 0.6
    assert (lightness[0] > lightness[1]) == (scheme == "light")
    assert driver.find_element(By.ID, "strip").is_displayed() == (width < 1040)
    if width <= 400:  # fingers need room
        assert all(box.rect["height"] >= 24 for box in driver.find_elements(By.CSS_SELECTOR, "button, input"))


def test_it_asks_no_other_host_and_reports_no_error(page):
    driver = page()
    driver.get_log("browser"), driver.get_log("performance")
    driver = page()
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    assert {url for url in asked if not url.startswith("data:")} == {PAGE}
    assert driver.get_log("browser") == []

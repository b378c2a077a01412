"""Pictures of ten pages at two widths, to be looked at: python .ci/screenshots.py docs/_build/html FOLDER

A headless Chromium takes them, with the network off. It fails where a page scrolls sideways, where a formula is not
typeset, or where a script reports an error.
"""

from __future__ import annotations

import base64
import shutil
import sys
import time
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

PAGES = (
    *("index", "quickstart", "guides", "stated", "users", "reading_tables", "theory", "rivals"),
    *("api/index", "api/generated/micropref.MixtureBradleyTerry", "gallery/index"),
)
WIDTHS = (1400, 400)
LONGEST = 6000  # pixels of a page that are shown
# Inline formulas that MathJax has not replaced yet, and how far the page is wider than its window.
STATE = """
return {
    raw: [...document.querySelectorAll('.math')].filter(e => !e.querySelector('mjx-container')).length,
    errors: document.querySelectorAll('mjx-merror, [data-mml-node="merror"]').length,
    wider: document.documentElement.scrollWidth - window.innerWidth,
    height: document.documentElement.scrollHeight,
};
"""


def browser() -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    names = ("chromium", "chromium-browser", "google-chrome")
    options.binary_location = next((path for name in names if (path := shutil.which(name))), "")
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--force-color-profile=srgb",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "SEVERE"})
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver") or ""))
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["http://*", "https://*"]})
    return driver


def photograph(driver: webdriver.Chrome, url: str, width: int, path: Path) -> list[str]:
    """Save one picture, and return what is wrong with the page."""
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    driver.get(url)
    state = driver.execute_script(STATE)
    deadline = time.monotonic() + 60
    while state["raw"] and time.monotonic() < deadline:
        time.sleep(0.2)
        state = driver.execute_script(STATE)
    clip = {"x": 0, "y": 0, "width": width, "height": min(state["height"], LONGEST), "scale": 1}
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    path.write_bytes(base64.b64decode(shot["data"]))
    name = path.stem
    return [
        *([f"{name}: {state['raw']} formulas are not typeset"] if state["raw"] else []),
        *([f"{name}: {state['errors']} formulas have errors"] if state["errors"] else []),
        *([f"{name}: {state['wider']} pixels wider than the window"] if state["wider"] > 0 else []),
        *[f"{name}: {entry['message']}" for entry in driver.get_log("browser")],
    ]


def main(built: Path, folder: Path, pages: list[str]) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    driver = browser()
    wrong = []
    try:
        for page in pages:
            for width in WIDTHS:
                url = (built / f"{page}.html").resolve().as_uri()
                wrong += photograph(driver, url, width, folder / f"{page.replace('/', '-')}-{width}.png")
    finally:
        driver.quit()
    print("\n".join(wrong) or f"{len(pages)} pages at {len(WIDTHS)} widths are in {folder}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:] or list(PAGES)))

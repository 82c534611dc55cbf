"""A real browser for the tests of pages: Debian's Chromium driven by Selenium, watched for whatever it should not do.

`Browser.open` loads a page from file:// at a size and in a theme, waits until its charts are drawn, and returns what
the console said and which requests left for anything but the page's own folder.
"""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

CHROMIUM = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
)
DESKTOP, PHONE = (1280, 900), (390, 844)
DRAWN = "return document.documentElement.dataset.drawn === 'true'"
PATIENCE = 60


def missing() -> str:
    """Why there is no browser to test with; empty where there is one."""
    if CHROMIUM is None or DRIVER is None:
        return "no Chromium with its driver is installed (apt-get install chromium chromium-driver)"
    try:
        import axe_core_python
        import selenium  # noqa: F401
    except ImportError as error:
        return f"{error.name} is not installed (pip install -e '.[test]')"
    return "" if files(axe_core_python).joinpath("axe.min.js").is_file() else "axe-core is not in axe-core-python"


@dataclass(frozen=True)
class Browser:
    """One session. `driver` is Selenium's."""

    driver: Any

    def open(self, page: Path, size: tuple[int, int] = DESKTOP, theme: str = "light", anchor: str = "") -> float:
        """Load a page and wait until it is drawn; seconds from the start of the load to the last chart."""
        phone = size[0] < 600
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": phone},
        )
        scheme = [{"name": "prefers-color-scheme", "value": theme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        self.console(), self.requests()
        begun = time.monotonic()
        self.driver.get("about:blank")
        self.driver.get(page.resolve().as_uri() + anchor)
        while not self.driver.execute_script(DRAWN):
            if time.monotonic() - begun > PATIENCE:
                raise AssertionError(f"{page.name} was not drawn within {PATIENCE} s: {self.console()}")
            time.sleep(0.02)
        return time.monotonic() - begun

    def js(self, script: str, *arguments: Any) -> Any:
        """What a script returns."""
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> Any:
        """The first element that fits, scrolled into sight."""
        found = self.driver.find_element("css selector", selector)
        self.js("arguments[0].scrollIntoView({block: 'center'})", found)
        return found

    def all(self, selector: str) -> list[Any]:
        """Every element that fits."""
        return self.driver.find_elements("css selector", selector)

    def console(self) -> list[str]:
        """What the console said since it was last asked: warnings, errors, refusals of the content security policy."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses that were asked for since the last time."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]

    def overflow(self) -> int:
        """How many pixels the page is wider than its window."""
        return self.js("return document.documentElement.scrollWidth - document.documentElement.clientWidth")

    def faults(self) -> list[str]:
        """Serious and critical faults that axe-core finds, each with the elements it is about.

        Of each list of examples and each table the first two rows are looked at, of charts their boxes: the rest is
        more of the same and costs axe-core minutes. The page is cut for it: open it anew afterwards.
        """
        import axe_core_python

        self.js(
            "for (const e of document.querySelectorAll('.contexts li:nth-child(n+3), tbody tr:nth-child(n+3),"
            " .chart-box svg > *')) e.remove()"
        )
        self.js(files(axe_core_python).joinpath("axe.min.js").read_text(encoding="utf-8"))
        found = self.driver.execute_async_script(
            "const done = arguments[0]; axe.run({resultTypes: ['violations']}).then((r) => done(r.violations.map((v) =>"
            " [v.impact, v.id, v.nodes.slice(0, 3).map((n) => n.target.join(' ') + ' ' + (n.any[0]?.message ||"
            " ''))])));"
        )
        return [f"{what}: {where}" for impact, what, where in found if impact in ("serious", "critical")]

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """A picture of the window, or of the whole page."""
        import base64

        wanted = {"format": "png", "captureBeyondViewport": whole}
        if whole:
            height = self.js("return document.documentElement.scrollHeight")
            width = self.js("return document.documentElement.clientWidth")
            wanted["clip"] = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        path.write_bytes(base64.b64decode(self.driver.execute_cdp_cmd("Page.captureScreenshot", wanted)["data"]))


@contextmanager
def started(profile: Path) -> Iterator[Browser]:
    """A session with a profile of its own and no downloads but into that profile."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(profile / "downloads")})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_script_timeout(PATIENCE)
    try:
        yield Browser(driver)
    finally:
        driver.quit()

"""A picture of a page, taken by a browser on this machine: for a README or a talk. Nothing is fetched."""

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Literal

from profiler.errors import ProfilerError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=20000",
)


def take(page: Path, out: Path, size: tuple[int, int], theme: Literal["light", "dark"] = "light") -> Path:
    """Write `out`, a PNG of the top of a page.

    Args:
        page: an HTML file.
        out: where the picture goes.
        size: width and height of the window, pixels.
        theme: light or dark.

    Raises:
        ProfilerError: no Chromium or Chrome is installed, or it takes no picture.
    """
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        raise ProfilerError(
            "a picture needs Chromium or Chrome, and none is on the path: install one, or leave --png out"
        )
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "page.png"
        window, profile = f"--window-size={size[0]},{size[1]}", f"--user-data-dir={folder}/profile"
        address = f"{page.resolve().as_uri()}?theme={theme}"
        command = [browser, *FLAGS, window, profile, f"--screenshot={picture}", address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if not picture.is_file():
            raise ProfilerError(f"{browser} took no picture of {page}: {done.stderr.strip()[-300:]}")
        shutil.copy(picture, out)
    return out

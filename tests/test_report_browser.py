"""The pages in a real browser: every chart is drawn from file:// and the console stays silent. Skipped without Chromium."""

import re
import shutil
import subprocess

import fake_run
import pytest

from profiler import report

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--virtual-time-budget=60000", "--dump-dom",
]  # fmt: skip


@pytest.fixture(scope="module")
def fake(tmp_path_factory) -> fake_run.FakeRun:
    """A run with known raw values and hostile tokens."""
    return fake_run.build(tmp_path_factory.mktemp("fake") / "fake.duckdb")


def opened(path, profile) -> tuple[str, list[str]]:
    """The page's DOM after its scripts have run, without them, and what they wrote to the console."""
    command = [BROWSER, *FLAGS, f"--user-data-dir={profile}", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    dom = re.sub(r"<script.*?</script>", "", done.stdout, flags=re.DOTALL)
    return dom, re.findall(r".*CONSOLE.*", done.stderr)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
@pytest.mark.parametrize("component", [None, "L0H0"])
def test_every_chart_is_drawn_and_the_console_is_silent(fake, tmp_path, component):
    page = report.build(fake.path, "component" if component else "overview", component=component)
    dom, console = opened(report.write(tmp_path / "page.html", page), tmp_path / "profile")
    assert console == []
    assert 'data-drawn="true"' in dom
    assert dom.count("<svg") == page.count('class="chart-box"') > 0


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_the_check_sees_a_chart_that_cannot_be_drawn(fake, tmp_path):
    page = report.build(fake.path, "component", component="embed").replace('"mark":', '"marc":')
    dom, console = opened(report.write(tmp_path / "page.html", page), tmp_path / "profile")
    assert console and dom.count("<svg") < page.count('class="chart-box"')

"""A card that is alive in a notebook: the page itself in a frame, which reaches nothing; its script as a notebook
calls it, in a real browser."""

import importlib
import json
import sys

import browser
import pytest

import profiler
from profiler.errors import ProfilerError
from profiler.pages import notebook, page

HOST = """<!DOCTYPE html><meta charset="utf-8"><title>host</title><div id="cell"></div>
<script type="module">
const module = await import(URL.createObjectURL(new Blob([__SCRIPT__], {type: "text/javascript"})));
const heard = {};
window.values = {page: __PAGE__, title: "L0H0", height: 640};
window.change = (name, value) => { window.values[name] = value; heard["change:" + name](); };
const model = {get: (name) => window.values[name], on: (name, call) => (heard[name] = call)};
module.default.render({model, el: document.getElementById("cell")});
</script>"""
"""A notebook's part of the contract of anywidget: a module whose default export renders a model into an element."""


def host(text: str) -> str:
    """A page that shows a card's page as a notebook does."""
    parts = {"__SCRIPT__": page.asset("widget.js"), "__PAGE__": text}
    made = HOST
    for name, value in parts.items():
        made = made.replace(name, json.dumps(value).replace("<", "\\u003c"))
    return made


def test_without_anywidget_it_says_what_to_install(fake, monkeypatch):
    monkeypatch.setitem(sys.modules, "anywidget", None)
    notebook._widgets.cache_clear()
    with profiler.open(fake.path) as run, pytest.raises(ProfilerError, match=r"generality-profiler\[notebook\]"):
        run.component("L0H0").widget()


def test_a_widget_holds_the_page_of_the_card(fake):
    pytest.importorskip("anywidget", reason="anywidget is not installed (pip install 'generality-profiler[notebook]')")
    notebook._widgets.cache_clear()
    with profiler.open(fake.path) as run:
        component = run.component("L0H0")
        made = component.widget(height=500)
        assert (made.page, made.title, made.height) == (component.page(), "L0H0", 500)
        assert set(made.keys) >= {"page", "title", "height", "_esm"}
        assert isinstance(component.widget(), importlib.import_module("anywidget").AnyWidget)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """A browser."""
    if reason := browser.missing():
        pytest.skip(reason)
    with browser.started(tmp_path_factory.mktemp("profile")) as session:
        yield session


@pytest.mark.slow
def test_the_card_hovers_and_brushes_in_its_frame_and_reaches_nothing(chromium, fake, tmp_path):
    with profiler.open(fake.path) as run:
        (tmp_path / "host.html").write_text(host(run.component("L0H0").page()), encoding="utf-8")
    driver = chromium.driver
    chromium.console(), chromium.requests()
    driver.get((tmp_path / "host.html").as_uri())
    frame = driver.find_element("css selector", "#cell iframe")
    assert frame.get_attribute("sandbox") == "allow-scripts allow-downloads allow-forms"
    assert frame.size["height"] == 640 and frame.get_attribute("title") == "L0H0"
    chromium.js("window.change('height', 700)")
    assert frame.size["height"] == 700
    driver.switch_to.frame(frame)
    try:
        driver.set_script_timeout(60)
        driver.execute_async_script(
            "const done = arguments[0], root = document.documentElement;"
            "const wait = () => (root.dataset.drawn === 'true' ? done() : setTimeout(wait, 20)); wait();"
        )
        token = chromium.find(".contexts mark")
        chromium.js("arguments[0].dispatchEvent(new PointerEvent('pointerover', {bubbles: true}))", token)
        assert "activation" in chromium.js("return document.body.innerText").lower()
        chromium.js(
            "const f = document.querySelector('form.brush'); f.lo.value = '0.01'; f.hi.value = '1000';"
            "f.requestSubmit();"
        )
        drawn = chromium.js("return [...document.querySelectorAll('form.brush li')].map((e) => Number(e.dataset.at))")
        assert drawn and all(0.01 <= value <= 1000 for value in drawn)
        with pytest.raises(Exception, match=r"sandboxed|SecurityError|cross-origin|denied"):
            chromium.js("return window.parent.document.title")
    finally:
        driver.switch_to.default_content()
    assert [line for line in chromium.console() if "SecurityError" not in line] == []
    assert [way for way in chromium.requests() if not way.startswith(("file:", "blob:", "data:", "about:"))] == []

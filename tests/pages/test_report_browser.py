"""The pages as a person meets them: opened from file:// in Chromium, on a desktop and a phone, in light and in dark.

The run's tokens are nasty on purpose (scripts, quotes, emoji, control characters, bytes, other scripts; a very long one
is added here). Skipped, with the reason, where there is no Chromium.
"""

from collections.abc import Iterator
from pathlib import Path

import browser
import fake_run
import polars as pl
import pytest
from browser import DESKTOP, PHONE, Browser

from profiler.pages import build, site

REASON = browser.missing()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(REASON), reason=REASON or "there is a browser")]
LONG = "<script>alert(1)</script>" + "long" * 400


@pytest.fixture(scope="module")
def fake(tmp_path_factory) -> fake_run.FakeRun:
    """A run with hostile tokens, one of them very long."""
    from fake_values import VOCABULARY

    long = next(i for i, (text, _) in enumerate(VOCABULARY) if text == "<script>alert(1)</script>")
    built = fake_run.build(tmp_path_factory.mktemp("fake") / "fake.duckdb")
    vocabulary = built.tables["tokens"]["token"].to_list()
    vocabulary[long] = LONG
    tables = built.tables | {"vocabulary": pl.DataFrame({"tokens": [vocabulary]})}
    fake_run.write(built.path, {name: tables[name] for name in tables if name not in fake_run.DERIVED})
    return built


@pytest.fixture(scope="module")
def folder(fake, tmp_path_factory) -> Path:
    """A site with the card of a head and of a neuron, and beside it two pages that are one file."""
    out = tmp_path_factory.mktemp("pages")
    site.build(fake.path, out / "site", 0, ["L0H0", "L1N1"])
    build.write(out / "card.html", build.build(fake.path, "component", component="L0H0"))
    build.write(out / "overview.html", build.build(fake.path, "overview"))
    return out


@pytest.fixture(scope="module")
def chromium(tmp_path_factory) -> Iterator[Browser]:
    with browser.started(tmp_path_factory.mktemp("profile")) as started:
        yield started


QUICK = ("card.html", "site/index.html", "site/cards/L0H0.html")
KINDS = (
    "card.html",
    "overview.html",
    "site/index.html",
    "site/components.html",
    "site/behaviours.html",
    "site/queries.html",
    "site/cards/L0H0.html",
    "site/cards/L1N1.html",
)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind in QUICK else pytest.mark.slow) for kind in KINDS]
)
def test_every_kind_of_page_on_every_screen_in_both_themes(chromium, folder, kind):
    """Silent console, no request out of the folder, no horizontal scroll, no serious fault for a screen reader."""
    page = folder / kind
    for size, theme in ((DESKTOP, "light"), (PHONE, "dark"), (PHONE, "light"), (DESKTOP, "dark")):
        chromium.open(page, size, theme)
        assert chromium.js(
            "return document.querySelectorAll('.chart-box').length === document.querySelectorAll('.chart-box"
            " svg').length"
        )
        assert chromium.console() == []
        assert [u for u in chromium.requests() if not u.startswith((folder.as_uri(), "about:", "data:"))] == []
        assert chromium.overflow() == 0, (kind, size)
        dark = chromium.js("return getComputedStyle(document.body).backgroundColor")
        assert (dark == "rgb(20, 22, 26)") == (theme == "dark")
        if (size, theme) in ((DESKTOP, "light"), (PHONE, "dark")):
            assert chromium.faults() == [], (kind, size, theme)


def test_the_watch_sees_an_error_a_request_a_wide_page_and_a_fault(chromium, tmp_path):
    """The test of the test: a page that does everything wrong."""
    page = tmp_path / "bad.html"
    page.write_text(
        "<html data-drawn=true><body style='width:3000px'><p style='color:#eee;background:#fff'>hardly to be read</p>"
        "<img src='http://127.0.0.1:9/x.png'><script>console.error('no')</script>"
    )
    chromium.open(page)
    assert chromium.overflow() > 0
    assert any("no" in message for message in chromium.console())
    assert "http://127.0.0.1:9/x.png" in chromium.requests()
    assert any("color-contrast" in fault for fault in chromium.faults())


def test_no_text_of_the_corpus_becomes_more_than_text(chromium, folder):
    for kind in KINDS:
        chromium.open(folder / kind)
        assert chromium.js("return document.querySelectorAll('.context script, .context b, .context img').length") == 0
        scripts = chromium.js(
            "return [...document.scripts].map((s) => s.textContent).filter((t) => t.startsWith('alert'))"
        )
        assert scripts == []
    widest = chromium.js(
        "return Math.max(...[...document.querySelectorAll('.context > *')].map((e) => e.textContent.length))"
    )
    assert 80 < widest < 120  # the very long token is there, cut, and says its length
    assert chromium.js(
        "return [...document.querySelectorAll('.context')].some((e) => e.textContent.includes('characters'))"
    )


def test_scripts_from_right_to_left_keep_their_order(chromium, folder):
    """Two tokens of one Hebrew or Arabic stretch: the later one stands to the left of the earlier one."""
    chromium.open(folder / "card.html")
    places = chromium.js(
        "const is = (t) => /^[\\s\\u0590-\\u06FF]+$/.test(t) && /[\\u0590-\\u06FF]/.test(t), out = [];for (const a of"
        " document.querySelectorAll('.context > *')) { const b = a.nextElementSibling; if (b && is(a.textContent) &&"
        " is(b.textContent)) { const p = a.getBoundingClientRect(), q = b.getBoundingClientRect(); if (Math.abs(p.top -"
        " q.top) < 3) out.push(p.left - q.left); } } return out"
    )
    assert places and all(difference > 0 for difference in places)


def test_hovering_tells_the_numbers_of_a_token(chromium, folder):
    from selenium.webdriver import ActionChains

    chromium.open(folder / "site/cards/L0H0.html")
    token = chromium.find(".group .context mark[data-a]")
    chromium.js("return new Promise((done) => setTimeout(done, 300))")  # scrolling hides what is told
    ActionChains(chromium.driver).move_to_element(token).perform()
    told = chromium.js("const t = document.getElementById('token-tip'); return t.hidden ? '' : t.innerText")
    value = float(token.get_attribute("data-a"))
    assert "activation" in told and f"{abs(value):.3g}"[:4] in told and "its probability" in told


def test_the_toggle_colours_by_dla_and_back(chromium, folder):
    chromium.open(folder / "card.html")
    colour = "return getComputedStyle(document.querySelector('.group .context mark[data-d]')).backgroundColor"
    before = chromium.js(colour)
    chromium.find(".colour-by button[data-by=d]").click()
    assert chromium.js(colour) != before
    assert chromium.js("return document.querySelector('.colour-by button[data-by=d]').ariaPressed") == "true"
    chromium.find(".colour-by button[data-by=a]").click()
    assert chromium.js(colour) == before


@pytest.mark.parametrize("page", ["card.html", "site/cards/L1N1.html"])
def test_a_brushed_range_shows_examples_from_it(chromium, folder, page):
    from selenium.webdriver import ActionChains

    chromium.open(folder / page)
    box = chromium.find("figure.spectrum .chart-box svg")
    wide = box.size["width"]
    ActionChains(chromium.driver).move_to_element_with_offset(box, int(0.1 * wide), 0).click_and_hold().move_by_offset(
        int(0.25 * wide), 0
    ).release().pause(0.5).perform()
    lo, hi = (float(chromium.js(f"return document.querySelector('form.brush').{name}.value")) for name in ("lo", "hi"))
    drawn = chromium.js("return [...document.querySelectorAll('form.brush li')].map((e) => Number(e.dataset.at))")
    assert lo < hi and drawn and all(0.99 * lo <= value <= 1.01 * hi for value in drawn)
    assert drawn == sorted(drawn, reverse=True)
    assert "positions they stand for" in chromium.find("form.brush .drawn").text


def test_a_typed_range_draws_in_proportion_to_the_positions_that_samples_stand_for(chromium, folder):
    """200 draws of 8 from all samples: the stratum of most positions is drawn most, whatever is stored of it."""
    chromium.open(folder / "card.html")
    counts, weights = chromium.js(
        "const form = document.querySelector('form.brush'), seen = {}, all = {};for (const e of"
        " document.querySelector('figure.spectrum template').content.children) all[e.dataset.at] ="
        " Number(e.dataset.weight);for (let i = 0; i < 200; i++) { form.requestSubmit(); for (const e of"
        " form.querySelectorAll('li')) seen[e.dataset.at] = (seen[e.dataset.at] || 0) + 1; } return [seen, all]"
    )
    heavy = {at for at, weight in weights.items() if weight >= 5}
    light = {at for at, weight in weights.items() if weight < 2}
    mean = lambda group: sum(counts.get(at, 0) for at in group) / len(group)  # noqa: E731
    assert sum(counts.values()) == 200 * 8
    assert heavy and light and mean(heavy) > 3 * mean(light)


def test_the_sql_button_shows_the_query_with_its_parameters(chromium, folder):
    for page in ("card.html", "site/cards/L0H0.html"):
        chromium.open(folder / page)
        chromium.find("figure.spectrum a.sql").click()
        chromium.js("return new Promise((done) => setTimeout(done, 300))")
        text = chromium.js("return document.querySelector('dialog[open] code').textContent")
        assert text.startswith("SET VARIABLE component = 'L0H0';\n-- Title:") and "FROM density" in text
        assert chromium.console() == []


def test_the_csv_button_saves_what_is_shown(chromium, folder):
    chromium.open(folder / "card.html")
    saved = chromium.js(
        "const out = []; URL.createObjectURL = (blob) => { out.push(blob); return '#'; };for (const kind of"
        " ['spectrum', 'table', 'examples']) document.querySelector(`figure.${kind} button.csv`).click();return"
        " Promise.all(out.map((b) => b.text()))"
    )
    chart, table, examples = (text.split("\r\n") for text in saved)
    assert chart[0].startswith("lo,hi,n,p") and len(chart) > 20
    assert table[0] == "Behaviour,Coverage,Direct,Total,Estimate,Base rate,Scrambled,Other heads,n" and len(table) > 3
    assert examples[0] == "group,activation,dla,before,token,next_and_after,where" and len(examples) > 3


def rows(chromium) -> list[str]:
    return chromium.js(
        "return [...document.querySelectorAll('#components tbody tr')].map((r) => r.cells[0].textContent)"
    )


def test_the_table_is_searched_sorted_and_kept_in_the_address(chromium, folder):
    page = folder / "site/components.html"
    chromium.open(page)
    everything = rows(chromium)
    assert len(everything) == 16
    chromium.find("input[name=q]").send_keys("L1 head")
    assert sorted(rows(chromium)) == ["L1H0", "L1H1"] and "2 of 16" in chromium.find("#found").text
    chromium.find("button[data-column=component]").click()
    assert rows(chromium) == ["L1H0", "L1H1"]
    chromium.find("button[data-column=component]").click()
    assert rows(chromium) == ["L1H1", "L1H0"]
    anchor = chromium.js("return location.hash")
    chromium.open(page, anchor=anchor)
    assert (
        rows(chromium) == ["L1H1", "L1H0"]
        and chromium.js("return document.querySelector('input[name=q]').value") == "L1 head"
    )
    chromium.open(page)
    chromium.find("button[data-column=dla]").click()
    values = chromium.js("return window.profilerComponents.columns.dla")
    assert rows(chromium) == [everything[i] for i in sorted(range(16), key=lambda i: -values[i])]


def test_a_card_is_reached_from_the_table_and_a_query_by_its_address(chromium, folder):
    chromium.open(folder / "site/components.html")
    chromium.find("#components a[href='cards/L0H0.html']").click()
    assert chromium.find("h1").text == "L0H0"
    chromium.open(folder / "site/queries.html", anchor="#density")
    assert chromium.js("return document.querySelector('#density details').open")
    assert chromium.js("return document.querySelectorAll('details[open]').length") == 1


def test_the_theme_button_is_remembered_from_page_to_page(chromium, folder):
    chromium.open(folder / "site/index.html", theme="light")
    chromium.find("#theme").click()
    chromium.open(folder / "site/queries.html", theme="light")
    assert chromium.js("return getComputedStyle(document.body).backgroundColor") == "rgb(20, 22, 26)"
    chromium.find("#theme").click()


def test_a_printed_page_is_light_and_has_no_buttons(chromium, folder):
    chromium.open(folder / "card.html", theme="dark")
    chromium.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    seen = "return [...document.querySelectorAll('button, nav, form.brush')].filter((e) => e.offsetParent).length"
    assert chromium.js(seen) == 0
    assert chromium.js("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    chromium.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_a_chart_that_cannot_be_drawn_says_so(chromium, fake, tmp_path):
    page = build.build(fake.path, "component", component="embed").replace('"mark":', '"marc":')
    chromium.open(build.write(tmp_path / "page.html", page))
    assert chromium.console() and "could not be drawn" in chromium.find(".chart-box").text

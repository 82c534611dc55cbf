"""The site: what is written, what is refused, what is kept, and that links and addresses hold."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import fake_check
import pytest
from test_report_page import NOT_FETCHED
from test_report_text import parse
from typer.testing import CliRunner

from profiler.cli import app
from profiler.database import query
from profiler.errors import ComponentError, RunError, SiteError
from profiler.pages import build, site
from profiler.pages.component import headline
from profiler.pages.reader import Reader
from profiler.pages.shell import Shell
from profiler.pages.site import folder as building
from profiler.pages.site import pages

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(fake, tmp_path_factory) -> Path:
    """A site with three cards of the most important components and one that was asked for."""
    out = tmp_path_factory.mktemp("site") / "site"
    site.build(fake.path, out, 3, ["L0N1"])
    return out


@pytest.fixture
def bare(monkeypatch) -> None:
    """A site of a page of queries alone: for what becomes of its folder."""

    def write(run: Path, out: Path, folder: Path, read: Reader, *_rest: object) -> None:
        (folder / "queries.html").write_text(pages.queries_page(read, Shell(root=""), run.name), encoding="utf-8")

    monkeypatch.setattr(building, "_write_pages", write)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def overview(fake) -> list[str]:
    return query.run(fake.path, "component_overview", top=0)["component"].to_list()


@pytest.mark.slow
def test_the_folder_holds_what_its_description_says(fake, made):
    cards = sorted(f"cards/{label}.html" for label in {*overview(fake)[:3], "L0N1"})
    pages_ = ["behaviours.html", "components.html", "index.html", "queries.html"]
    shared = ["components.js", "page.css", "page.js", "queries.js", "site.js", "theme.js", "vega.js"]
    assert sorted(files(made)) == sorted([*cards, *pages_, *(f"assets/{name}" for name in shared), "site.json"])


def test_every_link_leads_to_a_file_of_the_site_and_none_outside(made):
    for page in made.rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        ids = set(re.findall(r'id="([^"]+)"', html))
        for link in re.findall(r'(?:href|src)="([^"]+)"', html):
            file, _, anchor = link.partition("#")
            target = (page.parent / file).resolve() if file else page
            assert target.is_file() and target.is_relative_to(made.resolve()), (page.name, link)
            if anchor and target.suffix == ".html":
                assert anchor in (ids if not file else re.findall(r'id="([^"]+)"', target.read_text(encoding="utf-8")))
        assert not re.findall(r"https?://", html)
    assert (
        set(re.findall(r"https?://[^\s\"'`\\)<]*", (made / "assets" / "vega.js").read_text(encoding="utf-8")))
        <= NOT_FETCHED
    )


def test_the_table_of_components_holds_the_numbers_of_the_query(fake, made):
    text = (made / "assets" / "components.js").read_text(encoding="utf-8")
    data = json.loads(text.removeprefix("window.profilerComponents = ").rstrip().removesuffix(";"))
    frame = query.run(fake.path, "component_overview", top=0)
    assert data["columns"]["component"] == frame["component"].to_list()
    assert data["columns"]["share"] == pytest.approx(frame["share_abs_dla"].to_list(), rel=1e-4)
    assert data["columns"]["dla"] == pytest.approx(frame["dla"].to_list(), rel=1e-4)
    linked = {label for label, link in zip(data["columns"]["component"], data["links"], strict=True) if link}
    assert linked == {path.stem for path in (made / "cards").iterdir()}
    claims = query.run(fake.path, "behaviours", kind="head", family="attention", top=0)
    known = dict(headline.labels(claims).select("component", "behaviour").iter_rows())
    assert data["columns"]["behaviour"] == [known.get(label) for label in frame["component"]]


def test_hostile_texts_stay_text(made):
    for page in made.rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        assert "<script>alert" not in html and "\u202e" not in html
        parse(html)


def test_cards_are_small_because_what_they_share_lies_beside_them(made):
    for card in (made / "cards").iterdir():
        assert card.stat().st_size < 150_000
        html = card.read_text(encoding="utf-8")
        assert "vegaEmbed=" not in html and 'src="../assets/vega.js"' in html


@pytest.mark.monthly
def test_several_processes_write_the_same_as_one(fake, made, tmp_path):
    done = site.build(fake.path, tmp_path / "again", 3, ["L0N1"], workers=2)
    assert done.made == 4 and files(tmp_path / "again") == files(made) | {
        "components.html": (tmp_path / "again" / "components.html").read_bytes()  # names its own folder
    }


@pytest.mark.slow
def test_cards_are_kept_while_they_hold_and_made_anew_when_the_run_changes(fake, tmp_path):
    run = Path(shutil.copy(fake.path, tmp_path / "run.duckdb"))
    first = site.build(run, tmp_path / "site", 1)
    second = site.build(run, tmp_path / "site", 1, ["L0N1", "L0N2"])
    assert (first.made, first.reused, second.made, second.reused) == (1, 0, 2, 1)
    assert len(list((tmp_path / "site" / "cards").iterdir())) == 3
    run.touch()
    assert site.build(run, tmp_path / "site", 1).reused == 0
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_cards_are_made_anew_when_code_in_any_folder_of_the_pages_changes(fake, tmp_path, monkeypatch):
    package = Path(building.__file__).parents[1]
    shutil.copytree(package, tmp_path / "pages", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(building.assets, "package_file", lambda name: tmp_path / name)
    before = building.key_of(fake.path, "run")
    assert building.key_of(fake.path, "run") == before
    for file in ("component/answer.py", "charts/theme.py", "page.css"):
        with (tmp_path / "pages" / file).open("a") as code:
            code.write("\n")
        assert building.key_of(fake.path, "run") != before, file
        before = building.key_of(fake.path, "run")


@pytest.mark.parametrize("kind", ["file", "folder", "mark", "link"])
def test_what_is_no_site_of_ours_is_not_touched(fake, tmp_path, kind):
    out = tmp_path / "mine"
    if kind == "file":
        out.write_text("precious")
    elif kind == "link":
        (tmp_path / "elsewhere").mkdir()
        out.symlink_to(tmp_path / "elsewhere")
    else:
        out.mkdir()
        (out / "thesis.tex").write_text("precious")
    if kind == "mark":
        (out / "site.json").write_text('{"made_by": "somebody else"}')
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SiteError, match="no site of the profiler"):
        site.build(fake.path, out, 1)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_failure_leaves_the_site_that_was_there_and_nothing_else(fake, bare, tmp_path, monkeypatch):
    site.build(fake.path, tmp_path / "site", 0)
    before = files(tmp_path / "site")
    monkeypatch.setattr(pages, "queries_page", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        site.build(fake.path, tmp_path / "site", 0)
    assert files(tmp_path / "site") == before and [p.name for p in tmp_path.iterdir()] == ["site"]
    with pytest.raises(ComponentError, match="L9H9"):
        site.build(fake.path, tmp_path / "site", 0, ["L9H9"])
    assert [p.name for p in tmp_path.iterdir()] == ["site"]


def test_what_a_killed_process_left_is_used_up_by_the_next(fake, bare, tmp_path):
    """Killed while it wrote, and killed between the two moves: the old site is there again even if the next one
    fails."""
    out, left = tmp_path / "site", tmp_path / "site.partial"
    site.build(fake.path, out, 0)
    before = files(out)
    script = (
        "import sys, time; from profiler.pages.site import folder, pages; pages.queries_page = lambda *_:"
        " time.sleep(600); folder.build(*sys.argv[1:], 0)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(fake.path), str(out)]) as process:
        while not (left / "new" / "cards").exists():
            assert process.poll() is None
            time.sleep(0.05)
        with pytest.raises(RunError, match=f"is being written by process {process.pid}"):
            site.build(fake.path, out, 0)
        process.kill()
    assert files(out) == before and sorted(p.name for p in tmp_path.iterdir()) == ["site", "site.partial"]
    out.rename(left / "old")
    with pytest.raises(ComponentError):
        site.build(fake.path, out, 0, ["L9H9"])
    assert site.build(fake.path, out, 0).made == 0
    assert [p.name for p in tmp_path.iterdir()] == ["site"]


def test_the_old_site_comes_back_where_a_killed_process_had_moved_it(fake, bare, tmp_path, monkeypatch):
    out, left = tmp_path / "site", tmp_path / "site.partial"
    site.build(fake.path, out, 0)
    before = files(out)
    left.mkdir()
    out.rename(left / "old")
    monkeypatch.setattr(pages, "queries_page", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        site.build(fake.path, out, 0)
    assert files(out) == before and [p.name for p in tmp_path.iterdir()] == ["site"]


def test_files_of_the_user_where_a_site_is_made_are_kept(fake, tmp_path):
    (tmp_path / "site.partial").mkdir()
    (tmp_path / "site.partial" / "thesis.tex").write_text("precious")
    with pytest.raises(SiteError, match=r"holds thesis.tex, which no site made"):
        site.build(fake.path, tmp_path / "site", 0)
    assert (tmp_path / "site.partial" / "thesis.tex").read_text() == "precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["site.partial"]


def test_a_place_taken_in_the_meantime_is_not_overwritten(fake, bare, tmp_path, monkeypatch):
    write = building._write_pages

    def late(run, out, *rest):
        write(run, out, *rest)
        out.write_text("precious")

    monkeypatch.setattr(building, "_write_pages", late)
    with pytest.raises(SiteError, match="no site of the profiler"):
        site.build(fake.path, tmp_path / "site", 0)
    assert (tmp_path / "site").read_text() == "precious"


def test_a_report_that_needs_a_table_is_there_when_the_table_has_rows(fake):
    with query.open_run(fake.path) as connection:
        assert "circuit" not in pages.available(connection)
        assert next(iter(pages.available(connection))) == "overview"
        assert query.has_rows(connection, "components") and not query.has_rows(connection, "nowhere")


@pytest.mark.slow
def test_the_command_writes_a_site_and_says_what_it_cost(fake, tmp_path):
    run = CliRunner().invoke(
        app, ["site", str(fake.path), "--out", str(tmp_path / "s"), "--cards", "1", "--workers", "1"]
    )
    assert run.exit_code == 0, run.output
    assert "1 card made, 0 kept" in run.output and (tmp_path / "s" / "index.html").is_file()
    bad = CliRunner().invoke(app, ["site", str(fake.path), "--out", str(tmp_path / "s"), "--cards", "some"])
    assert isinstance(bad.exception, SiteError)


def test_a_reader_about_something_sets_it_wherever_a_query_knows_it(fake):
    with query.open_run(fake.path) as connection:
        plain = build.Reader(connection)
        about = plain.about(component="L0H0")
        assert about("density").frame.equals(plain("density", component="L0H0").frame)
        assert about("density").source == plain("density", component="L0H0").source
        assert about("density", component="L0N1").frame.equals(plain("density", component="L0N1").frame)
        assert about("corpus").source.settings == ""
        before = plain("corpus")
        plain.forget("component")
        assert plain("corpus") is before and plain("density", component="L0H0") is not about("density")


@pytest.mark.slow
def test_every_check_has_a_page_that_the_page_of_verdicts_leads_to(tmp_path):
    run = fake_check.build(tmp_path / "run.duckdb")
    site.build(run, tmp_path / "site", 0)
    index = (tmp_path / "site" / "verdicts.html").read_text(encoding="utf-8")
    rows = query.run(run, "checks").to_dicts()
    assert len(rows) == 2 and len({row["word"] for row in rows}) == 2
    for row in rows:
        file = "generality.html" if row["latest"] else f"generality-{row['check_id']}.html"
        text = (tmp_path / "site" / file).read_text(encoding="utf-8")
        assert f"{row['circuit']}: {row['word']}" in text and f'<a href="{file}">{row["check_id"]}</a>' in index
        assert '<a href="verdicts.html" aria-current="page">' in text
        assert query.run(run, "checks", check_id=row["check_id"])["check_id"].to_list() == [row["check_id"]]

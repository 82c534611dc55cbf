"""The server of a run's pages: who is refused, what stays of what is written, and pages that are those of a site."""

import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.request import urlopen

import pytest
from starlette.testclient import TestClient

import profiler
from profiler.config import ModelChoice
from profiler.errors import ProfilerError, RunError
from profiler.serve.app import HEADERS, LARGEST_BODY, app_of
from profiler.serve.live import LiveSite
from profiler.serve.notes import Notes
from profiler.serve.server import serve

pytestmark = pytest.mark.filterwarnings("ignore:Using `httpx`")
WORD = "secret"
HOME = "http://127.0.0.1:8000"
FORM = {"Origin": HOME, "Content-Type": "application/x-www-form-urlencoded"}
HOSTILE = "<script>alert(1)</script>\u202e\x1b[31m"


@pytest.fixture
def client(run_path, base_config, tmp_path):
    with profiler.open(run_path) as run:
        site = LiveSite(run, ModelChoice(base_config.model))
        site.__dict__["notes"] = Notes(tmp_path / "run.notes.jsonl")  # beside the run of all tests nothing is written
        yield TestClient(app_of(site, WORD), HOME, raise_server_exceptions=False, follow_redirects=False)


# --- who is refused ---


@pytest.mark.parametrize(
    "path", ["/", "/index.html", "/secre/", "/secrets/", "//secret/", "/SECRET/", "/cards/L0H0.html"]
)
def test_without_the_word_there_is_nothing(client, path):
    answer = client.get(path)
    assert (answer.status_code, answer.text) == (404, "there is no such page\n")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "192.168.0.1", "0.0.0.0", ""])
def test_another_name_of_this_machine_is_refused(client, host):
    assert client.get(f"/{WORD}/", headers={"Host": host}).status_code == 400


@pytest.mark.parametrize(
    "origin", [None, "null", "http://evil.example", "http://127.0.0.1:8001", "https://127.0.0.1:8000"]
)
def test_another_origin_writes_nothing(client, tmp_path, origin):
    headers = {k: v for k, v in (FORM | {"Origin": origin}).items() if v is not None}
    for way in ("notes/add", "notes/remove"):
        assert client.post(f"/{WORD}/{way}", content="page=index.html&text=x", headers=headers).status_code == 403
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "path",
    [
        "assets/../../pyproject.toml",
        "assets/%2e%2e/page.py",
        "assets/..%2f..%2fpyproject.toml",
        "assets/page.py",
        "assets/frame.html.jinja",
        "assets//etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e/%2e%2e/etc/passwd",
        "notes.jsonl/../../etc/passwd",
        "index.html%00.js",
    ],
)
def test_no_path_leads_to_a_file(client, path):
    answer = client.get(f"/{WORD}/{path}")
    assert (answer.status_code, answer.text) == (404, "there is no such page\n")


@pytest.mark.parametrize("label", ["L9H9", "..%2fL0H0", "L0H0'--", "%3Cscript%3E", "L0H0%0d%0aX-Evil:1"])
def test_a_label_that_is_none_is_a_sentence_or_nothing(client, label):
    answer = client.get(f"/{WORD}/cards/{label}.html")
    assert answer.status_code in (400, 404)
    assert "x-evil" not in answer.headers
    assert "<script>" not in answer.text.split("<main>")[-1].split("</main>")[0]


def test_every_answer_has_the_headers(client):
    for path in ("/", f"/{WORD}/", f"/{WORD}/none.html", f"/{WORD}/assets/page.js", f"/{WORD}/cards/L9H9.html"):
        answer = client.get(path)
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS


def test_other_methods_are_refused(client):
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        assert client.request(method, f"/{WORD}/index.html").status_code in (403, 405)


# --- pages ---


def test_pages_are_those_of_a_site_and_lead_to_each_other(client):
    seen, waiting = {}, ["index.html"]
    while waiting:
        file = waiting.pop()
        answer = client.get(f"/{WORD}/{file}")
        assert answer.status_code == 200, file
        seen[file] = answer.text
        if not file.endswith(".html"):
            continue
        places = re.findall(r'(?:href|src)="([^"#:]+)"', answer.text)
        waiting += [
            place for place in places if place not in (*seen, *waiting) and not place.startswith(("../", "cards/"))
        ]
        assert "form-action 'self'" in answer.text
    assert {"components.html", "behaviours.html", "try.html", "find.html", "compare.html", "notes.html"} <= seen.keys()
    card = client.get(f"/{WORD}/cards/L1H1.html").text
    assert "<h1>L1H1</h1>" in card and 'name="component" value="L1H1"' in card
    assert client.get(f"/{WORD}/cards/L1H1.html").text == card


def test_a_text_is_read_by_the_runs_model(client):
    answer = client.get(
        f"/{WORD}/try.html", params={"text": "alpha beta alpha", "component": "L1H1", "remove": "L0N3, L0H0"}
    )
    assert answer.status_code == 200
    assert "L1H1 on a text" in answer.text and "p before the change" in answer.text
    refused = client.get(f"/{WORD}/try.html", params={"text": "alpha", "component": "L7H7"})
    assert refused.status_code == 400 and "not in this run" in refused.text


def test_components_are_found_by_words_likeness_and_token(client):
    for asked in ({"words": "previous token"}, {"like": "L1H1", "by": "spectrum"}, {"token": "a"}):
        answer = client.get(f"/{WORD}/find.html", params=asked)
        assert answer.status_code == 200
    assert 'href="cards/L1H' in client.get(f"/{WORD}/find.html", params={"like": "L1H1"}).text
    refused = client.get(f"/{WORD}/find.html", params={"words": HOSTILE, "like": ""})
    assert client.get(f"/{WORD}/find.html", params={"words": "zzz"}).status_code == 400
    assert "<script>alert" not in refused.text and "\u202e" not in refused.text and "\x1b" not in refused.text


def test_two_cards_stand_side_by_side(client):
    page = client.get(f"/{WORD}/compare.html", params={"first": "L0H0", "second": "L1H1"}).text
    assert re.findall(r'<iframe src="([^"]+)"', page) == ["cards/L0H0.html?bare", "cards/L1H1.html?bare"]
    assert 'class="bar"' not in client.get(f"/{WORD}/cards/L0H0.html?bare").text
    assert "frame-src 'self'" in page


@pytest.mark.slow
def test_ten_readers_at_once_get_the_same_pages(client):
    labels = ["L0H0", "L0H1", "L1H0", "L1H1", "L0N0"]
    alone = {label: client.get(f"/{WORD}/cards/{label}.html").text for label in labels}
    with ThreadPoolExecutor(10) as pool:
        asked = [label for label in labels for _ in range(4)]
        together = [*pool.map(lambda label: client.get(f"/{WORD}/cards/{label}.html").text, asked)]
    assert together == [alone[label] for label in asked]


# --- notes ---


def test_a_note_stays_is_shown_as_text_and_can_be_saved_and_removed(client, tmp_path):
    text = f"fires on {HOSTILE}\nsecond line"
    answer = client.post(f"/{WORD}/notes/add", data={"page": "cards/L1H1.html", "text": text}, headers=FORM)
    assert answer.status_code == 303
    place = answer.headers["location"].split("#")[1]
    for page in ("notes.html", "cards/L1H1.html"):
        shown = client.get(f"/{WORD}/{page}").text
        assert "&lt;script&gt;alert(1)" in shown and "<script>alert" not in shown and "\u202e" not in shown
    assert f'id="{place}"' in client.get(f"/{WORD}/notes.html").text
    assert "fires on" not in client.get(f"/{WORD}/cards/L0H0.html").text
    [kept] = Notes(tmp_path / "run.notes.jsonl").all()
    assert (kept.page, kept.text) == ("cards/L1H1.html", text)
    assert client.get(f"/{WORD}/notes.jsonl").json()["text"] == text
    client.post(f"/{WORD}/notes/remove", data={"id": kept.id}, headers=FORM)
    assert Notes(tmp_path / "run.notes.jsonl").all() == ()
    assert text.splitlines()[1] in (tmp_path / "run.notes.jsonl").read_text()  # the file loses nothing
    assert client.post(f"/{WORD}/notes/remove", data={"id": kept.id}, headers=FORM).status_code == 400


@pytest.mark.parametrize("page", ["//evil.example/", "javascript:alert(1)", "/etc", "https://evil.example"])
def test_a_note_leads_nowhere_else(client, page):
    answer = client.post(f"/{WORD}/notes/add", data={"page": page, "text": "x"}, headers=FORM)
    assert answer.status_code == 400
    assert "<article" not in client.get(f"/{WORD}/notes.html").text


def test_a_body_beyond_the_limit_or_no_form_is_refused(client, tmp_path):
    for body in (b"text=" + b"x" * LARGEST_BODY, b"page=a&text=\xff", b"page=a&text=", b"&".join([b"a=b"] * 50)):
        assert client.post(f"/{WORD}/notes/add", content=body, headers=FORM).status_code == 400
    assert not list(tmp_path.iterdir())


def test_notes_of_many_writers_are_all_there(tmp_path):
    file = tmp_path / "n.jsonl"
    writers = [
        threading.Thread(target=lambda: [Notes(file).add("index.html", "x" * 500) for _ in range(20)]) for _ in range(4)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(Notes(file).all()) == 80


@pytest.mark.parametrize("line", ["{", "[]", '{"id": 3}', '{"id": 1, "created": "", "page": "", "text": ""}', "\xff"])
def test_a_line_that_is_no_note_is_named(tmp_path, line):
    file = tmp_path / "n.jsonl"
    Notes(file).add("index.html", "first")
    with file.open("ab") as out:
        out.write(line.encode("latin-1") + b"\n")
    before = file.read_bytes()
    with pytest.raises(ProfilerError, match=r"line 2 of .* is no note|cannot be read"):
        Notes(file).all()
    assert file.read_bytes() == before


def test_a_link_in_the_file_s_stead_is_not_followed(tmp_path):
    (tmp_path / "n.jsonl").symlink_to(tmp_path / "other")
    with pytest.raises(ProfilerError, match="cannot be written"):
        Notes(tmp_path / "n.jsonl").add("index.html", "x")
    assert not (tmp_path / "other").exists()


# --- the command ---


def test_a_port_that_is_taken_and_a_run_that_is_none_are_sentences(run_path, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ProfilerError, match=r"--port \d+ cannot be used"):
            serve(run_path, ModelChoice(), taken.getsockname()[1])
    with pytest.raises(RunError, match="there is no file"):
        serve(tmp_path / "none.duckdb", ModelChoice())


@pytest.mark.slow
def test_the_command_listens_on_this_machine_alone_and_ends_with_a_signal(run_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "profiler", "serve", str(run_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        address = process.stdout.readline().strip()
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/([\w-]{22})/", address)
        assert found, process.stderr.read()
        assert b"<h1>" in urlopen(address, timeout=60).read()
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert "Traceback" not in said
    assert process.returncode in (0, 130)

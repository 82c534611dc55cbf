"""The role of each kept position of a run over conversations, against a walk through the bytes of its text."""

import json

import duckdb
import passes
import pytest
import tiny
from corpora import write_lines

from profiler.behaviours import additions
from profiler.config import RunConfig
from profiler.database import query
from profiler.recording.pipeline import record

TEMPLATE = "{% for m in messages %}" + tiny.END + "{{ m.role }}\n{{ m.content }}\n{% endfor %}"
TURNS = (("system", "Be kind."), ("user", "user é"), ("assistant", "user 漢 assistant and much more than a window"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run over conversations and one plain text, by a template whose marker is a special token."""
    folder = tmp_path_factory.mktemp("roles")
    tiny.save("gpt2", folder / "model")
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder / "model")
    talk = [{"role": role, "content": content} for role, content in TURNS]
    rows = [{"id": f"talk {n}", "text": talk[: 2 + n % 2]} for n in range(8)] + [
        {"id": "plain", "text": "user and user"}
    ]
    corpus = write_lines(folder / "rows.jsonl", rows)
    config = passes.settings(folder / "model", corpus, domain_field=None, context_length=12)
    record(config, folder / "run.duckdb")
    return folder / "run.duckdb"


def expected(n_turns: int) -> list[str]:
    """Role of each token of a conversation; a token is a byte, or the marker, which leaves out the first as it is the
    BOS."""
    roles = []
    for role, content in TURNS[:n_turns]:
        roles += ["template"] * (1 + len(f"{role}\n")) + [role] * len(content.encode()) + ["template"]
    return roles[1:]


@pytest.mark.slow
def test_every_position_has_the_role_of_its_byte(run):
    rows = query.run(run, "SELECT source, pos, special, role FROM positions ORDER BY position_id")
    seen = set()
    for source, pos, special, role in rows.iter_rows():
        if pos is None or source == "plain":
            assert role is None
            continue
        assert role == expected(2 + int(source.removeprefix("talk ")) % 2)[pos], (source, pos)
        seen.add((role, special))
    assert {("template", "special"), ("template", None), ("system", None), ("user", None), ("assistant", None)} <= seen
    assert dict(query.run(run, "drops").select("reason", "n").iter_rows())["no_roles"] == 0


@pytest.mark.parametrize("view", ["contexts", "samples", "extremes", "position_facts"])
def test_views_of_positions_can_be_filtered_by_role(run, view):
    rows = query.run(run, f"SELECT v.role, p.role AS known FROM {view} v JOIN position_rows p USING (position_id)")
    assert {"user", "assistant", None} <= {*rows["role"]}
    assert rows["role"].to_list() == rows["known"].to_list()


def test_the_split_by_role_adds_up(run):
    rows = query.run(run, "by_role", component="L0N3")
    assert {*rows["role"]} == {"system", "user", "assistant", "template", "none"}
    assert rows["share_n"].sum() == pytest.approx(1)
    assert rows["share_abs_dla"].sum() == pytest.approx(1)


def test_a_behaviour_can_be_about_a_role(run, tmp_path):
    copy = tmp_path / "run.duckdb"
    copy.write_bytes(run.read_bytes())
    additions.add_behaviour(copy, "answers", "role = 'assistant'", "both")
    with duckdb.connect(str(copy), read_only=True) as connection:
        rows = connection.execute(
            "SELECT b.holds, p.role FROM behaviour_rows b JOIN position_rows p USING (position_id)"
            " WHERE behaviour = 'answers'"
        ).fetchall()
    assert {holds for holds, _ in rows} == {True, False, None}
    assert all(holds == (role and role == "assistant") for holds, role in rows)


def test_a_check_reads_the_roles_again(run):
    from profiler.generality.distributions.corpus import facts, read
    from profiler.generality.distributions.subject import Reread
    from profiler.model.load import load_model

    config = RunConfig(**json.loads(query.run(run, "SELECT config FROM runs").item()))
    model = load_model(config)
    text = facts(read(run, model, None, Reread(corpora=config.corpora)), model)
    known = query.run(run, "SELECT position_id, role AS known FROM position_rows WHERE special IS NULL")
    both = text.join(known, on="position_id")
    assert both.height == known.height
    assert both["role"].to_list() == both["known"].to_list()

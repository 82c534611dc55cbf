"""Whose message a character and a token belong to: told by the template itself, never by what a message says."""

import json
import re

import pytest
import tiny
import torch
from corpora import read, write_lines
from hypothesis import given
from hypothesis import strategies as st

from profiler.text.conversation_roles import TEMPLATE, RoleSpan, token_roles
from profiler.text.corpus.chat import BEGIN, Conversation, conversation
from profiler.text.corpus.stream import Document
from profiler.text.documents import Domains, Reading, tokenize
from profiler.text.token_classes import encode, token_offsets
from profiler.text.windows import Layout, make_batch, windows_of

# what a message says is left as it is
PLAIN = "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
TRIMMED = "{% for m in messages %}[{{ m.role }}] {{ m.content | trim }}\n{% endfor %}"
THINKING = (
    "{% for m in messages %}<{{ m.role }}>\n"
    "{% set said = m.content %}{% if '</think>' in said %}"
    "{% set said = said.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{{ said }}<end>\n{% endfor %}"
)  # as Qwen3's: earlier thoughts are left out
SYSTEM_INSIDE = (
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set turns = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for m in turns %}{% if m.role == 'user' %}[INST] "
    "{% if loop.first and system %}<<SYS>>\n{{ system }}\n<</SYS>>\n\n{% endif %}"
    "{{ m.content | trim }} [/INST]{% else %} {{ m.content }} </s>{% endif %}{% endfor %}"
)  # as Llama 2's: a prefix of the messages that ends with the system's is no conversation of its own
TOOLS = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% for call in m.tool_calls or [] %}<call>{{ call.function | tojson }}</call>{% endfor %}\n{% endfor %}"
)
SHOUTED = "{% for m in messages %}{{ m.role }}: {{ m.content | replace('e', 'E') | upper }}{% endfor %}"
LAST_WORDS = "{% for m in messages %}{{ m.role }}: {{ m.content[-4:] }}\n{% endfor %}"


def tokenizer(template: str | None):
    made = tiny.tokenizer()
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    made.chat_template = template
    return made


def turns(*pairs: tuple[str, str]) -> list[dict]:
    return [{"role": role, "content": content} for role, content in pairs]


def said(found: Conversation) -> list[tuple[str, str]]:
    """Role and text of each span."""
    return [(span.role, found.text[span.start : span.end]) for span in found.spans]


SAME = turns(("system", "user"), ("user", "user"), ("assistant", "assistant"), ("user", "user"), ("assistant", "user"))


@pytest.mark.parametrize("template", [PLAIN, TRIMMED, THINKING, None])
def test_equal_texts_of_several_turns_are_told_apart(template):
    """Each message says what the template writes before another."""
    found = conversation(SAME, tokenizer(template))
    assert said(found) == [(m["role"], m["content"]) for m in SAME]
    before = [found.text[: span.start] for span in found.spans]
    assert all("user" in text or "system" in text for text in before)
    assert sorted(span.start for span in found.spans) == [span.start for span in found.spans]


def test_blanks_at_the_ends_belong_to_the_message_where_the_template_leaves_them():
    talk = turns(("user", "\n hi "), ("assistant", "  "), ("user", ""))
    assert said(conversation(talk, tokenizer(PLAIN))) == [("user", "\n hi "), ("assistant", "  ")]
    assert said(conversation(talk, tokenizer(TRIMMED))) == [("user", "hi")]


def test_what_a_template_leaves_out_or_moves_is_followed():
    talk = turns(("user", "why?"), ("assistant", "<think>\nhm, why?\n</think>\n\nwhy not?"), ("user", "why?"))
    found = conversation(talk, tokenizer(THINKING))
    assert "hm" not in found.text
    assert said(found) == [("user", "why?"), ("assistant", "why not?"), ("user", "why?")]
    talk = turns(("system", "be kind"), ("user", " be kind"), ("assistant", "be kind"))
    found = conversation(talk, tokenizer(SYSTEM_INSIDE))
    assert said(found) == [("system", "be kind"), ("user", "be kind"), ("assistant", "be kind")]


def test_names_and_arguments_of_tool_calls_are_the_callers():
    call = {"type": "function", "id": "x", "function": {"name": "add", "arguments": {"a": 1, "of": 'say "user"'}}}
    talk = [*turns(("user", "add")), {"role": "assistant", "content": "", "tool_calls": [call]}, *turns(("tool", "2"))]
    found = conversation(talk, tokenizer(TOOLS))
    assert said(found) == [("user", "add"), ("assistant", "add"), ("assistant", r"say \"user\""), ("tool", "2")]


def test_a_template_that_cuts_messages_gives_no_roles_and_is_counted(tmp_path):
    talk = turns(("user", "where is it?"), ("assistant", "there, on the table"))
    assert said(conversation(talk, tokenizer(SHOUTED))) == [(m["role"], m["content"].upper()) for m in talk]
    found = conversation(talk, tokenizer(LAST_WORDS))
    assert found == Conversation("user:  it?\nassistant: able\n", None)
    file = write_lines(tmp_path / "a.jsonl", [{"text": talk}, {"text": "plain"}])
    documents, dropped = read(file, tokenizer=tokenizer(LAST_WORDS))
    assert [d.roles for d in documents] == [None, None]
    assert dropped == {"no_roles": 1}


def test_messages_that_hold_the_marks_themselves_have_no_roles():
    found = conversation(turns(("user", f"{BEGIN}0")), tokenizer(PLAIN))
    assert found.spans is None
    assert BEGIN in found.text


contents = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("user \n<>é漢😀"), max_size=12)


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant", "tool"]), contents), min_size=1, max_size=4))
def test_the_spans_of_any_conversation_hold_its_messages(pairs):
    for template, expected in ((PLAIN, pairs), (TRIMMED, [(role, text.strip()) for role, text in pairs])):
        found = conversation(turns(*pairs), tokenizer(template))
        if not any("\U0010fff0" <= c <= "\U0010fff2" for _, text in pairs for c in text):
            assert said(found) == [(role, text) for role, text in expected if text]


# --- tokens ---


def test_a_token_belongs_to_the_message_it_holds_a_character_of():
    spans = (RoleSpan(3, 5, "user"), RoleSpan(5, 8, "assistant"), RoleSpan(10, 11, "user"))
    offsets = [(0, 3), (2, 4), (4, 6), (6, 7), (7, 9), (8, 10), (9, 12), (11, 12), (3, 3), (9, 9)]
    roles = ["template", "user", "user", "assistant", "assistant", "template", "user", "template", "user", "template"]
    assert list(token_roles(spans, offsets)) == roles
    assert token_roles((), offsets) == (TEMPLATE,) * len(offsets)


def documents_of(talk: list[dict], slow: bool = False) -> tuple[Conversation, Document]:
    found = conversation(talk, tokenizer(PLAIN))
    return found, Document("d", "s", "p", found.text, found.spans)


def tokenized(document: Document, limit: int | None = None, tells: bool = True):
    made = tokenizer(PLAIN)
    offsets = (lambda text: token_offsets(made, text)) if tells else (lambda _: None)
    stream = tokenize([document], lambda text: encode(made, text), Domains(4), limit, Reading(), offsets=offsets)
    return next(iter(stream))


UNICODE = turns(("system", "é"), ("user", "漢字 😀"), ("assistant", "漢字 😀 é"))


def test_every_byte_of_a_character_has_its_role_and_markers_are_the_templates():
    found, document = documents_of(UNICODE)
    expected = []  # a token is a marker or a byte
    for piece in re.finditer(r"<\|im_(start|end)\|>|(?s:.)", found.text):
        role = next((span.role for span in found.spans if span.start <= piece.start() < span.end), TEMPLATE)
        expected += [role] * (1 if len(piece[0]) > 1 else len(piece[0].encode()))
    assert list(tokenized(document).roles) == expected


@pytest.mark.parametrize("bos", [None, 0])
def test_roles_go_on_in_the_next_window_and_into_batches(bos):
    _, document = documents_of(UNICODE)
    got = tokenized(document, limit=50)
    assert len(got.roles) == len(got.token_ids) == 50
    layout = Layout(7, bos, torch.zeros(300, dtype=torch.int64), 0, 4)
    batch = make_batch(list(windows_of(got, layout)), layout)
    at = batch.valid.nonzero().tolist()
    assert len(batch.roles) == len(at)
    n_bos = int(bos is not None)
    for role, (window, offset) in zip(batch.roles, at, strict=True):
        pos = batch.windows[window].start + offset - n_bos
        assert role == (None if offset < n_bos else got.roles[pos])
    inside = [w for w in batch.windows if w.start and got.roles[w.start - 1] == got.roles[w.start] == "user"]
    assert inside  # a window begins in the middle of a message


def test_a_tokenizer_that_does_not_tell_offsets_is_counted():
    _, document = documents_of(UNICODE)
    got = tokenized(document, tells=False)
    assert got.roles is None
    assert got.dropped["no_roles"] == 1
    assert tokenized(Document("d", "s", "p", "no conversation"), tells=False).dropped["no_roles"] == 0
    plain = tokenized(Document("d", "s", "p", "no conversation"))
    assert plain.roles is None and json.dumps(plain.dropped["no_roles"]) == "0"

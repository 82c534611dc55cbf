"""Conversations to text: by the tokenizer's own chat template, else `role: content` in paragraphs.

The template is what the model was tuned on, so its markers are part of the text and are tokenized as the special tokens
they are. The BOS that a template begins with is left out: windows get one of their own. A template is a jinja text run
in a sandbox by transformers; it cannot run code. A message is a mapping of `role` and `content` (or `from` and `value`,
as ShareGPT writes them); content in parts gives its text parts.

Which characters of the text belong to which message is found by rendering the conversation again with marks around what
was written in each message: its content, its reasoning, the names and arguments of its tool calls. The marks are
characters that no text uses; without them the second text must be the first, or nothing is concluded from it. So
messages of equal text are told apart, and templates that drop, trim or move messages are read as they are. Where a
template looks inside a message (a trimmed blank, a `<think>` cut out), the marks are put closer: inside the blanks,
then between the tags. Cost: two renderings of a conversation, up to four.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from profiler.text.conversation_roles import RoleSpan

KEYS = (("role", "content"), ("from", "value"))
ROLES = {"human": "user", "gpt": "assistant"}
WRITTEN = ("content", "reasoning_content", "reasoning", "thinking")
"""Fields of a message that hold text of whoever has the role."""
BEGIN, END, STOP = "\U0010fff0", "\U0010fff1", "\U0010fff2"
"""Private-use characters: `BEGIN number STOP` before a piece of a message, `END number STOP` after it."""
MARK = re.compile(f"([{BEGIN}{END}])([0-9]+){STOP}")
TAG = re.compile(r"</?\w+>")
Messages = list[dict[str, Any]]
Cut = Callable[[str], list[tuple[int, int]]]


@dataclass(frozen=True)
class Conversation:
    """The text of a conversation, and the messages' characters in it; `spans` is None where they cannot be told."""

    text: str
    spans: tuple[RoleSpan, ...] | None


def messages_of(value: Any) -> Messages | None:
    """The messages of a conversation, with keys `role` and `content`; None where `value` is no conversation."""
    if not isinstance(value, list) or not value or not all(isinstance(message, Mapping) for message in value):
        return None
    for role, content in KEYS:
        if all(isinstance(message.get(role), str) and content in message for message in value):
            return [_message(message, role, content) for message in value]
    return None


def _message(message: Mapping[str, Any], role: str, content: str) -> dict[str, Any]:
    """One message, without what is None (tables have every key in every row)."""
    extra = {key: value for key, value in message.items() if value is not None and key not in (role, content)}
    return {"role": ROLES.get(message[role], message[role]), "content": _content(message[content])} | extra


def _content(value: Any) -> str:
    if isinstance(value, list):
        return "".join(
            part["text"] for part in value if isinstance(part, Mapping) and isinstance(part.get("text"), str)
        )
    return value if isinstance(value, str) else ""


def conversation(messages: Messages, tokenizer: Any = None) -> Conversation | None:
    """The conversation as text; None where the tokenizer's template refuses it (such as two turns of one role)."""
    text = _render(messages, tokenizer)
    if text is None:
        return None
    if any(character in text for character in (BEGIN, END, STOP)):
        return Conversation(text, None)
    for cut in (_whole, _stripped, _between_tags):
        marks = _Marks(cut)
        spans = marks.read(_render([marks.put(message) for message in messages], tokenizer), text)
        if spans is not None:
            return Conversation(text, spans)
    return Conversation(text, None)


def _render(messages: Messages, tokenizer: Any) -> str | None:
    if not getattr(tokenizer, "chat_template", None):
        return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)
    try:
        text: str = tokenizer.apply_chat_template(messages, tokenize=False)
    except (TemplateError, TypeError, ValueError, KeyError):
        return None
    return text.removeprefix(tokenizer.bos_token or "")


def _whole(text: str) -> list[tuple[int, int]]:
    """The text from end to end."""
    return [(0, len(text))] if text else []


def _stripped(text: str) -> list[tuple[int, int]]:
    """The text without blanks at its ends."""
    start, end = len(text) - len(text.lstrip()), len(text.rstrip())
    return [(start, end)] if start < end else []


def _between_tags(text: str) -> list[tuple[int, int]]:
    """What stands between tags such as <think>, without blanks at its ends; the tags count as the template's."""
    edges = [0, *(edge for tag in TAG.finditer(text) for edge in tag.span()), len(text)]
    pieces = zip(edges[::2], edges[1::2], strict=True)
    return [(start + a, start + b) for start, end in pieces for a, b in _stripped(text[start:end])]


class _Marks:
    """Marks around pieces of messages: put in before a template is rendered, read in what it made."""

    def __init__(self, cut: Cut):
        self.cut = cut
        self.roles: list[str] = []

    def put(self, message: dict[str, Any]) -> dict[str, Any]:
        """The message with marks around what was written in it."""
        role = message["role"]
        marked = {key: self._inside(message[key], role) for key in WRITTEN if key in message}
        if isinstance(message.get("tool_calls"), list):
            marked["tool_calls"] = [self._call(call, role) for call in message["tool_calls"]]
        return message | marked

    def _call(self, call: Any, role: str) -> Any:
        """A tool call; its id and type are the template's."""
        if not isinstance(call, Mapping):
            return call
        if isinstance(call.get("function"), Mapping):
            return {**call, "function": self._call(call["function"], role)}
        return {**call, **{key: self._inside(call[key], role) for key in ("name", "arguments") if key in call}}

    def _inside(self, value: Any, role: str) -> Any:
        """Every text in a value marked."""
        if isinstance(value, Mapping):
            return {key: self._inside(inner, role) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._inside(inner, role) for inner in value]
        return self._marked(value, role) if isinstance(value, str) else value

    def _marked(self, text: str, role: str) -> str:
        parts, last = [], 0
        for start, end in self.cut(text):
            number = len(self.roles)
            self.roles.append(role)
            parts += [text[last:start], f"{BEGIN}{number}{STOP}", text[start:end], f"{END}{number}{STOP}"]
            last = end
        return "".join([*parts, text[last:]])

    def read(self, marked: str | None, text: str) -> tuple[RoleSpan, ...] | None:
        """The marked pieces' characters in `text`; None where the marks do not pair up or changed the text."""
        if marked is None:
            return None
        spans: list[RoleSpan] = []
        last, removed, start, open_number = 0, 0, 0, None
        plain = []
        for mark in MARK.finditer(marked):
            number, position = int(mark[2]), mark.start() - removed
            plain.append(marked[last : mark.start()])
            last, removed = mark.end(), removed + mark.end() - mark.start()
            if mark[1] == BEGIN and open_number is None:
                start, open_number = position, number
            elif mark[1] == END and open_number == number:
                spans.append(RoleSpan(start, position, self.roles[number]))
                open_number = None
            else:
                return None
        plain.append(marked[last:])
        return tuple(spans) if open_number is None and "".join(plain) == text else None

"""Conversations to text: by the tokenizer's own chat template, else `role: content` in paragraphs.

The template is what the model was tuned on, so its markers are part of the text and are tokenized as the special tokens
they are. The BOS that a template begins with is left out: windows get one of their own. A template is a jinja text run
in a sandbox by transformers; it cannot run code. A message is a mapping of `role` and `content` (or `from` and `value`,
as ShareGPT writes them); content in parts gives its text parts. Cost: a template's rendering.
"""

from collections.abc import Mapping
from typing import Any

from jinja2 import TemplateError

KEYS = (("role", "content"), ("from", "value"))
ROLES = {"human": "user", "gpt": "assistant"}
Messages = list[dict[str, Any]]


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
    others = {key: value for key, value in message.items() if value is not None and key not in (role, content)}
    return {"role": ROLES.get(message[role], message[role]), "content": _content(message[content])} | others


def _content(value: Any) -> str:
    if isinstance(value, list):
        return "".join(
            part["text"] for part in value if isinstance(part, Mapping) and isinstance(part.get("text"), str)
        )
    return value if isinstance(value, str) else ""


def text_of(messages: Messages, tokenizer: Any = None) -> str | None:
    """The text of a conversation; None where the tokenizer's template refuses it (such as two turns of one role)."""
    if not getattr(tokenizer, "chat_template", None):
        return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False)
    except (TemplateError, TypeError, ValueError, KeyError):
        return None
    return text.removeprefix(tokenizer.bos_token or "")

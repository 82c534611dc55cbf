"""A context token by token: each token an element that carries what is stored of the component there.

`<i>` is a token, `<mark>` the shown one, `<u>` the one that really came next. Their attributes are what page.js colours
and tells on hovering: `data-a` activation, `data-d` DLA (logits), `data-p` probability of the token that came next,
`data-w` attention of the shown position to it; a missing one was not stored, which is not 0. No element isolates its
direction: a script written from right to left is ordered over the whole context, and a combining mark stays on the
letter before it. Bytes that are no text alone stand as hexadecimal numbers, with the character after `=` at the token
that completes it.

Cost: tokens are rendered once per text and process; a context is one join of strings.
"""

import codecs
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from markupsafe import Markup

from profiler.pages import visible_text as text

BYTES_TOKEN = re.compile(rf"{text.BYTES}\Z")
LONGEST_TOKEN = 80


@dataclass(frozen=True)
class Token:
    """One token of a context; numbers are None where nothing is stored.

    Attributes:
        text: made visible, escaped.
        activation: of the component at this token.
        dla: there, logits.
        probability: that the model gave to the token that really came next, in 0..1.
        attention: of the shown position to this token, in 0..1.
    """

    text: Markup
    activation: float | None = None
    dla: float | None = None
    probability: float | None = None
    attention: float | None = None


@lru_cache(maxsize=1 << 16)
def _plain(token: str, *, alone: bool) -> Markup:
    """A token's text inside a context; `alone` is the shown one or the first, which no letter before it carries."""
    if token == "":
        return Markup('<span class="sign">∅</span>')
    if len(token) > 1 and not token.strip(" "):
        return Markup('<span class="sign">{}</span>').format("·" * min(len(token), LONGEST_TOKEN))
    cut = text.clip(token, LONGEST_TOKEN)
    shown = text.visible(cut) if alone else text.visible("x" + cut)[1:]
    more = Markup('<span class="sign"> {} characters</span>').format(f"{len(token):,}") if cut != token else ""
    return shown + more


def _bytes(token: str, decoder: codecs.IncrementalDecoder) -> Markup:
    """The hexadecimal numbers of a token of bytes, and the character that it completes."""
    raw = bytes.fromhex("".join(re.findall(r"<0x([0-9A-F]{2})>", token)))
    done = decoder.decode(raw).replace("\ufffd", "")
    legible = done if done.isprintable() else ""
    numbers = " ".join(f"{byte:02X}" for byte in raw)
    return Markup('<span class="byte">{}</span>{}').format(numbers, f"={legible}" if legible else "")


def texts(tokens: Sequence[str | None], shown: int) -> list[Markup]:
    """Every token made visible and harmless."""
    decoder, out = codecs.getincrementaldecoder("utf-8")(errors="replace"), []
    for index, token in enumerate(tokens):
        if token is not None and BYTES_TOKEN.match(token):
            out.append(_bytes(token, decoder))
            continue
        decoder.reset()
        out.append(_plain(token or "", alone=index in (0, shown)))
    return out


def html(tokens: Sequence[Token], shown: int, tint: float, next_tint: float) -> Markup:
    """The elements of a context.

    Args:
        tokens: the tokens in order.
        shown: index of the shown token; the next token follows it.
        tint: activation of the shown token over the largest of the page, -1..1.
        next_tint: the same of its DLA, drawn under the token that came next.
    """
    parts = []
    for index, token in enumerate(tokens):
        name = {shown: "mark", shown + 1: "u"}.get(index, "i")
        look = {"mark": _look("act", tint), "u": _look("dla", next_tint)}.get(name, "")
        parts.append(f"<{name}{look}{_attributes(token)}>{token.text}</{name}>")
    return Markup("".join(parts))


def _look(measure: str, tint: float) -> str:
    sign = "positive" if tint > 0 else "negative" if tint < 0 else "zero"
    return f' class="{measure} {sign}" style="--t:{abs(tint):.2f}"'


def _attributes(token: Token) -> str:
    values = (("a", token.activation), ("d", token.dla), ("p", token.probability), ("w", token.attention))
    return "".join(f' data-{name}="{value:.3g}"' for name, value in values if value is not None)


def plain(pieces: Iterable[str | None]) -> tuple[Token, ...]:
    """Tokens of pieces of text that carry no numbers."""
    return tuple(Token(text.visible(text.clip(piece or ""))) for piece in pieces)

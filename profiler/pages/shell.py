"""What stands around a report: nothing, where a page is one file, or the frame of a site, whose pages share their
assets.

A page of a site keeps charts and contexts as one deflated text, so that thousands of cards stay small; page.js inflates
it. The policy of both allows scripts of the page or of the site's folder alone and no connection at all.
"""

import base64
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

SCRIPT_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
POLICY = (
    "default-src 'none'; script-src {own} 'unsafe-inline' 'unsafe-eval'; style-src {own} 'unsafe-inline'; "
    "img-src data:; connect-src 'none'; base-uri 'none'; frame-src {served}; form-action {served}"
)
Link = tuple[str, str, bool]


def script_json(value: Any) -> str:
    """JSON that can stand inside <script>: no text in it can end the element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return re.sub("[<>&\u2028\u2029]", lambda match: SCRIPT_ESCAPES[match[0]], text)


@dataclass(frozen=True)
class Shell:
    """The frame of one page.

    Attributes:
        root: way from the page to the site's folder, such as "" or "../"; None for a page that is one file.
        links: (words, place from the site's folder, whether it is this page) of the site's own navigation.
        cards: place of the card of each component that has one.
        bar: what stands under the navigation: the forms of a page that a server gives.
        served: whether a server gives the page: only then may its forms and frames ask for pages of that server.
        parts: what the template placed for page.js to put in; filled while the page is rendered.
    """

    root: str | None = None
    links: tuple[Link, ...] = ()
    cards: Mapping[str, str] = field(default_factory=dict)
    bar: Markup | str = ""
    served: bool = False
    parts: dict[str, str] = field(default_factory=dict)

    @property
    def policy(self) -> Markup:
        """The content security policy of the page."""
        own = "" if self.root is None else Markup("'self'") if self.served else Markup("'self' file:")
        return Markup(POLICY).format(own=own, served=Markup("'self'") if self.served else Markup("'none'"))

    def linked(self, text: str | Markup) -> str | Markup:
        """A cell's text, a link where it is the label of a component with a card."""
        label = re.sub("<[^>]*>", "", text)
        if self.root is None or label not in self.cards:
            return text
        return Markup('<a href="{}">{}</a>').format(self.root + self.cards[label], label)

    def inside(self, html: Markup, element: str) -> Markup:
        """`html` inside `element`; on a page of a site an empty one, which page.js fills."""
        if self.root is None:
            return Markup(f"<{element}>{html}</{element}>")
        name = f"p{len(self.parts)}"
        self.parts[name] = str(html)
        return Markup(f'<{element} data-part="{name}"></{element}>')

    def pack(self, data: dict[str, Any]) -> str:
        """The page's data as text for its script element."""
        if self.root is None:
            return script_json(data)
        text = json.dumps(data | {"parts": self.parts}, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        return base64.b64encode(packer.compress(text.encode()) + packer.flush()).decode()

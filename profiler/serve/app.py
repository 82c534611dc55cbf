"""Answers of the server: which address gives which page, and who is refused.

Every address begins with a random word that is printed in the terminal alone. Refused are other hosts (a name that is
made to point here), other words, other origins where something is written, and bodies above a limit. What an address
names is a file of a known name or the label of a component; nothing is read from a folder.

Sources: DNS rebinding and cross-site requests, OWASP cheat sheets.
"""

import secrets
from collections.abc import Callable, Mapping
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from profiler.errors import ProfilerError
from profiler.pages.site.cards import label_of
from profiler.serve.live import LiveSite

HOSTS = ("127.0.0.1", "localhost")
LARGEST_BODY = 65_536
"""Bytes of what a form sends."""
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
}
TYPES = {".js": "text/javascript", ".css": "text/css"}


def app_of(site: LiveSite, word: str) -> ASGIApp:
    """The server's answers for a site, under the secret `word`."""

    async def asset(request: Request) -> Response:
        name = request.path_params["name"]
        text = await run_in_threadpool(site.asset, name)
        return Response(text, media_type=TYPES[name[name.rindex(".") :]])

    async def card(request: Request) -> Response:
        label, bare = label_of(request.path_params["label"]), "bare" in request.query_params
        return HTMLResponse(await run_in_threadpool(site.card, label, bare=bare))

    async def report(request: Request) -> Response:
        return HTMLResponse(await run_in_threadpool(site.report, request.path_params.get("file", "index.html")))

    def asked(make: Callable[[Mapping[str, str]], str]) -> Callable[[Request], object]:
        async def answer(request: Request) -> Response:
            return HTMLResponse(await run_in_threadpool(make, dict(request.query_params)))

        return answer

    async def notes(_: Request) -> Response:
        return HTMLResponse(await run_in_threadpool(site.all_notes))

    async def exported(_: Request) -> Response:
        return PlainTextResponse(site.notes.exported(), media_type="application/jsonl")

    async def add(request: Request) -> Response:
        form = await _form(request)
        page = form.get("page", "")
        if page.startswith(("/", "\\")) or ":" in page.split("?")[0]:
            raise ProfilerError("a note belongs to a page of this site: write it on that page")
        note = site.notes.add(page, form.get("text", ""))
        return RedirectResponse(f"/{word}/notes.html#n-{note.id}", 303)

    async def remove(request: Request) -> Response:
        site.notes.remove((await _form(request)).get("id", ""))
        return RedirectResponse(f"/{word}/notes.html", 303)

    async def refused(_: Request, error: Exception) -> Response:
        return HTMLResponse(await run_in_threadpool(site.refusal, str(error)), 400)

    async def missing(_: Request, _error: Exception) -> Response:
        return PlainTextResponse("there is no such page\n", 404)

    routes = [
        Route(f"/{word}/", report),
        Route(f"/{word}/assets/{{name}}", asset),
        Route(f"/{word}/cards/{{label}}.html", card),
        Route(f"/{word}/try.html", asked(site.sentence)),
        Route(f"/{word}/find.html", asked(site.find)),
        Route(f"/{word}/compare.html", asked(site.compare)),
        Route(f"/{word}/notes.html", notes),
        Route(f"/{word}/notes.jsonl", exported),
        Route(f"/{word}/notes/add", add, methods=["POST"]),
        Route(f"/{word}/notes/remove", remove, methods=["POST"]),
        Route(f"/{word}/{{file}}", report),
    ]
    handlers = {ProfilerError: refused, KeyError: missing, 404: missing}
    guards = [Middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS)), Middleware(AddressGuard, word=word)]
    return Starlette(routes=routes, exception_handlers=handlers, middleware=guards)


class AddressGuard:
    """Refuses what does not know the word or is written from another origin, and adds HEADERS to every answer."""

    def __init__(self, app: ASGIApp, word: str) -> None:
        self.app, self.word = app, word

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The answer, or 404 or 403."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_encoded(HEADERS)]
            await send(message)

        request = Request(scope)
        given = request.url.path.split("/")[1]
        if not secrets.compare_digest(given.encode(), self.word.encode()):
            refusal: ASGIApp = PlainTextResponse("there is no such page\n", 404)
        elif request.method not in ("GET", "HEAD") and not _own(request):
            refusal = PlainTextResponse("this page may be written to from its own forms alone\n", 403)
        else:
            refusal = self.app
        await refusal(scope, receive, with_headers)


def _own(request: Request) -> bool:
    """Whether a form of this very server sent a request."""
    return request.headers.get("origin") == f"http://{request.headers.get('host')}"


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form; the first value of each.

    Raises:
        ProfilerError: it is too large, or no form.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            raise ProfilerError(f"what was sent is larger than {LARGEST_BODY:,} bytes: shorten it")
    try:
        return {name: values[0] for name, values in parse_qs(body.decode(), max_num_fields=20).items()}
    except (UnicodeDecodeError, ValueError):
        raise ProfilerError("what was sent is no form: use the form of the page") from None

"""What every request passes before a route sees it, and what every answer says of itself.

A page of the web must learn nothing and change nothing here: it is refused by its `Host`, its `Origin`, and by what the
browser says of where a request comes from. Pure ASGI: it works in front of streams too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers, MutableHeaders

from swarm.control.told import JsonAnswer
from swarm.gateway.requests import is_local

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
HEADERS: Final = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
SAFE: Final = frozenset({"GET", "HEAD"})
API: Final = "/api/"


class Guard:
    """An ASGI application in front of another.

    Args:
        app: Whom it guards.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=list(message.get("headers", [])))
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
                message = {**message, "headers": headers.raw}
            await send(message)

        why = why_not(scope["method"], scope["path"], Headers(scope=scope))
        if why is None:
            await self._app(scope, receive, send_guarded)
            return
        error = {"code": "refused", "message": why, "hint": None, "exit_code": 4}
        await JsonAnswer({"error": error}, 403)(scope, receive, send_guarded)


def why_not(method: str, path: str, headers: Headers) -> str | None:
    """Why a request is refused whoever sends it; None where it is not.

    Args:
        method: Of HTTP.
        path: Without the query.
        headers: As they were sent.
    """
    hosts = headers.getlist("host")
    if len(hosts) != 1 or not is_local(hosts[0]):
        return "this page serves its own machine: the Host must be 127.0.0.1, localhost or [::1]"
    origin = headers.get("origin")
    if origin is not None and origin.lower() != f"http://{hosts[0].lower()}":
        return "another site's page asks"
    site = headers.get("sec-fetch-site")
    if site in {"cross-site", "same-site"} and not _is_link(method, path, headers):
        return "another site's page asks"
    if method not in SAFE and origin is None and "authorization" not in headers:
        return "a change has to say where it comes from: send Origin"
    return None


def _is_link(method: str, path: str, headers: Headers) -> bool:
    """A person follows a link to the page itself: that shows them no more than they see here anyway."""
    is_document = headers.get("sec-fetch-dest") == "document"
    return method in SAFE and is_document and not path.startswith(API)

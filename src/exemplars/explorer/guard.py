"""Who may ask a server on the loopback interface, and what every answer tells the browser.

Other users of the machine, and web pages open in the same browser, reach the port too. So a
request must name the server's own host and port (no other name resolves to it: DNS rebinding),
must not come from another site, and must carry the token. The page itself holds no data and
needs no token.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY_BYTES = 1 << 20
"""Of a request, at most."""
_ONCE = (b"host", b"origin", b"content-length", b"authorization", b"sec-fetch-site")
_READING = ("GET", "HEAD")
_METHODS = (*_READING, "POST", "PUT", "DELETE")


def content_policy(script_hashes: Iterable[str], worker_policy: str = "exemplar-worker") -> str:
    """The Content-Security-Policy of the served page.

    Args:
        script_hashes: "sha256-..." of the inline scripts it has.
        worker_policy: The one Trusted Types policy that may be made.
    """
    scripts = " ".join(["'self'", *(f"'{found}'" for found in script_hashes)])
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {scripts}",
            "style-src 'self'",
            "img-src 'self' data: blob:",
            "connect-src 'self'",
            "font-src 'self'",
            "worker-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            f"trusted-types {worker_policy}",
        ]
    )


def security_headers(policy: str) -> list[tuple[bytes, bytes]]:
    """The headers of every answer, refusals and errors included."""
    return [
        (b"content-security-policy", policy.encode("ascii")),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"x-frame-options", b"DENY"),
        (b"permissions-policy", b"camera=(), microphone=(), geolocation=(), usb=()"),
    ]


class LoopbackGuard:
    """Stands before an ASGI application; lets through what the module says.

    Args:
        app: Behind it.
        token: That requests for data carry, as `Authorization: Bearer`.
        port: Of the server.
        policy: The Content-Security-Policy.
        hosts: Further values of `Host` that are allowed, "name:port".
        base_path: Prefix that a reverse proxy leaves in the path: "/proxy/8765".
    """

    def __init__(
        self,
        app: Application,
        *,
        token: str,
        port: int,
        policy: str,
        hosts: Iterable[str] = (),
        base_path: str = "",
    ) -> None:
        own = {f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")}
        self._app, self._token = app, f"Bearer {token}".encode()
        self._hosts = own | {host.lower() for host in hosts}
        self._headers = security_headers(policy)
        self._base = base_path.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a refusal, or pass the request on."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *self._headers]}
            await send(message)

        scope = self._without_base(scope)
        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, guarded)
        else:
            await _refuse(guarded, *refusal)

    def _without_base(self, scope: Scope) -> Scope:
        path = scope["path"]
        if not self._base or not (path == self._base or path.startswith(self._base + "/")):
            return scope
        short = path[len(self._base) :] or "/"
        return {**scope, "path": short, "raw_path": short.encode()}

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and sentence of a refusal; None for a request that may pass."""
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in headers and name in _ONCE:
                return 400, f"the header {name.decode()} was sent twice; send it once"
            headers[name] = value
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if host not in self._hosts:
            return 403, "this host name and port are not the server's; open the link it printed"
        open_to_all = scope["path"] == "/" or scope["path"].startswith("/static/")
        if not _same_site(scope, headers, host):
            return 403, "this request came from another site; open the link that was printed"
        method = scope["method"]
        if method not in _METHODS:
            return 405, f"the method {method[:20]} is not used here; use GET or POST"
        if method not in _READING and (refusal := _body_refusal(headers)):
            return refusal
        given = headers.get(b"authorization", b"")
        if not open_to_all and not hmac.compare_digest(given, self._token):
            return 401, "the token is missing or wrong; open the link that `exemplars explore` gave"
        return None


def _same_site(scope: Scope, headers: dict[bytes, bytes], host: str) -> bool:
    """Whether a request came from the server's own page, or from no page at all.

    A link on another site may open the empty shell, and nothing else.
    """
    site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
    opens_shell = (
        scope["path"] == "/"
        and scope["method"] == "GET"
        and headers.get(b"sec-fetch-mode") == b"navigate"
        and headers.get(b"sec-fetch-dest") == b"document"
    )
    if site is not None and site not in (b"same-origin", b"none") and not opens_shell:
        return False
    own = (f"http://{host}", f"https://{host}")  # https where a proxy speaks it
    return origin is None or origin.decode("latin-1").lower() in own


def _body_refusal(headers: dict[bytes, bytes]) -> tuple[int, str] | None:
    kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    if kind != b"application/json":
        return 415, "a request that changes something must be JSON; send application/json"
    length = headers.get(b"content-length", b"")
    if b"transfer-encoding" in headers or not length.isdigit():
        return 411, "the length of the request is not known; send Content-Length"
    if int(length) > BODY_BYTES:
        return 413, f"the request has {int(length):,} bytes, at most {BODY_BYTES:,} are read"
    return None


async def _refuse(send: Send, status: int, sentence: str) -> None:
    body = json.dumps({"ok": False, "error": sentence, "errors": [sentence], "status": status})
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body.encode()})

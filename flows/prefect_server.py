"""A private Prefect server: `python -m flows.prefect_server SOCKET PORT (page|api)`.

Like `prefect server start`, but on a socket that the parent has bound (so that no other program can take the port), and
with a protection against web pages: requests with another `Host` (DNS rebinding) or from a page of another origin are
refused before they reach Prefect. The password is Prefect's own, PREFECT_SERVER_API_AUTH_STRING.
"""

from __future__ import annotations

import json
import socket
import sys
from typing import Any


class SameOrigin:
    """Refuses requests to another host name, and from web pages of another origin.

    Args:
        app: The ASGI application to protect.
        host: Its address and port, such as `127.0.0.1:4200`.
    """

    def __init__(self, app: Any, host: str) -> None:
        self._app, self._host = app, host

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """One connection."""
        if scope["type"] == "lifespan" or self._is_ours(scope["headers"]):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            body = json.dumps({"exception_message": f"this server answers only as http://{self._host}"}).encode()
            kind = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 403, "headers": kind})
            await send({"type": "http.response.body", "body": body})

    def _is_ours(self, headers: list[tuple[bytes, bytes]]) -> bool:
        hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
        origins = [value.decode("latin-1") for name, value in headers if name == b"origin"]
        return hosts == [self._host] and all(origin == f"http://{self._host}" for origin in origins)


def main() -> None:
    """Serve until terminated."""
    import uvicorn
    from prefect.server.api.server import create_app

    number, port, kind = sys.argv[1:]
    app = SameOrigin(create_app(final=True, webserver_only=kind == "api"), f"127.0.0.1:{port}")
    config = uvicorn.Config(app, log_level="error", lifespan="on", access_log=False)
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(number))])


if __name__ == "__main__":
    main()

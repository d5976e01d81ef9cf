"""The front: the only TCP listener of a replica. Checks the key, lets the public API through, streams the answers.

vLLM itself listens on a Unix socket that only its owner can reach: its own key check leaves administration open.
"""

import asyncio
import hmac
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web

PUBLIC_ROUTES = {
    "/v1/models": "GET",
    "/v1/completions": "POST",
    "/v1/chat/completions": "POST",
    "/v1/responses": "POST",
    "/v1/messages": "POST",
    "/metrics": "GET",
}
MAX_BODY_BYTES = 8 << 20
MAX_IN_FLIGHT = 1024  # requests; the next is told to come back
BODY_TIMEOUT_S = 60.0
_RETRY_AFTER_S = 5
_REQUEST_HEADERS = ("Content-Type", "Accept", "X-Request-Id", "Anthropic-Version")
_RESPONSE_HEADERS = ("Content-Type", "X-Request-Id", "Retry-After")
_STATE: dict[str, tuple[int, str]] = {
    "starting": (503, "the model is still loading"),
    "draining": (503, "this replica is going away"),
    "ready": (200, ""),
}


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """vLLM behind the front: its socket, the key that only the two know, the model's name and weights."""

    socket: str
    key: str
    model: str
    weights_digest: str | None


class Front:
    """The request handler of one replica and what it knows: its state and how many requests are in flight."""

    def __init__(self, upstream: Upstream, key: str) -> None:
        self.state = "starting"
        self.num_in_flight = 0
        self._upstream = upstream
        self._key = key.encode()
        self._last_token = float("-inf")  # monotonic time of the last answer that vLLM generated
        self._probing = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None

    def application(self) -> web.Application:
        """The aiohttp application; it opens the connection to vLLM when it starts."""
        application = web.Application(client_max_size=MAX_BODY_BYTES)
        application.router.add_route("*", "/{path:.*}", self._handle)
        application.cleanup_ctx.append(self._connection)
        return application

    async def drain(self, timeout_s: float) -> bool:
        """Take no more requests and wait for those in flight; whether all ended in time."""
        self.state = "draining"
        deadline = time.monotonic() + timeout_s
        while self.num_in_flight and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        return not self.num_in_flight

    async def generate_token(self, timeout_s: float) -> bool:
        """Have vLLM really generate one token; whether it did in time."""
        body = {"model": self._upstream.model, "prompt": [0], "max_tokens": 1, "min_tokens": 1, "temperature": 0.0}
        headers = {"Content-Type": "application/json"}
        try:
            async with asyncio.timeout(timeout_s):
                async with self._send("POST", "/v1/completions", json.dumps(body).encode(), headers) as answer:
                    text = await answer.text()
                    done = answer.status == 200 and json.loads(text)["usage"]["completion_tokens"] == 1
        except (aiohttp.ClientError, OSError, TimeoutError, KeyError, ValueError):
            return False
        if done:
            self._last_token = time.monotonic()
        else:
            print(f"vLLM answered {answer.status} when asked for one token: {text[:300]}", flush=True)
        return bool(done)

    async def fetch(self, path: str) -> str:
        """Text of one of vLLM's own pages, for the replica itself."""
        async with self._send("GET", path, b"", {}) as answer:
            return str(await answer.text())

    async def _connection(self, _application: web.Application) -> AsyncIterator[None]:
        connector = aiohttp.UnixConnector(path=self._upstream.socket, limit=0)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10.0)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session:
            self._session = session
            yield

    def _send(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Any:
        assert self._session is not None
        headers = {**headers, "Authorization": f"Bearer {self._upstream.key}", "Accept-Encoding": "identity"}
        return self._session.request(method, f"http://vllm{path}", data=body, headers=headers, allow_redirects=False)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request; every refusal is the OpenAI API's error object."""
        try:
            return await self._answer(request)
        except web.HTTPException as error:
            kept = ("WWW-Authenticate", "Allow", "Retry-After")
            headers = {name: error.headers[name] for name in kept if name in error.headers}
            record = {"error": {"message": error.text or error.reason, "type": "front", "code": error.status}}
            response = web.json_response(record, status=error.status, headers=headers)
            if error.status in (401, 408, 413):
                response.force_close()  # the rest of its body is not read
            return response

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.rel_url.raw_path
        if path == "/health" and request.method == "GET":
            return await self._health()
        self._check_key(request)
        if path not in PUBLIC_ROUTES:
            raise web.HTTPNotFound(text=f"{path} is not served here")
        if request.method != PUBLIC_ROUTES[path]:
            raise web.HTTPMethodNotAllowed(request.method, [PUBLIC_ROUTES[path]])
        status, why = _STATE[self.state]
        busy = self.num_in_flight >= MAX_IN_FLIGHT
        if status != 200 or busy:
            kind = web.HTTPTooManyRequests if busy else web.HTTPServiceUnavailable
            text = f"{self.num_in_flight} requests are in flight" if busy else why
            raise kind(text=text, headers={"Retry-After": str(_RETRY_AFTER_S)})
        self.num_in_flight += 1
        try:
            return await self._forward(request, path)
        finally:
            self.num_in_flight -= 1

    def _check_key(self, request: web.Request) -> None:
        """`Authorization: Bearer KEY`, or Anthropic's `X-Api-Key: KEY`; compared in constant time."""
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            given = request.headers.get("X-Api-Key", "")
        if not hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), self._key):
            raise web.HTTPUnauthorized(text="give the key as a bearer token", headers={"WWW-Authenticate": "Bearer"})

    async def _health(self) -> web.Response:
        """200 only if a token was generated within the last seconds, or is now: a listening socket proves nothing.

        Needs no key, says nothing but the state, and cannot be used to load vLLM: probes never overlap.
        """
        state = self.state
        if state == "ready" and not await self._alive():
            state = "stuck"
        return web.json_response({"status": state}, status=200 if state == "ready" else 503)

    async def _alive(self, fresh_s: float = 10.0, timeout_s: float = 20.0) -> bool:
        async with self._probing:
            if time.monotonic() - self._last_token < fresh_s:
                return True
            return await self.generate_token(timeout_s)

    async def _forward(self, request: web.Request, path: str) -> web.StreamResponse:
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                body = await request.read()
        except TimeoutError:
            raise web.HTTPRequestTimeout(text=f"the body did not arrive within {BODY_TIMEOUT_S:.0f} s") from None
        headers = {name: request.headers[name] for name in _REQUEST_HEADERS if name in request.headers}
        try:
            async with self._send(request.method, path, body, headers) as answer:
                return await self._stream(request, answer)
        except (aiohttp.ClientError, OSError) as error:
            if request.transport is None or request.transport.is_closing():
                raise  # the client left; vLLM drops the request with the connection
            raise web.HTTPBadGateway(text=f"vLLM did not answer ({type(error).__name__})") from None

    async def _stream(self, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        """Pass every piece on as it comes. If vLLM breaks off, so do we: a cut answer must not look whole."""
        headers = {name: answer.headers[name] for name in _RESPONSE_HEADERS if name in answer.headers}
        if self._upstream.weights_digest:
            headers["X-Trainwright-Weights"] = self._upstream.weights_digest
        response = web.StreamResponse(status=answer.status, headers=headers)
        if answer.content_length is not None:
            response.content_length = answer.content_length
        await response.prepare(request)
        while True:
            try:
                piece = await answer.content.readany()
            except (aiohttp.ClientError, OSError):
                if request.transport is not None:
                    request.transport.abort()
                return response
            if not piece:
                break
            await response.write(piece)
        await response.write_eof()
        if answer.status == 200 and request.method == "POST":
            self._last_token = time.monotonic()
        return response

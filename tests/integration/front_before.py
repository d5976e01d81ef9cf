"""A front before a real HTTP server on a Unix socket that stands where vLLM would."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import ClientSession, web

from trainwright.serving.front import MAX_BODY_BYTES, Front, Upstream

KEY = "front-key"
HEADERS = {"Authorization": f"Bearer {KEY}"}


@dataclass
class Behind:
    """What stands where vLLM would, and what it has seen."""

    seen: list[tuple[str, str, str | None]] = field(default_factory=list)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    alive: bool = True
    num_left: int = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.method, request.path, request.headers.get("Authorization")))
        if request.method == "GET":
            return web.Response(text="vllm:thing 1\n")
        body = await request.json()
        if request.content_type != "application/json":
            return web.json_response({"error": "Unsupported Media Type"}, status=400)  # as vLLM does
        if not self.alive:
            return web.json_response({"error": "engine is dead"}, status=500)
        if not body.get("stream"):
            if body.get("slow"):
                await self.release.wait()
            return web.json_response({"id": "one", "usage": {"completion_tokens": 1}})
        return await self._stream(request, body)

    async def _stream(self, request: web.Request, body: dict[str, object]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            await response.write(b"data: first\n\n")
            if body.get("break"):
                assert request.transport is not None
                request.transport.abort()
                return response
            await self.release.wait()
            await response.write(b"data: second\n\n")
        except asyncio.CancelledError:
            self.num_left += 1
            raise
        await response.write_eof()
        return response


@asynccontextmanager
async def running(state: str = "ready") -> AsyncIterator[tuple[str, Front, Behind]]:
    """(base URL, front, server behind it)."""
    behind = Behind()
    application = web.Application(client_max_size=2 * MAX_BODY_BYTES)
    application.router.add_route("*", "/{path:.*}", behind.handle)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = str(Path(folder) / "s")
        upstream = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await upstream.setup()
        await web.UnixSite(upstream, path).start()
        front = Front(Upstream(socket=path, key="inner", model="m", weights_digest="abc"), KEY)
        front.state = state
        runner = web.AppRunner(front.application(), access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}", front, behind
        finally:
            await runner.cleanup()
            await upstream.cleanup()


def go(test: Callable[[str, Front, Behind, ClientSession], Awaitable[None]], state: str = "ready") -> None:
    """Run an async test against a front of its own."""

    async def whole() -> None:
        async with running(state) as (url, front, behind), ClientSession() as session, asyncio.timeout(30):
            await test(url, front, behind, session)

    asyncio.run(whole())

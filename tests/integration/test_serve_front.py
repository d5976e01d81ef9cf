"""The front before a real HTTP server on a Unix socket: keys, routes, limits, streams, drain."""

import asyncio
import http.client
import json
import socket

import pytest
from aiohttp import ClientPayloadError, ClientSession, web

from trainwright.serving import front as front_module
from trainwright.serving.front import MAX_BODY_BYTES, Front, Upstream

from .front_before import HEADERS, KEY, Behind, go


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"X-Api-Key": "inner"},
        {"Authorization": "Bearer \u00e9\u00e9"},
    ],
)
def test_no_key_no_answer(headers: dict[str, str]) -> None:
    async def test(url: str, _front: Front, behind: Behind, session: ClientSession) -> None:
        for path in ("/v1/models", "/metrics", "/v1/completions", "/anything", "/"):
            async with session.get(url + path, headers=headers) as answer:
                assert answer.status == 401
                assert answer.headers["WWW-Authenticate"] == "Bearer"
                text = await answer.text()
                assert json.loads(text)["error"]["code"] == 401
                assert KEY not in text
        assert behind.seen == []

    go(test)


def test_the_key_opens_public_routes_and_stays_at_the_front() -> None:
    async def test(url: str, _front: Front, behind: Behind, session: ClientSession) -> None:
        for headers in (HEADERS, {"X-Api-Key": KEY}, {"Authorization": f"bearer {KEY}"}):
            async with session.post(f"{url}/v1/completions?x=1", json={"prompt": "a"}, headers=headers) as answer:
                assert answer.status == 200
                assert answer.headers["X-Trainwright-Weights"] == "abc"
                assert (await answer.json())["id"] == "one"
        async with session.get(f"{url}/metrics", headers=HEADERS) as answer:
            assert await answer.text() == "vllm:thing 1\n"
        assert {authorization for _, _, authorization in behind.seen} == {"Bearer inner"}

    go(test)


BLOCKED = (
    "/reset_prefix_cache", "/collective_rpc", "/sleep", "/server_info", "/tokenize", "/invocations", "/docs",
    "/v1/load_lora_adapter", "/v1/../metrics", "/v1/completions/", "//v1/completions", "/v1/%63ompletions",
    "/scale_elastic_ep", "/inference/v1/generate",
)  # fmt: skip


def test_other_routes_and_methods_are_blocked() -> None:
    async def test(url: str, _front: Front, behind: Behind, _session: ClientSession) -> None:
        port = int(url.rpartition(":")[2])
        for path in BLOCKED:
            assert await asyncio.to_thread(raw_status, port, "POST", path) == 404, path
        for method, path in (("POST", "/v1/models"), ("GET", "/v1/completions"), ("DELETE", "/v1/models")):
            assert await asyncio.to_thread(raw_status, port, method, path) == 405
        assert behind.seen == []

    go(test)


def raw_status(port: int, method: str, path: str) -> int:
    """Send the path exactly as it is (clients normalise it)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers=HEADERS)
    status = connection.getresponse().status
    connection.close()
    return status


def test_too_large_is_refused() -> None:
    async def test(url: str, _front: Front, behind: Behind, session: ClientSession) -> None:
        body = json.dumps({"prompt": "a" * (MAX_BODY_BYTES + 1)})
        async with session.post(f"{url}/v1/completions", data=body, headers=HEADERS) as answer:
            assert answer.status == 413
        async with session.get(f"{url}/v1/models", headers={**HEADERS, "X-Long": "a" * 10000}) as answer:
            assert answer.status == 400
        assert behind.seen == []
        async with session.post(f"{url}/v1/completions", json={"prompt": "a" * 1000000}, headers=HEADERS) as answer:
            assert answer.status == 200

    go(test)


def test_a_body_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_module, "BODY_TIMEOUT_S", 0.3)

    async def test(url: str, front: Front, behind: Behind, _session: ClientSession) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 100\r\n\r\n"
        writer.write(head.encode() + b"{")
        assert b"408" in await reader.readline()
        writer.close()
        await asyncio.sleep(0.1)
        assert front.num_in_flight == 0
        assert behind.seen == []

    go(test)


def test_pieces_arrive_as_they_are_made() -> None:
    async def test(url: str, _front: Front, behind: Behind, session: ClientSession) -> None:
        async with session.post(f"{url}/v1/completions", json={"stream": True}, headers=HEADERS) as answer:
            assert answer.headers["Content-Type"] == "text/event-stream"
            assert await answer.content.readuntil(b"\n\n") == b"data: first\n\n"  # the second is not made yet
            behind.release.set()
            assert await answer.content.read() == b"data: second\n\n"

    go(test)


def test_a_broken_stream_does_not_look_whole() -> None:
    async def test(url: str, front: Front, _behind: Behind, session: ClientSession) -> None:
        async with session.post(f"{url}/v1/completions", json={"stream": True, "break": 1}, headers=HEADERS) as answer:
            with pytest.raises((ClientPayloadError, ConnectionError)):
                await answer.content.read()
        assert front.num_in_flight == 0

    go(test)


def test_a_client_that_leaves_frees_vllm() -> None:
    async def test(url: str, front: Front, behind: Behind, session: ClientSession) -> None:
        answer = await session.post(f"{url}/v1/completions", json={"stream": True}, headers=HEADERS)
        await answer.content.readuntil(b"\n\n")
        answer.close()
        while not behind.num_left or front.num_in_flight:
            await asyncio.sleep(0.02)

    go(test)


def test_drain_finishes_what_is_in_flight_and_takes_no_more() -> None:
    async def test(url: str, front: Front, behind: Behind, session: ClientSession) -> None:
        first = asyncio.create_task(session.post(f"{url}/v1/completions", json={"slow": 1}, headers=HEADERS))
        while not front.num_in_flight:
            await asyncio.sleep(0.01)
        drained = asyncio.create_task(front.drain(10.0))
        await asyncio.sleep(0.1)
        async with session.post(f"{url}/v1/completions", json={}, headers=HEADERS) as answer:
            assert answer.status == 503
            assert int(answer.headers["Retry-After"]) > 0
        async with session.get(f"{url}/health") as answer:
            assert (answer.status, await answer.json()) == (503, {"status": "draining"})
        assert not drained.done()
        behind.release.set()
        assert (await first).status == 200
        assert await drained

    go(test)


def test_drain_gives_up_in_time() -> None:
    async def test(url: str, front: Front, behind: Behind, session: ClientSession) -> None:
        first = asyncio.create_task(session.post(f"{url}/v1/completions", json={"slow": 1}, headers=HEADERS))
        while not front.num_in_flight:
            await asyncio.sleep(0.01)
        assert not await front.drain(0.2)
        behind.release.set()
        await first

    go(test)


def test_health_is_a_generated_token_not_an_open_port(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(url: str, front: Front, behind: Behind, session: ClientSession) -> None:
        async def health() -> tuple[int, str]:
            async with session.get(f"{url}/health") as answer:
                return answer.status, (await answer.json())["status"]

        assert await health() == (200, "ready")
        assert behind.seen == [("POST", "/v1/completions", "Bearer inner")]
        await asyncio.gather(*(health() for _ in range(20)))
        assert len(behind.seen) == 1  # probes do not load vLLM
        behind.alive = False
        front._last_token = float("-inf")
        assert await health() == (503, "stuck")

    go(test)


def test_starting_is_not_ready() -> None:
    async def test(url: str, _front: Front, behind: Behind, session: ClientSession) -> None:
        async with session.get(f"{url}/health") as answer:
            assert (answer.status, await answer.json()) == (503, {"status": "starting"})
        async with session.post(f"{url}/v1/completions", json={}, headers=HEADERS) as answer:
            assert answer.status == 503
        assert behind.seen == []

    go(test, state="starting")


def test_no_more_than_so_many_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_module, "MAX_IN_FLIGHT", 1)

    async def test(url: str, front: Front, behind: Behind, session: ClientSession) -> None:
        first = asyncio.create_task(session.post(f"{url}/v1/completions", json={"slow": 1}, headers=HEADERS))
        while not front.num_in_flight:
            await asyncio.sleep(0.01)
        async with session.post(f"{url}/v1/completions", json={}, headers=HEADERS) as answer:
            assert answer.status == 429
            assert "Retry-After" in answer.headers
        behind.release.set()
        await first

    go(test)


def test_vllm_gone_is_a_502() -> None:
    async def test() -> None:
        front = Front(Upstream(socket="/nonexistent/s", key="inner", model="m", weights_digest=None), KEY)
        front.state = "ready"
        runner = web.AppRunner(front.application(), access_log=None)
        await runner.setup()
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            await web.SockSite(runner, listener).start()
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            async with ClientSession() as session, session.get(f"{url}/v1/models", headers=HEADERS) as answer:
                assert answer.status == 502
                assert "/nonexistent" not in await answer.text()
            await runner.cleanup()

    asyncio.run(test())

"""One replica: vLLM on a private Unix socket and the front before it. `python -m trainwright.serving.replica FOLDER`.

The same process serves on a laptop and in a Slurm job. It ends when told to (SIGTERM, SIGINT), or when vLLM ends, and
never leaves vLLM behind. What it is doing stands in FOLDER/endpoint.json.
"""

import asyncio
import json
import os
import secrets
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from ..config.errors import UserError
from ..launchers.processes import end_group
from .address import node_address
from .endpoint import DRAIN_S, ENGINE_GRACE_S, EndpointFolder, KVCache, ReplicaSpec, Status
from .front import Front, Upstream
from .vllm_server import cause_of_death, on_cpu, read_kv_cache, start_vllm, vllm_command, vllm_environment

T = TypeVar("T")
Poll = Callable[[], int | None]

FIRST_TOKEN_S = 120.0
_MAX_SOCKET_PATH = 100  # a Unix socket's path holds 107 bytes


class Replica:
    """Starts, watches and stops vLLM and the front of one endpoint."""

    def __init__(self, folder: EndpointFolder) -> None:
        self._folder = folder
        self._spec: ReplicaSpec = folder.read_spec()
        self._status = Status(state="starting", node=socket.gethostname(), pid=os.getpid())
        self._stop = asyncio.Event()

    async def run(self) -> int:
        """Serve until told to stop; exit code 0, or 1 if vLLM ended by itself."""
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sign, self._stop.set)
        with tempfile.TemporaryDirectory(prefix="trainwright-", dir=_socket_folder()) as private:
            upstream = Upstream(
                socket=str(Path(private) / "vllm.sock"),
                key=secrets.token_urlsafe(32),
                model=self._spec.name,
                weights_digest=_weights_digest(Path(self._spec.model)),
            )
            front = Front(upstream, self._folder.read_key())
            try:
                return await self._serve(front, upstream)
            except (UserError, OSError) as error:
                self._say(state="failed", cause=str(error))
                return 1

    async def _serve(self, front: Front, upstream: Upstream) -> int:
        runner = web.AppRunner(
            front.application(),
            access_log=None,
            handler_cancellation=True,  # a client that leaves frees vLLM
            shutdown_timeout=1.0,  # drained already
            max_line_size=8190,
            max_field_size=8190,
        )
        await runner.setup()
        try:
            url = await self._listen(runner)
            cpu = on_cpu()
            command = vllm_command(self._spec, Path(upstream.socket), cpu)
            engine = start_vllm(command, vllm_environment(os.environ, upstream.key, cpu), self._folder.engine_log)
            try:
                self._say(
                    url=url,
                    engine_pid=engine.pid,
                    socket=upstream.socket,
                    weights_digest=upstream.weights_digest,
                )
                return await self._watch(front, engine.poll)
            finally:
                await asyncio.to_thread(end_group, engine.pid, ENGINE_GRACE_S)
                engine.wait()
                if self._status.state == "draining":
                    self._say(state="stopped")
        finally:
            await runner.cleanup()

    async def _listen(self, runner: web.AppRunner) -> str:
        """Bind the front's port and say its URL."""
        spec = self._spec
        host = "127.0.0.1" if spec.bind == "loopback" else node_address(spec.network_interface)
        try:
            await web.TCPSite(runner, host, spec.port).start()
        except OSError as error:
            raise UserError("--port", f"{host}:{spec.port} cannot be used ({error.strerror})", "give another") from None
        return f"http://{host}:{runner.addresses[0][1]}/v1"

    async def _watch(self, front: Front, poll: Poll) -> int:
        """From start to readiness to the end; the engine itself is ended by the caller."""
        while front.state == "starting" and not self._told_to_stop():
            if poll() is not None:
                return self._died(poll)
            if await self._unless_stopped(front.generate_token(FIRST_TOKEN_S)):
                self._say(state="ready", kv_cache=await _kv_cache(front))
                front.state = "ready"
                break
            await self._unless_stopped(asyncio.sleep(0.5))
        while not self._told_to_stop():
            if poll() is not None:
                return self._died(poll)
            await self._unless_stopped(asyncio.sleep(0.5))
        self._say(state="draining")
        if not await front.drain(DRAIN_S):
            print(f"{front.num_in_flight} requests were still in flight after {DRAIN_S:.0f} s", flush=True)
        return 0

    def _told_to_stop(self) -> bool:
        return self._stop.is_set() or self._folder.stop_request.exists()

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Result of `work`; None, and the work cancelled, if we are told to stop first."""
        task, stop = asyncio.create_task(work), asyncio.create_task(self._stop.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if task.done():
            return task.result()
        task.cancel()
        return None

    def _died(self, poll: Poll) -> int:
        cause = f"vLLM ended with code {poll()}: {cause_of_death(self._folder.engine_log)}"
        self._say(state="failed", cause=cause)
        return 1

    def _say(self, **changes: object) -> None:
        """Write the new state, for others to read, and a line in our log."""
        self._status = replace(self._status, **changes)  # type: ignore[arg-type]
        self._folder.write_status(self._status)
        text = f"{self._status.state} {self._status.url or ''} {self._status.cause or ''}"
        print(time.strftime("%Y-%m-%d %H:%M:%S"), text.strip(), flush=True)


async def _kv_cache(front: Front) -> KVCache | None:
    """What vLLM says of its cache and of the longest request."""
    models = json.loads(await front.fetch("/v1/models"))
    return read_kv_cache(await front.fetch("/metrics"), int(models["data"][0]["max_model_len"]))


def _weights_digest(model: Path) -> str | None:
    """Digest from the export's record; None for a folder that is not our export."""
    record = model / "trainwright.json"
    if not record.is_file():
        return None
    return str(json.loads(record.read_text(encoding="utf-8"))["weights_digest"])


def _socket_folder() -> str | None:
    """Where the private folder of the socket goes: the usual place, or /tmp if its path is too long for a socket."""
    return "/tmp" if len(tempfile.gettempdir()) > _MAX_SOCKET_PATH - 30 else None


def main() -> int:
    """Serve the endpoint whose folder is given."""
    if len(sys.argv) != 2:
        print("usage: python -m trainwright.serving.replica ENDPOINT_FOLDER", file=sys.stderr)
        return 2
    os.umask(0o077)
    return asyncio.run(_main(EndpointFolder(Path(sys.argv[1]))))


async def _main(folder: EndpointFolder) -> int:
    return await Replica(folder).run()


if __name__ == "__main__":
    sys.exit(main())

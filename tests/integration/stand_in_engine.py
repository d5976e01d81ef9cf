"""Stands where vLLM's interpreter would, for tests of processes: `stand_in_engine.py -m MODULE --uds SOCKET ...`.

A real server on the real socket that answers in no time; its child ignores SIGTERM, as a stuck worker does. It ends
when asked for the prompt "crash"; the variable STAND_IN may be `die` (at start) or `hang` (never ready).
"""

import asyncio
import os
import subprocess
import sys
import time

from aiohttp import web


async def complete(request: web.Request) -> web.Response:
    body = await request.json()
    if body["prompt"] == "crash":
        os._exit(9)
    await asyncio.sleep(body.get("seconds", 0))
    return web.json_response({"choices": [{"text": "x"}], "usage": {"completion_tokens": 1}})


async def models(_request: web.Request) -> web.Response:
    return web.json_response({"data": [{"id": "m", "max_model_len": 256}]})


async def metrics(_request: web.Request) -> web.Response:
    return web.Response(text='vllm:cache_config_info{block_size="16",num_gpu_blocks="32"} 1.0\n')


def main() -> None:
    if "-c" in sys.argv:  # the question whether this interpreter has vLLM
        return
    behaviour = os.environ.get("STAND_IN")
    if behaviour == "die":
        print("(EngineCore pid=1) ERROR ValueError: the model is made of cheese", flush=True)
        sys.exit(1)
    subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"])
    application = web.Application()
    application.add_routes(
        [web.post("/v1/completions", complete), web.get("/v1/models", models), web.get("/metrics", metrics)]
    )
    if behaviour == "hang":
        while True:
            time.sleep(1)
    web.run_app(application, path=sys.argv[sys.argv.index("--uds") + 1], print=None)


if __name__ == "__main__":
    main()

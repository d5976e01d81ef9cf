"""`trainwright serve MODEL`: an endpoint on this machine or in a Slurm job; `--stop NAME` and `--list`."""

import argparse
from typing import TYPE_CHECKING, Any

from .output import add_json_option, emit

if TYPE_CHECKING:
    from ..serving.launch import ServeOptions
    from ..serving.service import Served

_ABOUT_STARTING = {
    "--name": None,
    "--port": 0,
    "--dtype": None,
    "--max-model-len": None,
    "--kv-cache-gib": None,
    "--profile": None,
    "--runs": None,
    "--wait-s": 900.0,
}


def add_parser(commands: Any) -> None:
    """Declare the command's options."""
    parser = commands.add_parser("serve", help="serve a model with vLLM, stop or list endpoints")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("model", metavar="MODEL", nargs="?", help="exported folder, or RUN[@STEP]")
    what.add_argument("--stop", metavar="NAME", help="let endpoint NAME finish its requests and end it")
    what.add_argument("--list", action="store_true", help="list your endpoints")
    add_serving_options(parser)
    parser.add_argument("--profile", help="where it runs: local, dev, or a profile of yours (the run's, else local)")
    parser.add_argument("--runs", metavar="FOLDER", help="folder in which runs are looked up by name")
    parser.add_argument("--wait-s", type=float, default=900.0, metavar="S", help="give up if not ready so long (900)")
    add_json_option(parser)
    parser.set_defaults(run=run)


def add_serving_options(parser: argparse.ArgumentParser) -> None:
    """What can be said about any endpoint."""
    parser.add_argument("--name", help="name of the endpoint and of the model in requests (the run's or folder's)")
    parser.add_argument("--port", type=int, default=0, help="TCP port (a free one)")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="what vLLM computes in (the weights')"
    )
    parser.add_argument("--max-model-len", type=int, metavar="N", help="longest request in tokens (the model's limit)")
    parser.add_argument("--kv-cache-gib", type=float, metavar="G", help="KV cache (0.5 on CPU, vLLM's choice on a GPU)")


def serving_options(arguments: argparse.Namespace) -> "ServeOptions":
    """What was said about it. Raises UserError."""
    from ..config.errors import UserError
    from ..serving.launch import ServeOptions

    if not 0 <= arguments.port < 2**16:
        raise UserError("--port", f"{arguments.port} is not a TCP port", "give 1 to 65535, or leave it out")
    return ServeOptions(
        name=arguments.name,
        port=arguments.port,
        dtype=arguments.dtype,
        max_model_len=arguments.max_model_len,
        kv_cache_gib=arguments.kv_cache_gib,
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve, stop or list."""
    if arguments.model is None:
        _refuse_others(arguments)
    if arguments.list:
        return _list(arguments)
    if arguments.stop is not None:
        return _stop(arguments)
    return _serve(arguments)


def _refuse_others(arguments: argparse.Namespace) -> None:
    """--stop and --list take nothing that is about starting."""
    from ..config.errors import UserError

    for option, default in _ABOUT_STARTING.items():
        value = getattr(arguments, option.lstrip("-").replace("-", "_"))
        if value != default:
            raise UserError(option, f"{value!r} means nothing with --stop or --list", "leave it out")


def _serve(arguments: argparse.Namespace) -> int:
    import os
    from dataclasses import replace
    from pathlib import Path

    if arguments.runs:
        os.environ["TRAINWRIGHT_RUNS"] = str(Path(arguments.runs).absolute())
    options = replace(serving_options(arguments), profile=arguments.profile, wait_s=arguments.wait_s)
    served = serve_model(arguments.model, options)
    emit(arguments, served.record(), served.text())
    return 0


def serve_model(model: str, options: "ServeOptions") -> "Served":
    """Export it if need be, and serve it; progress on stderr."""
    from ..serving.models import find_model
    from ..serving.service import serve
    from .progress import BytesProgress, Waiting

    with BytesProgress("export") as progress:
        found = find_model(model, progress.update)
    with Waiting("serve") as waiting:
        return serve(found, options, waiting.say)


def _stop(arguments: argparse.Namespace) -> int:
    from ..serving.endpoint import find_endpoint, forget
    from ..serving.stop import stop
    from .progress import Waiting

    folder = find_endpoint(arguments.stop)
    with Waiting("serve") as waiting:
        waiting.say("requests in flight finish first")
        stop(folder)
    forget(arguments.stop)
    emit(arguments, {"name": arguments.stop, "state": "stopped"}, f"stopped {arguments.stop}")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    from ..serving.service import list_endpoints

    rows = list_endpoints()
    lines = [f"{row['name']:20} {row['state']:9} {row['url'] or '-':32} {row['model']}" for row in rows]
    emit(arguments, {"endpoints": rows}, "\n".join(lines) or "no endpoints")
    return 0

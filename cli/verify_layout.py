"""`trainwright verify-layout RUN.yaml [key=value...]`: proof that a run's layout computes what one rank computes."""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from .output import add_json_option, emit
from .progress import Waiting

if TYPE_CHECKING:
    from pathlib import Path

    from ..config.model import ModelShape
    from ..config.run import RunConfig

_SHOWN = 20
_EVERY_S = 0.2


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`verify-layout RUN.yaml [key=value...]`."""
    text = "prove on this machine's CPU that a run's layout computes what one rank computes"
    parser = commands.add_parser("verify-layout", help=text, description=text)
    parser.add_argument("run_file", metavar="RUN.yaml", help="run file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="fields to change, such as cluster.nodes=2")
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Verify; 0 and a certificate if nothing differs, else 3."""
    import tempfile
    from dataclasses import asdict
    from datetime import UTC, datetime
    from pathlib import Path

    from ..config.certificates import Certificate, certificate_key, code_digest, write_certificate
    from ..config.loading import load_run
    from ..config.model_reader import read_model

    given = load_run(Path(arguments.run_file), arguments.overrides)
    model = read_model(Path(given.model))
    key = certificate_key(given, model)
    _require_packages(given)
    with tempfile.TemporaryDirectory(prefix="trainwright-verify-") as folder:
        result = _verify(given, model, Path(folder))
    if result["findings"]:
        emit(arguments, {"verified": False, **result}, _bad(result))
        print(f"trainwright: {arguments.run_file}: {_verdict(result)}", file=sys.stderr)
        return 3
    certificate = Certificate(
        key=key,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        layout=result["layout"],
        largest=result["largest"],
        seconds=result["seconds"],
        versions=result["versions"],
        code=code_digest(),
    )
    path = write_certificate(given, certificate)
    emit(arguments, {"verified": True, "certificate": str(path), **asdict(certificate)}, _good(result, path))
    return 0


def _require_packages(given: "RunConfig") -> None:
    from ..config.versions import require_installed

    engine, extra = {"megatron": ("megatron-core", "train"), "deepspeed": ("deepspeed", "train,deepspeed")}[
        given.parallelism.engine
    ]
    require_installed("verify-layout", ("torch", engine, "transformers"), extra)


def _verify(given: "RunConfig", model: "ModelShape", folder: "Path") -> dict[str, Any]:
    """What the process that computes found."""
    import json
    import os
    import subprocess
    import time

    from ..config.errors import FoundBad
    from ..config.loading import dump_run
    from ..config.model_file import model_config
    from ..config.shrinking import shrink

    small, shape = shrink(given, model)
    (folder / "run.yaml").write_text(dump_run(small))
    (folder / "config.json").write_text(json.dumps(model_config(shape)))
    log = folder / "log.txt"
    command = [sys.executable, "-m", "trainwright.parallelism.verify", str(folder)]
    with log.open("w") as file, Waiting("verify-layout") as waiting:
        process = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, "OMP_NUM_THREADS": "1"})
        try:
            while process.poll() is None:
                waiting.say(f"{small.cluster.world_size} ranks on the CPU")
                time.sleep(_EVERY_S)
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if process.returncode:
        print(log.read_text(), file=sys.stderr)
        raise FoundBad("verify-layout", "the small run failed; what it printed is above", "mend what it names")
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def _layout(result: dict[str, Any]) -> str:
    return " x ".join(f"{axis} {size}" for axis, size in result["layout"].items())


def _good(result: dict[str, Any], path: "Path") -> str:
    lines = [f"{kind:<24} {value:.1e}" for kind, value in result["largest"].items()]
    words = f"verified: {_layout(result)} computes what one rank computes ({result['seconds']:.0f} s)"
    return "\n".join([words, "", "largest relative difference", *lines, "", f"certificate {path}"])


def _bad(result: dict[str, Any]) -> str:
    shown = [
        f"{each['what']}: {each['difference']:.1e}, above {each['limit']:.0e}" if each["limit"] else each["what"]
        for each in result["findings"][:_SHOWN]
    ]
    more = len(result["findings"]) - len(shown)
    return "\n".join([f"layout {_layout(result)}", *shown, *([f"and {more} more"] if more else [])])


def _verdict(result: dict[str, Any]) -> str:
    first = result["findings"][0]["what"]
    return (
        f"this layout does not compute what one rank computes: {len(result['findings'])} differences, the first in "
        f"{first}; use another layout, or report it"
    )

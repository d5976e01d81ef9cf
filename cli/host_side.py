"""The far end of `--host`: reads one request from stdin, writes its files, runs its command line in its folder.

    PYTHONPATH=CODE python -m trainwright.cli.host_side < REQUEST

REQUEST is one line, a JSON object: argv; folder (absolute or below the home directory); files (relative path ->
base64), written into the folder before, where one that differs is kept beside with `.old`. stdin then stays open; its
end is the user's Ctrl-C, or the loss of the connection. Imports little at the top: any Python may be asked.
"""

import base64
import json
import os
import signal
import sys
import threading
from pathlib import Path


def main() -> int:
    """Obey one request; its exit code."""
    if sys.version_info < (3, 11):  # noqa: UP036 (the host's Python, which nobody has checked)
        return _refuse(f"it is Python {sys.version_info[0]}.{sys.version_info[1]}, and 3.11 or newer is needed")
    line = sys.stdin.buffer.readline()
    if not line:
        return 130
    request = json.loads(line)
    try:
        from .main import main as run
    except ImportError as error:
        return _refuse(f"it lacks {error.name}")
    folder = Path.home() / request["folder"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in request["files"].items():
            _write(folder / name, base64.b64decode(content))
    except OSError as error:
        print(f"trainwright: --host: {error.filename}: {error.strerror}; give a folder that is yours", file=sys.stderr)
        return 2
    os.chdir(folder)
    threading.Thread(target=_interrupt_at_end, daemon=True).start()
    return run(request["argv"])


def _refuse(problem: str) -> int:
    remedy = "name one with Trainwright's requirements by --host-python"
    print(f"trainwright: --host-python: {sys.executable} on this host: {problem}; {remedy}", file=sys.stderr)
    return 2


def _write(path: Path, data: bytes) -> None:
    """Write beside and rename; what was there and differs is kept."""
    if path.is_file() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(data)
    if path.exists():
        path.rename(path.with_name(f"{path.name}.old"))
    beside.rename(path)


def _interrupt_at_end() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main())

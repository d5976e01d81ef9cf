"""Another machine, such as a login node, over OpenSSH: our code is brought there, and a command is run by it.

Nothing is installed on the host: it needs an interpreter with the packages that Trainwright requires. The request goes
over stdin, so no word of it is in a process list; the pipe stays open while we live, and its end is Ctrl-C over there.
"""

import contextlib
import io
import json
import re
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..config.errors import UserError
from .frozen import digest_of, entry
from .snapshot import Files, read_code

_LACKS_CODE, _LACKS_PYTHON, _NO_CONNECTION = 97, 98, 255
_CACHE = '"${XDG_CACHE_HOME:-$HOME/.cache}"/trainwright/code'
_MODULE = "trainwright.cli.host_side"


@dataclass(frozen=True)
class Host:
    """Where commands run: `destination` is user@name or a name of ~/.ssh/config."""

    destination: str
    folder: str | None
    """Working directory there, absolute or below the home directory; None: one named like this one."""
    python: str
    """Interpreter there."""

    @staticmethod
    def parse(text: str, python: str) -> "Host":
        """From `[user@]name[:FOLDER]`. Raises UserError."""
        destination, colon, folder = text.partition(":")
        if not re.fullmatch(r"([\w.+-]+@)?[A-Za-z0-9_][\w.-]*", destination) or (colon and not folder):
            raise UserError("--host", repr(text), "give user@name, a name of ~/.ssh/config, or either with :FOLDER")
        return Host(destination, folder or None, python)

    def run(self, request: Mapping[str, Any]) -> int:
        """Run a request (see cli/host_side.py) there, with our stdout and stderr; its exit code.

        Raises UserError if the host can't be reached, or lacks the interpreter.
        """
        if not shutil.which("ssh"):
            raise UserError("--host", "there is no ssh on this machine", "install OpenSSH's client")
        code = read_code()
        digest = digest_of({name: entry(data, executable) for name, (data, executable) in code.items()})
        ended = self._ask(digest, request)
        if ended == _LACKS_CODE:
            self._send(digest, code)
            ended = self._ask(digest, request)
        if ended == _NO_CONNECTION:
            raise UserError("--host", f"ssh cannot run commands on {self.destination}", f"try `ssh {self.destination}`")
        if ended == _LACKS_PYTHON:
            problem = f"{self.destination} has no {self.python}"
            raise UserError("--host-python", problem, "give the path of a Python with Trainwright's requirements there")
        return ended

    def _ask(self, digest: str, request: Mapping[str, Any]) -> int:
        python = shlex.quote(self.python)
        script = (
            f'code={_CACHE}/{digest}; [ -d "$code" ] || exit {_LACKS_CODE}; '
            f"command -v {python} >/dev/null || exit {_LACKS_PYTHON}; "
            f'PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$code" exec {python} -m {_MODULE}'
        )
        ssh = subprocess.Popen(self._command(script), stdin=subprocess.PIPE)
        assert ssh.stdin is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # it may end without reading: the exit code says why
                ssh.stdin.write(json.dumps(request).encode() + b"\n")
                ssh.stdin.flush()
            return ssh.wait()
        finally:
            with contextlib.suppress(BrokenPipeError):
                ssh.stdin.close()
            ssh.wait()

    def _send(self, digest: str, code: Files) -> None:
        """Write the code beside its place, then rename it; of two that come at once one stays."""
        script = (
            f'code={_CACHE}; mkdir -p "$code" && cd "$code" && mkdir .$$ && tar -xf - -C .$$ && '
            f"{{ mv -T .$$ {digest} 2>/dev/null || rm -rf .$$; }}; [ -d {digest} ]"
        )
        done = subprocess.run(self._command(script), input=_archive(code), check=False)
        if done.returncode:
            problem = f"{self.destination} does not take our code (see above)"
            raise UserError("--host", problem, "make ~/.cache/trainwright there writable, and its disk less full")

    def _command(self, script: str) -> list[str]:
        return ["ssh", "-T", "-o", "ServerAliveInterval=30", self.destination, f"sh -c {shlex.quote(script)}"]


def _archive(code: Files) -> bytes:
    """A tar file of the code; everybody with the same code makes the same bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, (data, executable) in sorted(code.items()):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o755 if executable else 0o644
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()

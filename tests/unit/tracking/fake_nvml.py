"""A compiled stand-in for the driver's library, and processes that load it instead."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

_SOURCE = Path(__file__).with_name("fake_nvml.c")
_NOT_PASSED = ("CUDA_", "SLURM_", "FAKE_NVML", "LD_LIBRARY_PATH")


@dataclass(frozen=True)
class FakeNvml:
    """The library's folder and the file that it takes its numbers from."""

    folder: Path
    state: Path

    def set(self, **values: float) -> None:
        """Give the library these numbers, and its own for the rest; at once, also in running processes."""
        beside = self.state.with_suffix(".new")
        beside.write_text("".join(f"{key} {value}\n" for key, value in values.items()))
        beside.rename(self.state)

    def compiled(self, define: str) -> "FakeNvml":
        """The same with -D`define`."""
        return FakeNvml(build(self.state.parent / define, define), self.state)

    def environment(self, **more: str) -> dict[str, str]:
        """This process's variables without what names GPUs, and with the library first."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_PASSED)}
        return kept | {"LD_LIBRARY_PATH": str(self.folder), "FAKE_NVML_STATE": str(self.state), **more}

    def python(self, code: str, *arguments: str, **variables: str) -> str:
        """What `code` prints in a process that loads the library."""
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=self.environment(**variables),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def build(folder: Path, *defines: str) -> Path:
    """Compile the library into `folder`; skips the test where there is no gcc."""
    if not shutil.which("gcc"):
        pytest.skip("needs gcc, for a library that stands in for the driver's: apt-get install gcc")
    folder.mkdir(parents=True, exist_ok=True)
    command = ["gcc", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1"]
    command += [f"-D{name}" for name in defines]
    subprocess.run([*command, "-o", str(folder / "libnvidia-ml.so.1"), str(_SOURCE)], check=True, timeout=60)
    return folder

"""CPU seconds (user + system) of `trainwright --help`: best of 5, at most 0.35.

Run: .venv/bin/python benchmarks/help_cpu.py
"""

import os
import platform
import subprocess
import sys

LIMIT_S = 0.35
ROUNDS = 5


def cpu_of_help() -> float:
    """CPU seconds of one `trainwright --help`, interpreter start included."""
    before = os.times()
    command = [sys.executable, "-m", "trainwright.cli.main", "--help"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def machine() -> str:
    """Processor, cores and Python in one line."""
    model = platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), model)
    except OSError:
        pass
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()}"


def main() -> int:
    """Print the number; 1 if it is above the limit."""
    best = min(cpu_of_help() for _ in range(ROUNDS))
    print(f"trainwright --help: {best:.2f} s of CPU, best of {ROUNDS}, limit {LIMIT_S} s ({machine()})")
    return 0 if best <= LIMIT_S else 1


if __name__ == "__main__":
    sys.exit(main())

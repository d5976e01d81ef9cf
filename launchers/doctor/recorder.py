"""What a canary job runs: processes that write down which signal they got when, and until when they lived.

    python recorder.py FOLDER batch|rank LIFETIME_S

The file is copied to FOLDER, and needs the standard library alone. `batch` takes the place of the batch shell. `rank`
is started by srun and forks twice: `child` stays in its process group as a data worker does; `detached` leads a session
of its own, as servers that libraries start do. Each ends when FOLDER holds a file `stop`, or after LIFETIME_S.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

WATCHED = ("HUP", "INT", "USR1", "USR2", "TERM", "CONT")
_BEAT_S = 0.1


def main(folder: Path, role: str, lifetime_s: float) -> None:
    """Record until told to stop."""
    end = time.time() + lifetime_s
    signal.pthread_sigmask(signal.SIG_BLOCK, _signals())  # before the forks: none may be lost
    if role == "batch":
        record(folder, "batch", end)
        return
    rank = f"rank{os.environ['SLURM_PROCID']}"
    for name, detached in ((f"{rank}-child", False), (f"{rank}-detached", True)):
        if os.fork() == 0:
            if detached:
                os.setsid()
            record(folder, name, end)
            os._exit(0)
    record(folder, rank, end)


def record(folder: Path, name: str, end: float) -> None:
    """Write NAME.jsonl, a line per signal, and NAME.alive, the time of the last beat, until `stop` or `end`."""
    alive = os.open(folder / f"{name}.alive", os.O_WRONLY | os.O_CREAT, 0o600)
    signals = os.open(folder / f"{name}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    beat = 0
    while (now := time.time()) < end:
        os.pwrite(alive, f"{now:20.6f}\n".encode(), 0)
        beat += 1
        if beat % 10 == 0 and (folder / "stop").exists():
            break
        got = signal.sigtimedwait(_signals(), _BEAT_S)
        if got is not None:
            line = {"time": time.time(), "signal": signal.Signals(got.si_signo).name.removeprefix("SIG")}
            os.write(signals, (json.dumps(line) + "\n").encode())


def _signals() -> set[signal.Signals]:
    return {signal.Signals[f"SIG{name}"] for name in WATCHED}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))

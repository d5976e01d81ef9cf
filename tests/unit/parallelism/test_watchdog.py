"""What counts as a hang and what does not, with short limits."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

from trainwright.config.restarts import RestartsConfig
from trainwright.parallelism.hang_report import Reporter
from trainwright.parallelism.watchdog import HangLimits, Watchdog

_SHORT_S = 0.5


def test_limits_follow_what_was_measured() -> None:
    limits = HangLimits(RestartsConfig())
    assert limits.seconds("first step") == limits.seconds("load") == limits.seconds("save") == 1800
    limits.step_took(90)  # it compiles
    limits.step_took(0.2)
    assert not limits.steady
    limits.step_took(0.2)
    assert limits.steady
    assert limits.seconds("step") == 300
    for _ in range(10):
        limits.step_took(30)
    assert limits.seconds("step") == 600
    limits.save_took(20)
    assert limits.seconds("save") == 1800
    limits.save_took(600)
    assert limits.seconds("save") == 6000


def test_the_run_file_says_otherwise() -> None:
    limits = HangLimits(RestartsConfig(hang_after_s=9, hang_outside_steps_s=50))
    assert not limits.steady
    limits.step_took(90)
    assert limits.steady
    assert (limits.seconds("step"), limits.seconds("first step"), limits.seconds("save")) == (9, 50, 50)


class _Reporter:
    """Counts reports; nobody else reports unless told."""

    world_size = 2
    words = ""

    def __init__(self, tmp_path: Path) -> None:
        self.stacks = (tmp_path / "stacks").open("w")
        self.reports = self.withdrawn = self.others = 0

    def report(self, phase: str, step: int, idle_s: float, *, look_around: bool = False) -> None:
        self.reports += 1

    def reported(self) -> int:
        return self.others + (self.reports > self.withdrawn)

    def close(self) -> None:
        self.stacks.close()

    def withdraw(self) -> None:
        self.withdrawn = self.reports


def _watch(tmp_path: Path, outside_s: float = 100.0) -> tuple[Watchdog, _Reporter, list[str]]:
    reporter, said = _Reporter(tmp_path), cast("list[str]", [])

    limits = HangLimits(RestartsConfig(hang_after_s=_SHORT_S, hang_outside_steps_s=outside_s))
    return Watchdog(limits, cast(Reporter, reporter), said.append, tmp_path / "heartbeat"), reporter, said


def _until(done: Any, timeout_s: float = 30) -> bool:
    deadline = time.monotonic() + timeout_s
    while not done() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(done())


def test_it_ends_when_all_have_reported(tmp_path: Path) -> None:
    watchdog, reporter, said = _watch(tmp_path)
    with watchdog:
        assert _until((tmp_path / "heartbeat").exists), "it lives, in whatever phase"
        watchdog.step_done(7, 0.1)
        assert _until(lambda: reporter.reports)
        assert said == []
        reporter.others = 1
        assert _until(lambda: said)
    assert "in phase 'step' after step 7" in said[0]


def test_it_ends_without_the_others_reports_after_a_while(tmp_path: Path) -> None:
    watchdog, reporter, said = _watch(tmp_path)
    with watchdog:
        watchdog.step_done(1, 0.1)
        assert _until(lambda: said)
    assert reporter.reports == 2, "the second says how silent ranks fare"


def test_a_step_while_it_waits_for_others_takes_it_back(tmp_path: Path) -> None:
    watchdog, reporter, said = _watch(tmp_path)
    with watchdog:
        watchdog.step_done(1, 0.1)
        assert _until(lambda: reporter.reports)
        watchdog.step_done(2, 1.0)
        assert _until(lambda: reporter.withdrawn)
    assert said == []


def test_what_takes_longer_than_a_step_is_let(tmp_path: Path) -> None:
    watchdog, reporter, said = _watch(tmp_path)
    with watchdog:
        for phase in ("load", "first step"):
            watchdog.entered(phase)
            time.sleep(3 * _SHORT_S)
        watchdog.step_done(1, 1.0)
        with watchdog.saving():
            time.sleep(3 * _SHORT_S)
        for step in range(2, 6):  # slow, but it goes on
            time.sleep(_SHORT_S / 4)
            watchdog.step_done(step, 0.1)
        watchdog.entered("end")
        time.sleep(3 * _SHORT_S)
    assert (said, reporter.reports) == ([], 0)


def test_a_save_has_a_limit_too(tmp_path: Path) -> None:
    watchdog, reporter, said = _watch(tmp_path, outside_s=1.0)
    reporter.others = 1
    with watchdog, watchdog.saving():
        assert _until(lambda: said)
    assert "in phase 'save'" in said[0]


_PROCESS = """
import sys, time
from pathlib import Path
from trainwright.config.restarts import RestartsConfig
from trainwright.config.rundir import RunDir
from trainwright.parallelism.hang_report import Reporter
from trainwright.parallelism.watchdog import HangLimits, Watchdog
run = RunDir(Path(sys.argv[1]))
class Stuck(Reporter):
    def report(self, *args, **kwargs):
        if sys.argv[2] == "no file system":
            while True:
                time.sleep(1)
        super().report(*args, **kwargs)
import trainwright.parallelism.watchdog as module
module._LAST_RESORT_S = 1.0
with Watchdog(HangLimits(RestartsConfig(hang_after_s=1)), Stuck(run, 1, 0, 1, lambda path: ([], {}))) as watchdog:
    watchdog.step_done(1, 0.1)
    print("ready", flush=True)
    if sys.argv[2] == "suspended":
        for step in range(2, 2000):
            time.sleep(0.1)
            watchdog.step_done(step, 0.1)
    time.sleep(1000)
"""


def _start(tmp_path: Path, kind: str) -> "subprocess.Popen[str]":
    script = tmp_path / "rank.py"
    script.write_text(_PROCESS)
    command = [sys.executable, "-W", "ignore", str(script), str(tmp_path), kind]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


def test_the_process_ends_with_the_verdict_and_leaves_its_stacks(tmp_path: Path) -> None:
    process = _start(tmp_path, "plain")
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 87
    assert "trainwright: hang: no progress for 1 s in phase 'step' after step 1; the stacks of all threads" in error
    assert 'rank.py", line 24 in <module>' in (tmp_path / "logs/0001/stacks-00000.txt").read_text()


def test_it_ends_even_if_the_file_system_does_not_answer(tmp_path: Path) -> None:
    process = _start(tmp_path, "no file system")
    process.communicate(timeout=60)
    assert process.returncode == 1


def test_a_process_that_was_suspended_has_not_hung(tmp_path: Path) -> None:
    process = _start(tmp_path, "suspended")
    try:
        time.sleep(0.3)
        process.send_signal(signal.SIGSTOP)
        time.sleep(3)
        process.send_signal(signal.SIGCONT)
        time.sleep(2)
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()
    assert not list((tmp_path / "logs/0001").glob("hang-*"))

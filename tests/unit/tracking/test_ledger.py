"""The ledger: one file per writer and attempt, merged by time."""

import json
import threading
from pathlib import Path

import pytest

from trainwright.config.rundir import RunDir, create_run_dir
from trainwright.tracking.ledger import LedgerWriter, read_ledger


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    return create_run_dir(tmp_path, "run")


def test_events_of_all_writers_are_merged_by_time(run_dir: RunDir) -> None:
    submit, supervisor = LedgerWriter(run_dir, 1, "submit"), LedgerWriter(run_dir, 2, "supervisor")
    submit.write("submit", job="7")
    supervisor.write("start", nodes=["a", "b"])
    submit.write("exit", code=0)
    events = read_ledger(run_dir)
    assert [(event.event, event.writer, event.attempt) for event in events] == [
        ("submit", "submit", 1),
        ("start", "supervisor", 2),
        ("exit", "submit", 1),
    ]
    assert events[1].fields == {"nodes": ["a", "b"]}
    assert [event.time for event in events] == sorted(event.time for event in events)


def test_no_two_writers_share_a_file(run_dir: RunDir) -> None:
    def write(number: int) -> None:
        writer = LedgerWriter(run_dir, 1, f"rank-{number:05d}")
        for step in range(20):
            writer.write("save", step=step)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_ledger(run_dir)) == 80
    assert len(list(run_dir.ledger.glob("*/*.jsonl"))) == 4


def test_a_torn_last_line_is_left_out_and_the_rest_kept(run_dir: RunDir) -> None:
    LedgerWriter(run_dir, 1, "submit").write("submit")
    path = run_dir.ledger_file(1, "submit")
    whole = path.read_text()
    for cut in range(1, len(whole)):
        path.write_text(whole + whole[:cut].rstrip("\n")[:-1])
        assert [event.event for event in read_ledger(run_dir)] == ["submit"]


def test_lines_that_are_no_events_are_left_out(run_dir: RunDir) -> None:
    path = run_dir.ledger_file(1, "odd")
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(["[]", "7", "{}", json.dumps({"time": 1.0, "event": "start"}), "\x00\x00"]))
    assert [event.event for event in read_ledger(run_dir)] == ["start"]


def test_a_run_without_ledger_has_no_events(run_dir: RunDir) -> None:
    assert read_ledger(run_dir) == []

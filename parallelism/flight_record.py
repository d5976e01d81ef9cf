"""torch's flight recorder: which of NCCL's operations were queued, and which of them a GPU has done.

gloo is in it too, but never says that anything was done; there our own record knows more.
"""

import json
import re
from pathlib import Path
from typing import Any

from torch._C import _distributed_c10d as c10d

from ..tracking.hang_reports import Entered, Waiting
from .collectives import RECORD


def operations_now(path: Path) -> tuple[list[Waiting], dict[str, Entered]]:
    """What this rank is in and has entered, by both records; torch's is left in the file."""
    return with_flight_record(dump_flight_record(path), RECORD.waiting(), RECORD.entered())


def dump_flight_record(path: Path) -> dict[str, Any]:
    """Write the record beside the report, if this torch keeps one and there is something in it; the record."""
    dump = getattr(c10d, "_dump_nccl_trace_json", None) or getattr(c10d, "_dump_fr_trace_json", None)
    try:
        text = dump(True, False) if dump else b""
        record: dict[str, Any] = json.loads(text) if text else {}
    except (RuntimeError, ValueError):
        return {}
    if record.get("entries"):
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return record


def with_flight_record(
    record: dict[str, Any], waiting: list[Waiting], entered: dict[str, Entered]
) -> tuple[list[Waiting], dict[str, Entered]]:
    """Our record, with what the flight recorder knows better: for NCCL, what the GPU has not done yet.

    Groups are numbered the same in both; operations are counted the same, as both count each once.
    """
    done, queued = _progress_of(record)
    for group, last in queued.items():
        first = done.get(group, 0) + 1
        entry = _entry(record, group, first)
        own = entered.get(group)
        if entry is None or own is None or first > last:
            continue
        names = [_entry(record, group, number) for number in range(max(1, last - 7), last + 1)]
        recent = [_operation(name) for name in names if name is not None]
        entered = {**entered, group: Entered(count=last, recent=recent if len(recent) == len(names) else [])}
        described = re.sub("_", " ", str(entry["process_group"][1])).lower()
        waiting = [each for each in waiting if each.channel != group]
        waiting.append(
            Waiting(
                channel=group,
                name="default group" if described == "default pg" else described,
                ranks=_ranks(record, group),
                sequence=first,
                operation=_operation(entry),
            )
        )
    return waiting, entered


def _progress_of(record: dict[str, Any]) -> tuple[dict[str, int], dict[str, int]]:
    """By group the number of the last operation that was done, and of the last that was queued; NCCL's alone."""
    nccl = {str(entry["process_group"][0]) for entry in record.get("entries", []) if _is_nccl(entry)}
    status = {group: values for group, values in record.get("pg_status", {}).items() if group in nccl}
    done = {group: int(values["last_completed_collective"]) for group, values in status.items()}
    queued = {group: int(values["last_enqueued_collective"]) for group, values in status.items()}
    return done, queued


def _is_nccl(entry: dict[str, Any]) -> bool:
    return str(entry.get("profiling_name", "")).startswith("nccl:")


def _entry(record: dict[str, Any], group: str, number: int) -> dict[str, Any] | None:
    for entry in record.get("entries", []):
        same = str(entry["process_group"][0]) == group and entry["collective_seq_id"] == number
        if same and _is_nccl(entry) and not entry.get("is_p2p"):
            return dict(entry)
    return None


def _operation(entry: dict[str, Any]) -> str:
    return str(entry["profiling_name"]).partition(":")[2]


def _ranks(record: dict[str, Any], group: str) -> list[int]:
    ranks = record.get("pg_config", {}).get(group, {}).get("ranks", "[]")
    return list(json.loads(ranks) if isinstance(ranks, str) else ranks)

"""Before the first step of an attempt: ranks check their nodes, rank 0 judges, and all leave if one is bad."""

import json
import math
import shutil
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict, replace

import torch

from ..config.errors import CannotWrite, UnhealthyNode, UserError
from ..config.model import ModelShape
from ..config.run import RunConfig
from ..config.rundir import RunDir
from ..storage.checkpoints.adapters import trained_shapes
from ..storage.checkpoints.slots import SLOTS
from ..tracking.console import say
from ..tracking.gpu_sampler import driver_is_here
from ..tracking.ledger import LedgerWriter
from ..tracking.nvml_devices import NotMeasured
from ..tracking.nvml_health import HealthCheck
from .preflight_findings import Finding, NodeRecord, RankRecord, Room, find_faults
from .preflight_measures import all_reduce, clock_ahead, matrix_product, versions, write_and_read
from .preflight_summary import summarize, words_of
from .ranks import Rank, text_from_rank_zero, texts_at_rank_zero

_HEALTH_TIMEOUT_S = 15.0
_LOOKS = 3
"""Times that a node is measured before it is called slow: anything may have disturbed it once."""


def preflight(run: RunConfig, run_dir: RunDir, attempt: int, me: Rank, model: ModelShape) -> None:
    """Check as one of the ranks, which have joined. One gather, one broadcast, one all-reduce.

    On all ranks it raises CannotWrite or UserError for what the user can mend, UnhealthyNode if a node is to be left.
    The result is the ledger's event `preflight`.
    """
    if not run.preflight.enabled:
        return
    began = time.perf_counter()
    mine = _look(run_dir, attempt, me)
    for look in range(1, _LOOKS + 1):
        records = _gathered(mine)
        findings = _agreed(run, run_dir, model, records)
        if look == _LOOKS or {finding.check for finding in findings} != {"speed"}:
            break
        mine = replace(mine, tflops=max(mine.tflops, matrix_product()[0]))
    gb_per_s = None if findings else all_reduce()
    if me.rank == 0:
        summary = summarize(records, findings, gb_per_s, _free_bytes(run_dir))
        summary["seconds"] = round(time.perf_counter() - began, 3)
        LedgerWriter(run_dir, attempt, "rank-00000").write("preflight", **summary)
        say(words_of(summary))
    _leave_if_bad(findings, run_dir)


def _look(run_dir: RunDir, attempt: int, me: Rank) -> RankRecord:
    """What this rank finds out; all ranks call it."""
    gpu = torch.cuda.get_device_properties(torch.cuda.current_device()) if torch.cuda.is_available() else None
    visible = torch.cuda.device_count() if gpu else 0
    asks = gpu is not None and driver_is_here() and (me.local_rank == 0 or visible == 1)
    health = HealthCheck() if asks else None
    tflops, product = matrix_product()
    behind_s, ahead_s = clock_ahead()
    record = RankRecord(
        rank=me.rank,
        host=socket.gethostname(),
        device=f"GPU-{gpu.uuid}" if gpu else "",
        kind=gpu.name if gpu else "",
        visible=visible,
        tflops=tflops,
        product=product,
    )
    if me.local_rank == 0:
        error = write_and_read(run_dir.preflight_probe(attempt, me.rank))
        node = NodeRecord(
            versions=versions(run_dir),
            write_errno=error.errno if error else None,
            write_error=str(error.strerror) if error else "",
            ahead_at_least_s=behind_s,
            ahead_at_most_s=ahead_s,
        )
        record = replace(record, node=node)
    return _with_health(record, health)


def _with_health(record: RankRecord, check: HealthCheck | None) -> RankRecord:
    if check is None:
        return record
    try:
        return replace(record, gpus=[asdict(gpu) for gpu in check.answer(_HEALTH_TIMEOUT_S)])
    except TimeoutError as error:
        return replace(record, gpus_silent=str(error))
    except NotMeasured as reason:
        say(f"the health of GPUs is not measured: {reason}")
        return record


def _gathered(mine: RankRecord) -> list[RankRecord]:
    """Every rank's record, on rank 0."""
    fields = [json.loads(text) for text in texts_at_rank_zero(json.dumps(asdict(mine)))]
    return [
        RankRecord(**{**record, "node": NodeRecord(**record["node"]) if record["node"] else None}) for record in fields
    ]


def _agreed(run: RunConfig, run_dir: RunDir, model: ModelShape, records: Sequence[RankRecord]) -> list[Finding]:
    """What rank 0 finds, on every rank."""
    text = ""
    if records:
        numbers = sum(math.prod(shape) for shape in trained_shapes(run, model).values())
        room = Room(
            folder=str(run_dir.path), free_bytes=_free_bytes(run_dir), checkpoint_bytes=numbers * 4 * len(SLOTS)
        )
        found = find_faults(records, room, run.preflight, run.cluster)
        text = json.dumps([asdict(finding) for finding in found])
    return [Finding(**finding) for finding in json.loads(text_from_rank_zero(text))]


def _free_bytes(run_dir: RunDir) -> int:
    return shutil.disk_usage(run_dir.path).free


def _leave_if_bad(findings: Sequence[Finding], run_dir: RunDir) -> None:
    for finding in findings:
        if not finding.host:
            if finding.check == "file system":
                raise CannotWrite(str(run_dir.path), finding.words, "free some space or mend the folder")
            raise UserError(finding.check, finding.words, "install a torch for CUDA on the nodes, or set 0")
    if findings:
        own = [finding for finding in findings if finding.host == socket.gethostname()]
        shown = own or findings
        words = "; ".join(f"{finding.host}: {finding.words}" for finding in shown[:3])
        more = f"; and {len(shown) - 3} more" if len(shown) > 3 else ""
        raise UnhealthyNode(f"preflight: {words}{more}", here=bool(own))

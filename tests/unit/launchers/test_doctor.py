"""What doctor tells of recorded clusters, and that a canary which saw something else is noticed."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from trainwright.config.cluster import ClusterConfig
from trainwright.config.errors import UserError
from trainwright.launchers.cluster_config import ClusterFacts
from trainwright.launchers.doctor.canary import Observed, differences
from trainwright.launchers.doctor.findings import Finding, Site, findings
from trainwright.launchers.doctor.predict import PROCESSES, Delivery, Window, predict
from trainwright.launchers.doctor.profile import best_partition, propose, write_profile
from trainwright.launchers.user_limits import UserLimits

from .test_cluster_config import facts_of

_USER = UserLimits(
    accounts=("nlp",), qos=("normal", "long"), default_account="nlp", qos_grace_s={"normal": 0, "long": 90}
)


def _with(facts: ClusterFacts, **config: str) -> ClusterFacts:
    return replace(facts, config={**facts.config, **config})


def _told(
    facts: ClusterFacts, event: str, process: str, *, partition: str = "preempt", qos: str = ""
) -> Delivery | None:
    part = facts.partition(partition)
    assert part is not None
    table = {(told.event, told.process): told for told in predict(facts, part, _USER, qos)}
    return table.get((event, process))


@pytest.mark.parametrize(
    ("tracking", "reached", "killed"),
    [("linuxproc", PROCESSES, PROCESSES), ("pgid", PROCESSES[:3], PROCESSES[:3]), ("cgroup", PROCESSES[:2], PROCESSES)],
)
def test_who_is_reached_depends_on_process_tracking(
    tracking: str, reached: Sequence[str], killed: Sequence[str]
) -> None:
    facts = _with(facts_of("23.11.10"), ProctrackType=f"proctrack/{tracking}")
    for process in PROCESSES:
        told = _told(facts, "cancel", process)
        assert told is not None
        assert (set(told.signals) == {"CONT", "TERM"}) is (process in reached)
        assert told.kill == ((30, 30) if process in killed else None)
    step = _told(facts, "step_signal", "batch")
    assert step is not None
    assert (step.signals, step.kill) == ({}, None)


def test_cgroup_may_signal_children_too() -> None:
    facts = replace(facts_of("24.11.5"), signals_children=True)
    told = _told(facts, "cancel", "detached")
    assert told is not None
    assert set(told.signals) == {"CONT", "TERM"}


def test_a_small_kill_wait_counts_as_five_seconds() -> None:
    told = _told(_with(facts_of("23.11.10"), KillWait="2 sec"), "time_limit", "rank")
    assert told is not None
    assert told.kill == (5, 5)


@pytest.mark.parametrize(
    ("told_by_signal", "batch", "rank"),
    [
        (True, {"CONT": (0, 0), "USR2": (0, 0), "TERM": (300, 330)}, {"CONT": (300, 330), "TERM": (300, 330)}),
        (False, {"CONT": (300, 330), "TERM": (300, 330)}, {"CONT": (0, 0), "TERM": (0, 0)}),
    ],
)
def test_preemption_with_a_grace_time(told_by_signal: bool, batch: dict[str, Window], rank: dict[str, Window]) -> None:
    facts = facts_of("24.11.5") if told_by_signal else _with(facts_of("24.11.5"), PreemptParameters="")
    for process, signals in (("batch", batch), ("rank", rank)):
        told = _told(facts, "preemption", process)
        assert told is not None
        assert told.signals == signals
        assert told.kill == (420, 450)  # GraceTime=300, KillWait=120, and Slurm looks every 30 s
    assert _told(facts, "preemption", "rank", partition="gpu") is None  # PreemptMode=OFF


def test_preemption_by_qos_has_the_grace_time_of_the_qos() -> None:
    facts = facts_of("25.11.7")
    told = _told(facts, "preemption", "rank", qos="long")
    assert told is not None
    assert told.kill == (120, 150)
    assert _told(facts, "preemption", "rank", qos="unheard-of") is None


def _found(version: str, partition: str, save_s: float = 60.0, **config: str) -> dict[str, Finding]:
    """Findings by the name that their line starts with."""
    facts = _with(facts_of(version), **config)
    part = facts.partition(partition)
    assert part is not None
    cluster = ClusterConfig(scheduler="slurm", partition=partition)
    found = findings(Site(facts=facts, partition=part, limits=_USER, cluster=cluster, save_s=save_s))
    return {finding.line.split()[0]: finding for finding in reversed(found)}


def test_findings_of_a_good_cluster_name_their_lines() -> None:
    found = _found("23.11.10", "gpu")
    assert [finding for finding in found.values() if finding.severity == "bad"] == []
    assert found["ProctrackType"].line == "ProctrackType = proctrack/cgroup"
    assert found["TaskPlugin"].severity == "good"
    assert found["SelectTypeParameters"].text.endswith("DefMemPerCPU=21000 MB")


def test_bad_findings() -> None:
    found = _found("25.11.7", "preempt")
    assert {name for name, finding in found.items() if finding.severity == "bad"} == {
        "PreemptType",  # 30 s until SIGKILL, and saving takes 60 s
        "RequeueExit",
        "SlurmdTimeout",
    }
    assert "surely has 30 s until SIGKILL; a save takes 60 s" in found["PreemptType"].text
    assert "waits for ever" in found["SlurmdTimeout"].text
    assert _found("25.11.7", "preempt", save_s=20)["PreemptType"].severity == "good"
    assert _found("24.11.5", "preempt")["PreemptType"].severity == "good"  # 300 s of grace
    assert _found("24.11.5", "gpu", ProctrackType="proctrack/pgid")["ProctrackType"].severity == "bad"
    assert _found("24.11.5", "debug")["PartitionName=debug"].severity == "bad"  # State=DOWN


def test_a_profile_fits_the_commonest_gpu_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("SLURM_CONF", raising=False)
    facts = facts_of("24.11.5")
    part = best_partition(facts, None)
    fields = propose(facts, part, _USER, ClusterConfig(scheduler="slurm"))
    assert fields == {
        "scheduler": "slurm",
        "partition": "gpu",
        "account": "nlp",
        "ranks_per_node": 8,
        "gpus_per_node": 8,
        "cpus_per_rank": 12,
        "time_limit": "24:00:00",
    }
    ClusterConfig.model_validate(fields)
    path = write_profile("hal", fields, "hal, gpu")
    assert "partition: gpu\n" in path.read_text()
    with pytest.raises(UserError, match="exists; remove it, or give another name"):
        write_profile("hal", fields, "hal, gpu")
    assert [entry.name for entry in path.parent.iterdir()] == ["hal.yaml"]
    with pytest.raises(UserError, match="gpus is not on this cluster; use one of gpu, preempt, debug"):
        best_partition(facts, "gpus")


_TOLD = [Delivery(event="cancel", process="rank", signals={"TERM": (0, 0)}, kill=(30, 30))]


@pytest.mark.parametrize(
    ("signals", "kill", "words"),
    [
        ({"TERM": 0.0}, 31.0, []),
        ({"TERM": 0.0, "USR2": 0.1}, 30.0, ["got TERM+USR2, predicted TERM"]),
        ({}, 30.0, ["got nothing, predicted TERM"]),
        ({"TERM": 9.0}, 30.0, ["got TERM after 9 s, predicted 0 s"]),
        ({"TERM": 0.0}, None, ["lived on, predicted SIGKILL after 30 s"]),
        ({"TERM": 0.0}, 4.7, ["was gone after 5 s, predicted 30 s"]),
    ],
)
def test_what_a_canary_saw_otherwise_is_said(signals: dict[str, float], kill: float | None, words: list[str]) -> None:
    seen = [Observed(event="cancel", process="rank1", signals=signals, kill=kill)]
    assert differences(_TOLD, seen) == [f"scancel JOB: rank1 {word}" for word in words]
    assert differences([], seen) == []  # nothing was predicted

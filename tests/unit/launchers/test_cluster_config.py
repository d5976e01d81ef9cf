"""Slurm's answers of 23.11 to 25.11 are read: settings, partitions, nodes, GPUs, times and users' limits."""

from pathlib import Path

import pytest

from trainwright.launchers.cluster_config import (
    ClusterFacts,
    parse_config,
    parse_gpus,
    parse_nodes,
    parse_partitions,
    seconds_of,
)
from trainwright.launchers.user_limits import parse_known_names, parse_user_limits

_ANSWERS = Path(__file__).with_name("slurm_answers")


def facts_of(version: str) -> ClusterFacts:
    """A cluster of that Slurm version, by what scontrol and sinfo print there."""
    return ClusterFacts(
        config=parse_config((_ANSWERS / f"config-{version}.txt").read_text()),
        partitions=parse_partitions((_ANSWERS / f"partitions-{version}.txt").read_text()),
        nodes=parse_nodes((_ANSWERS / "sinfo.txt").read_text()),
    )


@pytest.mark.parametrize(
    ("version", "user_signal", "kill_wait_s", "slurmd_timeout_s"),
    [("23.11.10", True, 30, 300), ("24.11.5", True, 120, 300), ("25.11.7", False, 30, 0)],
)
def test_settings(version: str, user_signal: bool, kill_wait_s: int, slurmd_timeout_s: int) -> None:
    facts = facts_of(version)
    assert facts.version == version
    assert facts.user_signal_at_preemption is user_signal  # in the old spelling, in the new one, not at all
    assert facts.number("KillWait", -1) == kill_wait_s
    assert facts.number("SlurmdTimeout", -1) == slurmd_timeout_s
    assert facts.number("MaxArraySize", -1) == 20001
    assert facts.keeps_accounts
    assert facts.line("RebootProgram") == "RebootProgram = (null)"
    assert facts.config["ConstrainDevices"] == "yes"


@pytest.mark.parametrize("version", ["23.11.10", "24.11.5", "25.11.7"])
def test_partitions(version: str) -> None:
    facts = facts_of(version)
    assert [part.name for part in facts.partitions] == ["gpu", "preempt", "debug"]
    gpu, preempt, debug = facts.partitions
    assert facts.partition(None) == gpu
    assert (gpu.grace_s, preempt.grace_s, preempt.priority_tier) == (0, 300, 10)
    assert (gpu.max_time_s, preempt.max_time_s, debug.max_time_s) == (2 * 86400, None, 3600)
    assert debug.is_up is False
    assert gpu.allows("Accounts", "nlp")
    assert not gpu.allows("Accounts", "guests")
    assert not debug.allows("Qos", "long")  # DenyQos
    assert debug.allows("Qos", "normal")


def test_nodes_and_their_gpus() -> None:
    first, second, third, down = parse_nodes((_ANSWERS / "sinfo.txt").read_text())
    assert (first.count, first.cpus, first.memory_mb, first.gpus) == (32, 96, 2063000, {"h100": 8})
    assert first.features == ("h100", "ib", "nvlink")
    assert (second.partition, second.gpus) == ("preempt", {"a100": 4})
    assert (third.partition, third.gpus, third.features) == ("debug", {}, ())
    assert down.state == "down"


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        ("(null)", {}),
        ("gpu:4", {"": 4}),
        ("gpu:h100:8(S:0-1)", {"h100": 8}),
        ("gpu:nvidia_a100_80gb_pcie:2(S:0),gpu:nvidia_a100_3g.40gb:4(S:1)",
         {"nvidia_a100_80gb_pcie": 2, "nvidia_a100_3g.40gb": 4}),
        ("gpu:h200:8,shard:h200:64(0/64),tmp:200G", {"h200": 8}),
    ],
)  # fmt: skip
def test_gpus(gres: str, gpus: dict[str, int]) -> None:
    assert parse_gpus(gres) == gpus


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("UNLIMITED", None), ("NONE", None), ("30", 1800), ("10:30", 630), ("01:00:00", 3600), ("2-00:00:00", 172800),
     ("1-12", 129600), ("1-12:30", 131400)],
)  # fmt: skip
def test_times(text: str, seconds: int | None) -> None:
    assert seconds_of(text) == seconds


def test_names_that_the_controller_knows() -> None:
    found = parse_known_names((_ANSWERS / "assoc_mgr.txt").read_text(), "ada")
    assert found.accounts == ("nlp", "guests")
    assert found.qos == ("normal", "long")
    assert parse_known_names("Current Association Manager state\n\nNo associations currently cached\n", "ada").qos == ()


def test_user_limits() -> None:
    rows = "nlp|normal,long|20||2-00:00:00|gres/gpu=64|\nguests|normal|||||\n"
    found = parse_user_limits(rows, "nlp\n", "normal|00:00:00\nlong|00:05:00\n")
    assert found.accounts == ("nlp", "guests")
    assert found.qos == ("normal", "long")
    assert found.default_account == "nlp"
    assert found.of_account == {"nlp": "MaxJobs=20 MaxWall=2-00:00:00 MaxTRES=gres/gpu=64", "guests": ""}
    assert found.qos_grace_s == {"normal": 0, "long": 300}
    assert parse_user_limits("", "", "").accounts == ()

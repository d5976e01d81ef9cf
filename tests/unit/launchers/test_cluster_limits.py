"""What a cluster cannot give is one line with what it can; what it can passes."""

import pytest

from trainwright.config.cluster import ClusterConfig
from trainwright.config.errors import UserError
from trainwright.launchers.cluster_limits import check, check_user
from trainwright.launchers.user_limits import UserLimits

from .test_cluster_config import facts_of

_USER = UserLimits(accounts=("nlp", "guests"), qos=("normal", "long"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"partition": "gpus"}, "cluster.partition: gpus is not on this cluster; use one of gpu, preempt, debug"),
        ({"time_limit": "3-00"}, "cluster.time_limit: 3-00, but MaxTime is 2-00:00:00 in gpu; ask for less"),
        ({"gpu_type": "b200", "gpus_per_node": 8}, r"gpu_type: b200 is on no node .* it has h100 \(8 per node\)"),
        ({"gpus_per_node": 9}, r"cluster.gpus_per_node: 9, which no node has; they have h100 \(8 per node\)"),
        ({"partition": "debug", "gpus_per_node": 1}, "cluster.gpus_per_node: 1, which no node has; they have none"),
        ({"memory_per_node": "3T"}, "cluster.memory_per_node: 3T, which no node has; at most 2063000M"),
        ({"ranks_per_node": 8, "cpus_per_rank": 13}, "13 x 8 ranks = 104 cores, which no node has; at most 96 per"),
        ({"constraint": "h100&gen5"}, "cluster.constraint: gen5 is a feature of no node; there are h100, ib, nvlink"),
        ({"nodes": 33}, "cluster.nodes: 33, but 32 nodes have the GPUs, memory and cores asked for"),
        ({"account": "vision"}, "cluster.account: there is no vision for you here; use one of guests, nlp"),
        ({"account": "guests"}, "cluster.account: guests may not use partition gpu; it takes nlp,vision"),
        ({"qos": "gold"}, "cluster.qos: there is no gold for you here; use one of long, normal"),
        ({"partition": "debug", "qos": "long"}, "cluster.qos: long may not use partition debug; it takes all but long"),
    ],
)  # fmt: skip
def test_what_is_not_there(fields: dict[str, object], words: str) -> None:
    cluster = ClusterConfig.model_validate({"scheduler": "slurm", **fields})
    with pytest.raises(UserError, match=words):
        _check(cluster)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"partition": "preempt,gpu", "time_limit": "9-00", "gpu_type": "a100", "gpus_per_node": 4},
        {"nodes": 32, "gpus_per_node": 8, "gpu_type": "h100", "ranks_per_node": 8, "cpus_per_rank": 12},
        {"memory_per_node": "2000G", "time_limit": "2-00:00:00", "constraint": "[h100*2&ib]", "account": "NLP"},
    ],
)
def test_what_is_there(fields: dict[str, object]) -> None:
    _check(ClusterConfig.model_validate({"scheduler": "slurm", **fields}))


def test_arrays() -> None:
    check(ClusterConfig(scheduler="slurm"), facts_of("24.11.5"), array=20001)
    with pytest.raises(UserError, match="array: 20002 tasks, but MaxArraySize is 20001; make fewer"):
        check(ClusterConfig(scheduler="slurm"), facts_of("24.11.5"), array=20002)


def _check(cluster: ClusterConfig) -> None:
    check(cluster, facts_of("24.11.5"))
    check_user(cluster, facts_of("24.11.5"), _USER)

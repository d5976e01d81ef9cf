"""How many jobs at once: the smallest limit is named, with what is in the queue already."""

from dataclasses import replace

import pytest

from trainwright.config.cluster import ClusterConfig
from trainwright.config.errors import UserError
from trainwright.launchers.array_limits import array_size, check_job_count, check_room
from trainwright.launchers.user_limits import UserLimits, parse_user_limits

from .test_cluster_config import facts_of

_NLP = ClusterConfig(scheduler="slurm", account="nlp", qos="long")
_QUEUED = [("nlp", "long")] * 3 + [("guests", "normal")] * 5


def _limits() -> UserLimits:
    associations = "nlp|normal,long||10|||\nguests|normal||||||\n"
    return parse_user_limits(associations, "guests\n", "normal|00:00:00|\nlong|00:00:30|8\n")


def test_array_size() -> None:
    facts = facts_of("24.11.5")
    assert array_size(facts) == 20001
    words = {**facts.config, "SchedulerParameters": "bf_continue,max_array_tasks=50,bf_window=1440"}
    assert array_size(replace(facts, config=words)) == 50


def test_jobs_of_the_whole_cluster() -> None:
    check_job_count(facts_of("24.11.5"), 10000)
    with pytest.raises(UserError, match="sweep: 10001 runs, but MaxJobCount of this cluster is 10000"):
        check_job_count(facts_of("24.11.5"), 10001)


def test_limits_of_account_and_qos() -> None:
    check_room(_NLP, _limits(), 5, _QUEUED)
    with pytest.raises(UserError, match="6 runs, but MaxSubmitJobsPerUser of QOS long is 8, and you have 3 jobs in"):
        check_room(_NLP, _limits(), 6, _QUEUED)
    with pytest.raises(UserError, match="8 runs, but MaxSubmitJobs of account nlp is 10, and you have 3 jobs in the"):
        check_room(_NLP.model_copy(update={"qos": "normal"}), _limits(), 8, _QUEUED)


def test_without_limits_there_is_room() -> None:
    check_room(ClusterConfig(scheduler="slurm"), _limits(), 5000, _QUEUED)
    check_room(_NLP, UserLimits(), 5000, _QUEUED)

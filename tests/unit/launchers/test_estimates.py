"""Costs, losses and intervals: against numbers worked out by hand, and the optimum against a search for it."""

import math
import random

import pytest

from trainwright.config.cluster import ClusterConfig
from trainwright.config.run import RunConfig
from trainwright.launchers.estimates import PUBLISHED_MTBF_NODE_HOURS, Estimate, estimates, optimum_interval_s
from trainwright.tracking.timings import Timings

_TIMINGS = Timings(step_s=2.0, save_s=18.0, longest_save_s=20.0, restart_s=100.0)


def _run(**cluster: object) -> RunConfig:
    return RunConfig.model_validate(
        {
            "schema_version": 1,
            "name": "tiny",
            "model": "config.json",
            "data": {"train": [{"store": "store.zarr"}], "sequence_length": 32},
            "train": {"steps": 1000, "global_batch_size": 4},
            "checkpoint": {"every_steps": 100},
            "cluster": {"scheduler": "slurm", **cluster},
        }
    )


_GPUS = {"nodes": 4, "gpus_per_node": 8, "ranks_per_node": 8, "price_per_gpu_hour": 2.5, "mtbf_node_hours": 400.0}


def test_every_number_by_hand() -> None:
    found = estimates(_run(**_GPUS), _TIMINGS, 7200.0)
    numbers = {name: estimate.value for name, estimate in found.items()}
    assert numbers["hours_at_most"] == 64  # 4 x 8 GPUs x 2 h
    assert numbers["price_at_most"] == 160
    wall_s = 1000 * 2 + 10 * 18 + 100
    assert numbers["hours_expected"] == pytest.approx(32 * wall_s / 3600)
    assert numbers["price_expected"] == pytest.approx(2.5 * 32 * wall_s / 3600)
    assert numbers["lost_steps"] == 50
    assert numbers["lost_s"] == 50 * 2 + 18 + 100
    assert numbers["lost_steps_graceful"] == 0
    assert numbers["mtbf_h"] == 100
    assert numbers["interval_s"] == pytest.approx(math.sqrt(2 * 18 * 360_000))  # 3600 s
    assert numbers["interval_steps"] == 1800
    assert found["hours_at_most"].formula == "4 nodes x 8 GPUs x 2 h time limit"
    assert found["hours_expected"].unit == "GPU-hours"


def test_what_is_not_known_says_so_and_is_never_zero() -> None:
    found = estimates(_run(gpus_per_node=8), Timings(), None)
    known = {name for name, estimate in found.items() if estimate.value is not None}
    assert known == {"lost_steps", "lost_steps_graceful", "mtbf_h"}
    assert found["mtbf_h"].value == PUBLISHED_MTBF_NODE_HOURS
    for name in found.keys() - known:
        assert found[name].formula.startswith(("not measured", "not known")), name


def test_preemptions_are_failures_and_their_tier_has_its_price() -> None:
    spot = {"price_per_gpu_hour": 1.0, "hours_between_preemptions": 2.0, "partition": "spot"}
    run = _run(**_GPUS, tier="preemptible", preemptible=spot, partition="gpu", qos="high")
    assert (run.cluster.on_tier().partition, run.cluster.on_tier().qos) == ("spot", "high")
    found = estimates(run, _TIMINGS, None)
    mtbf_h = 1 / (1 / 100 + 1 / 2)
    assert found["mtbf_h"].value == pytest.approx(mtbf_h)
    wall_s, lost_s = 1000 * 2 + 10 * 18 + 100, 50 * 2 + 18 + 100
    count = wall_s / (mtbf_h * 3600 - lost_s)
    assert found["interruptions"].value == pytest.approx(count)
    total = 32 * (wall_s + count * lost_s) / 3600
    assert found["hours_interrupted"].value == pytest.approx(total)
    assert found["price_interrupted"].value == pytest.approx(total)
    assert "cluster.preemptible.price_per_gpu_hour" in found["price_interrupted"].formula
    often = estimates(
        _run(**_GPUS, tier="preemptible", preemptible={"hours_between_preemptions": 0.05}), _TIMINGS, None
    )
    assert often["price_interrupted"].value is None
    assert "save more often" in often["price_interrupted"].formula


def test_a_tier_that_is_not_described() -> None:
    with pytest.raises(ValueError, match="section `preemptible` is missing"):
        _run(tier="preemptible")


def test_cpu_hours_where_there_are_no_gpus() -> None:
    run = _run(nodes=2, ranks_per_node=4, cpus_per_rank=3, price_per_cpu_hour=0.5, price_per_gpu_hour=99)
    found = estimates(run, Timings(), 3600.0)
    assert found["hours_at_most"] == Estimate(value=24, unit="CPU-hours", formula="2 nodes x 12 CPUs x 1 h time limit")
    assert found["price_at_most"].value == 12


def test_a_run_without_checkpoints_between_loses_half_of_itself() -> None:
    run = _run()
    run = run.model_copy(update={"checkpoint": run.checkpoint.model_copy(update={"every_steps": None})})
    assert estimates(run, Timings(), None)["lost_steps"].value == 500


def test_the_interval_is_near_the_best_of_all() -> None:
    """Daly's exact expected time of a run, with exponential failures, is least within a percent of the formula's."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(20):
        mtbf = 10 ** rng.uniform(3, 6)
        save = mtbf * 10 ** rng.uniform(-4, -0.5)

        def expected(interval: float, mtbf: float = mtbf, save: float = save) -> float:
            return (math.exp((interval + save) / mtbf) - 1) * mtbf / interval

        least = min(expected(mtbf * 10 ** (exponent / 100)) for exponent in range(-400, 100))
        assert expected(optimum_interval_s(save, mtbf)) <= 1.01 * least, (save, mtbf)


def test_saves_longer_than_failures_apart() -> None:
    assert optimum_interval_s(50.0, 20.0) == 20.0


def test_prices_are_not_negative() -> None:
    with pytest.raises(ValueError, match="price_per_gpu_hour"):
        ClusterConfig.model_validate({"price_per_gpu_hour": -1})

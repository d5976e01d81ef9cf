"""Learning rates at the steps that matter."""

import pytest

from trainwright.config.train import OptimizerConfig, ScheduleConfig, TrainConfig
from trainwright.parallelism.schedule import learning_rate


def train(**schedule: object) -> TrainConfig:
    return TrainConfig(
        steps=100,
        global_batch_size=1,
        optimizer=OptimizerConfig(lr=1.0),
        schedule=ScheduleConfig.model_validate({"min_lr": 0.1, **schedule}),
    )


def test_warm_up_is_linear_and_reaches_the_peak() -> None:
    config = train(name="cosine", warmup_steps=10)
    assert [learning_rate(config, step) for step in (1, 5, 10)] == pytest.approx([0.1, 0.5, 1.0])


def test_cosine_ends_at_the_minimum() -> None:
    config = train(name="cosine", warmup_steps=20)
    assert learning_rate(config, 60) == pytest.approx(0.55)
    assert learning_rate(config, 100) == pytest.approx(0.1)
    rates = [learning_rate(config, step) for step in range(20, 101)]
    assert rates == sorted(rates, reverse=True)


def test_wsd_stays_then_decays() -> None:
    config = train(name="wsd", warmup_steps=10, decay_steps=20)
    assert learning_rate(config, 80) == 1.0
    assert learning_rate(config, 90) == pytest.approx(0.55)
    assert learning_rate(config, 100) == pytest.approx(0.1)
    assert learning_rate(train(name="wsd"), 90) == 1.0  # a tenth of the steps if not given
    assert learning_rate(train(name="wsd"), 95) == pytest.approx(0.55)


def test_constant() -> None:
    assert {learning_rate(train(name="constant"), step) for step in (1, 50, 100)} == {1.0}


def test_a_run_shorter_than_its_warm_up() -> None:
    assert learning_rate(train(name="cosine", warmup_steps=200), 100) == pytest.approx(0.5)

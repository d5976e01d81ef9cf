"""The learning rate as a pure function of the step: nothing to save, nothing to drift on resume."""

import math

from ..config.train import TrainConfig


def learning_rate(train: TrainConfig, step: int) -> float:
    """Learning rate of optimizer step `step` (counted from 1 to train.steps).

    Warm-up rises linearly and reaches lr at step warmup_steps. cosine: min_lr + (lr - min_lr)(1 + cos(pi t))/2 with t
    from 0 at the end of warm-up to 1 at the last step (Loshchilov and Hutter, 2017). wsd: lr until the last
    decay_steps, then linear to min_lr (Hu et al., MiniCPM, 2024).
    """
    schedule, peak = train.schedule, train.optimizer.lr
    if step <= schedule.warmup_steps:
        return peak * step / schedule.warmup_steps
    if schedule.name == "constant":
        return peak
    after = max(1, train.steps - schedule.warmup_steps)
    if schedule.name == "cosine":
        done = min(1.0, (step - schedule.warmup_steps) / after)
        return schedule.min_lr + (peak - schedule.min_lr) * (1 + math.cos(math.pi * done)) / 2
    decay = min(after, schedule.decay_steps or max(1, train.steps // 10))
    left = max(0, train.steps - step)
    return peak if left >= decay else schedule.min_lr + (peak - schedule.min_lr) * left / decay

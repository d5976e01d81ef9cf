"""megatron-core's own engine, with the faults of toy_faults."""

from typing import Any

from toy_faults import Faults  # type: ignore[import-not-found]


def with_faults(engine: type) -> type:
    """The class, with faults before its steps and saves."""

    class Faulty(engine):  # type: ignore[misc]
        def __init__(self, run: Any, model: Any, layout: Any, rank: int) -> None:
            super().__init__(run, model, layout, rank)
            self._faults = Faults(rank)

        def train_step(self, *args: Any, **kwargs: Any) -> Any:
            self._faults.before_step()
            return super().train_step(*args, **kwargs)

        def owned_state(self) -> Any:
            self._faults.before_save()
            return super().owned_state()

    return Faulty

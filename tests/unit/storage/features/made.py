"""Random features of random documents, and what is known of each at any time, found by the plainest means."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

from trainwright.storage.features.importing import ImportOptions, import_features
from trainwright.storage.features.times import format_time, parse_time
from trainwright.storage.features.values import Value

FIRST, LAST = parse_time("2026-01-01"), parse_time("2026-12-31")
_NAMES = ("quality", "language", "checked", "cluster")


@dataclass(frozen=True)
class Made:
    """A features file and the history that went into it."""

    path: Path
    documents: list[str]
    history: dict[tuple[str, str], dict[int, Value]]
    """Values by event time, of each document and feature."""

    def known(self, document: str, time: int) -> dict[str, Value]:
        """What is known of a document at a time."""
        found = {}
        for (of, name), values in self.history.items():
            times = [each for each in values if each <= time]
            if of == document and times:
                found[name] = values[max(times)]
        return found


def random_value(name: str, chance: random.Random) -> Value:
    """A value of one of the features."""
    if name == "quality":
        return chance.choice((chance.random(), 0.5, 1.0))
    if name == "language":
        return chance.choice(("en", "de", "zh-Hant", "ünï", ""))
    return chance.random() < 0.5 if name == "checked" else chance.choice((0, 1, -7, 1 << 60, -(1 << 63)))


def make_features(folder: Path, chance: random.Random, num_documents: int, documents: list[str] | None = None) -> Made:
    """Make `features.db` in three imports, in an order that has nothing to do with event times."""
    documents = documents or [chance.randbytes(16).hex() for _ in range(num_documents)]
    times = [FIRST, LAST, *(chance.randint(FIRST, LAST) for _ in range(20))]
    history: dict[tuple[str, str], dict[int, Value]] = {}
    for document in documents:
        for name in _NAMES:
            if chance.random() < 0.8:
                chosen = chance.sample(times, chance.randint(1, 5))
                history[document, name] = {time: random_value(name, chance) for time in chosen}
    lines = [
        json.dumps({"document": document, "event_time": format_time(time), name: value})
        for (document, name), values in history.items()
        for time, value in values.items()
    ]
    chance.shuffle(lines)
    path = folder / "features.db"
    for number in range(3):
        file = folder / f"part-{number}.jsonl"
        file.write_text("\n".join(lines[number::3]) + "\n")
        import_features([file], path, ImportOptions())
    return Made(path, documents, history)

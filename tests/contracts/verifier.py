"""A process that verifies one case after another, since importing takes longest: reads JSON lines, answers the same.

`verifier.py ENGINE`; a line is {"case": name, "folder": ..., "mutation": name or null}.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.update(CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1")

from tests.contracts import transformer_engine
from tests.contracts.cases import TRANSFORMER_ENGINE, UNMARKED
from tests.contracts.mutations import SEEDED, UPSTREAM
from trainwright.parallelism.verify import ranks, verification

_CHANGES = {name: change for name, (change, _) in (SEEDED | UPSTREAM).items()}
_CHANGES[TRANSFORMER_ENGINE] = transformer_engine.install
_CHANGES[UNMARKED] = transformer_engine.install_unmarked


def _verify(folder: Path, mutation: str | None) -> dict[str, Any]:
    original = ranks.compute

    def mutated(*args: Any) -> None:
        if mutation is not None:
            _CHANGES[mutation]()
        original(*args)

    vars(ranks)["compute"] = mutated
    try:
        return verification.verify(folder)
    finally:
        vars(ranks)["compute"] = original


if __name__ == "__main__":
    verification.prepare(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what ranks print must not be among the answers
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = _verify(Path(asked["folder"]), asked["mutation"])
        except Exception as error:
            answer = {"failed": str(error)}
        print(json.dumps(answer), file=answers, flush=True)

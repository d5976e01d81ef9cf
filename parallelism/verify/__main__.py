"""`python -m trainwright.parallelism.verify FOLDER`: compute a small run's layout and one rank's, and compare them.

FOLDER has the small run as run.yaml and its model as config.json; `result.json` is written there. Only the CPU is used.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, compute and write."""
    parser = argparse.ArgumentParser(description="Compare a small run's layout with one rank.")
    parser.add_argument("folder", type=Path, help="folder with run.yaml and config.json")
    folder: Path = parser.parse_args(argv).folder
    os.environ.update(CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1")  # before torch is imported
    from ...config.errors import FoundBad
    from ...config.loading import load_frozen
    from .verification import prepare, verify

    prepare(load_frozen(folder / "run.yaml").parallelism.engine)
    try:
        result = verify(folder)
    except FoundBad as error:
        print(error, file=sys.stderr)
        return 3
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

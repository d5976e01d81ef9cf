"""The sampler's own process: asks NVML once a second, writes a JSON line on stdout. It may hang: nobody waits.

First line {"gpus": [...]}, or {"not_measured": reason} and the end; then {"readings": [...]}. Ends with its reader.
"""

import json
import os
import sys
import time
from dataclasses import asdict

from .nvml import Nvml
from .nvml_devices import NotMeasured


def main(every_s: float) -> int:
    """Sample until nobody reads; returns the exit code."""
    try:
        nvml = Nvml(os.environ)
        _write({"gpus": [asdict(gpu) for gpu in nvml.gpus]})
        while True:
            _write({"readings": [asdict(reading) for reading in nvml.read()]})
            time.sleep(every_s)
    except NotMeasured as reason:
        _write({"not_measured": str(reason)})
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _write(record: object) -> None:
    print(json.dumps(record), flush=True)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))

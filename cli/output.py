"""What commands print: one JSON object on stdout with --json, else text; progress always goes to stderr."""

import argparse
import json
from typing import Any


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """The `--json` that every command takes."""
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def emit(arguments: argparse.Namespace, record: dict[str, Any], text: str) -> None:
    """Print `record` as JSON if asked for, else `text`."""
    print(json.dumps(record) if arguments.json else text, flush=True)

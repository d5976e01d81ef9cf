"""From a run file, a profile and overrides to one checked RunConfig."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from .cluster import ClusterConfig
from .errors import UserError
from .profiles import load_profile
from .run import RunConfig
from .urls import absolute, without_secrets
from .yaml_file import parse_yaml, read_mapping


def load_run(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run file, put its profile beneath it and the overrides (`a.b=value`) on top, and check it all.

    Paths in the result are absolute; relative ones are taken from the run file's folder.
    Raises UserError with the dotted field, its value and the remedy.
    """
    fields = read_mapping(path)
    if _is_frozen(fields) and any(override.startswith("cluster.profile=") for override in overrides):
        fields["cluster"] = {}  # a frozen section has every field: it gives way as a whole to a new profile
    for override in overrides:
        _set(fields, override)
    cluster = fields.get("cluster") or {}
    if isinstance(cluster, dict) and not _is_frozen(fields):
        name = cluster.get("profile", "local")
        if isinstance(name, str) and name:
            fields["cluster"] = {**load_profile(name, path.parent), **cluster}
    return _absolute(_checked(fields, str(path)), path.parent.absolute())


def load_cluster(profile: str) -> ClusterConfig:
    """The cluster section of a profile alone, which is looked for in the working directory too.

    Raises UserError naming the profile's field that is wrong.
    """
    fields = {**load_profile(profile, Path.cwd()), "profile": profile}
    try:
        return ClusterConfig.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UserError(f"profile {profile}: {field}", repr(first["input"]), first["msg"]) from None


def load_frozen(path: Path) -> RunConfig:
    """Read a run file that dump_run wrote: it holds every field, so no profile is put beneath it."""
    return _checked(read_mapping(path), str(path))


def _is_frozen(fields: dict[str, Any]) -> bool:
    """Whether the cluster section needs no profile, since every field is given, as dump_run writes it."""
    cluster = fields.get("cluster")
    return isinstance(cluster, dict) and set(cluster) >= set(ClusterConfig.model_fields)


def dump_run(run: RunConfig) -> str:
    """The run as YAML that load_run reads back to the same tree."""
    return yaml.safe_dump(run.model_dump(mode="json"), sort_keys=False, width=120)


def _set(fields: dict[str, Any], override: str) -> None:
    """Put one `dotted.key=value` into the tree; `data.train.0.store=x` reaches into lists."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(override, "not an override", "write section.field=value, such as train.steps=100")
    value = parse_yaml(text, key)
    *parents, last = key.split(".")
    node: Any = fields
    for depth, part in enumerate(parents):
        if isinstance(node, list):
            node = _item(node, part, key)
            continue
        child = node.get(part)
        if child is None:
            child = node[part] = {}
        if not isinstance(child, (dict, list)):
            raise UserError(key, f"{'.'.join(parents[: depth + 1])} is a value ({child!r})", "override it whole")
        node = child
    if isinstance(node, list):
        node[node.index(_item(node, last, key))] = value
    else:
        node[last] = value


def _item(items: list[Any], part: str, key: str) -> Any:
    if not part.isdigit() or int(part) >= len(items):
        raise UserError(key, f"{part!r} is not a place in a list of {len(items)}", f"use 0 to {len(items) - 1}")
    return items[int(part)]


def _checked(fields: dict[str, Any], where: str) -> RunConfig:
    try:
        return RunConfig.model_validate(fields)
    except ValidationError as error:
        raise _first_error(error, where) from None


def _first_error(error: ValidationError, where: str) -> UserError:
    """The first of pydantic's errors as one line; unknown fields first, since a typo explains a missing field."""
    errors = sorted(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
    item = errors[0]
    field = ".".join(str(part) for part in item["loc"]) or where
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    if item["type"] == "extra_forbidden":
        valid = _valid_names(item["loc"][:-1])
        near = difflib.get_close_matches(str(item["loc"][-1]), valid, n=1, cutoff=0.5)
        prefix = "".join(f"{part}." for part in item["loc"][:-1])
        remedy = f"did you mean {prefix}{near[0]}?" if near else f"valid here: {', '.join(valid)}"
        return UserError(f"{where}: {field}", f"unknown field, value {_short(item['input'])}", remedy + more)
    if item["type"] == "missing":
        return UserError(f"{where}: {field}", "is missing", f"add it{more}")
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error" and isinstance(item["input"], (dict, BaseModel)):
        name, colon, rest = message.partition(": ")  # a check of a whole section names the field that breaks it
        if colon and name.replace(".", "").isidentifier():
            return UserError(f"{where}: {field}.{name}", rest, f"change one of them{more}")
        return UserError(f"{where}: {field}", message, f"change one of them{more}")
    return UserError(f"{where}: {field}", _short(item["input"]), f"{message[:1].lower()}{message[1:]}{more}")


def _valid_names(parents: tuple[int | str, ...]) -> list[str]:
    """Names of the fields of the section at `parents`."""
    kind: Any = RunConfig
    for part in parents:
        if isinstance(part, int):
            continue
        annotation = kind.model_fields[part].annotation
        arguments = getattr(annotation, "__args__", ())
        kind = arguments[0] if arguments and not hasattr(annotation, "model_fields") else annotation
    return list(kind.model_fields)


def _short(value: object) -> str:
    text = without_secrets(repr(value))
    return text if len(text) <= 60 else text[:57] + "..."


def _absolute(run: RunConfig, folder: Path) -> RunConfig:
    """The same run with every path made absolute."""
    sources = [source.model_copy(update={"store": absolute(source.store, folder)}) for source in run.data.train]
    update: dict[str, Any] = {
        "runs": _path(run.runs, folder),
        "model": _path(run.model, folder),
        "data": run.data.model_copy(update={"train": sources}),
    }
    held = [each.model_copy(update={"store": absolute(each.store, folder)}) for each in run.evaluation.stores]
    update["evaluation"] = run.evaluation.model_copy(update={"stores": held})
    start: dict[str, str] = {}
    resume_from, init_from = run.checkpoint.resume_from, run.checkpoint.init_from
    if resume_from and (folder / resume_from.partition("@")[0]).is_dir():  # else a run's name
        start["resume_from"] = _path(resume_from, folder)
    if init_from:
        start["init_from"] = _path(init_from, folder)
    update["checkpoint"] = run.checkpoint.model_copy(update=start)
    return run.model_copy(update=update)


def _path(text: str, folder: Path) -> str:
    return str(Path(folder, Path(text).expanduser()))

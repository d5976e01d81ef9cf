"""Options that are known to train wrongly in some versions of an engine: refused there, each with reason and source.

Only what a run file can ask for is here. What is wrong in versions that our own parts replace or mend is not: the
contract suite finds it as soon as a mend is missing. No torch.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

from packaging.specifiers import SpecifierSet

from .errors import UserError
from .layout import Layout
from .run import RunConfig
from .versions import installed_versions


@dataclass(frozen=True, kw_only=True)
class KnownWrong:
    """One combination, the versions in which it is wrong, and where that is told."""

    package: str
    versions: str
    """As pip writes them: `>=0.17.6,<0.18.3`."""
    when: Callable[[RunConfig, int], bool]
    """Whether a run has it, by its run file and the micro batches of a step."""
    field: str
    what: str
    """The combination, in words."""
    reason: str
    source: str
    good: str
    """What works instead, beside another version."""


_DEEPSPEED = "https://github.com/deepspeedai/DeepSpeed"
KNOWN_WRONG = (
    KnownWrong(
        package="deepspeed",
        versions="<0.19.0",
        when=lambda run, micro: run.parallelism.offload == "cpu" and run.parallelism.zero < 3 and micro > 1,
        field="parallelism.offload",
        what="cpu with zero 1 or 2 and several micro batches in a step",
        reason="gradients of all but some micro batches are lost",
        source=f"{_DEEPSPEED}/pull/7967, {_DEEPSPEED}/pull/7981 and, before 0.15.2, {_DEEPSPEED}/pull/6550",
        good="use zero 3, or offload none",
    ),
    KnownWrong(
        package="deepspeed",
        versions="<0.19.0",
        when=lambda run, micro: run.parallelism.zero == 1 and run.train.precision == "bf16" and micro > 1,
        field="parallelism.zero",
        what="1 with bf16 and several micro batches in a step",
        reason="the last micro batch's gradients are left out of the sum over ranks",
        source=f"{_DEEPSPEED}/pull/7985",
        good="use zero 3",
    ),
    KnownWrong(
        package="deepspeed",
        versions=">=0.17.6,<0.18.3",
        when=lambda run, micro: run.parallelism.zero == 2,
        field="parallelism.zero",
        what="2",
        reason="gradients are wrong, and their norm is a third of what it should be",
        source=f"{_DEEPSPEED}/issues/7718",
        good="use zero 3",
    ),
    KnownWrong(
        package="deepspeed",
        versions="<0.16.5",
        when=lambda run, micro: run.parallelism.overlap and run.parallelism.zero < 3,
        field="parallelism.overlap",
        what="true with zero 1 or 2",
        reason="gradients are read while they are still being reduced",
        source=f"{_DEEPSPEED}/issues/5347",
        good="use false, or zero 3",
    ),
)


def known_wrong_rule(run: RunConfig, layout: Layout) -> None:
    """Raises UserError naming the field, why it is wrong with the version that is installed here, and who says so."""
    package = "deepspeed" if run.parallelism.engine == "deepspeed" else "megatron-core"
    version = _version(package)
    if version is None:
        return
    micro = run.train.global_batch_size // (run.train.micro_batch_size * layout.data)
    for known in KNOWN_WRONG:
        if known.package == package and known.when(run, micro) and _concerns(known, version):
            raise UserError(
                known.field,
                f"{known.what}: in {package} {version} {known.reason} ({known.source})",
                f"{known.good}, or install {package} outside of {known.versions}",
            )


def _concerns(known: KnownWrong, version: str) -> bool:
    return SpecifierSet(known.versions).contains(version, prereleases=True)


@functools.cache
def _version(package: str) -> str | None:
    return installed_versions().get(package)

"""Which rank and which collective everyone waits for, told from the ranks' reports of a hang: pure, but for reading."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..config.rundir import RunDir
from ..tracking.hang_reports import (
    HangReport,
    Waiting,
    numbers_text,
    ranks_text,
    read_reports,
    where_in_dump,
)
from ..tracking.ledger import Event
from .logs import read_log

_STATES = {
    "T": "it is stopped by a signal",
    "t": "a debugger holds it",
    "D": "it waits for a device or file system that does not answer",
    "": "its process is gone",
}


@dataclass(frozen=True, kw_only=True)
class Hang:
    """Who is waited for, and one line that says so."""

    line: str
    ranks: list[int]
    """Those at fault, lowest first; empty if none is more so than others."""


def name_hang(run: RunDir, attempt: int, events: Sequence[Event], world_size: int) -> Hang:
    """Read the reports of an attempt, name the cause, and say it at the end of the logs that one reads first."""
    reports = read_reports(run, attempt)
    hosts = {event.fields["rank"]: event.fields["host"] for event in events if event.event == "start"}
    silent = {rank: hosts.get(rank, "") for rank in range(world_size) if rank not in reports}
    dumps = {rank: where_in_dump(read_log(run.stacks(attempt, rank))) for rank in silent}
    hang = diagnose(reports, silent, dumps)
    for path in {run.rank_log(attempt, rank) for rank in (0, *hang.ranks[:1])} | {run.batch_log(attempt)}:
        with path.open("a", encoding="utf-8") as file:
            file.write(f"trainwright: {hang.line}\n")
    return hang


def diagnose(reports: Mapping[int, HangReport], silent: Mapping[int, str], dumps: Mapping[int, str]) -> Hang:
    """Name the cause. `silent`: host of each rank that has not reported; `dumps`: where such a rank was, if known."""
    case = _Case(reports, silent, dumps)
    return case.mismatch() or case.missing() or case.circle() or case.all_are_in() or case.nobody_waits()


class _Case:
    """One hang. Each method gives a Hang if it is of that kind."""

    def __init__(self, reports: Mapping[int, HangReport], silent: Mapping[int, str], dumps: Mapping[int, str]) -> None:
        self._reports, self._silent, self._dumps = reports, silent, dumps
        self._waits = [(rank, wait) for rank, report in sorted(reports.items()) for wait in report.waiting]
        self._blockers: dict[int, set[int]] = {}
        for rank, wait in self._waits:
            self._blockers.setdefault(rank, set()).update(self._absent(rank, wait))

    def _absent(self, rank: int, wait: Waiting) -> set[int]:
        """Those of an operation who have not entered it."""
        return {other for other in wait.ranks if other != rank and not self._has_entered(other, wait)}

    def _has_entered(self, rank: int, wait: Waiting) -> bool:
        report = self._reports.get(rank)
        entered = report.entered.get(wait.channel) if report else None
        return entered is not None and entered.count >= wait.sequence

    def mismatch(self) -> Hang | None:
        """Ranks of one group have called different collectives."""
        for _, wait in self._waits:
            called: dict[str, list[int]] = {}
            for rank in wait.ranks if not wait.peer_to_peer else []:
                entered = self._reports[rank].entered.get(wait.channel) if rank in self._reports else None
                operation = entered.operation(wait.sequence) if entered else None
                if operation:
                    called.setdefault(operation, []).append(rank)
            if len(called) > 1:
                [*few, _] = sorted(called, key=lambda operation: len(called[operation]))
                odd = sorted(rank for operation in few for rank in called[operation])
                told = ", ".join(f"{ranks_text(ranks)} {operation}" for operation, ranks in sorted(called.items()))
                what = f"different collectives were called as #{wait.sequence} of the {_group(wait)}"
                return _hang(f"{what}: {told}; {self._where(odd)}", odd)
        return None

    def missing(self) -> Hang | None:
        """Ranks that others wait for, while they themselves wait for nobody."""
        wanted = {rank for ranks in self._blockers.values() for rank in ranks}
        roots = {rank for rank in wanted if not self._blockers.get(rank)}
        if not roots:
            return None
        waiters: dict[tuple[str, int], list[int]] = {}
        for rank, wait in self._waits:
            if self._absent(rank, wait) & roots:
                waiters.setdefault((wait.channel, wait.sequence), []).append(rank)
        # First an operation whose ranks are waited for in others, then that in which most ranks wait.
        channel, sequence = max(waiters, key=lambda key: (bool(wanted & {*waiters[key]}), len(waiters[key])))
        inside = waiters[channel, sequence]
        wait = next(wait for _, wait in self._waits if (wait.channel, wait.sequence) == (channel, sequence))
        absent = sorted(self._absent(inside[0], wait) & roots)
        behind = sorted(set(self._blockers) - set(inside) - set(absent))
        also = sorted(roots - set(absent))
        line = f"{ranks_text(absent)} {'have' if len(absent) > 1 else 'has'} not entered {_operation(wait)} "
        line += f"({ranks_text(inside)} {_wait_s(inside)} in it"
        line += f", {ranks_text(behind)} elsewhere" if behind else ""
        line += f"); {self._where([*absent, *also])}"
        return _hang(line, [*absent, *also])

    def circle(self) -> Hang | None:
        """Every rank that is waited for waits itself."""
        edges = {rank: min(others) for rank, others in self._blockers.items() if others}
        if not edges:
            return None
        seen: list[int] = []
        rank = min(edges)
        while rank not in seen:
            seen.append(rank)
            rank = edges[rank]
        ring = seen[seen.index(rank) :]
        parts = []
        for rank in ring:
            wait = next(w for r, w in self._waits if r == rank and edges[rank] in self._absent(rank, w))
            parts.append(f"rank {rank} for rank {edges[rank]} in {_operation(wait)}")
        return _hang(f"ranks wait for each other in a circle: {'; '.join(parts)}", sorted(ring))

    def all_are_in(self) -> Hang | None:
        """An operation that all its ranks have entered does not end."""
        if not self._waits:
            return None
        _, wait = self._waits[0]
        said = f"all have entered {_operation(wait)}, and it does not end (the network, or sizes that differ)"
        return _hang(said, [])

    def nobody_waits(self) -> Hang:
        """No rank is in an operation that was recorded."""
        everyone = sorted([*self._reports, *self._silent])
        return _hang(f"no rank is in a collective; {self._where(everyone)}", sorted(self._silent))

    def _where(self, ranks: Sequence[int]) -> str:
        """Where ranks are; those at one place together."""
        places: dict[str, list[int]] = {}
        for rank in ranks:
            places.setdefault(self._place(rank), []).append(rank)
        shown = list(places.items())[:4]
        parts = [f"{ranks_text(them)} {_agree(place, them)}" for place, them in shown]
        return "; ".join(parts + [f"others at {len(places) - 4} more places"] * (len(places) > 4))

    def _place(self, rank: int) -> str:
        report = self._reports.get(rank)
        if report is not None:
            return f"is in {report.where}"
        states = [other.silent[rank] for other in self._reports.values() if rank in other.silent]
        known = _STATES.get(states[0], "it runs, but Python in it does not") if states else ""
        told = [each for each in (f"on {self._silent[rank]}" if self._silent.get(rank) else "", known) if each]
        where = f", in {self._dumps[rank]}" if self._dumps.get(rank) else ""
        return f"does not answer ({', '.join(told) or 'nothing is known of it'}){where}"


def _hang(line: str, ranks: Iterable[int]) -> Hang:
    return Hang(line=f"hang: {line}", ranks=list(ranks))


def _operation(wait: Waiting) -> str:
    if wait.peer_to_peer:
        source, target = wait.channel.rpartition(":")[2].split(">")
        return f"send/recv #{wait.sequence} from rank {source} to rank {target} of the {wait.name}"
    return f"{wait.operation} #{wait.sequence} of the {_group(wait)}"


def _group(wait: Waiting) -> str:
    return f"{wait.name} [{numbers_text(wait.ranks)}]"


def _agree(words: str, ranks: Sequence[int]) -> str:
    """The verb at the beginning in the plural, where there are several."""
    if len(ranks) == 1:
        return words
    verb, _, rest = words.partition(" ")
    return " ".join(({"is": "are", "does": "do"}[verb], rest))


def _wait_s(ranks: Sequence[int]) -> str:
    return "wait" if len(ranks) > 1 else "waits"

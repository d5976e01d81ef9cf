"""`trainwright doctor`: what will and will not work on a Slurm cluster, told from its configuration and by canaries."""

import argparse
import sys
from typing import TYPE_CHECKING

from .host import add_host_options
from .output import add_json_option, emit

if TYPE_CHECKING:
    from ..launchers.doctor.report import Report


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`doctor [--profile NAME] [--write-profile NAME] [--canary]`."""
    text = "say what will and will not work on a Slurm cluster; exit code 3 if something will not"
    parser = commands.add_parser("doctor", help=text, description=text)
    parser.add_argument("--profile", metavar="NAME", help="profile to look at (default: the cluster of this shell)")
    parser.add_argument("--write-profile", metavar="NAME", help="write a profile that suits the cluster")
    parser.add_argument(
        "--save-time", type=float, default=60.0, metavar="S", help="seconds that saving a checkpoint takes (default 60)"
    )
    parser.add_argument("--canary", action="store_true", help="submit a job that shows which process gets which signal")
    parser.add_argument(
        "--canary-time-limit", action="store_true", help="a second job, of a minute, that runs into its time limit"
    )
    parser.add_argument(
        "--canary-preempt", metavar="PARTITION", help="a job that a second one, in this partition, pushes off its node"
    )
    parser.add_argument(
        "--patience", type=float, default=600.0, metavar="S", help="seconds that canaries may wait in the queue"
    )
    add_json_option(parser)
    add_host_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Examine the cluster; 3 if something will not work, or a canary saw other things than were predicted."""
    from dataclasses import asdict

    from ..launchers.doctor.canary import Wanted
    from ..launchers.doctor.report import examine

    asked = arguments.canary or arguments.canary_time_limit or arguments.canary_preempt
    wanted = Wanted(
        time_limit=arguments.canary_time_limit, preempt=arguments.canary_preempt, patience_s=arguments.patience
    )
    report = examine(arguments.profile, arguments.save_time, wanted if asked else None, _say)
    if arguments.write_profile:
        from ..launchers.doctor.profile import write_profile

        path = write_profile(arguments.write_profile, report.profile, f"{report.cluster}, {report.partition}")
        print(f"wrote {path}", file=sys.stderr)
    emit(arguments, asdict(report), report_text(report))
    return 0 if report.fine else 3


def report_text(report: "Report") -> str:
    """The report for people: what is bad first, then who gets which signal, then a profile."""
    lines = [f"Slurm {report.version}, cluster {report.cluster}, partition {report.partition}", ""]
    for finding in report.findings:
        lines.append(f"{finding.severity:<5} {finding.text}")
        lines.append(f"      {finding.line}")
        if finding.remedy:
            lines.append(f"      -> {finding.remedy}")
    lines += ["", *_matrix(report), *_canary(report), "", "a profile for it:"]
    lines += [f"  {name}: {value}" for name, value in report.profile.items()]
    return "\n".join(lines)


def _matrix(report: "Report") -> list[str]:
    """One block per event, one line for the kinds of processes that get the same."""
    from ..launchers.doctor.canary import span
    from ..launchers.doctor.predict import EVENTS

    lines = ["who gets which signal, in seconds after the first one:"]
    for event, text in EVENTS.items():
        mine = [delivery for delivery in report.predicted if delivery.event == event]
        lines.append(f"  {text}{'' if mine else ': not predicted here'}")
        same: dict[str, list[str]] = {}
        for delivery in mine:
            got = [f"{name} at {span(window)}" for name, window in sorted(delivery.signals.items())]
            end = [f"SIGKILL at {span(delivery.kill)}"] if delivery.kill else []
            same.setdefault(", ".join([*got, *end]) or "nothing", []).append(delivery.process)
        lines += [f"    {', '.join(processes):<29} {got}" for got, processes in same.items()]
    return lines


def _canary(report: "Report") -> list[str]:
    from ..launchers.doctor.predict import EVENTS

    if report.observed is None:
        return ["", "not observed: --canary submits a job that shows it"]
    seen = {observed.event for observed in report.observed}
    lines = ["", f"canary: {len(report.differences)} differences"]
    lines += [f"  {line}" for line in report.differences]
    return lines + [f"  not observed: {text}" for event, text in EVENTS.items() if event not in seen]


def _say(message: str) -> None:
    print(f"trainwright: {message}", file=sys.stderr, flush=True)

"""`trainwright cluster dev up|down|status`: a real multi-node Slurm on this machine."""

import argparse
from typing import TYPE_CHECKING

from .output import add_json_option, emit

if TYPE_CHECKING:
    from ..launchers.dev_cluster import DevClusterStatus


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`cluster dev ACTION`."""
    parser = commands.add_parser("cluster", help="the dev cluster: a real Slurm on this machine")
    kinds = parser.add_subparsers(dest="kind", metavar="dev", required=True)
    dev = kinds.add_parser("dev", help="several Slurm nodes on this machine; its folder is $TRAINWRIGHT_DEV_CLUSTER")
    actions = dev.add_subparsers(dest="action", metavar="up|down|status", required=True)
    for name, text in (
        ("up", "start it, or find it up (root)"),
        ("down", "end it and what it runs (root)"),
        ("status", "say what runs"),
    ):
        action = actions.add_parser(name, help=text, description=text)
        add_json_option(action)
        action.set_defaults(run=run)
        if name == "up":
            action.add_argument("--nodes", type=int, default=2, metavar="N", help="number of nodes (default 2)")
            action.add_argument(
                "--loopback", action="store_true", help="all nodes on 127.0.0.1, as where namespaces are impossible"
            )
            _add_settings(action)


def _add_settings(action: argparse.ArgumentParser) -> None:
    """Options for what differs from site to site."""
    action.add_argument(
        "--preemption", action="store_true", help="jobs of a second partition, `urgent`, push those of `main` away"
    )
    action.add_argument(
        "--grace", type=int, default=0, metavar="S", help="seconds that a preempted job is left (default 0)"
    )
    action.add_argument(
        "--user-signal", action="store_true", help="a preempted job gets the signal that it asked for (--signal)"
    )
    action.add_argument(
        "--gpus", type=int, default=0, metavar="N", help="GPUs that Slurm counts on each node (not real)"
    )
    action.add_argument("--accounting", action="store_true", help="keep accounts for sacct (slurmdbd and MariaDB)")


def run(arguments: argparse.Namespace) -> int:
    """Do it; `status` ends with 3 if the cluster is broken."""
    from ..config.profiles import dev_cluster_folder
    from ..launchers import dev_cluster

    folder = dev_cluster_folder()
    if arguments.action == "up":
        settings = dev_cluster.ClusterSettings(
            preemption=arguments.preemption,
            grace_s=arguments.grace,
            user_signal=arguments.user_signal,
            gpus_per_node=arguments.gpus,
            accounting="kept" if arguments.accounting else "none",
        )
        _show(arguments, dev_cluster.up(folder, arguments.nodes, arguments.loopback, settings))
        return 0
    if arguments.action == "down":
        ended = dev_cluster.down(folder)
        emit(arguments, {"ended": ended, "folder": str(folder)}, f"dev cluster {'down' if ended else 'was not up'}")
        return 0
    now = dev_cluster.status(folder)
    _show(arguments, now)
    return 3 if now.state == "broken" else 0


def _show(arguments: argparse.Namespace, now: "DevClusterStatus") -> None:
    from dataclasses import asdict

    if now.state == "down":
        emit(arguments, asdict(now), f"dev cluster is down ({now.folder}); start it with `trainwright cluster dev up`")
        return
    lines = [f"dev cluster is {now.state} ({now.form}), {len(now.nodes)} nodes, state in {now.folder}"]
    lines += [f"  {name}  {word}" for name, word in now.nodes.items()]
    lines += [f"  {name}'s daemon is gone" for name, lives in now.daemons.items() if not lives]
    lines += [
        "use it:  trainwright submit RUN.yaml cluster.profile=dev",
        f"or:      export SLURM_CONF={now.slurm_conf}",
    ]
    emit(arguments, asdict(now), "\n".join(lines))

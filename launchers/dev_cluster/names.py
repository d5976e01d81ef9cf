"""Names, addresses and files of one dev cluster; nothing here touches the machine."""

from dataclasses import dataclass, field
from pathlib import Path

from .settings import ClusterSettings


@dataclass(frozen=True, kw_only=True)
class ClusterNames:
    """What one dev cluster calls its parts. `index` keeps clusters on one machine apart."""

    folder: Path
    index: int
    num_nodes: int
    loopback: bool
    """All daemons share the machine's own network on 127.0.0.1, each with its own port."""
    ctl_port: int = 6817
    node_port: int = 6818
    """Port of every slurmd; of the first one in the loopback form, where the others follow."""
    dbd_port: int = 6819
    """Port of slurmdbd, where accounts are kept."""
    settings: ClusterSettings = field(default_factory=ClusterSettings)

    @property
    def slurm_conf(self) -> Path:
        return self.folder / "slurm.conf"

    @property
    def devices(self) -> Path:
        """Folder of the device files that Slurm takes for GPUs."""
        return self.folder / "devices"

    @property
    def bridge(self) -> str:
        return f"twdev{self.index}"

    @property
    def bridge_address(self) -> str:
        return f"10.213.{self.index}.1"

    @property
    def controller(self) -> str:
        """Host name and network namespace of the controller."""
        return f"twdev{self.index}-ctl"

    @property
    def nodes(self) -> list[str]:
        """Host names of the nodes, which are their Slurm names and their network namespaces too."""
        return [f"twdev{self.index}-node{number}" for number in range(1, self.num_nodes + 1)]

    @property
    def hosts(self) -> dict[str, str]:
        """Address of every host of the cluster by name, the controller first."""
        names = [self.controller, *self.nodes]
        return {name: "127.0.0.1" if self.loopback else f"10.213.{self.index}.{2 + n}" for n, name in enumerate(names)}

    def veth(self, host: str) -> str:
        """The bridge's end of the cable to `host` (interface names hold 15 characters)."""
        return f"twv{self.index}-{list(self.hosts).index(host)}"

    @property
    def hosts_mark(self) -> str:
        """End of our lines in /etc/hosts."""
        return f"# trainwright dev cluster {self.index}"

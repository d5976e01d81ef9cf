"""The address on which other nodes reach this one."""

import array
import fcntl
import socket
import struct

from ..config.errors import UserError

_SIOCGIFADDR = 0x8915
_UNROUTED = ("192.0.2.1", 9)  # TEST-NET: nothing is sent, the kernel only says which address it would use


def node_address(interface: str | None) -> str:
    """IPv4 address of `interface`; if None, of this host's name, else of the route outwards, else loopback."""
    if interface is not None:
        return _interface_address(interface)
    return _name_address() or _route_address() or "127.0.0.1"


def _interface_address(interface: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = array.array("B", struct.pack("256s", interface.encode()[:15]))
        try:
            fcntl.ioctl(probe, _SIOCGIFADDR, request, True)
        except OSError:
            names = ", ".join(name for _, name in socket.if_nameindex())
            problem = f"{interface!r} has no address on {socket.gethostname()}"
            raise UserError("cluster.network_interface", problem, f"use one of {names}") from None
    return socket.inet_ntoa(request.tobytes()[20:24])


def _name_address() -> str | None:
    try:
        found = socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return None
    return next((str(entry[4][0]) for entry in found if not str(entry[4][0]).startswith("127.")), None)


def _route_address() -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_UNROUTED)
        except OSError:
            return None
        return str(probe.getsockname()[0])

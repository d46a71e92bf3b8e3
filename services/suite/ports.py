"""Which ports of this machine are free; who listens on them is not known here."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from kit.rpc.ports import bind_anywhere


def refusal(port: int) -> str:
    """Why nothing can listen on a port; empty when it can."""
    if not 0 <= port <= 65535:
        return "does not exist;"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            return "is reserved for the administrator of this machine;"
        except OSError:
            return "is in use; stop what listens there or"
    return ""


def choose(wanted: Mapping[str, int]) -> dict[str, int]:
    """A port for each name: the wanted one where it is free, else any that is; 0 wants any."""
    held: list[socket.socket] = []
    chosen: dict[str, int] = {}
    for name, port in wanted.items():
        held.append(probe := socket.socket())
        if port and not refusal(port):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            chosen[name] = port
        else:
            chosen[name] = bind_anywhere(probe)
    for probe in held:
        probe.close()
    return chosen

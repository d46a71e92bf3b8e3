"""Ports of 127.0.0.1 for servers that start later; who will listen there is not known here."""

from __future__ import annotations

import random
import socket
from pathlib import Path

#: Ports that hardly anybody else listens on by custom.
_QUIET = range(20_000, 30_000)
_TRIES = 100


def bind_anywhere(probe: socket.socket) -> int:
    """Binds a socket to a free port that the system gives to nobody by itself; returns the port.

    Between now and the start of its server, and whenever that is down, any other port may become one end of somebody's
    outgoing connection (ip(7), `ip_local_port_range`), and then the server could not start.
    """
    quiet = [port for port in _QUIET if port < _first_given_away()]
    for port in random.sample(quiet, min(_TRIES, len(quiet))):
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return port
    probe.bind(("127.0.0.1", 0))
    return int(probe.getsockname()[1])


def free_port() -> int:
    """Such a port; a server that finds it taken all the same must say so."""
    with socket.socket() as probe:
        return bind_anywhere(probe)


def _first_given_away() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text("ascii").split()[0])
    except OSError:
        return 32_768  # Linux's own default

"""Ports for servers that start later: the system gives them to nobody meanwhile."""

import socket
from pathlib import Path

import pytest

from kit.rpc.ports import bind_anywhere, free_port


def test_a_port_is_none_that_the_system_gives_away():
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    if low <= 20_000:
        pytest.skip("the system gives nearly all ports away")
    with socket.create_server(("127.0.0.1", free_port())) as server:
        assert not low <= server.getsockname()[1] <= high


def test_two_do_not_have_the_same():
    with socket.socket() as one, socket.socket() as other:
        assert bind_anywhere(one) != bind_anywhere(other)
        with pytest.raises(OSError):
            socket.create_server(one.getsockname())

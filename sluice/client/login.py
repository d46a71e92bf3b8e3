"""Where a client was told to go and as whom, so that other processes can have one of their own; it sends nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from kit.rpc.errors import Invalid

if TYPE_CHECKING:
    import grpc

    from sluice.client.sync import Client


@dataclass(frozen=True)
class Login:
    """The arguments of a client. What was not given is looked up anew in another process."""

    address: str
    api_key: str = field(repr=False)
    project: str
    timeout_s: float
    tls: grpc.ChannelCredentials | None = field(default=None, repr=False)
    #: Whether it had such credentials in the process that it comes from.
    had_tls: bool = False

    def client(self) -> Client:
        """A client for as long as this process lives; the same one however often it is asked for.

        Raises Invalid where it wants credentials that no other process can be given.
        """
        if self.had_tls:
            raise Invalid(
                "a client with `tls` is not taken to another process; read in the one that made it (`num_workers=0`), "
                "or make a client in each worker"
            )
        return _client(os.getpid(), self)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "tls": None, "had_tls": self.had_tls or self.tls is not None}

    def __deepcopy__(self, memo: dict[int, Any]) -> Login:
        return self


@cache
def _client(process: int, login: Login) -> Client:
    """A connection does not survive a fork, so that a forked process has another."""
    from sluice.client.sync import Client

    return Client(login.address, login.api_key, login.project, tls=login.tls, timeout_s=login.timeout_s)

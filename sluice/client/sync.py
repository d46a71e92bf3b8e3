"""Client: AsyncClient without ``await``; every method is the asynchronous one, waited for."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import grpc

from sluice.client import aio, groups
from sluice.client.blocking import Facade, LoopThread, blocking
from sluice.client.login import Login


class Client(Facade):
    """A suite, seen by one key in one project; ``with Client() as client``. Arguments as in AsyncClient."""

    def __init__(
        self,
        address: str = "",
        api_key: str = "",
        project: str = "",
        *,
        tls: grpc.ChannelCredentials | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        """Nothing is sent before the first call; callbacks such as ``progress`` come from another thread."""
        loop = LoopThread()

        async def make() -> aio.AsyncClient:
            return aio.AsyncClient(address, api_key, project, tls=tls, timeout_s=timeout_s)

        try:
            self._client = loop.run(make())
        except BaseException:
            loop.stop()
            raise
        super().__init__(loop, self._client)
        login = Login(address, api_key, project, timeout_s, tls)
        self.datasets = groups.Datasets(loop, self._client.datasets, login)
        self.feeds = groups.Feeds(loop, self._client.feeds)
        self.jobs = groups.Jobs(loop, self._client.jobs)
        self.models = groups.Models(loop, self._client.models)
        self.evaluations = groups.Evaluations(loop, self._client.evaluations)
        self.endpoints = groups.Endpoints(loop, self._client.endpoints)
        self.rollouts = groups.Rollouts(loop, self._client.rollouts)
        self.deployments = groups.Deployments(loop, self._client.deployments)
        self.keys = groups.Keys(loop, self._client.keys)
        self.projects = groups.Projects(loop, self._client.projects)
        self.gate_policies = groups.GatePolicies(loop, self._client.gate_policies)
        self.task_types = groups.TaskTypes(loop, self._client.task_types)
        self.erasures = groups.Erasures(loop, self._client.erasures)
        self.grants = groups.Grants(loop, self._client.grants)
        self.records = groups.Records(loop, self._client.records)
        self.storage = groups.Storage(loop, self._client.storage)
        self.catalogue = groups.Catalogue(loop, self._client.catalogue)

    train = blocking(aio.AsyncClient.train)
    recipe = blocking(aio.AsyncClient.recipe)
    spec = blocking(aio.AsyncClient.spec)

    @property
    def address(self) -> str:
        """Where the suite is, `host:port`."""
        return self._client.address

    @property
    def project(self) -> str:
        """The project that short names are of, `projects/{project}`."""
        return self._client.project

    def events(self, *services: str) -> groups.EventLog:
        """The event log of these services, or of all five."""
        return groups.EventLog(self._loop, self._client.events(*services))

    def close(self) -> None:
        """Ends the channel, every call on it, and the thread."""
        if self._client:
            self._loop.run(self._client.close())
            self._loop.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

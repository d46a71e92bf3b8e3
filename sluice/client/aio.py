"""AsyncClient: one group of methods a noun, thin over the generated stubs; its only state is a channel."""

from __future__ import annotations

from types import TracebackType
from typing import Self, Unpack

import grpc

from sluice.client import mirrors, specs
from sluice.client.access import GatePolicies, Keys, Projects
from sluice.client.catalogue import Catalogue
from sluice.client.connection import Connection
from sluice.client.datasets import Datasets
from sluice.client.evaluations import Evaluations
from sluice.client.eventlog import EventLog
from sluice.client.feeds import Feeds
from sluice.client.governance import Erasures, Grants, Records
from sluice.client.jobs import Jobs
from sluice.client.models import Models
from sluice.client.serving import Deployments, Endpoints, Rollouts
from sluice.client.storage import Storage
from sluice.client.task_types import TaskTypes
from sluice.trainer import v1 as trainer


class AsyncClient:
    """A suite, seen by one key in one project; ``async with AsyncClient() as client``.

    Empty arguments are looked up: SLUICE_ADDRESS, SLUICE_API_KEY, SLUICE_PROJECT, then the suite that runs in
    SLUICE_HOME and the credentials file that `sluice up` wrote. Methods raise the kinds of
    ``kit.rpc.errors.Fault``. Reads, and changes that carry a request id, are repeated while the suite is
    unavailable; nothing else is.
    """

    def __init__(
        self,
        address: str = "",
        api_key: str = "",
        project: str = "",
        *,
        tls: grpc.ChannelCredentials | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        """Must be made inside a running event loop; ``timeout_s`` is the deadline of one unary call."""
        self._connection = Connection(address, api_key, project, tls=tls, timeout_s=timeout_s)
        self.datasets = Datasets(self._connection)
        self.feeds = Feeds(self._connection)
        self.jobs = Jobs(self._connection)
        self.models = Models(self._connection)
        self.evaluations = Evaluations(self._connection)
        self.endpoints = Endpoints(self._connection)
        self.rollouts = Rollouts(self._connection)
        self.deployments = Deployments(self._connection)
        self.keys = Keys(self._connection)
        self.projects = Projects(self._connection)
        self.gate_policies = GatePolicies(self._connection)
        self.task_types = TaskTypes(self._connection)
        self.erasures = Erasures(self._connection)
        self.grants = Grants(self._connection)
        self.records = Records(self._connection)
        self.storage = Storage(self._connection)
        self.catalogue = Catalogue(self.datasets)

    @property
    def address(self) -> str:
        """Where the suite is, `host:port`."""
        return self._connection.address

    @property
    def project(self) -> str:
        """The project that short names are of, `projects/{project}`."""
        return self._connection.project

    async def train(
        self,
        *,
        dataset: str,
        model: str,
        task_type: str = "",
        base: str = "",
        endpoint: str = "",
        gate_policy: str = "",
        seed: int = 0,
        display_name: str = "",
        **hyperparameters: Unpack[specs.Hyperparameters],
    ) -> trainer.TrainingJob:
        """Submits a training job; an empty ``task_type`` is that of the dataset.

        ``dataset`` and ``base`` are names such as `bank-intents@3` and `bank-bot@stable`. Raises Invalid
        naming a hyperparameter that the recipe does not have.
        """
        spec = await self.spec(
            dataset=dataset,
            model=model,
            task_type=task_type,
            base=base,
            endpoint=endpoint,
            gate_policy=gate_policy,
            seed=seed,
            **hyperparameters,
        )
        return await self.jobs.create(spec, display_name)

    async def spec(
        self, *, dataset: str, task_type: str = "", **given: Unpack[specs.Wanted]
    ) -> trainer.TrainingJobSpec:
        """What ``train`` submits, for ``jobs.plan`` and ``jobs.create``; raises as ``train`` does."""
        task_type = task_type or (await self.datasets.get(dataset.partition("@")[0])).task_type
        recipe = await self.recipe(task_type)
        if mirrors.is_source_id(given.get("base", "")):
            given["base"] = await self.models.numbered(given["base"])
        return specs.training_spec(self.project, dataset=dataset, task_type=task_type, recipe=recipe, **given)

    async def recipe(self, task_type: str) -> str:
        """The recipe that trains a task type; the built-in ones are not asked for."""
        if task_type in specs.RECIPES:
            return task_type
        return (await self.task_types.get(task_type)).recipe

    def events(self, *services: str) -> EventLog:
        """The event log of these services, or of all five."""
        return EventLog(self._connection, services)

    async def close(self) -> None:
        """Ends the channel and every call on it."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

"""Erasures, grants, and what was done with rows: who may, who did, and what must be forgotten."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Sequence

from kit.rpc.errors import Invalid
from sluice import lifecycle
from sluice.client import names
from sluice.client.access import ROLES
from sluice.client.connection import Connection, gather
from sluice.dataset import v1 as dataset

ACCESSES = {"project": dataset.DATASET_ACCESS_PROJECT, "granted": dataset.DATASET_ACCESS_GRANTED}
RIGHTS = {"read": dataset.RIGHT_READ, "write": dataset.RIGHT_WRITE}


def access_of(word: str) -> dataset.DatasetAccess:
    """`granted` gives DATASET_ACCESS_GRANTED; raises Invalid naming what there is."""
    if word not in ACCESSES:
        raise Invalid(f"there is no access `{word}`; there are {' and '.join(ACCESSES)}")
    return ACCESSES[word]


def grantee(project: str, name: str) -> str:
    """`ci` gives `projects/p/apiKeys/ci`, `role:engineering` gives `roles/engineering`; raises Invalid."""
    if not name.startswith("role:"):
        return names.api_key(project, name)
    role = name.removeprefix("role:")
    if role not in ROLES or role in ("admin", "inference"):
        some = ", ".join(word for word in ROLES if word not in ("admin", "inference"))
        raise Invalid(f"nothing is granted to the role `{role}`; there are {some}")
    return f"roles/{role}"


class Erasures:
    """``client.erasures``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._erasures = dataset.ErasureServiceStub(connection.channel)

    async def create(
        self, name: str, column: str, values: Sequence[str], reason: str, *, dry_run: bool = False
    ) -> dataset.Erasure:
        """Orders that the rows of a dataset be forgotten whose ``column`` is one of the values; see `watch`.

        ``column`` is `id`, `group`, `tags`, or what an upload called one of these, such as `patient_id`. With
        ``dry_run`` they are only counted. Raises Denied unless the caller owns the dataset or is an administrator.
        """
        request = dataset.CreateErasureRequest(
            parent=names.dataset(self._connection.project, name),
            column=column,
            values=values,
            reason=reason,
            dry_run=dry_run,
        )
        answer: dataset.CreateErasureResponse = await self._connection.call(self._erasures.CreateErasure, request)
        return answer.erasure

    async def get(self, name: str) -> dataset.Erasure:
        """One erasure by its resource name; raises NotFound."""
        request = dataset.GetErasureRequest(name=name)
        answer: dataset.GetErasureResponse = await self._connection.call(self._erasures.GetErasure, request)
        return answer.erasure

    async def list(self, name: str, limit: int = 0) -> builtins.list[dataset.Erasure]:
        """The erasures of a dataset, newest first."""
        request = dataset.ListErasuresRequest(parent=names.dataset(self._connection.project, name))
        method = self._erasures.ListErasures
        return await gather(self._connection.pages(method, request, lambda page: page.erasures, limit=limit))

    async def watch(self, name: str) -> AsyncIterator[dataset.Erasure]:
        """The erasure as it is and whenever it changes, until it is over; breaks of the connection are mended."""
        request = dataset.WatchErasureRequest(name=name)

        async def snapshots() -> AsyncIterator[dataset.Erasure]:
            async for answer in self._connection.stream(self._erasures.WatchErasure, request):
                yield answer.erasure

        def over(erasure: dataset.Erasure) -> bool:
            return lifecycle.is_over(lifecycle.ERASURE, erasure.state)

        async for erasure in self._connection.follow(snapshots, over):
            yield erasure


class Grants:
    """``client.grants``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._grants = dataset.GrantServiceStub(connection.channel)
        self._datasets = dataset.DatasetServiceStub(connection.channel)

    async def govern(
        self, name: str, *, access: str = "", owner: str = "", retention_days: int | None = None
    ) -> dataset.Dataset:
        """Changes who may know of a dataset (`project` or `granted`), whose it is, how long old versions are kept.

        Raises Denied unless the caller owns it or is an administrator, and Invalid when nothing is given.
        """
        project = self._connection.project
        wanted, fields = dataset.Dataset(name=names.dataset(project, name)), []
        if access:
            wanted.access = access_of(access)
            fields.append("access")
        if owner:
            wanted.owner = names.api_key(project, owner)
            fields.append("owner")
        if retention_days is not None:
            wanted.retention_days = retention_days
            fields.append("retention_days")
        if not fields:
            raise Invalid("nothing is to be changed; give an access, an owner or days of retention")
        request = dataset.UpdateDatasetRequest(dataset=wanted)
        request.update_mask.paths.extend(fields)
        answer: dataset.UpdateDatasetResponse = await self._connection.call(self._datasets.UpdateDataset, request)
        return answer.dataset

    async def give(self, name: str, to: str, right: str = "read") -> dataset.Grant:
        """Gives a key (`ci`) or a role (`role:engineering`) the right to read or write a dataset."""
        if right not in RIGHTS:
            raise Invalid(f"there is no right `{right}`; there are {' and '.join(RIGHTS)}")
        grant = dataset.Grant(grantee=grantee(self._connection.project, to), right=RIGHTS[right])
        request = dataset.CreateGrantRequest(parent=names.dataset(self._connection.project, name), grant=grant)
        answer: dataset.CreateGrantResponse = await self._connection.call(self._grants.CreateGrant, request)
        return answer.grant

    async def take(self, name: str, of: str) -> None:
        """Takes the right of a key or role on a dataset away; raises NotFound when it has none."""
        holder = grantee(self._connection.project, of)
        found = next((each.name for each in await self.list(name) if each.grantee == holder), "")
        if not found:
            kind, _, id_ = holder.rpartition("/")
            id_ = f"role.{id_}" if kind == "roles" else f"key.{kind.split('/')[1]}.{id_}"
            found = f"{names.dataset(self._connection.project, name)}/grants/{id_}"
        request = dataset.DeleteGrantRequest(name=found)
        await self._connection.call(self._grants.DeleteGrant, request)

    async def list(self, name: str, limit: int = 0) -> builtins.list[dataset.Grant]:
        """The rights on a dataset, oldest first."""
        request = dataset.ListGrantsRequest(parent=names.dataset(self._connection.project, name))
        method = self._grants.ListGrants
        return await gather(self._connection.pages(method, request, lambda page: page.grants, limit=limit))


class Records:
    """``client.records``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._audit = dataset.AuditEntryServiceStub(connection.channel)
        self._uses = dataset.ModelUseServiceStub(connection.channel)

    async def audit(self, name: str, limit: int = 0, *, reads_only: bool = False) -> list[dataset.AuditEntry]:
        """Who read and who changed a dataset, newest first; for auditors and administrators."""
        parent = names.dataset(self._connection.project, name)
        request = dataset.ListAuditEntriesRequest(parent=parent, reads_only=reads_only)
        method = self._audit.ListAuditEntries
        return await gather(self._connection.pages(method, request, lambda page: page.audit_entries, limit=limit))

    async def models(self, name: str, limit: int = 0) -> list[dataset.ModelUse]:
        """Which model versions saw a dataset, `bank-intents`, or one version of it, `bank-intents@3`; newest first."""
        project = self._connection.project
        of = (
            names.dataset_version(project, name)
            if "@" in name or "/versions/" in name
            else names.dataset(project, name)
        )
        request = dataset.ListModelUsesRequest(parent=of)
        method = self._uses.ListModelUses
        return await gather(self._connection.pages(method, request, lambda page: page.model_uses, limit=limit))

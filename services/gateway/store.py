"""The tables of the gateway and the resources in them; what may happen to them is the domain's matter."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Index, LargeBinary, text
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from kit.store import ResourceRow, Resources, Unit
from sluice.gateway import v1 as gateway


def _one(name: str, column: str, states: str) -> Index:
    """At most one row in these states for each value of the column."""
    where = text(f"state IN ({states})")
    return Index(name, column, unique=True, sqlite_where=where, postgresql_where=where)


class EndpointRow(ResourceRow, table=True):
    """An endpoint."""

    __tablename__ = "gateway_endpoint"


class RolloutRow(ResourceRow, table=True):
    """A rollout; at most one of an endpoint is preparing or progressing."""

    __tablename__ = "gateway_rollout"
    __table_args__ = (_one("gateway_rollout_active", "parent", "2, 3"),)
    model_version: str = Field(index=True)


class DeploymentRow(ResourceRow, table=True):
    """A version in an engine; at most one of a version is not released."""

    __tablename__ = "gateway_deployment"
    __table_args__ = (_one("gateway_deployment_live", "model_version", "1, 2, 3, 4"),)
    model_version: str = Field(index=True)


class CandidateRouteRow(ResourceRow, table=True):
    """A candidate route; at most one of a version is loading or ready."""

    __tablename__ = "gateway_candidate_route"
    __table_args__ = (_one("gateway_candidate_route_live", "model_version", "1, 2"),)
    model_version: str = Field(index=True)


class WeightsRow(SQLModel, table=True):
    """What the registry said of the weights of a version; they never change, so it is asked once."""

    __tablename__ = "gateway_weights"
    model_version: str = Field(primary_key=True)
    digest: str = Field(index=True)
    #: A LoadModelRequest.
    request: bytes = Field(sa_type=LargeBinary)


class RevokedRow(SQLModel, table=True):
    """A version whose approval was taken away, for ever; no route takes it in again."""

    __tablename__ = "gateway_revoked"
    model_version: str = Field(primary_key=True)


class TableRow(SQLModel, table=True):
    """The one row that numbers route tables."""

    __tablename__ = "gateway_table"
    id: int = Field(primary_key=True)
    revision: int


ENDPOINTS = Resources(EndpointRow, gateway.Endpoint)
ROLLOUTS = Resources(
    RolloutRow,
    gateway.Rollout,
    lambda each: {"model_version": each.model_version},
    enums={"state": gateway.RolloutState},
)
DEPLOYMENTS = Resources(
    DeploymentRow,
    gateway.Deployment,
    lambda each: {"model_version": each.model_version},
    enums={"state": gateway.DeploymentState},
)
CANDIDATES = Resources(
    CandidateRouteRow,
    gateway.CandidateRoute,
    lambda each: {"model_version": each.model_version},
    enums={"state": gateway.CandidateRouteState},
)


async def revision(session: AsyncSession) -> int:
    """The number of the present route table, from 1: to a worker 0 means that it has none."""
    row = await session.get(TableRow, 1)
    return row.revision if row else 1


async def next_revision(unit: Unit) -> int:
    """Numbers the route table that the unit makes."""
    number = await revision(unit.session) + 1
    await unit.session.merge(TableRow(id=1, revision=number))
    return number


async def revoked(session: AsyncSession, versions: Collection[str]) -> list[str]:
    """Those of the versions that were revoked."""
    query = select(col(RevokedRow.model_version)).where(col(RevokedRow.model_version).in_(versions))
    return sorted((await session.exec(query)).all())


async def mark_revoked(unit: Unit, version: str) -> None:
    """Remembers that a version may never serve again."""
    await unit.session.merge(RevokedRow(model_version=version))


async def weights_of(session: AsyncSession, version: str) -> gateway.LoadModelRequest | None:
    """The weights of a version, if they are known."""
    row = await session.get(WeightsRow, version)
    return gateway.LoadModelRequest.FromString(row.request) if row else None


async def keep_weights(unit: Unit, version: str, request: gateway.LoadModelRequest) -> None:
    """Remembers what the registry said of the weights of a version."""
    row = WeightsRow(
        model_version=version,
        digest=request.artifact.digest,
        request=request.SerializeToString(deterministic=True),
    )
    await unit.session.merge(row)


async def digests(session: AsyncSession) -> dict[str, str]:
    """The digest of the weights of each version that has been loaded once."""
    query = select(col(WeightsRow.model_version), col(WeightsRow.digest))
    return dict((await session.exec(query)).all())

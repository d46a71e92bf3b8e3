"""Which events of this service a member of a project may see: the log tells of datasets, too, and of who read them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sqlmodel.ext.asyncio.session import AsyncSession

from kit.auth import Principal
from kit.rpc.names import project_of
from kit.store import OutboxRow, event_type
from services.dataset import store
from services.dataset.governance import grants
from sluice.dataset import v1 as dataset
from sluice.types import v1 as types

_DATASET = re.compile(r"projects/[a-z0-9-]+/datasets/[a-z0-9-]+")
#: What is for auditors alone, as it is at `ListAuditEntries`.
RECORD = event_type(dataset.ReadEnded)
AUDITORS = frozenset({types.ROLE_AUDITOR, types.ROLE_ADMIN})


async def sift(session: AsyncSession, principal: Principal, rows: Sequence[OutboxRow]) -> Sequence[OutboxRow]:
    """Of events those that tell of no dataset that the principal may not know, nor of reads; auditors see all."""
    if principal.service:
        return rows
    about = {row.id: set(_DATASET.findall(f"{row.subject} {row.data_json}")) for row in rows}
    mentioned = sorted(set().union(*about.values()))
    closed = await store.DATASETS.find(session, name=mentioned, access=int(dataset.DATASET_ACCESS_GRANTED))
    hidden = {
        each.name
        for each in closed
        if not grants.may(principal, each, await grants.rights_on(session, each.name), grants.READ)
    }
    return [
        row
        for row in rows
        if principal.has_role(project_of(row.subject), AUDITORS) or (row.type != RECORD and not about[row.id] & hidden)
    ]

"""How tests hand rows to feeds: events as the systems of a hospital and a bank send them, and NATS as they reach it."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from nats.aio.client import Client

from tests.suite import Suite

#: What a PACS says when a report is signed; `data` is the report as it has it.
PACS_REPORT = {
    "specversion": "1.0",
    "id": "ACC-20260504-0117/2",
    "source": "//pacs.radiology.example-hospital.org",
    "type": "org.example-hospital.pacs.report.signed",
    "subject": "ACC-20260504-0117",
    "time": "2026-05-04T09:31:07Z",
    "datacontenttype": "application/json",
    "data": {
        "accession": "ACC-20260504-0117",
        "patient": "P-4711",
        "modality": "CR",
        "findings": "右肺上叶见斑片状高密度影，边界模糊。",
        "impression": "右肺上叶感染性病变可能，建议随访。",
    },
}
PACS_COLUMNS = {"findings": "prompt", "impression": "completion", "patient": "group", "accession": "id"}

#: What a CRM says when tickets were closed, several at a time.
CRM_TICKETS = {
    "specversion": "1.0",
    "id": "5f0c4a52-3b0e-4d8f-9a51-0e3f5a1b2c3d",
    "source": "/crm/service-desk",
    "type": "com.example-bank.crm.tickets.closed",
    "data": {
        "rows": [
            {
                "ticket": "T-1",
                "customer": "I lost my card in Leeds",
                "agent": "I have blocked it; a new one is on its way",
            },
            {"ticket": "T-2", "customer": "Why was I charged twice?", "agent": "One of the two is a hold and lapses"},
        ]
    },
}
CRM_COLUMNS = {"customer": "prompt", "agent": "completion", "ticket": "id"}


def event(like: Mapping[str, Any], id: str, **data: Any) -> bytes:
    """An event like that one, with an id of its own and other data where it is given."""
    return json.dumps({**like, "id": id, "data": data or like["data"]}, ensure_ascii=False, indent=1).encode()


@asynccontextmanager
async def outside(running: Suite, user: str = "feeds") -> AsyncIterator[Client]:
    """NATS as an outside system sees it: by the user `feeds`."""
    password = json.loads((running.home / "nats" / "credentials.json").read_text())[user]
    client = Client()
    refused: list[str] = []

    async def on_error(error: Exception) -> None:
        refused.append(str(error))

    await client.connect(
        f"nats://127.0.0.1:{running.ports['nats']}",
        user=user,
        password=password,
        inbox_prefix=f"_INBOX.{user}",
        allow_reconnect=False,
        error_cb=on_error,
    )
    client.refused = refused  # type: ignore[attr-defined]
    try:
        yield client
    finally:
        await client.close()

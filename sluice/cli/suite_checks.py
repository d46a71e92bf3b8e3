"""The check of `sluice doctor` that asks a running suite: is it there, is the key known, does each service answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sluice.cli.checks import Context, Finding

if TYPE_CHECKING:
    from sluice.client import Client

#: One cheap authenticated read of each service.
READS: dict[str, Callable[[Client], Any]] = {
    "registry": lambda client: client.models.list(limit=1),
    "dataset": lambda client: client.datasets.list(limit=1),
    "trainer": lambda client: client.jobs.list(limit=1),
    "evaluator": lambda client: client.evaluations.list(limit=1),
    "gateway": lambda client: client.endpoints.list(limit=1),
}


def suite(context: Context) -> list[Finding]:
    """The suite answers, knows the key, and each service answers a read through the one public port."""
    from kit.rpc.errors import Fault, Invalid, Unauthenticated, Unavailable
    from sluice.client import Client
    from sluice.local_suite import local_address

    try:
        client = Client(context.address, project=context.project, timeout_s=5)
    except Invalid:
        return []  # a broken credentials file; said already
    with client:
        try:
            who = client.keys.whoami()
        except Unauthenticated as fault:
            repair = "set SLUICE_API_KEY to a key that works, or ask an administrator for one"
            return [
                Finding("ok", "suite", f"answers at {client.address}"),
                Finding("wrong", "key", fault.message, repair),
            ]
        except Unavailable:
            if client.address == local_address(context.home):
                repair = f"`sluice status` tells what does not serve, {context.home}/logs why; `sluice down` ends it"
                return [Finding("wrong", "suite", f"runs here, but does not answer at {client.address}", repair)]
            repair = "`sluice up` starts one here; elsewhere set SLUICE_ADDRESS"
            return [Finding("mind", "suite", f"nothing answers at {client.address}", repair)]
        except Fault as fault:
            return [Finding("wrong", "suite", fault.message, "`sluice status` and $SLUICE_HOME/logs tell more")]
        found = [
            Finding("ok", "suite", f"answers at {client.address}"),
            Finding("ok", "key", f"{who.principal} is known"),
        ]
        services = [_service(client, name, read) for name, read in READS.items()]
        return [*found, *services, *_dead_letters(client), *_damaged(client)]


def _service(client: Client, name: str, read: Callable[[Client], Any]) -> Finding:
    from kit.rpc.errors import Denied, Fault

    try:
        read(client)
    except Denied:
        return Finding("ok", name, "answers; this key may not read there")
    except Fault as fault:
        repair = f"`sluice status` tells whether it runs, $SLUICE_HOME/logs/{name}.log why not"
        return Finding("wrong", name, fault.message, repair)
    return Finding("ok", name, "answers")


def _dead_letters(client: Client) -> list[Finding]:
    """What the services could not handle and what nobody has sent again yet; nothing to whom it is not shown."""
    from kit.rpc.errors import Denied, Fault

    try:
        letters = client.events().dead_letters()
    except Denied:
        return []
    except Fault as fault:
        return [Finding("wrong", "dead letters", fault.message, "`sluice status` tells what does not serve")]
    if not letters:
        return [Finding("ok", "dead letters", "none")]
    where = ", ".join(sorted({letter.service for letter in letters}))
    found = f"{len(letters)} event{'s' * (len(letters) != 1)} could not be handled by {where}"
    repair = "`sluice events dead` says why; repair that, then `sluice events replay --all`"
    return [Finding("mind", "dead letters", found, repair)]


def _damaged(client: Client) -> list[Finding]:
    """Stored blobs that cannot be read, of all projects or, for a key of one project, of that."""
    from kit.rpc.errors import Denied, Fault

    try:
        try:
            found = client.storage.damaged(everywhere=True)
        except Denied:
            found = client.storage.damaged()
    except Denied:
        return []
    except Fault as fault:
        return [Finding("wrong", "stored blobs", fault.message, "`sluice status` tells what does not serve")]
    if not found:
        return [Finding("ok", "stored blobs", "none is known to be damaged")]
    versions = {version for blob in found for version in blob.dataset_versions}
    hit = f", with rows of {len(versions)} dataset version{'s' * (len(versions) != 1)}" if versions else ""
    repair = "`sluice storage damaged --everywhere` says which; upload their files again, or restore a backup"
    return [Finding("wrong", "stored blobs", f"{len(found)} cannot be read{hit}", repair)]

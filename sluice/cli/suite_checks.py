"""The checks of `sluice doctor` that ask a running suite: is it there, does the key work, does each service answer."""

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


def keys(context: Context) -> list[Finding]:
    """The suite answers, and knows the key."""
    from kit.rpc.errors import Fault, Unauthenticated, Unavailable
    from sluice.client import Client
    from sluice.client.connection import address_of

    address = address_of(context.address)
    try:
        with Client(context.address, project=context.project, timeout_s=5) as client:
            who = client.keys.whoami()
    except Unauthenticated as fault:
        repair = "set SLUICE_API_KEY to a key that works, or ask an administrator for one"
        return [Finding("ok", "suite", f"answers at {address}"), Finding("wrong", "key", fault.message, repair)]
    except Unavailable:
        repair = "`sluice up` starts one here; elsewhere set SLUICE_ADDRESS"
        return [Finding("mind", "suite", f"nothing answers at {address}", repair)]
    except Fault as fault:
        return [Finding("wrong", "suite", fault.message, "`sluice status` and $SLUICE_HOME/logs tell more")]
    return [Finding("ok", "suite", f"answers at {address}"), Finding("ok", "key", f"{who.principal} is known")]


def services(context: Context) -> list[Finding]:
    """Each service answers an authenticated read, through the one public port."""
    from kit.rpc.errors import Denied, Fault, Unauthenticated, Unavailable
    from sluice.client import Client

    findings: list[Finding] = []
    with Client(context.address, project=context.project, timeout_s=5) as client:
        try:
            client.keys.whoami()
        except (Unavailable, Unauthenticated):
            return []  # said already
        except Fault:
            pass
        for name, read in READS.items():
            try:
                read(client)
            except Denied:
                findings.append(Finding("ok", name, "answers; this key may not read there"))
            except Fault as fault:
                repair = f"`sluice status` tells whether it runs, $SLUICE_HOME/logs/{name}.log why not"
                findings.append(Finding("wrong", name, fault.message, repair))
            else:
                findings.append(Finding("ok", name, "answers"))
    return findings

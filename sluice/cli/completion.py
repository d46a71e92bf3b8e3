"""What a shell completes beyond words of the command line: names that the suite knows; it says nothing when that fails.

A word that is completed late, or with an error in the middle of it, is worse than one that is typed.
"""

from __future__ import annotations

import typer

#: Seconds that somebody waits after pressing the key, at most, once the program has started.
TIMEOUT_S = 0.5
MOST = 200


def datasets(context: typer.Context, incomplete: str) -> list[str]:
    """Names of datasets of the project that begin so."""
    from kit.rpc.errors import Fault
    from sluice.client import Client, names

    given = {**context.find_root().params, **{name: value for name, value in context.params.items() if value}}
    try:
        with Client(given.get("address") or "", project=given.get("project") or "", timeout_s=TIMEOUT_S) as client:
            known = [names.short(each.name) for each in client.datasets.list(limit=MOST)]
    except (Fault, OSError):
        return []
    return [name for name in known if name.startswith(incomplete)]

"""`sluice dataset govern`, `grant`, `revoke`, `grants` and `audit`: who may read a dataset, and who did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sluice.cli import completion, screen, words
from sluice.cli.options import GOVERN, Session, command

if TYPE_CHECKING:
    from sluice.dataset import v1 as dataset

Name = Annotated[str, typer.Argument(metavar="DATASET", help="The dataset.", autocompletion=completion.datasets)]


def add_to(app: typer.Typer) -> None:
    """Adds the commands to those of `sluice dataset`."""
    for function in (govern, grant, revoke, grants, audit):
        command(app, function.__name__, panel=GOVERN)(function)


def govern(
    session: Session,
    name: Name,
    access: Annotated[str, typer.Option(help="project: all with a role; granted: only those it is granted to.")] = "",
    owner: Annotated[str, typer.Option(help="The key whose it is from now on.")] = "",
    retention_days: Annotated[
        int | None, typer.Option(min=0, help="Days after which rows of versions are deleted; 0 keeps them.")
    ] = None,
) -> None:
    """Say who may know of a dataset, whose it is, and how long the rows of its old versions are kept."""
    changed = session.client.grants.govern(name, access=access, owner=owner, retention_days=retention_days)
    fields = {
        "dataset": words.brief(changed.name),
        "access": "granted" if _is_restricted(changed) else "project",
        "owner": words.brief(changed.owner),
        "retention": f"{changed.retention_days} days" if changed.retention_days else "for ever",
    }
    screen.fields(session, changed, fields)


def grant(
    session: Session,
    name: Name,
    to: Annotated[str, typer.Argument(metavar="WHO", help="A key, such as ci, or role:engineering.")],
    write: Annotated[bool, typer.Option("--write", help="Also to change it and upload to it.")] = False,
) -> None:
    """Let somebody read a restricted dataset; what their role does not allow, they still may not do."""
    given = session.client.grants.give(name, to, "write" if write else "read")
    screen.fields(
        session, given, {"grantee": _grantee(given), "right": _right(given), "by": words.brief(given.creator)}
    )
    if not _is_restricted(session.client.datasets.get(name)):
        screen.hint(
            session,
            f"the whole project can read it as it is: sluice dataset govern {name} --access granted restricts it",
        )


def revoke(
    session: Session,
    name: Name,
    of: Annotated[str, typer.Argument(metavar="WHO", help="A key, such as ci, or role:engineering.")],
) -> None:
    """Take somebody's right on a dataset away."""
    session.client.grants.take(name, of)
    screen.hint(session, f"{of} has no right on {name} any more")


def grants(session: Session, name: Name) -> None:
    """List who has which right on a dataset."""
    columns: screen.Columns = {
        "WHO": _grantee,
        "RIGHT": _right,
        "GIVEN": lambda each: words.when(each.create_time),
        "BY": lambda each: words.brief(each.creator),
    }
    screen.listing(session, session.client.grants.list(name), columns, "nothing is granted on this dataset")


def audit(
    session: Session,
    name: Name,
    reads: Annotated[bool, typer.Option("--reads", help="Only reads.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="0 means all.")] = 50,
) -> None:
    """List who read and who changed a dataset, newest first; for auditors and administrators."""
    columns: screen.Columns = {
        "WHEN": lambda each: words.when(each.time),
        "WHO": lambda each: words.brief(each.principal),
        "WHAT": lambda each: each.action.removeprefix("sluice.dataset.v1."),
        "OF": lambda each: words.brief(each.resource),
        "ROWS": lambda each: each.rows if each.size_bytes and each.rows >= 0 else "",
        "BYTES": lambda each: words.size(each.size_bytes) if each.size_bytes else "",
        "OUTCOME": _outcome,
    }
    found = session.client.records.audit(name, limit, reads_only=reads)
    screen.listing(session, found, columns, "nobody has read or changed it")


def about(found: dataset.Dataset) -> dict[str, str]:
    """Whose a dataset is, who may know of it and how long rows are kept, as far as that is not the usual."""
    return {
        "owner": words.brief(found.owner),
        "access": "granted: only those it is granted to" if _is_restricted(found) else "",
        "retention": f"rows of versions older than {found.retention_days} days go" if found.retention_days else "",
        "deleted": words.when(found.delete_time),
    }


def _outcome(entry: dataset.AuditEntry) -> str:
    from sluice.dataset import v1 as dataset

    return words.state(dataset.AuditOutcome, entry.outcome, "AUDIT_OUTCOME_").lower().replace("_", " ")


def _right(given: dataset.Grant) -> str:
    from sluice.dataset import v1 as dataset

    return words.state(dataset.Right, given.right, "RIGHT_").lower()


def _grantee(given: dataset.Grant) -> str:
    role = given.grantee.startswith("roles/")
    return f"role:{given.grantee.removeprefix('roles/')}" if role else words.brief(given.grantee)


def _is_restricted(found: dataset.Dataset) -> bool:
    from sluice.dataset import v1 as dataset

    return found.access == dataset.DATASET_ACCESS_GRANTED

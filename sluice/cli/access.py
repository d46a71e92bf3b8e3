"""`sluice keys` and `sluice projects`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from sluice.cli import screen, words
from sluice.cli.options import Session, command, group

keys = group("keys", "API keys: who may, and what.")
projects = group("projects", "Projects: walls between teams.")

ROLES = "admin, algorithm, engineering, operations, approver, auditor, inference, downloader"


@command(keys, "create")
def create_key(
    session: Session,
    name: Annotated[str, typer.Argument(help="What the key is for, such as ci or web-shop.")],
    role: Annotated[list[str], typer.Option(help=f"{ROLES}; repeatable.", show_default=False)],
    expires: Annotated[str, typer.Option(help="When it stops working, such as 30d; without it, never.")] = "",
    everywhere: Annotated[
        bool, typer.Option("--everywhere", help="The roles hold in all projects; event logs and dead letters ask that.")
    ] = False,
) -> None:
    """Make a key for the project. Its secret is shown here and never again."""
    expire_time = datetime.now(UTC) + timedelta(seconds=words.seconds(expires)) if expires else None
    answer = session.client.keys.create(name, role, expire_time, everywhere=everywhere)
    fields = {
        "key": words.brief(answer.api_key.name),
        "roles": _roles(answer.api_key),
        "expires": words.clock(answer.api_key.expire_time) and f"in {expires}",
        "secret": answer.secret,
    }
    screen.fields(session, answer, fields)
    screen.hint(session, "keep the secret now; it is shown only here. Use it as SLUICE_API_KEY")


@command(keys, "list")
def list_keys(session: Session) -> None:
    """List the keys of the project, without their secrets."""
    columns: screen.Columns = {
        "KEY": lambda each: words.brief(each.name),
        "BEGINS": lambda each: f"{each.prefix}…" if each.prefix else "",
        "ROLES": _roles,
        "STATE": _state,
        "EXPIRES": lambda each: str(each.expire_time.ToDatetime().date()) if each.HasField("expire_time") else "never",
        "MADE": lambda each: words.when(each.create_time),
    }
    screen.listing(session, session.client.keys.list(), columns, "no keys; `sluice keys create ci --role algorithm`")


@command(keys, "revoke")
def revoke_key(session: Session, name: Annotated[str, typer.Argument(help="The key.")]) -> None:
    """Revoke a key; it stops working everywhere within a second."""
    found = session.client.keys.revoke(name)
    screen.fields(session, found, {"key": words.brief(found.name), "state": _state(found)})


@command(projects, "list")
def list_projects(session: Session) -> None:
    """List the projects that the key has a role in."""
    columns: screen.Columns = {
        "PROJECT": lambda each: words.brief(each.name),
        "NAME": lambda each: each.display_name,
        "MADE": lambda each: words.when(each.create_time),
    }
    screen.listing(session, session.client.projects.list(), columns, "no projects for this key")


@command(projects, "create")
def create_project(
    session: Session, name: Annotated[str, typer.Argument(help="Its name; the id is made of it.")]
) -> None:
    """Make a project; only an administrator of all projects may."""
    found = session.client.projects.create(name)
    screen.fields(session, found, {"project": words.brief(found.name), "name": found.display_name})


def _roles(key: Any) -> str:
    from sluice.types import v1 as types

    return ", ".join(
        words.state(types.Role, each.role, "ROLE_").lower() + (" everywhere" if each.project == "projects/-" else "")
        for each in key.role_bindings
    )


def _state(key: Any) -> str:
    return "REVOKED" if key.HasField("revoke_time") else "works"

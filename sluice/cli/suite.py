"""`sluice up`, `down` and `status`: handed over to ``python -m services``, which this package does not import."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from sluice.cli import exits
from sluice.cli.options import Session, command

Home = Annotated[
    Path | None,
    typer.Option(help="The folder of the suite (SLUICE_HOME, else ./.sluice).", show_default=False),
]


def register(app: typer.Typer) -> None:
    """Adds `up`, `down` and `status`."""
    command(app, "up")(up)
    command(app, "down")(down)
    command(app, "status")(status)


def up(
    session: Session,
    home: Home = None,
    grpc_port: Annotated[int, typer.Option(help="The public gRPC port; 0 takes a free one.")] = 7500,
    http_port: Annotated[int, typer.Option(help="The public HTTP port; 0 takes a free one.")] = 8080,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when the suite is ready.")] = False,
) -> int:
    """Start the whole suite on this machine; Ctrl-C stops all of it.

    The first start makes the project `default` and an administrator's key, which is kept in your credentials file.
    """
    ports = ["--grpc-port", str(grpc_port), "--http-port", str(http_port)]
    return _hand_over(session, "up", home, *ports, *(["--detach"] if detach else []))


def down(session: Session, home: Home = None) -> int:
    """Stop the suite of a folder; nothing that was accepted is lost."""
    return _hand_over(session, "down", home)


def status(session: Session, home: Home = None) -> int:
    """Say which processes of the suite run and serve; exit 1 when one does not."""
    return _hand_over(session, "status", home)


def _hand_over(session: Session, name: str, home: Path | None, *more: str) -> int:
    """Becomes ``python -m services``; returns only when the services are not installed."""
    from importlib.util import find_spec

    if find_spec("services") is None:
        exits.complain("the services are not installed here, only the client; install the whole package")
        return exits.FAILED
    arguments = [sys.executable, "-m", "services", name]
    arguments += ["--home", str(home)] if home else []
    arguments += ["--json"] if session.json else []
    sys.stdout.flush()
    os.execv(sys.executable, [*arguments, *more])

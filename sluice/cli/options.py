"""The options that every command takes, wherever they stand, and the session they make; it prints nothing.

``@command(app, "list")`` registers a function whose first parameter is a Session; --json, --quiet, --address and
--project are added to its own options.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

if TYPE_CHECKING:
    from sluice.client import Client

Function = TypeVar("Function", bound=Callable[..., Any])
EVERYWHERE = "Options of every command"

Address = Annotated[
    str,
    typer.Option(
        "--address",
        help="Where the suite is, host:port (SLUICE_ADDRESS, else the one in SLUICE_HOME, else 127.0.0.1:7500).",
        show_default=False,
        rich_help_panel=EVERYWHERE,
    ),
]
Project = Annotated[
    str,
    typer.Option(
        "--project",
        help="The project that names are of (SLUICE_PROJECT, else that of the credentials).",
        show_default=False,
        rich_help_panel=EVERYWHERE,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Nothing but data and errors.", rich_help_panel=EVERYWHERE)]
Json = Annotated[
    bool,
    typer.Option("--json", help="JSON lines, fields as in the contract.", rich_help_panel=EVERYWHERE),
]
SHARED = {"json": Json, "quiet": Quiet, "address": Address, "project": Project}


class Session:
    """What one command runs with: the shared options, and a client that is made when it is first used."""

    def __init__(self, *, json: bool = False, quiet: bool = False, address: str = "", project: str = "") -> None:
        self.json = json
        self.quiet = quiet
        self.address = address
        self.project = project

    @cached_property
    def client(self) -> Client:
        """The client; nothing is sent before its first call."""
        from sluice.client import Client

        return Client(self.address, project=self.project)

    @property
    def home(self) -> Path:
        """The folder of the suite on this machine, whether there is one or not."""
        from sluice.local_suite import home_of

        return home_of()

    @contextmanager
    def traced(self, name: str) -> Iterator[None]:
        """Makes the block the first span of a trace where traces of the suite are kept from here."""
        folder = self.home / "logs" / "traces"
        otlp = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
        kept = folder.is_dir() and os.access(folder, os.W_OK)
        if not kept and not otlp:
            yield
            return
        from opentelemetry.trace import SpanKind

        from kit import telemetry

        running = telemetry.configure(
            "cli", otlp_endpoint=otlp, trace_folder=folder if kept else None, log_level="ERROR"
        )
        try:
            with telemetry.span(f"sluice {name}", kind=SpanKind.CLIENT):
                yield
        finally:
            running.shutdown()

    def close(self) -> None:
        """Closes the client if there is one."""
        if "client" in self.__dict__:
            self.client.close()


#: Where the help lists the commands about datasets.
INTO, LOOK, GOVERN = "Rows come in", "What there is", "Who may, who did, and what is forgotten"


def command(app: typer.Typer, name: str, *, epilog: str = "", panel: str = "") -> Callable[[Function], Function]:
    """Registers ``function(session, …)`` as a command that takes the shared options too; it may return an exit code.

    The help lists it under ``panel``, or with the others that have none.
    """

    def register(function: Function) -> Function:
        hints = get_type_hints(function, include_extras=True)
        own = list(inspect.signature(function).parameters.values())[1:]

        def run(context: typer.Context, **values: Any) -> Any:
            before = context.obj or {}
            session = Session(**{key: values.pop(key) or before.get(key) or default(key) for key in SHARED})
            try:
                return function(session, **values)
            finally:
                session.close()

        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [inspect.Parameter("context", keyword, annotation=typer.Context)]
        parameters += [each.replace(kind=keyword, annotation=hints[each.name]) for each in own]
        parameters += [
            inspect.Parameter(key, keyword, annotation=kind, default=default(key)) for key, kind in SHARED.items()
        ]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        app.command(name, help=inspect.getdoc(function), epilog=epilog or None, rich_help_panel=panel or None)(run)
        return function

    return register


def default(key: str) -> Any:
    """What a shared option is when it is not given."""
    return False if key in ("json", "quiet") else ""


def group(name: str, help: str) -> typer.Typer:
    """A command with subcommands; without one it shows what there is."""
    return typer.Typer(name=name, help=help, no_args_is_help=True, rich_markup_mode="rich")

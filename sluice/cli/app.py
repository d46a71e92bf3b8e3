"""The tree of commands. Each module adds its own; what they need to run they import when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sluice.cli import (
    access,
    ask,
    assets,
    catalogue,
    chat,
    dataset,
    deployments,
    doctor,
    endpoints,
    evaluations,
    events,
    exports,
    feeds,
    forgetting,
    gate,
    governance,
    jobs,
    lineage,
    models,
    options,
    profiles,
    reproduction,
    rollouts,
    rows,
    storage,
    suite,
    tasks,
    trace,
    train,
)

EPILOG = """
Exit codes: 0 it worked · 1 it ended badly · 2 wrong command line or input, or a gate that is INCONCLUSIVE ·
3 not found · 4 no valid key, or not allowed · 5 not available, try again later · 6 the state does not allow it,
or somebody changed it meanwhile · 130 Ctrl-C
"""

app = typer.Typer(
    name="sluice",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog=" ".join(EPILOG.split()),
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"sluice {_own_version()}")
        raise typer.Exit


def _own_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("sluice")
    except PackageNotFoundError:
        import tomllib

        project = Path(__file__).parents[2] / "pyproject.toml"
        return f"{tomllib.loads(project.read_text('utf-8'))['project']['version']}, a checkout that is not installed"


@app.callback()
def root(
    context: typer.Context,
    json: options.Json = False,
    quiet: options.Quiet = False,
    address: options.Address = "",
    project: options.Project = "",
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """From a dataset file to served traffic: upload, train, evaluate, gate, canary, promote or roll back."""
    context.obj = {"json": json, "quiet": quiet, "address": address, "project": project}


suite.register(app)
catalogue.register(dataset.app)
rows.add_to(dataset.app)
forgetting.add_to(dataset.app)
governance.add_to(dataset.app)
assets.add_to(dataset.app)
profiles.add_to(dataset.app)
feeds.add_to(dataset.app)
app.add_typer(dataset.app)
train.register(app)
reproduction.add_to(jobs.app)
exports.register()
app.add_typer(jobs.app)
app.add_typer(models.app)
app.add_typer(evaluations.app)
app.add_typer(gate.app)
app.add_typer(tasks.app)
app.add_typer(rollouts.app)
app.add_typer(endpoints.app)
app.add_typer(deployments.app)
chat.register(app)
ask.register(app)
lineage.register(app)
trace.register(app)
app.add_typer(events.app)
app.add_typer(access.keys)
app.add_typer(access.projects)
app.add_typer(storage.app)
doctor.register(app)

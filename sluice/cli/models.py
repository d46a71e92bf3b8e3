"""`sluice models`: list, show, versions, import, approve, revoke."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sluice.cli import completion, live, screen, words
from sluice.cli.options import Session, command, group

if TYPE_CHECKING:
    from sluice.registry import v1 as registry

app = group("models", "Models and their versions: what was trained or imported, and what may serve.")

Version = Annotated[str, typer.Argument(metavar="MODEL@N", help="A version: bank-bot@3, bank-bot@stable, bank-bot.")]
COLUMNS: screen.Columns = {
    "MODEL": lambda each: words.brief(each.name),
    "TASK TYPE": lambda each: each.task_type,
    "VERSIONS": lambda each: each.latest_version,
    "ALIASES": lambda each: ", ".join(f"{alias}={number}" for alias, number in sorted(each.aliases.items())),
    "ENDPOINT": lambda each: each.endpoint or words.brief(each.name),
    "GATE POLICY": lambda each: each.gate_policy,
    "CHANGED": lambda each: words.when(each.update_time),
}
VERSIONS: screen.Columns = {
    "VERSION": lambda each: words.brief(each.name),
    "STATE": lambda each: words.version_state(each.state),
    "GATE": lambda each: words.verdict(each.gate_decision.verdict),
    "BASE": lambda each: words.brief(each.base_model_version),
    "DATASET": lambda each: words.brief(each.lineage.dataset_version),
    "WEIGHTS": lambda each: words.digest(each.artifact.digest),
    "MADE": lambda each: words.when(each.create_time),
}


@command(app, "list")
def list_(session: Session, filter: Annotated[str, typer.Option(help="Such as 'task_type = \"sft\"'.")] = "") -> None:
    """List the models of the project."""
    empty = "no models yet; `sluice train` makes one, `sluice models import` brings one"
    screen.listing(session, session.client.models.list(filter), COLUMNS, empty)


@command(app, "versions")
def versions(
    session: Session,
    model: Annotated[str, typer.Argument(help="A model; - for all of them.")] = "-",
    filter: Annotated[str, typer.Option(help="Such as 'state = \"APPROVED\"'.")] = "",
    limit: Annotated[int, typer.Option(help="At most so many; 0 means all.")] = 50,
) -> None:
    """List the versions of a model, newest first."""
    found = session.client.models.versions(model, filter, limit)
    screen.listing(session, found, VERSIONS, "no versions yet; a training job that succeeds makes one")


@command(app, "show")
def show(
    session: Session,
    model: Annotated[str, typer.Argument(help="A model, or one version of it: bank-bot@3.")],
) -> None:
    """Show a model with its versions, or one version."""
    if "@" in model or "/versions/" in model:
        show_version(session, session.client.models.version(model))
        return
    found = session.client.models.get(model)
    fields = {title.lower(): value(found) for title, value in COLUMNS.items()}
    made = session.client.models.versions(found.name, limit=20)
    screen.fields(session, found, fields, *([screen.titled("versions", made, VERSIONS)] if made else []))


@command(app, "import")
def import_(
    session: Session,
    model: Annotated[
        str,
        typer.Argument(help="The model it becomes a version of, made when it is new; with --from qwen/Qwen-7B."),
    ],
    folder: Annotated[
        Path | None, typer.Argument(help="A folder with config.json and *.safetensors, or an adapter.")
    ] = None,
    mirror: Annotated[
        Path | None,
        typer.Option(
            "--from", help="A folder of models, plain or a cache of Hugging Face's or ModelScope's, that has it."
        ),
    ] = None,
    as_: Annotated[str, typer.Option("--as", help="With --from: the model; without it, qwen-qwen-7b.")] = "",
    revision: Annotated[str, typer.Option(help="With --from: which, where a cache has several.")] = "",
    dataset: Annotated[
        str,
        typer.Option(
            help="The rows its evaluation asks: bank-intents@3. Without them it is for training from, and not judged.",
            autocompletion=completion.datasets,
        ),
    ] = "",
    base: Annotated[str, typer.Option(help="The version an adapter needs: bank-base@1.")] = "",
    task_type: Annotated[str, typer.Option(help="Of a new model.")] = "sft",
    endpoint: Annotated[str, typer.Option(help="Of a new model; without it, the model's id.")] = "",
    gate_policy: Annotated[str, typer.Option(help="Of a new model, such as baseline.")] = "",
) -> None:
    """Import weights from a folder, or a base model by its id from a mirror; files that are stored are not sent.

    `sluice models import qwen/Qwen-7B --from /mnt/mirror`, then `sluice train --base qwen/Qwen-7B`. Nothing is
    fetched from outside. The same weights again give the same version.
    """
    from kit.rpc.names import slug
    from sluice.client import imports

    source_id = model if mirror else ""
    folder = _folder(model, folder, mirror, as_, revision)
    if mirror:
        model = as_ or slug(source_id)
    with session.traced("models import"), live.upload_bar(session, folder.name) as progress:
        version = session.client.models.import_folder(
            model,
            folder,
            dataset=dataset,
            base=base,
            task_type=task_type,
            endpoint=endpoint,
            gate_policy=gate_policy,
            source_id=source_id,
            progress=progress,
        )
    show_version(session, version)
    if left := imports.model_files(folder).left_out:
        some = ", ".join(left[:5]) + (" …" if len(left) > 5 else "")
        screen.hint(session, f"left out, as transformers does not load it from there: {some}")
    if dataset:
        screen.hint(session, f"it is judged now: sluice gate explain {words.brief(version.name)} --wait")
    else:
        screen.hint(session, f"train from it: sluice train --base {source_id or words.brief(version.name)} …")


def _folder(model: str, folder: Path | None, mirror: Path | None, as_: str, revision: str) -> Path:
    """Where the weights lie. Raises Invalid where that is told twice or not at all."""
    from kit.rpc.errors import Invalid
    from sluice.client import mirrors

    if mirror is None:
        if folder is None:
            raise Invalid("say where the weights lie: a FOLDER after the model, or a mirror with --from")
        if as_ or revision:
            raise Invalid("--as and --revision go with --from; leave them out, or name a mirror")
        return folder
    if folder is not None:
        raise Invalid(f"both `{folder}` and --from say where the weights lie; give one")
    return mirrors.find(mirror, model, revision)


@command(app, "approve")
def approve(
    session: Session,
    version: Version,
    reason: Annotated[str, typer.Option(help="Why; a waiver must say.")] = "",
    waiver: Annotated[bool, typer.Option("--waiver", help="Let a version through that the gate refused.")] = False,
    etag: Annotated[str, typer.Option(help="Only if it still is as `sluice models show` showed it with this.")] = "",
) -> None:
    """Give this key's approval to a version, said by its number: bank-bot@3."""
    from kit.rpc.errors import Invalid

    found = session.client.models.version(version)
    name = words.brief(found.name)
    if version not in (name, found.name):  # a newer one may have come since it was read
        raise Invalid(f"`{version}` means {name} now; say which version is approved: sluice models approve {name}")
    show_version(session, session.client.models.approve(found.name, reason, waiver=waiver, etag=etag or found.etag))


@command(app, "revoke")
def revoke(
    session: Session, version: Version, reason: Annotated[str, typer.Option(help="Why.", show_default=False)]
) -> None:
    """Take a version's approval away, and with it all its traffic."""
    show_version(session, session.client.models.revoke(version, reason))


def show_version(session: Session, version: registry.ModelVersion) -> None:
    """One version with its decision and where it came from."""
    lineage, read = version.lineage, version.lineage.read_model_versions
    approvals = [f"{words.brief(each.principal)} ({each.reason})" if each.reason else words.brief(each.principal)
                 for each in version.approvals]  # fmt: skip
    fields = {
        "version": words.brief(version.name),
        "state": words.version_state(version.state),
        "gate": words.verdict(version.gate_decision.verdict),
        "because": " ".join(version.gate_decision.reasons),
        "approvals": ", ".join(approvals),
        "task type": version.task_type,
        "endpoint": version.endpoint,
        "gate policy": version.gate_policy,
        "base": words.brief(version.base_model_version),
        "learned from": ", ".join(f"{role} {words.brief(name)}" for role, name in sorted(read.items())),
        "known as": version.source_id,
        "dataset": words.brief(lineage.dataset_version),
        "job": words.brief(lineage.training_job) or "imported",
        "evaluation": words.brief(lineage.evaluation),
        "rollouts": ", ".join(words.brief(name) for name in lineage.rollouts),
        "weights": version.artifact.digest,
        "size": words.size(sum(file.size_bytes for file in version.artifact.files)),
        "made": f"{words.when(version.create_time)} by {words.brief(lineage.creator)}",
        "etag": version.etag,
    }
    screen.fields(session, version, fields)

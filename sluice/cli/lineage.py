"""`sluice lineage`: where a version came from and what became of it, as a tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sluice.cli import evaluations, screen, words
from sluice.cli.options import Session, command

if TYPE_CHECKING:
    from rich.tree import Tree

    from sluice.client import Client
    from sluice.registry import v1 as registry

MAX_BASES = 8
UNSEEN = "gone, or not for this key to read"
SHOWN = "see above"


def register(app: typer.Typer) -> None:
    """Adds `lineage`."""
    command(app, "lineage")(lineage)


def lineage(
    session: Session,
    version: Annotated[
        str, typer.Argument(metavar="MODEL@N", help="A version: bank-bot@3, bank-bot@stable, bank-bot.")
    ],
) -> None:
    """Show the chain behind a version: version ← evaluation ← job ← dataset version, base, teachers and rollouts."""
    found = session.client.models.version(version)
    known = gather(session.client, found)
    if session.json:
        screen.emit(_plain(known))
        return
    screen.put(_tree(known))
    if rows := found.lineage.dataset_version:
        screen.hint(session, f"who else saw these rows: sluice dataset models {words.brief(rows)}")


def gather(
    client: Client, version: registry.ModelVersion, depth: int = MAX_BASES, seen: set[str] | None = None
) -> dict[str, Any]:
    """Everything a version names, read from its owners; what is gone or may not be seen is left as its name.

    So is a version that is in ``seen``: models that learn from one another are read, and told, once each.
    """
    seen = {version.name} if seen is None else seen
    lineage = version.lineage
    known: dict[str, Any] = {"model_version": version}
    known["evaluation"] = _read(client.evaluations.get, lineage.evaluation)
    known["training_job"] = _read(client.jobs.get, lineage.training_job)
    known["dataset_version"] = _read(client.datasets.version, lineage.dataset_version)
    known["rollouts"] = [_read(client.rollouts.get, name) for name in lineage.rollouts]
    known["base"] = _behind(client, version.base_model_version or lineage.source_model_version, depth, seen)
    read = sorted(lineage.read_model_versions.items())
    known["read"] = {role: _behind(client, name, depth, seen) for role, name in read}
    return {key: value for key, value in known.items() if value}


def _behind(client: Client, name: str, depth: int, seen: set[str]) -> Any:
    found = _read(client.models.version, name) if depth and name not in seen else name
    if not found or isinstance(found, str):
        return found
    seen.add(name)
    return gather(client, found, depth - 1, seen)


def _read(get: Any, name: str) -> Any:
    from kit.rpc.errors import Denied, NotFound

    if not name:
        return None
    try:
        return get(name)
    except (NotFound, Denied):
        return name


def _plain(known: dict[str, Any]) -> dict[str, Any]:
    from google.protobuf.json_format import MessageToDict
    from google.protobuf.message import Message

    def plain(value: Any) -> Any:
        if isinstance(value, Message):
            return MessageToDict(value, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
        if isinstance(value, dict):
            return _plain(value)
        return [plain(each) for each in value] if isinstance(value, list) else value

    return {key: plain(value) for key, value in known.items()}


def _tree(known: dict[str, Any], label: str = "", shown: set[str] | None = None) -> Tree:
    from rich.tree import Tree

    version = known["model_version"]
    shown = set() if shown is None else shown
    shown.add(version.name)
    state = words.version_state(version.state)
    verdict = words.verdict(version.gate_decision.verdict)
    top = Tree(_line(label, words.brief(version.name), state, f"gate {verdict}" if verdict else ""), guide_style="dim")
    for rollout in known.get("rollouts", []):
        top.add(_rollout(rollout))
    below = top
    if evaluation := known.get("evaluation"):
        below = top.add(_evaluation(evaluation))
    if job := known.get("training_job"):
        below = below.add(_job(job))
    else:
        below = below.add(_line("imported", f"by {words.brief(version.lineage.creator)}", "", ""))
    if rows := known.get("dataset_version"):
        below.add(_rows(rows, version.lineage.dataset_digest))
    for role, behind in {"base": known.get("base"), **known.get("read", {})}.items():
        if isinstance(behind, dict):
            below.add(_tree(behind, role, shown))
        elif behind:
            below.add(_line(role, words.brief(behind), "", SHOWN if behind in shown else UNSEEN))
    return top


def _rollout(found: Any) -> Any:
    if isinstance(found, str):
        return _line("rollout", words.brief(found), "", UNSEEN)
    return _line("rollout", words.brief(found.name), words.rollout_state(found.state), found.reason)


def _evaluation(found: Any) -> Any:
    if isinstance(found, str):
        return _line("evaluation", words.brief(found), "", UNSEEN)
    scores = "  ".join(f"{metric.name} {metric.value:.3f}" for metric in found.report.metrics)
    state = words.job_state(found.state)
    return _line("evaluation", words.brief(found.name), state, scores or evaluations.rows_done(found))


def _job(found: Any) -> Any:
    if isinstance(found, str):
        return _line("job", words.brief(found), "", UNSEEN)
    recipe = f"{found.spec.WhichOneof('recipe') or ''}, seed {found.spec.seed}, by {words.brief(found.creator)}"
    return _line("job", words.brief(found.name), words.job_state(found.state), recipe)


def _rows(found: Any, digest: str) -> Any:
    """``digest`` is the one that the version had when the model was trained."""
    if isinstance(found, str):
        return _line("dataset", words.brief(found), "", UNSEEN)
    told = f"{found.row_count} rows, {words.digest(found.digest)}"
    if found.erasures and digest != found.digest:
        told += f"; trained on {words.digest(digest)}, some of whose rows were forgotten since"
    return _line("dataset", words.brief(found.name), "", told)


def _line(label: str, name: str, state: str, detail: str) -> Any:
    from rich.text import Text

    parts = [(f"{label} ", "dim") if label else "", (name, "bold")]
    parts += [("  " + state, screen.style_of(state))] if state else []
    parts += [("  " + detail, "dim")] if detail else []
    return Text.assemble(*parts)

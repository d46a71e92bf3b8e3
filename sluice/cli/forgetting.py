"""`sluice dataset forget`, `delete`, `erasures` and `models`: rows that must go, and who saw them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sluice.cli import completion, exits, live, screen, words
from sluice.cli.options import GOVERN, Session, command

if TYPE_CHECKING:
    from sluice.dataset import v1 as dataset

Name = Annotated[str, typer.Argument(metavar="DATASET", help="The dataset.", autocompletion=completion.datasets)]
Where = Annotated[
    list[str] | None,
    typer.Option(help="Whose rows: group=P17, id=…, tags=…, or patient_id=P17 as a file called it; repeatable."),
]
CHANGES: screen.Columns = {
    "VERSION": lambda each: words.brief(each.dataset_version),
    "ROWS": lambda each: each.rows_removed,
    "DIGEST BEFORE": lambda each: words.digest(each.old_digest),
    "DIGEST NOW": lambda each: words.digest(each.digest),
}
USES: screen.Columns = {
    "MODEL": lambda each: words.brief(each.model_version),
    "SAW": lambda each: words.brief(each.dataset_version),
    "HOW": lambda each: _seen(each),
    "AT DIGEST": lambda each: words.digest(each.dataset_digest),
    "BY": lambda each: words.brief(each.source),
    "KNOWN": lambda each: words.when(each.time),
}


def add_to(app: typer.Typer) -> None:
    """Adds the commands to those of `sluice dataset`."""
    for function in (forget, delete, erasures, models):
        command(app, function.__name__, panel=GOVERN)(function)


def forget(
    session: Session,
    name: Name,
    where: Where = None,
    reason: Annotated[str, typer.Option(help="Why, for the tombstone; it must not say whose rows they are.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count the rows and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Forget rows: take them out of every version, shred what they were stored in, and keep them from coming back.

    Models that were trained on them are listed, and not changed. It cannot be undone.
    """
    from kit.rpc.errors import Invalid

    column, values = _predicate(where or [])
    if dry_run or not yes:
        counted = _follow(session, _order(session, name, column, values, reason or "a dry run", dry_run=True))
        if dry_run or not _is_done(counted):
            return _show(session, counted)
        if not session.json:
            _show(session, counted)
        if not typer.confirm(f"forget {counted.rows_removed} rows in {counted.version_count} versions?", err=True):
            return exits.CONFLICT
    if not reason:
        raise Invalid("an erasure needs a reason for its tombstone; give --reason, such as 'consent withdrawn'")
    return _show(session, _follow(session, _order(session, name, column, values, reason, dry_run=False)))


def delete(
    session: Session,
    name: Name,
    reason: Annotated[str, typer.Option(help="Why, for the tombstone; it is kept for good.")] = "",
    force: Annotated[bool, typer.Option("--force", help="With its versions, and uploads that are open.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Delete a dataset: shred its rows in all versions. Its name stays taken, with what models saw of it.

    Models that were trained on it are not changed. It cannot be undone.
    """
    from kit.rpc.errors import Invalid

    if not reason:
        raise Invalid("deleting needs a reason for the tombstone; give --reason, such as 'uploaded by mistake'")
    found = session.client.datasets.get(name)
    if not found.latest_version:
        another = f"sluice dataset upload FILE --name {words.brief(found.name)} --task-type …"
        screen.hint(session, f"it has no version, so it need not be deleted to have another task type: {another}")
    if not yes and not typer.confirm(
        f"delete {words.brief(found.name)}, newest version {found.latest_version}?", err=True
    ):
        return exits.CONFLICT
    deleted = session.client.datasets.delete(name, reason, force=force, etag=found.etag)
    done, gone = _follow(session, deleted.erasure), deleted.dataset
    fields = {"dataset": gone.name, "deleted": words.when(gone.delete_time), "erasure": done.name}
    removed = f"{done.rows_removed} in all versions" if done.version_count > 1 else done.rows_removed
    screen.fields(session, gone, {**fields, "state": _state(done), "rows": removed})
    return exits.OK if _is_done(done) else exits.FAILED


def erasures(
    session: Session, name: Name, limit: Annotated[int, typer.Option(min=0, help="0 means all.")] = 50
) -> None:
    """List what was forgotten of a dataset: who ordered it, when, why and how much."""
    columns: screen.Columns = {
        "ERASURE": lambda each: words.brief(each.name),
        "STATE": _state,
        "BY": lambda each: each.column or "version",
        "ROWS": lambda each: each.rows_removed,
        "VERSIONS": lambda each: each.version_count,
        "MODELS": lambda each: len({use.model_version for use in each.model_uses if _seen(use) != "evaluated"}),
        "ORDERED": lambda each: words.when(each.create_time),
        "WHO": lambda each: words.brief(each.creator),
        "REASON": lambda each: each.reason,
    }
    found = session.client.erasures.list(name, limit)
    screen.listing(session, found, columns, "nothing was ever forgotten of this dataset")


def models(
    session: Session,
    name: Annotated[
        str,
        typer.Argument(
            metavar="DATASET[@N]", help="A dataset, or one version of it.", autocompletion=completion.datasets
        ),
    ],
    where: Where = None,
    limit: Annotated[int, typer.Option(min=0, help="0 means all.")] = 50,
) -> None:
    """List the model versions that saw a dataset, or with --where those that saw such rows."""
    if not where:
        found = session.client.records.models(name, limit)
    else:
        column, values = _predicate(where)
        wanted = name.partition("@")
        counted = _follow(session, _order(session, wanted[0], column, values, "which models saw them", dry_run=True))
        found = [use for use in counted.model_uses if not wanted[2] or use.dataset_version.endswith(f"/{wanted[2]}")]
        for each in counted.forgotten_by:
            before = session.client.erasures.get(each)
            found += [use for use in before.model_uses if use not in found]
            screen.hint(session, f"such rows were forgotten before, {words.when(before.create_time)}")
    screen.listing(session, found, USES, "no model that the suite knows of saw these rows")
    if found:
        screen.hint(session, f"the chain behind one: sluice lineage {words.brief(found[0].model_version)}")


def fate(version: dataset.DatasetVersion) -> dict[str, str]:
    """What became of the rows of a version since it was made."""
    return {
        "forgotten": f"rows of it, {len(version.erasures)} ×"
        if version.erasures and not version.retire_time.seconds
        else "",
        "retired": words.when(version.retire_time),
    }


def tell_forgotten(session: Session, version: dataset.DatasetVersion) -> None:
    """Says it where a version has not all the rows of its file, because some were forgotten before it or since."""
    name, left_out = words.brief(version.name).partition("@")[0], version.forgotten_rows
    if left_out:
        screen.hint(
            session, f"{left_out} of its rows were forgotten before and left out: sluice dataset erasures {name}"
        )
    if version.erasures:
        screen.hint(session, f"rows were forgotten since it was made: sluice dataset erasures {name}")


def _predicate(where: list[str]) -> tuple[str, list[str]]:
    """One column and its values; several columns would leave open whether one or all must fit."""
    from kit.rpc.errors import Invalid

    given = [each.partition("=") for each in where]
    if not given or not all(name and value for name, _, value in given):
        raise Invalid("say whose rows with --where, such as --where group=P17")
    columns = {name for name, _, _ in given}
    if len(columns) > 1:
        raise Invalid(f"--where names {' and '.join(f'`{name}`' for name in sorted(columns))}; give one at a time")
    return columns.pop(), list(dict.fromkeys(value for _, _, value in given))


def _order(session: Session, name: str, column: str, values: list[str], reason: str, *, dry_run: bool) -> str:
    return session.client.erasures.create(name, column, values, reason, dry_run=dry_run).name


def _follow(session: Session, name: str) -> dataset.Erasure:
    """Shows how far it is, on stderr, and returns what became of it."""
    from sluice.types import v1 as types

    last: Any = None
    with live.work_bar(session, "looking for rows") as progress:
        for last in session.client.erasures.watch(name):
            progress(types.Progress(done=last.rows_checked, total=last.rows_total))
    found: dataset.Erasure = last
    return found


def _show(session: Session, erasure: dataset.Erasure) -> int:
    fields = {
        "erasure": "" if erasure.dry_run else erasure.name,
        "state": "dry run" if erasure.dry_run and _is_done(erasure) else _state(erasure),
        "rows": erasure.rows_removed,
        f"without {erasure.column}": erasure.rows_without_column or "",
        "put aside": erasure.quarantined_rows_removed or "",
        "versions": erasure.version_count,
        "also in": ", ".join(words.brief(name) for name in erasure.also_in),
        "before": ", ".join(words.brief(name) for name in erasure.forgotten_by),
        "failure": erasure.failure.message,
    }
    more = [screen.titled("versions", erasure.changes, CHANGES)] if erasure.changes else []
    more += [screen.titled("models that saw them", erasure.model_uses, USES)] if erasure.model_uses else []
    screen.fields(session, erasure, fields, *more)
    if erasure.also_in:
        screen.hint(session, "some of the same rows are stored in other datasets: forget them there as well")
    if erasure.rows_without_column:
        screen.hint(session, _unmatched(erasure))
    if erasure.dry_run:
        screen.hint(session, "nothing was changed; without --dry-run they are forgotten")
    return exits.OK if _is_done(erasure) else exits.FAILED


def _unmatched(erasure: dataset.Erasure) -> str:
    """That some rows do not say what was asked."""
    other = next(name for name in ("group", "id") if name != erasure.column)
    count, column = erasure.rows_without_column, erasure.column
    return f"{count} rows have no {column} at all, so they could not be matched: find them by --where {other}=…, if any"


def _is_done(erasure: dataset.Erasure) -> bool:
    return _state(erasure) == "DONE"


def _state(erasure: dataset.Erasure) -> str:
    from sluice.dataset import v1 as dataset

    return words.state(dataset.ErasureState, erasure.state, "ERASURE_STATE_")


def _seen(use: dataset.ModelUse) -> str:
    from sluice.dataset import v1 as dataset

    return words.state(dataset.Seen, use.seen, "SEEN_").lower()

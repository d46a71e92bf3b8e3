"""`sluice storage`: the key that encrypts what is stored, and blobs that are damaged.

What changes or checks keys and bytes works on the store itself, from the machine that has the key file, whether the
suite runs or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sluice.cli import exits, live, local_store, screen, words
from sluice.cli.options import Session, command, group

if TYPE_CHECKING:
    from rich.console import RenderableType

    from kit.blobs import EncryptedBlobs, Generation
    from sluice.dataset import v1 as dataset

app = group("storage", "The key that encrypts what is stored, and what of it is damaged.")


@command(app, "keys")
def keys(session: Session) -> None:
    """List the generations of the key-encryption key on this machine, and how many blobs each opens."""
    settings, kek = local_store.opened(session.home)
    used = asyncio.run(_used(local_store.store_of(settings, kek)))
    rows = [
        {
            "key": each.key_id,
            "state": _state(each),
            "since": each.since.isoformat() if each.since else "",
            "blobs": used.pop(each.key_id, 0),
        }
        for each in kek.generations()
    ]
    rows += [{"key": key, "state": "not held", "since": "", "blobs": blobs} for key, blobs in used.items()]
    columns: screen.Columns = {
        name.upper(): lambda each, name=name: each[name]  # type: ignore[misc]
        for name in ("key", "state", "since", "blobs")
    }
    screen.listing(session, rows, columns, "no keys")


@command(app, "rotate-key")
def rotate_key(
    session: Session,
    prepare: Annotated[
        bool, typer.Option(help="Only make the new key; copy the file to other hosts, then rotate.")
    ] = False,
) -> int:
    """Make a new generation of the key-encryption key and wrap every blob's own key with it; no data is rewritten.

    The suite may run: its processes take the new key by themselves, and readers go on. What Ctrl-C or a crash breaks
    off, `sluice storage rewrap` goes on with.
    """
    settings, kek = local_store.opened(session.home)
    local_store.changed(kek.prepare if prepare else kek.rotate)
    waiting = next((each.key_id for each in kek.generations() if _state(each) == "waiting"), "")
    if prepare:
        if session.json:
            screen.emit({"waiting": waiting})
        screen.hint(session, f"{waiting} opens blobs from now on; when other hosts have the file: `{ROTATE}`")
        return exits.OK
    local_store.mark(settings, kek)
    screen.hint(session, f"{kek.key_id} wraps from now on; keep a copy of {settings.kek_path}")
    return _rewrap(session, local_store.store_of(settings, kek))


@command(app, "rewrap")
def rewrap(session: Session) -> int:
    """Wrap the keys of all blobs with the present generation, where another did; goes on where it was broken off."""
    settings, kek = local_store.opened(session.home)
    return _rewrap(session, local_store.store_of(settings, kek))


@command(app, "retire-key")
def retire_key(
    session: Session, key: Annotated[str, typer.Argument(help="A generation, as `storage keys` lists it.")]
) -> None:
    """Destroy a former generation of the key; refused while anything is wrapped with it.

    Backups of blobs from before the rotation are opened by a copy of the key file from then, and by nothing else.
    """
    from kit.blobs.rotation import retire

    settings, kek = local_store.opened(session.home)
    local_store.mark(settings, kek)
    asyncio.run(retire(local_store.store_of(settings, kek), kek, key, datetime.now(UTC)))
    if session.json:
        screen.emit({"retired": key, "wraps": kek.key_id})
    screen.hint(session, f"{key} is gone from {settings.kek_path}; remove it from other hosts' copies too")


@command(app, "damaged")
def damaged(
    session: Session,
    everywhere: Annotated[bool, typer.Option(help="In all projects; asks for a role in all.")] = False,
) -> int:
    """List blobs that cannot be read and the dataset versions that they hit; exit 1 when there are any."""
    found = session.client.storage.damaged(everywhere=everywhere)
    screen.listing(session, found, DAMAGED, "no damaged blobs are known")
    if not session.json:
        screen.hint(session, _told(session.client.storage.scrub(everywhere=everywhere)))
    return exits.FAILED if found else exits.OK


@command(app, "check")
def check(session: Session) -> int:
    """Read every stored blob now, at full speed, and set aside what is damaged; exit 1 when something is.

    A running suite does the same by itself, slowly: SLUICE_SCRUB_BYTES_PER_S.
    """
    settings, kek = local_store.opened(session.home)
    last = live.follow(
        session,
        local_store.followed(local_store.checked(local_store.store_of(settings, kek))),
        view=_bar,
        line=lambda each: ("", _progress(each)),
        left="nothing was changed; `sluice storage check` begins anew",
    )
    for name in last["damaged"] if not session.json else ():
        exits.complain(f"{name} is damaged and is set aside; `sluice storage damaged` says what it hits")
    for name in last["foreign"] if not session.json else ():
        exits.complain(f"{name} is encrypted under a key that is not held here")
    return exits.FAILED if last["damaged"] or last["foreign"] else exits.OK


ROTATE = "sluice storage rotate-key"
DAMAGED: screen.Columns = {
    "BLOB": lambda each: words.digest(each.digest),
    "DAMAGE": lambda each: _damage(each),
    "FOUND": lambda each: words.when(each.create_time),
    "WHERE": lambda each: each.space.removeprefix("projects/"),
    "DATASET VERSIONS": lambda each: ", ".join(words.brief(name) for name in each.dataset_versions) or "none",
}


def _damage(blob: dataset.DamagedBlob) -> str:
    from sluice.dataset import v1 as dataset

    return dataset.Damage.Name(blob.damage).removeprefix("DAMAGE_").lower().replace("_", " ")


def _told(scrub: dataset.Scrub) -> str:
    if not scrub.HasField("begin_time"):
        return "stored blobs were not looked through yet"
    read = f"{scrub.blobs} blobs, {words.size(scrub.size_bytes)}"
    if scrub.HasField("end_time"):
        return f"looked through {words.when(scrub.end_time)}: {read}"
    return f"being looked through since {words.when(scrub.begin_time)}: {read} so far"


def _state(generation: Generation) -> str:
    return "wraps" if generation.wraps else "held" if generation.until else "waiting"


async def _used(blobs: EncryptedBlobs) -> dict[str, int]:
    from kit.blobs.rotation import used

    return dict(await used(blobs))


def _rewrap(session: Session, blobs: EncryptedBlobs) -> int:
    from kit.blobs import rotation

    async def steps() -> AsyncIterator[dict[str, Any]]:
        async for found in rotation.rewrap(blobs):
            yield {**vars(found), "done": found.done}

    last = live.follow(
        session,
        local_store.followed(steps()),
        view=_bar,
        line=lambda each: ("", _progress(each)),
        left="what is done stays done; `sluice storage rewrap` goes on",
    )
    if session.json:
        return exits.FAILED if last["damaged"] or last["foreign"] else exits.OK
    screen.hint(session, f"{last['rewrapped']} wrapped anew, {last['current']} were already")
    for name in last["damaged"]:
        exits.complain(f"{name} is damaged; `sluice storage check` sets it aside")
    for name in last["foreign"]:
        exits.complain(f"{name} is wrapped with a key that is not held here")
    return exits.FAILED if last["damaged"] or last["foreign"] else exits.OK


def _bar(step: Mapping[str, Any]) -> RenderableType:
    from rich.columns import Columns

    return Columns([live.bar(step["done"], step["total"]), _progress(step)])


def _progress(step: Mapping[str, Any]) -> str:
    size = f", {words.size(step['size_bytes'])}" if "size_bytes" in step else ""
    wrong = f", {len(step['damaged'])} damaged" if step["damaged"] else ""
    return f"{step['done']} of {step['total']} blobs{size}{wrong}"

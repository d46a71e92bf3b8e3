"""The store of the suite on this machine, opened with its key file, for commands that work on it themselves."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from kit.blobs import EncryptedBlobs, FileKek
    from kit.blobs.upkeep import Place
    from kit.settings import Settings

Item = TypeVar("Item")
#: How often progress is shown.
SHOWN_S = 0.2


def opened(home: Path) -> tuple[Settings, FileKek]:
    """The settings of the suite on this machine and its key. Raises NotFound and Invalid that say what to do."""
    from kit.blobs import FileKek
    from kit.rpc.errors import Invalid, NotFound
    from kit.settings import Settings

    environ = {**os.environ, "SLUICE_HOME": str(home), "SLUICE_BLOBS_URL": _blobs_url(home)}
    settings = Settings.from_env("dataset", environ)
    try:
        kek = FileKek.load(settings.kek_path, home=settings.home)
    except FileNotFoundError:
        raise NotFound(
            f"there is no key-encryption key `{settings.kek_path}`; say with SLUICE_KEK where it is"
        ) from None
    except (ValueError, PermissionError) as error:
        raise Invalid(f"the key-encryption key cannot be used: {error}") from None
    marker = settings.home / "run" / "kek-id"
    if marker.exists() and marker.read_text() not in {each.key_id for each in kek.generations()}:
        raise Invalid(f"`{settings.kek_path}` is another key than `{settings.home}` was made with; set SLUICE_KEK")
    return settings, kek


def _blobs_url(home: Path) -> str:
    """Where the suite of this home keeps its blobs. Raises Invalid when the environment says another place.

    Else a key would be retired because nothing in some other store needs it.
    """
    from kit.rpc.errors import Invalid

    note, given = home / "run" / "blobs-url", os.environ.get("SLUICE_BLOBS_URL", "")
    known = note.read_text() if note.exists() else given
    if given and given != known:
        where = f"in `{known}`" if known else "in the home itself"
        raise Invalid(f"SLUICE_BLOBS_URL is `{given}`, but the blobs of `{home}` are {where}; unset it")
    return known


def changed(change: Callable[[], object]) -> None:
    """Changes the key file. Raises Invalid when that cannot be written."""
    from kit.rpc.errors import Invalid

    try:
        change()
    except OSError as error:
        raise Invalid(f"the key file cannot be changed ({error.strerror}); its folder must be writable") from None


def mark(settings: Settings, kek: FileKek) -> None:
    """Lets the home know the generation that wraps: `sluice up` refuses a key file without the one it knows.

    The message bus's own key is wrapped with it from then on, too.
    """
    from kit.bus.stream_key import stream_key
    from kit.rpc.errors import Invalid

    bus_key, marker = settings.home / "nats" / "key", settings.home / "run" / "kek-id"
    if bus_key.exists():
        try:
            changed(lambda: stream_key(bus_key, kek))
        except ValueError as error:
            raise Invalid(str(error)) from None
    if marker.exists():
        draft = marker.with_suffix(".new")
        draft.write_text(kek.key_id)
        draft.replace(marker)


def store_of(settings: Settings, kek: FileKek) -> EncryptedBlobs:
    """The blobs of the suite."""
    from kit.blobs import open_store

    return open_store(settings.blobs_url, kek)


async def checked(blobs: EncryptedBlobs) -> AsyncIterator[dict[str, Any]]:
    """Reads everything and yields how far that is, and the names of what is damaged or wrapped by a foreign key."""
    from kit.blobs.upkeep import Pace, places, verify
    from kit.rpc.errors import Corrupt, NotFound, StateConflict

    found: dict[str, Any] = {"total": 0, "done": 0, "size_bytes": 0, "damaged": [], "foreign": []}
    async for place in places(blobs.objects):
        found["total"] += not place.aside
    yield dict(found)
    async for place in places(blobs.objects):
        try:
            if place.aside:
                await _still_away(blobs, place)
                continue
            found["size_bytes"] += await verify(blobs, place, Pace())
        except Corrupt:
            found["damaged"].append(f"{place.space}/{place.digest}")
        except StateConflict:
            found["foreign"].append(f"{place.space}/{place.digest}")
        except NotFound:
            continue
        found["done"] += 1
        yield dict(found)
    yield dict(found)


async def _still_away(blobs: EncryptedBlobs, place: Place) -> None:
    """Raises Corrupt for a blob that was set aside, unless its bytes were stored again."""
    from kit.rpc.errors import Corrupt

    if await blobs.stat(place.space, place.digest) is None:
        raise Corrupt(f"{place.digest} is set aside")


def followed(steps: AsyncIterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The steps as they come, not more than a few a second, and the last in any case."""
    with asyncio.Runner() as runner:
        shown, last = float("-inf"), None
        while (step := runner.run(_next(steps))) is not None:
            last = step
            if time.monotonic() - shown > SHOWN_S:
                shown, last = time.monotonic(), None
                yield step
        if last is not None:
            yield last


async def _next(steps: AsyncIterator[Item]) -> Item | None:
    return await anext(steps, None)

"""The check of an uploaded file, in the checking process."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, cast

from services.dataset.checks import wire
from services.dataset.checks.child import READ_BYTES, Wire

if TYPE_CHECKING:
    from sluice.rows.ids import SeenIds
    from sluice.rows.media import Media
    from sluice.rows.stacks import Beside

#: What is asked for at once of a file that is read here and there.
_SMALL_READ_BYTES = 256 << 10


def check(task: wire.Task, wires: Wire) -> wire.Outcome:
    """Checks one file and sends its parts."""
    from sluice.rows.checking import Rules
    from sluice.rows.convert import convert
    from sluice.rows.names import is_archive

    def put_aside(lines: bytes) -> None:
        wires.send(wire.ASIDE, lines)

    at_once = _SMALL_READ_BYTES if is_archive(task.file_name) else READ_BYTES
    file = cast(BinaryIO, wires.file(0, task.size, at_once))
    tokenizer = wires.file(task.size, task.tokenizer_bytes).read() if task.tokenizer_bytes else b""
    demands = replace(task.demands, tokenizer=tokenizer)
    rules = Rules(task.row_schema, task.columns, task.fix, task.quarantine, demands, task.forgotten, task.loose)
    before = partial(_ids_before, task, wires)
    found = convert(file, task.file_name, rules, wires.part, wires.tick, put_aside, _beside(task, wires), before)
    unused, more = found.sources.unused()
    return wire.Outcome(
        found.accepted,
        found.row_count,
        found.violations,
        dict(found.counts),
        found.put_aside,
        dict(found.fixed),
        found.filtered,
        found.forgotten,
        [(*place, count) for place, count in found.identified.items()],
        found.sources.columns(),
        unused,
        more,
        found.sources.sheets_unread,
    )


def _ids_before(task: wire.Task, wires: Wire) -> SeenIds:
    """The ids of the version that rows are appended to."""
    import numpy as np

    from sluice.rows.ids import SeenIds, of_part

    seen = SeenIds()
    for part, file in wires.parts(task.before, task.size + task.tokenizer_bytes):
        ids = of_part(cast(BinaryIO, file))
        seen.add(ids, np.arange(part.rows_before + 1, part.rows_before + 1 + len(ids)))
    return seen


def _beside(task: wire.Task, wires: Wire) -> Beside:
    """The assets that came with the file, and the way for those that are in it."""
    from sluice.rows.assets import Trouble
    from sluice.rows.identities import as_it_is, naming, treatment
    from sluice.rows.media import look
    from sluice.rows.shelf import Settled, settled, turn
    from sluice.rows.stacks import Beside

    treat = treatment(task.demands.deidentify, task.key)

    def keep(digest: str, media: Media, data: bytes) -> None:
        wires.asset(wire.AssetHead(digest, media.type, media.width, media.height), data)

    def fetch(path: str) -> Settled:
        asset = named[path]
        if asset.type and (treat is as_it_is or asset.type.startswith("audio/")):  # it was looked at before
            return Settled(asset.digest, "audio" if asset.type.startswith("audio/") else "image")
        with turn(asset.size):
            data = wires.fetch(asset.digest)
            if data is None:
                raise Trouble("missing-asset", "the bytes of the file", "none", "upload once more: they are sent again")
            media = look(data)
            wires.asset(wire.AssetHead(asset.digest, media.type, media.width, media.height))
            treated = treat(data, media)
            return Settled(asset.digest, media.kind) if treated is data else settled(treated, keep)

    named = {each.path: each for each in wires.beside()} if task.beside else {}
    whose = naming(task.demands.deidentify, task.key)
    return Beside(named, fetch, keep, "the folder of assets", treat, whose)

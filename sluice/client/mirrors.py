"""Where a folder of models keeps one of them, in the layouts that the field has; it opens no file of a model.

A mirror is read only: nothing is fetched, moved or written. What lies outside of it is not read, whatever a link says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from kit.rpc.errors import Invalid, NotFound
from kit.rpc.names import slug

SOURCE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
CONFIGS = ("config.json", "adapter_config.json")


def is_source_id(name: str) -> bool:
    """Whether it is an id of a hub, `organization/model`, and no name of this suite."""
    return SOURCE_ID.fullmatch(name) is not None and not name.startswith("projects/")


def find(mirror: Path, source_id: str, revision: str = "") -> Path:
    """The folder of `qwen/Qwen-7B` below ``mirror``: plain, of Hugging Face's cache, or of ModelScope's.

    Letters may be large or small. Raises NotFound naming where it was looked for, Invalid where it is not clear which
    of several revisions is meant.
    """
    if not is_source_id(source_id):
        raise Invalid(f"`{source_id}` is no id of a model elsewhere; write it as organization/model: qwen/Qwen-7B")
    if not mirror.is_dir():
        raise Invalid(f"there is no folder `{mirror}`; give the one that holds models, such as /mnt/mirror")
    organization, model = source_id.split("/")
    for parts in _layouts(organization, model):
        if (found := _descend(mirror, parts)) is None:
            continue
        if parts[-1].startswith("models--"):
            return _snapshot(found, source_id, revision)
        if any((found / name).is_file() for name in CONFIGS):
            return found
    if any((mirror / name).is_file() for name in CONFIGS):
        called = {mirror.name.lower(), mirror.resolve().name.lower()}
        if called.isdisjoint(name.lower() for name in _written(model)):
            raise NotFound(
                f"`{mirror}` is one model and not called `{model}`; if it is `{source_id}`, import the folder without "
                f"--from: sluice models import {slug(source_id)} {mirror}"
            )
        return mirror
    tried = ", ".join(f"{'/'.join(parts)}/" for parts in _layouts(organization, model) if len(parts) < 3)
    raise NotFound(f"`{mirror}` has no `{source_id}`; it was looked for as {tried}: put its folder there")


def root_of(folder: Path) -> Path:
    """What links in the folder of a model may lead into: of a snapshot in Hugging Face's cache, all of the model."""
    return folder.parent.parent if folder.parent.name == "snapshots" else folder


def _layouts(organization: str, model: str) -> Iterator[tuple[str, ...]]:
    """Folders below a mirror, the likeliest first."""
    cached = f"models--{organization}--{model}"
    yield (organization, model)
    yield (cached,)
    yield ("hub", cached)
    for name in _written(model):
        yield ("models", organization, name)
        yield ("hub", "models", organization, name)
        yield ("hub", organization, name)
        yield (organization, name)


def _written(model: str) -> Iterable[str]:
    """How a folder of a model may be called: ModelScope writes a dot in a name as three underscores."""
    return dict.fromkeys((model, model.replace(".", "___")))


def _descend(folder: Path, parts: tuple[str, ...]) -> Path | None:
    for part in parts:
        if not (folder / part).is_dir():
            alike = [each for each in folder.iterdir() if each.name.lower() == part.lower() and each.is_dir()]
            if len(alike) != 1:
                return None
            part = alike[0].name
        folder = folder / part
    return folder


def _snapshot(cached: Path, source_id: str, revision: str) -> Path:
    """The snapshot of a revision; without one, that of `main`, or the only one."""
    snapshots = cached / "snapshots"
    there = sorted(each.name for each in snapshots.iterdir()) if snapshots.is_dir() else []
    wanted = revision or "main"
    named = cached / "refs" / wanted
    if named.is_file():
        wanted = named.read_text("utf-8").strip()
    found = [name for name in there if name == wanted or (revision and name.startswith(revision))]
    if not found and not revision:
        found = there
    if len(found) == 1:
        return snapshots / found[0]
    if not there:
        raise NotFound(f"`{cached}` holds no snapshot of `{source_id}`; its download did not end, so fetch it again")
    some = ", ".join(name[:12] for name in there[:4])
    raise Invalid(f"of `{source_id}` there are the revisions {some}; say which with --revision")

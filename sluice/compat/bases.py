"""The base that a script names, as a version of the suite; what is on this machine is imported first.

Import is by content: files that the suite has are not sent, so naming a folder again costs a read of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from kit.rpc.errors import NotFound
from kit.rpc.names import slug
from sluice.client import Client, mirrors
from sluice.compat.said import say


def version_of(client: Client, given: str | Path, *, task_type: str) -> str:
    """The name of the version that is meant by a folder here, an id of a hub, or a model of the suite.

    An id is looked for among what was imported, then in the caches of this machine. Raises NotFound saying how it is
    brought, Invalid for a folder that holds no model to be taken.
    """
    folder = Path(given).expanduser()
    if folder.is_dir():
        say(f"{folder} is imported into the suite; files that it has are not sent")
        return client.models.import_folder(slug(folder.resolve().name), folder, task_type=task_type).name
    name = str(given)
    if not mirrors.is_source_id(name):
        return client.models.version(name).name
    try:
        return client.models.version(name).name
    except NotFound:
        for cache in caches(os.environ):
            with suppress(NotFound):
                found = client.models.import_base(name, cache, task_type=task_type)
                say(f"{name} was imported from {cache}")
                return found.name
        raise


def caches(environ: Mapping[str, str]) -> Iterator[Path]:
    """Where models lie on this machine: SLUICE_MIRROR, then the caches of Hugging Face and of ModelScope."""
    home = Path(environ.get("HOME") or Path.home())
    hugging_face = Path(environ.get("HF_HOME") or home / ".cache" / "huggingface")
    told = (environ.get("SLUICE_MIRROR"), environ.get("HF_HUB_CACHE"), environ.get("MODELSCOPE_CACHE"))
    usual = (hugging_face / "hub", home / ".cache" / "modelscope" / "hub", home / ".cache" / "modelscope")
    for cache in (*(Path(each) for each in told if each), *usual):
        if cache.is_dir():
            yield cache

"""The entries of the catalogue, read from YAML files and checked; what is done with them is not known here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from kit.rpc.errors import Invalid, NotFound
from sluice.catalogue.entry import Entry, faults

FOLDER = Path(__file__).resolve().parent / "entries"


@cache
def entries() -> Mapping[str, Entry]:
    """Every entry by id, in the order of domains and files."""
    return MappingProxyType(read(FOLDER))


def find(id: str) -> Entry:
    """The entry of that id. Raises NotFound, naming the ids that come near."""
    known = entries()
    if id in known:
        return known[id]
    plain = {each.replace("-", ""): each for each in known}
    wanted = "".join(letter for letter in id.lower() if letter.isalnum())
    near = [plain[each] for each in get_close_matches(wanted, plain, 3, 0.7)]
    meant = f"; perhaps {' or '.join(f'`{each}`' for each in near)}" if near else ""
    raise NotFound(f"the catalogue has no `{id}`{meant}; `sluice dataset catalogue` lists what it has")


def search(
    words: str = "", *, task_type: str = "", language: str = "", modality: str = "", domain: str = ""
) -> list[Entry]:
    """The entries that all conditions hold for; each of the words stands somewhere in what the entry says."""
    return [
        entry
        for entry in entries().values()
        if task_type in ("", entry.task_type)
        and (not language or language in entry.languages)
        and (not modality or modality in entry.modalities)
        and domain in ("", entry.domain)
        and all(word in _said(entry) for word in words.lower().split())
    ]


def read(folder: Path) -> dict[str, Entry]:
    """The entries of all YAML files of a folder; a file's name is the domain of those in it.

    Raises Invalid naming file, entry and field for one that is malformed, or there twice.
    """
    found: dict[str, Entry] = {}
    for path in sorted(folder.glob("*.yaml")):
        for entry in _file(path):
            if entry.id in found:
                raise Invalid(
                    f"{path.name}: `{entry.id}` is there twice; the other is in {found[entry.id].domain}.yaml"
                )
            found[entry.id] = entry
    return found


def _file(path: Path) -> Iterable[Entry]:
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        items = yaml.load(path.read_text("utf-8"), Loader=loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Invalid(f"{path.name} is no YAML ({' '.join(str(error).split())[:120]})") from error
    if not isinstance(items, list):
        raise Invalid(f"{path.name} should be a list of entries")
    for place, item in enumerate(items, 1):
        name = item.get("id") if isinstance(item, dict) else None
        where = f"{path.name}: `{name}`" if isinstance(name, str) else f"{path.name}: entry {place}"
        try:
            entry = msgspec.convert(item, Entry)
        except msgspec.ValidationError as error:
            raise Invalid(f"{where}: {error}") from error
        for fault in faults(entry):
            raise Invalid(f"{where}: {fault}")
        yield msgspec.structs.replace(entry, domain=path.stem)


def _said(entry: Entry) -> str:
    parts = [entry.id, entry.name, entry.description, entry.licence, entry.domain, entry.task_type, *entry.languages]
    return " ".join(parts).lower()

"""Short names as people type them: `bank-bot@3` gives `projects/p/models/bank-bot/versions/3`.

Pure: whether the thing exists is the suite's to say. A full resource name is left as it is.
"""

from __future__ import annotations

import re

from kit.rpc.errors import Invalid
from kit.rpc.names import slug

ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
UUID_START = re.compile(r"[0-9a-f][0-9a-f-]{3,35}")


def project(name: str) -> str:
    """`default` gives `projects/default`; raises Invalid for what is no id."""
    return f"projects/{_id(name.removeprefix('projects/'), 'project')}"


def dataset(parent: str, name: str) -> str:
    """`bank-intents`, or the display name `bank_intents`, gives `projects/p/datasets/bank-intents`."""
    return _plain(parent, "datasets", name, "dataset")


def dataset_version(parent: str, name: str) -> str:
    """`bank-intents@3` gives `…/datasets/bank-intents/versions/3`; without a number it is `latest`."""
    return _versioned(parent, "datasets", name, "dataset", ("latest",))


def model(parent: str, name: str) -> str:
    """`bank-bot` gives `projects/p/models/bank-bot`."""
    return _plain(parent, "models", name, "model")


def model_version(parent: str, name: str) -> str:
    """`bank-bot@3` gives `…/models/bank-bot/versions/3`; an alias may follow the @, none means `latest`."""
    return _versioned(parent, "models", name, "model", ("latest", "stable", "any other alias"))


def endpoint(parent: str, name: str) -> str:
    """`bank-bot` gives `projects/p/endpoints/bank-bot`; `-` stands for all of them."""
    return f"{parent}/endpoints/-" if name == "-" else _plain(parent, "endpoints", name, "endpoint")


def api_key(parent: str, name: str) -> str:
    """`ci` gives `projects/p/apiKeys/ci`."""
    return _plain(parent, "apiKeys", name, "key")


def gate_policy(parent: str, name: str) -> str:
    """`no-regression` gives `projects/p/gatePolicies/no-regression`."""
    return _plain(parent, "gatePolicies", name, "gate policy")


def task_type(parent: str, name: str) -> str:
    """`radiology-report` gives `projects/p/taskTypes/radiology-report`; built-in ones are found there as well."""
    return _plain(parent, "taskTypes", name, "task type")


def is_uuid(name: str) -> bool:
    """Whether it is a whole UUID, so that nothing has to be looked up."""
    return UUID.fullmatch(name) is not None


def is_uuid_start(name: str) -> bool:
    """Whether it can be the beginning of a UUID: at least four of `0-9a-f-`."""
    return UUID_START.fullmatch(name) is not None


def short(name: str) -> str:
    """The way back, for people: `bank-bot@3` of `…/models/bank-bot/versions/3`, else the last part."""
    parts = name.split("/")
    if len(parts) == 6 and parts[4] == "versions":
        return f"{parts[3]}@{parts[5]}"
    return parts[-1]


def only(found: list[str], wanted: str, kind: str) -> str:
    """The one name that was found; raises Invalid when there are several, NotFound when there is none."""
    from kit.rpc.errors import NotFound

    if len(found) == 1:
        return found[0]
    if found:
        some = ", ".join(name.rsplit("/", 1)[-1] for name in found[:3])
        raise Invalid(f"`{wanted}` begins the ids of {len(found)} {kind}s ({some} …); type more of the id")
    raise NotFound(f"there is no {kind} `{wanted}`; its id or the beginning of it is wanted", resource=(kind, wanted))


def _plain(parent: str, collection: str, name: str, kind: str) -> str:
    if name.startswith("projects/"):
        return name
    return f"{parent}/{collection}/{_id(slug(name) if name else '', kind)}"


def _versioned(parent: str, collection: str, name: str, kind: str, words: tuple[str, ...]) -> str:
    if name.startswith("projects/"):
        return name if "/versions/" in name else f"{name}/versions/latest"
    base, at, version = name.partition("@")
    if at and not re.fullmatch(r"[a-z0-9-]+", version):
        wanted = " or ".join(("a number", *words))
        raise Invalid(f"`{name}` is no version of a {kind}; after the @ comes {wanted}, as in `{base or 'name'}@3`")
    return f"{_plain(parent, collection, base, kind)}/versions/{version or 'latest'}"


def _id(name: str, kind: str) -> str:
    if not ID.fullmatch(name):
        raise Invalid(f"`{name}` is no id of a {kind}; ids are lower-case letters, digits and hyphens")
    return name

"""Resource names and ids: slugs, UUIDv7, parts of `projects/p/datasets/d`; it knows no collection."""

from __future__ import annotations

import hashlib
import re
import unicodedata

from uuid6 import uuid7 as _uuid7

MAX_SLUG = 63
NAME = re.compile(r"projects/([a-z0-9-]+)(/[A-Za-z]+/[A-Za-z0-9._-]+)*(/[A-Za-z]+)?")


def uuid7() -> str:
    """A new UUIDv7 (RFC 9562), ordered by time."""
    return str(_uuid7())


def slug(display_name: str) -> str:
    """The id of a display name: `medical_chest_xray_report` gives `medical-chest-xray-report`.

    Accents fall away. Where letters have no Latin form (`胸片 v2`), or the name is too long, a short hash of
    the whole name keeps ids apart. At most 63 of `a-z0-9-`, never empty; the same name gives the same id.
    """
    folded = unicodedata.normalize("NFKD", display_name.casefold())
    kept = "".join(char for char in folded if not unicodedata.combining(char))
    words = re.sub(r"[^a-z0-9]+", "-", kept).strip("-")
    lossy = any(char.isalnum() and not char.isascii() for char in kept)
    if words and not lossy and len(words) <= MAX_SLUG:
        return words
    digest = hashlib.sha256(display_name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    head = words[: MAX_SLUG - 9].strip("-")
    return f"{head}-{digest}" if head else f"n-{digest}"


def project_of(name: str) -> str:
    """`projects/p` of `projects/p/datasets/d`; empty for a name of no project, such as `taskTypes/sft`."""
    found = NAME.fullmatch(name)
    return f"projects/{found.group(1)}" if found else ""


def parent_of(name: str) -> str:
    """`projects/p` of `projects/p/datasets/d`; empty for `projects/p` and other names of two parts."""
    return "/".join(name.split("/")[:-2])


def id_of(name: str) -> str:
    """The last part: `d` of `projects/p/datasets/d`."""
    return name.rsplit("/", 1)[-1]

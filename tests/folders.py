"""What lies in a folder while processes write and delete there: a file that goes while one looks is not there."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path


def files(folder: Path) -> list[Path]:
    """All regular files below a folder, which may be missing. `rglob` would break off at a folder that just went."""
    paths = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    return sorted(path for path in paths if path.is_file())


def contents(paths: Iterable[Path]) -> Iterator[tuple[Path, bytes]]:
    """What is in files, of those that are still there."""
    for path in paths:
        with suppress(FileNotFoundError):
            yield path, path.read_bytes()

"""`sluice dataset assets` and `asset`: the images and sounds that rows of a version name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sluice.cli import completion, screen, words
from sluice.cli.options import LOOK, Session, command

if TYPE_CHECKING:
    from sluice.dataset import v1 as dataset

Version = Annotated[
    str,
    typer.Argument(
        metavar="NAME[@N]", help="A version, chest-xray@3; else the newest.", autocompletion=completion.datasets
    ),
]


def add_to(app: typer.Typer) -> None:
    """Adds the commands to those of `sluice dataset`."""
    command(app, "assets", panel=LOOK)(assets)
    command(app, "asset", panel=LOOK)(asset)


def assets(
    session: Session,
    version: Version,
    limit: Annotated[int, typer.Option(min=0, help="At most so many; 0 means all.")] = 50,
) -> None:
    """List the images and sounds that rows of a version name, by digest."""
    columns: screen.Columns = {
        "ASSET": lambda each: words.digest(each.digest),
        "TYPE": lambda each: each.type,
        "PIXELS": lambda each: f"{each.width} × {each.height}" if each.width else "",
        "SIZE": lambda each: words.size(each.size_bytes),
    }
    found = session.client.datasets.assets(version, limit)
    screen.listing(session, found, columns, "no row of this version names an image or a sound")


def asset(
    session: Session,
    version: Version,
    digest: Annotated[str, typer.Argument(help="Its digest, or the beginning of it.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to; without it, a name made of the digest.")
    ] = None,
    png: Annotated[bool, typer.Option("--png", help="As PNG; of DICOM as a viewer shows it at first.")] = False,
    frame: Annotated[int, typer.Option(min=0, help="Which frame of several, from 0; with --png.")] = 0,
) -> None:
    """Download an image or a sound that a row of a version names."""
    from kit.rpc.errors import Invalid

    if frame and not png:
        raise Invalid("a frame is taken out of an image with --png; the original has all of them")
    about = _find(session, version, digest)
    content = session.client.datasets.asset(version, about.digest, png=png, frame=frame)
    path = output or Path(words.digest(about.digest) + _suffix("image/png" if png else about.type))
    path.write_bytes(content)
    if session.json:
        screen.emit(about)
    screen.hint(session, f"{words.size(len(content))} in {path}")


def _find(session: Session, version: str, digest: str) -> dataset.Asset:
    from sluice.client.names import only

    wanted = digest if digest.startswith("sha256:") else f"sha256:{digest}"
    found = {each.digest: each for each in session.client.datasets.assets(version) if each.digest.startswith(wanted)}
    return found[only(list(found), digest, "asset")]


def _suffix(kind: str) -> str:
    import mimetypes

    return ".dcm" if kind == "application/dicom" else mimetypes.guess_extension(kind) or ""

"""`sluice ask`: asks an endpoint that does not chat, over the HTTP that applications use; it knows no model."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from sluice.cli import exits, screen, words
from sluice.cli.chat import client_of, failed
from sluice.cli.options import Session, command

if TYPE_CHECKING:
    import openai

Row = tuple[Any, ...]
_SHOWN = 4


def register(app: typer.Typer) -> None:
    """Adds `ask`."""
    command(app, "ask")(ask)


def ask(
    session: Session,
    endpoint: Annotated[str, typer.Argument(help="An endpoint, or one version of it that serves: intents@3.")],
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="What to ask; without it, the lines of stdin.")
    ] = None,
    http: Annotated[str, typer.Option(help="The base of the OpenAI interface (SLUICE_HTTP).")] = "",
    session_id: Annotated[str, typer.Option("--session", help="Who you are to the canary; your key if empty.")] = "",
) -> int:
    """Ask an endpoint that does not chat: it embeds or classifies texts, or ranks the others by the first.

    --json prints the answer as applications get it.
    """
    import httpx
    import openai

    asked = texts or ([] if sys.stdin.isatty() else [line for line in sys.stdin.read().splitlines() if line.strip()])
    if not asked:
        exits.complain("there is nothing to ask; give texts, or write them to standard input, one a line")
        return exits.INVALID
    client = client_of(session, http)
    try:
        interface = _interface(client, endpoint)
        if interface not in KINDS:
            exits.complain(f"`{endpoint}` serves {interface}; `sluice chat {endpoint} TEXT` talks to it")
            return exits.INVALID
        kind = KINDS[interface]
        if len(asked) < kind.least:
            exits.complain(f"`{endpoint}` ranks texts by a query; give the query and then the texts")
            return exits.INVALID
        headers = {"x-sluice-session": session_id} if session_id else {}
        body = {"model": endpoint, **kind.body(asked)}
        raw = client.post(kind.path, cast_to=httpx.Response, body=body, options={"headers": headers})
    except openai.APIError as error:
        return failed(error, client, endpoint)
    _show(session, kind, asked, raw.json(), raw.headers.get("x-sluice-version", ""))
    return exits.OK


def _show(session: Session, kind: Kind, asked: Sequence[str], answer: Any, version: str) -> None:
    if session.json:
        screen.emit(answer)
        return
    columns = {title: itemgetter(place) for place, title in enumerate(kind.columns)}
    screen.put(screen.table(kind.rows(asked, answer), columns))
    screen.hint(session, f"answered by {words.brief(version) or 'an unnamed version'}")


def _interface(client: openai.OpenAI, endpoint: str) -> str:
    """What the endpoint serves. Raises openai.NotFoundError where it is none of the caller's."""
    import openai

    name = endpoint.partition("@")[0]
    try:
        found = client.models.retrieve(name)
    except openai.NotFoundError:
        if "/" not in name:
            raise
        found = client.models.retrieve(name.rpartition("/")[2])  # shown by its id, as it is the only one of that
    return str((found.model_extra or {}).get("interface") or "chat")


def _embedded(texts: Sequence[str], answer: Any) -> list[Row]:
    vectors = [each["embedding"] for each in sorted(answer["data"], key=lambda each: each["index"])]
    return [
        (text, len(vector), _cosine(vectors[0], vector), ", ".join(f"{value:.3f}" for value in vector[:_SHOWN]) + ", …")
        for text, vector in zip(texts, vectors, strict=True)
    ]


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product / (math.hypot(*one) * math.hypot(*other) or 1.0)


def _classified(texts: Sequence[str], answer: Any) -> list[Row]:
    found = sorted(answer["data"], key=lambda each: each["index"])
    return [(text, each["label"] or "", max(each["probs"])) for text, each in zip(texts, found, strict=True)]


def _ranked(texts: Sequence[str], answer: Any) -> list[Row]:
    return [
        (place + 1, each["relevance_score"], texts[1 + each["index"]]) for place, each in enumerate(answer["results"])
    ]


def _named(texts: Sequence[str], answer: Any) -> list[Row]:
    found = sorted(answer["data"], key=lambda each: each["index"])
    return [
        (text, each["text"], each["label"], f"{each['start']}:{each['end']}", each["score"])
        for text, one in zip(texts, found, strict=True)
        for each in one["entities"]
    ]


class Kind(NamedTuple):
    """Where an interface is asked, with what, and how its answer is shown."""

    path: str
    body: Callable[[Sequence[str]], dict[str, Any]]
    rows: Callable[[Sequence[str], Any], list[Row]]
    columns: tuple[str, ...]
    least: int = 1


def _inputs(texts: Sequence[str]) -> dict[str, Any]:
    return {"input": texts}


def _query(texts: Sequence[str]) -> dict[str, Any]:
    return {"query": texts[0], "documents": texts[1:]}


KINDS = {
    "embeddings": Kind("/embeddings", _inputs, _embedded, ("TEXT", "DIMENSIONS", "NEAR THE FIRST", "VECTOR")),
    "classify": Kind("/classify", _inputs, _classified, ("TEXT", "CLASS", "PROBABILITY")),
    "entities": Kind("/entities", _inputs, _named, ("TEXT", "ENTITY", "LABEL", "PLACE", "PROBABILITY")),
    "rerank": Kind("/rerank", _query, _ranked, ("RANK", "SCORE", "TEXT"), least=2),
}

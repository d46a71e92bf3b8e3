"""The paths that applications ask at: which interface each is of, and where an engine answers it; knows no route."""

from __future__ import annotations

from typing import NamedTuple

from services.gateway.worker.errors import WrongInterface
from services.gateway.worker.policy import Target


class Way(NamedTuple):
    """One client path: the interface of the endpoints that answer there, and the path of their engines. `generates`:
    an answer is as long as the model makes it, and else as what was sent.
    """

    interface: str
    engine_path: str
    generates: bool = False


#: The first of an interface is the one that is recommended to who asks elsewhere.
PATHS = {
    "/v1/chat/completions": Way("chat", "/v1/chat/completions", generates=True),
    "/v1/completions": Way("chat", "/v1/completions", generates=True),
    "/v1/embeddings": Way("embeddings", "/v1/embeddings"),
    "/v1/classify": Way("classify", "/classify"),
    "/v1/rerank": Way("rerank", "/rerank"),
    "/v1/score": Way("rerank", "/score"),
    "/v1/entities": Way("entities", "/entities"),
    "/v1/pooling": Way("entities", "/pooling"),
}
_RECOMMENDED = {way.interface: path for path, way in reversed(PATHS.items())}


def require_interface(target: Target, way: Way, model: str) -> None:
    """Raise WrongInterface where the endpoint is asked for what it does not serve: no version is to blame for that.

    A candidate that is judged has no endpoint, and the evaluator knows what it is.
    """
    if target.interface and target.interface != way.interface:
        raise WrongInterface(model, target.interface, _RECOMMENDED.get(target.interface, "another path"))

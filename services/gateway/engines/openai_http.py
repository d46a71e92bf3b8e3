"""The OpenAI HTTP calls all engines answer alike; knows no program and no command line."""

import math
from collections.abc import Mapping
from pathlib import Path

import httpx

from services.gateway.engines.errors import AdapterRejected, EngineError, EngineLost, NotReady, WrongKind
from services.gateway.engines.protocol import Task

_SILENT = (httpx.ConnectError, httpx.TimeoutException, httpx.ReadError, httpx.RemoteProtocolError)
_PROOFS: dict[Task, tuple[str, Mapping[str, object]]] = {
    "generate": ("/v1/completions", {"prompt": "a", "max_tokens": 1, "temperature": 0, "logprobs": 1}),
    "embed": ("/v1/embeddings", {"input": "a"}),
    # Raw logits: a softmax that is saturated hides an infinity.
    "classify": ("/classify", {"input": "a", "use_activation": False}),
    "score": ("/rerank", {"query": "a", "documents": ["b"], "use_activation": False}),
    "tag": ("/pooling", {"input": "a", "use_activation": False}),
}
#: A gray pixel.
_PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mNoAAAAggCB2kUIOwAAAABJRU5ErkJggg=="
)
#: What is asked of a model that refuses a text alone.
_SEEN: dict[Task, Mapping[str, object]] = {
    "classify": {
        "messages": [
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": _PIXEL}}, {"type": "text", "text": "a"}],
            }
        ],
        "use_activation": False,
    },
}
_KINDS: dict[Task, str] = {
    "generate": "text generation",
    "embed": "embeddings",
    "classify": "classification",
    "score": "reranking",
    "tag": "naming spans of texts",
}


async def prove(client: httpx.AsyncClient, task: Task, model: str) -> None:
    """Ask `model` one real question. Raises NotReady (not listening, 503), WrongKind or EngineError (a wrong answer).

    The log-probability is asked for because a server with NaN weights answers 200 with empty text otherwise.
    """
    path, body = _PROOFS[task]
    try:
        answer = await client.post(path, json={"model": model, **body})
        if answer.status_code == 400 and task in _SEEN:
            answer = await client.post(path, json={"model": model, **_SEEN[task]})
    except _SILENT as silence:
        raise NotReady(f"The engine for {model} does not answer yet.", "Wait, or read engine.log.") from silence
    if answer.status_code == 503:
        raise NotReady(f"The engine for {model} is still starting.", "Wait, or read engine.log.")
    missing = answer.status_code in (404, 501) and task != "generate"  # the path of a task that the model does not have
    if missing or (task == "tag" and answer.status_code == 200 and not _is_of_tokens(answer.json())):
        raise WrongKind(
            f"{model} is no model for {_KINDS[task]}: the engine has no {path} for it.",
            "Give it a task type of its own kind, or export it with the head that this one needs.",
        )
    if answer.status_code != 200:
        raise EngineError(
            f"The engine answered {answer.status_code} to a one-token request for {model}.",
            "Check the model's files and the engine's dtype (a quantized model wants bfloat16).",
        )
    figures = _figures(task, answer.json())
    if not figures or not all(math.isfinite(figure) for figure in figures):
        raise EngineError(
            f"The engine answers for {model} with figures that are not finite.",
            "Look for NaN or infinity in the weights, or serve it in a wider dtype.",
        )


def _is_of_tokens(body: dict[str, object]) -> bool:
    """Whether there are values for each token; models of other kinds answer at the same path with one list."""
    match body:
        case {"data": [{"data": [[*_], *_]}, *_]}:
            return True
    return False


def _figures(task: Task, body: dict[str, object]) -> list[float]:
    """The numbers that show whether the forward pass was sound; [] where the answer has another shape."""
    try:
        match task, body:
            case "generate", {"choices": [{"logprobs": {"token_logprobs": [*values]}}, *_]}:
                return [float(value) for value in values]
            case "embed", {"data": [{"embedding": [*values]}, *_]}:
                return [float(value) for value in values]
            case "classify", {"data": [{"probs": [*values]}, *_]}:
                return [float(value) for value in values]
            case "score", {"results": [{"relevance_score": value}, *_]}:
                return [float(value)]
            case "tag", {"data": [{"data": [*tokens]}, *_]}:
                return [float(value) for values in tokens for value in values]
    except (TypeError, ValueError):
        return []
    return []


async def load_lora(client: httpx.AsyncClient, name: str, path: Path) -> None:
    """POST /v1/load_lora_adapter. Raises AdapterRejected or EngineLost; loaded already is success."""
    answer = await _post(client, "/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path)})
    if answer.status_code == 200 or "already been loaded" in answer.text:
        return
    raise AdapterRejected(
        f"The engine refused adapter {name} with status {answer.status_code}.",
        "Train it for this base with a rank and targets the engine takes; engine.log names the cause.",
    )


async def unload_lora(client: httpx.AsyncClient, name: str) -> None:
    """POST /v1/unload_lora_adapter. Raises EngineLost or EngineError; not loaded is success."""
    answer = await _post(client, "/v1/unload_lora_adapter", {"lora_name": name})
    if answer.status_code not in (200, 404):
        raise EngineError(
            f"The engine answered {answer.status_code} when asked to unload {name}.",
            "Stop this engine and ensure it again.",
        )


async def _post(client: httpx.AsyncClient, path: str, body: Mapping[str, object]) -> httpx.Response:
    try:
        return await client.post(path, json=body)
    except _SILENT as silence:
        raise EngineLost("The engine stopped answering.", "Call ensure to start it again.") from silence

"""An OpenAI-speaking engine of the standard library, run as a child process; it knows no model, only names.

Faults come from FAKE_ENGINE_FAULTS (JSON) at the start or POST /_fake/faults later; GET /_fake/calls counts.
"""

import argparse
import hmac
import json
import math
import os
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

#: What an engine of each task answers, as vLLM does: an embedder ranks too, a reranker has one class.
PATHS = {
    "generate": ("/v1/chat/completions", "/v1/completions"),
    "embed": ("/v1/embeddings", "/rerank", "/score"),
    "classify": ("/classify",),
    "score": ("/rerank", "/score", "/classify"),
    "tag": ("/pooling", "/entities"),
}
DIMENSIONS = 16


@dataclass
class Faults:
    """What goes wrong; all off by default, and all of it leaves load, unload and /v1/models alone."""

    start_delay_s: float = 0.0  # before it listens
    delay_s: float = 0.0  # before the first byte of an answer
    chunk_delay_s: float = 0.0  # between streamed chunks
    status: int = 0  # answered in place of 200
    times: int = -1  # how many answers `status` spoils; -1: all
    break_after_chunks: int = -1  # closes the connection in mid-stream
    nan: bool = False  # no figure is finite: what a poisoned vLLM does
    only: str = ""  # the one model that `delay_s` and `status` strike; empty: all


class FakeServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int, model: str, key: str, faults: Faults, task: str, config: dict[str, Any]) -> None:
        self.model, self.key, self.faults = model, key, faults
        self.config = config
        #: A model whose config has a `fake_kind` can do that alone, whatever the engine was started for.
        self.paths = PATHS[task] if config.get("fake_kind", task) == task else ()
        self.adapters: dict[str, str] = {}
        self.calls: Counter[str] = Counter()
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", port), Handler)

    def config_of(self, model: str) -> dict[str, Any]:
        """An adapter's config; empty for the base."""
        folder = self.adapters.get(model)
        return dict(json.loads((Path(folder) / "adapter_config.json").read_text())) if folder else {}

    def poisoned_by(self, model: str) -> bool:
        """Whether serving `model` gives NaN; an adapter's config may ask for that, or for a crash."""
        config = self.config_of(model)
        if config.get("fake_crash"):
            os._exit(1)
        return self.faults.nan or bool(config.get("fake_poison"))

    def delay_s(self, model: str) -> float:
        return self.faults.delay_s if self.faults.only in ("", model) else 0.0

    def spoiled(self, model: str) -> int:
        with self.lock:
            if not self.faults.status or self.faults.times == 0 or self.faults.only not in ("", model):
                return 0
            self.faults.times -= 1
            return self.faults.status


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeServer

    def log_message(self, format: str, *args: Any) -> None:
        """An engine logs no requests."""

    def do_GET(self) -> None:
        match self._checked(), self.path:
            case False, _:
                return
            case _, "/v1/models":
                names = [self.server.model, *self.server.adapters]
                self._json({"object": "list", "data": [{"id": name, "object": "model"} for name in names]})
            case _, "/_fake/calls":
                self._json(dict(self.server.calls))
            case _, "/health":
                self._json({})
            case _:
                self._error(404, "no such path")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
        if not self._checked():
            return
        match self.path:
            case path if path in self.server.paths:
                self._infer(body)
            case "/v1/load_lora_adapter":
                self._load(body["lora_name"], body["lora_path"])
            case "/v1/unload_lora_adapter":
                found = self.server.adapters.pop(body["lora_name"], None)
                self._json({}) if found else self._error(404, "adapter cannot be found")
            case "/_fake/faults":
                self.server.faults = Faults(**body)
                self._json({})
            case _:
                self._error(404, "no such path")

    def _checked(self) -> bool:
        self.server.calls[self.path] += 1
        given = self.headers.get("authorization", "")
        if hmac.compare_digest(given.encode(), f"Bearer {self.server.key}".encode()):
            return True
        self._error(401, "Unauthorized")
        return False

    def _load(self, name: str, path: str) -> None:
        if name in self.server.adapters:
            return self._error(400, f"The lora adapter '{name}' has already been loaded.")
        if not (Path(path) / "adapter_config.json").exists():
            return self._error(404, "No adapter found")
        self.server.adapters[name] = path
        self._json({})

    def _infer(self, body: dict[str, Any]) -> None:
        model = str(body.get("model"))
        if model not in (self.server.model, *self.server.adapters):
            return self._error(404, f"The model `{model}` does not exist.")
        time.sleep(self.server.delay_s(model))
        if status := self.server.spoiled(model):
            return self._error(status, "a fault was asked for")
        poisoned = self.server.poisoned_by(model)
        if poisoned and (body.get("logprobs") or not body.get("max_tokens")):
            return self._error(400, "Out of range float values are not JSON compliant")
        if self.path in POOLED:
            usage = {"prompt_tokens": len(_texts(body)), "total_tokens": len(_texts(body))}
            return self._json({"id": "fake-1", "model": model, "usage": usage, **POOLED[self.path](body, self.server)})
        words = [] if poisoned else _answer(model, body, self.server.config_of(model).get("fake_answer", ""))
        if body.get("stream"):
            return self._stream(body, model, words)
        self._json(_whole(self.path, body, model, words))

    def _stream(self, body: dict[str, Any], model: str, words: list[str]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            for sent, event in enumerate(_events(self.path, body, model, words)):
                if sent == self.server.faults.break_after_chunks:
                    self.close_connection = True
                    return
                self._chunk(event)
                time.sleep(self.server.faults.chunk_delay_s)
            self.wfile.write(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            self.server.calls["client_gone"] += 1
            self.close_connection = True

    def _chunk(self, event: str) -> None:
        data = f"data: {event}\n\n".encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _error(self, status: int, message: str) -> None:
        self._json({"error": {"message": message, "type": "fake", "param": None, "code": status}}, status)

    def _json(self, body: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _heard(body: dict[str, Any]) -> list[str]:
    messages = body.get("messages")
    return str(messages[-1].get("content", "") if messages else body.get("prompt", "")).split()


def _answer(model: str, body: dict[str, Any], how: str) -> list[str]:
    """One word a token: which model answered, then what it heard; `echo` is that alone, `mute` neither."""
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or 64
    return {"echo": _heard(body), "mute": ["nothing"]}.get(how, [model, "heard", *_heard(body)])[:limit]


def _usage(body: dict[str, Any], words: list[str]) -> dict[str, int]:
    prompt = len(_heard(body))
    return {"prompt_tokens": prompt, "completion_tokens": len(words), "total_tokens": prompt + len(words)}


def _texts(body: dict[str, Any]) -> list[str]:
    """What is to be embedded or classified: each text, the tokens of one, or a conversation."""
    if "messages" in body:
        return ["\n".join(str(message.get("content", "")) for message in body["messages"])]
    given = body.get("input", body.get("documents", body.get("text_2", "")))
    if isinstance(given, list) and all(isinstance(each, int) for each in given):
        return [" ".join(map(str, given))]
    return [str(each) for each in given] if isinstance(given, list) else [str(given)]


def _vector(text: str) -> list[float]:
    """A bag of words in so many dimensions, normalised: texts that share words are near each other."""
    counts = Counter(zlib.crc32(word.encode()) % DIMENSIONS for word in text.lower().split())
    length = math.sqrt(sum(count**2 for count in counts.values())) or 1.0
    return [counts[place] / length for place in range(DIMENSIONS)]


def _embedded(body: dict[str, Any], server: FakeServer) -> dict[str, Any]:
    vectors = [_vector(text) for text in _texts(body)]
    return {"object": "list", "data": [{"index": n, "embedding": vector} for n, vector in enumerate(vectors)]}


def _classified(body: dict[str, Any], server: FakeServer) -> dict[str, Any]:
    """A class is likely when its name is among the words; the one class of a reward model likes long answers."""
    labels = list(dict(server.config.get("id2label", {"0": "A", "1": "B"})).values())
    data = []
    for place, text in enumerate(_texts(body)):
        words = text.lower().split()
        logits = [float(words.count(label.lower())) for label in labels] if len(labels) > 1 else [float(len(words))]
        probs = logits if body.get("use_activation") is False else _softmax(logits)
        label = labels[max(range(len(labels)), key=logits.__getitem__)]
        data.append({"index": place, "label": label, "probs": probs, "num_classes": len(labels)})
    return {"object": "list", "data": data}


def _softmax(logits: list[float]) -> list[float]:
    powers = [math.exp(logit) for logit in logits]
    return [power / sum(powers) for power in powers]


def _alike(query: str, text: str) -> float:
    return sum(one * other for one, other in zip(_vector(query), _vector(text), strict=True))


def _ranked(body: dict[str, Any], server: FakeServer) -> dict[str, Any]:
    scores = [_alike(str(body["query"]), text) for text in _texts(body)]
    order = sorted(range(len(scores)), key=lambda place: -scores[place])[: body.get("top_n") or None]
    texts = _texts(body)
    return {
        "results": [
            {"index": place, "document": {"text": texts[place]}, "relevance_score": scores[place]} for place in order
        ]
    }


def _scored(body: dict[str, Any], server: FakeServer) -> dict[str, Any]:
    scores = [_alike(str(body["text_1"]), text) for text in _texts(body)]
    return {"object": "list", "data": [{"index": place, "score": score} for place, score in enumerate(scores)]}


def _tagged(body: dict[str, Any], server: FakeServer) -> dict[str, Any]:
    """For each word whether it begins a name, which one with a capital letter does."""
    values = [[[float(not word.istitle()), float(word.istitle())] for word in text.split()] for text in _texts(body)]
    return {"object": "list", "data": [{"index": place, "data": each} for place, each in enumerate(values)]}


def _named(body: dict[str, Any], server: FakeServer) -> dict[str, Any]:
    data: list[dict[str, Any]] = []
    for place, text in enumerate(_texts(body)):
        words = [word for word in dict.fromkeys(text.split()) if word.istitle()]
        places = [(text.index(word), word) for word in words]
        entities = [
            {"start": at, "end": at + len(word), "label": "NAME", "score": 1.0, "text": word} for at, word in places
        ]
        data.append({"index": place, "object": "entities", "entities": entities})
    return {"object": "list", "data": data}


POOLED = {
    "/v1/embeddings": _embedded,
    "/classify": _classified,
    "/rerank": _ranked,
    "/score": _scored,
    "/pooling": _tagged,
    "/entities": _named,
}


def _whole(path: str, body: dict[str, Any], model: str, words: list[str]) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "logprobs": None}
    if path == "/v1/chat/completions":
        choice["message"] = {"role": "assistant", "content": " ".join(words)}
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [{"token": word, "logprob": -0.5, "top_logprobs": []} for word in words]}
    else:
        choice["text"] = " ".join(words)
        if body.get("logprobs"):
            choice["logprobs"] = {"tokens": words, "token_logprobs": [-0.5] * len(words)}
    kind = "chat.completion" if "chat" in path else "text_completion"
    head = {"id": "fake-1", "object": kind, "created": int(time.time()), "model": model}
    return {**head, "choices": [choice], "usage": _usage(body, words)}


def _events(path: str, body: dict[str, Any], model: str, words: list[str]) -> Iterator[str]:
    """The data of each server-sent event: a word each, the finish, usage where asked for, [DONE]."""
    chat = "chat" in path
    kind = "chat.completion.chunk" if chat else "text_completion"
    head = {"id": "fake-1", "object": kind, "created": int(time.time()), "model": model}
    for place, word in enumerate(words):
        text = word if place == 0 else f" {word}"
        part: dict[str, Any] = {"delta": {"role": "assistant", "content": text}} if chat else {"text": text}
        yield json.dumps({**head, "choices": [{"index": 0, "finish_reason": None, **part}]})
    last: dict[str, Any] = {"delta": {}} if chat else {"text": ""}
    yield json.dumps({**head, "choices": [{"index": 0, "finish_reason": "stop", **last}]})
    if (body.get("stream_options") or {}).get("include_usage"):
        yield json.dumps({**head, "choices": [], "usage": _usage(body, words)})
    yield "[DONE]"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--model-dir", type=Path, required=True)
    parser.add_argument("--task", choices=list(PATHS), default="generate")
    options = parser.parse_args()
    if not (options.model_dir / "config.json").exists():
        sys.exit("ValueError: the model's folder holds no config.json")
    config = json.loads((options.model_dir / "config.json").read_text())
    given = json.loads(os.environ.get("FAKE_ENGINE_FAULTS", "{}"))
    faults = Faults(**{name.name: given[name.name] for name in fields(Faults) if name.name in given})
    time.sleep(faults.start_delay_s)
    sys.stdout.write("INFO fake engine starts\n")
    key = os.environ["FAKE_ENGINE_KEY"]
    FakeServer(options.port, options.model, key, faults, options.task, config).serve_forever()


if __name__ == "__main__":
    main()

"""Cuts an engine's event stream at event ends and puts the client's model name in; reads little else."""

from __future__ import annotations

import re

import msgspec

from services.gateway.worker.body import Usage
from services.gateway.worker.errors import Broken

MAX_EVENT_BYTES = 4 * 1024 * 1024
_DONE = b"data: [DONE]"
_ERROR = re.compile(rb'^data: ?\{"(?:error"|object": ?"error")', re.MULTILINE)
_PROMPT = re.compile(rb'"prompt_tokens": ?(\d{1,12})')
_COMPLETION = re.compile(rb'"completion_tokens": ?(\d{1,12})')


class EventRelay:
    """Feed it what arrives; what it returns is whole events only, so an ending can always be told properly.

    The name is replaced by its bytes: `"model":"x"` can't occur inside a JSON string, where quotes are
    escaped.
    """

    def __init__(self, engine_model: str, model: str) -> None:
        name, asked = msgspec.json.encode(engine_model), msgspec.json.encode(model)
        self._spellings = (
            (b'"model":' + name, b'"model":' + asked),
            (b'"model": ' + name, b'"model": ' + asked),
        )
        self._rest = b""
        self._last = b""
        self._before = b""

    def feed(self, data: bytes) -> bytes:
        """The whole events now at hand, perhaps none. Raises Broken on an event over 4 MiB or an engine's
        error.
        """
        if self._rest:
            data = self._rest + data
            self._rest = b""
        if not data.endswith((b"\n\n", b"\r\n\r\n")):
            data, self._rest = _cut(data)
            if len(self._rest) > MAX_EVENT_BYTES:
                raise Broken(f"The engine sent an event of more than {MAX_EVENT_BYTES} bytes.")
            if not data:
                return b""
        if b'error"' in data and _ERROR.search(data):
            raise Broken("The engine failed in the middle of its answer.")
        compact, spaced = self._spellings
        if compact[0] in data:
            data = data.replace(*compact)
        elif spaced[0] in data:
            self._spellings = (spaced, compact)
            data = data.replace(*spaced)
        self._before, self._last = self._last, data
        return data

    @property
    def done(self) -> bool:
        """Whether the stream's last event was `[DONE]` and nothing is left over."""
        return not self._rest and self._last.rstrip().endswith(_DONE)

    def usage(self) -> Usage | None:
        """The tokens of the final usage event, when the engine sent one."""
        tail = self._before + self._last
        prompt, completion = _PROMPT.findall(tail), _COMPLETION.findall(tail)
        if not completion:
            return None
        return Usage(int(prompt[-1]) if prompt else None, int(completion[-1]))


def _cut(data: bytes) -> tuple[bytes, bytes]:
    lf, crlf = data.rfind(b"\n\n"), data.rfind(b"\r\n\r\n")
    end = max(lf + 2 if lf >= 0 else 0, crlf + 4 if crlf >= 0 else 0)
    return data[:end], data[end:]

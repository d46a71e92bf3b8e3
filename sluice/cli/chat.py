"""`sluice chat`: talks to an endpoint through the official OpenAI client, as any application would."""

from __future__ import annotations

import os
import sys
import uuid
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sluice.cli import exits, screen, words
from sluice.cli.options import Session, command

if TYPE_CHECKING:
    import openai

DEFAULT_HTTP = "http://127.0.0.1:8080"


def register(app: typer.Typer) -> None:
    """Adds `chat`."""
    command(app, "chat")(chat)


def chat(
    session: Session,
    endpoint: Annotated[str, typer.Argument(help="An endpoint, or one version of it that serves: bank-bot@3.")],
    prompt: Annotated[str, typer.Argument(help="What to say; without it, a conversation.")] = "",
    http: Annotated[str, typer.Option(help="The base of the OpenAI interface (SLUICE_HTTP).")] = "",
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens an answer may have.")] = 256,
    temperature: Annotated[float, typer.Option(min=0, help="0 always takes the likeliest word.")] = 0.0,
    session_id: Annotated[str, typer.Option("--session", help="Who you are to the canary; random if empty.")] = "",
) -> int:
    """Ask an endpoint something and see which version answered; without a prompt, talk until Ctrl-D."""
    talk = Conversation(session, client_of(session, http), endpoint, max_tokens, temperature, session_id)
    if prompt:
        return talk.ask(prompt)
    if not sys.stdin.isatty():
        if said := sys.stdin.read().strip():
            return talk.ask(said)
        exits.complain("there is nothing to say; give a prompt, or write one to standard input")
        return exits.INVALID
    screen.hint(session, f"talking to {endpoint}; Ctrl-D ends it")
    code = exits.OK
    while True:
        try:
            said = input("> ").strip()
        except EOFError:
            print()
            return code
        if said:
            code = talk.ask(said)


class Conversation:
    """What was said so far; one session, so the canary keeps it on one version."""

    def __init__(
        self, session: Session, client: openai.OpenAI, model: str, max_tokens: int, temperature: float, name: str
    ) -> None:
        self._session = session
        self._client = client
        self._model, self._max_tokens, self._temperature = model, max_tokens, temperature
        self._headers = {"x-sluice-session": name or str(uuid.uuid4())}
        self._messages: list[Any] = []

    def ask(self, said: str) -> int:
        """Says something and prints the answer as it comes; a fault is one sentence and an exit code."""
        import openai

        self._messages.append({"role": "user", "content": said})
        try:
            answer, version = self._stream()
        except openai.APIError as error:
            self._messages.pop()
            return failed(error, self._client, self._model)
        self._messages.append({"role": "assistant", "content": answer})
        if self._session.json:
            screen.emit({"endpoint": self._model, "version": version, "answer": answer})
        else:
            print()
            screen.hint(self._session, f"answered by {words.brief(version) or 'an unnamed version'}")
        return exits.OK

    def _stream(self) -> tuple[str, str]:
        raw = self._client.chat.completions.with_raw_response.create(
            messages=self._messages,
            stream=True,
            extra_headers=self._headers,
            model=self._model,
            max_tokens=self._max_tokens,
            temperature=self._temperature,
        )
        pieces: list[str] = []
        for chunk in raw.parse():
            piece = (chunk.choices[0].delta.content or "") if chunk.choices else ""
            pieces.append(piece)
            if not self._session.json:
                print(screen.plain(piece), end="", flush=True)
        return "".join(pieces), raw.headers.get("x-sluice-version", "")


def client_of(session: Session, http: str) -> openai.OpenAI:
    """The OpenAI client of the suite that the session is about, with the key that was kept for it."""
    import openai

    from sluice import credentials
    from sluice.client.connection import address_of

    known = credentials.recall(address_of(session.address))
    base = http or os.environ.get("SLUICE_HTTP") or (known.http if known else "") or DEFAULT_HTTP
    key = os.environ.get("SLUICE_API_KEY") or (known.api_key if known else "")
    return openai.OpenAI(base_url=f"{base.rstrip('/').removesuffix('/v1')}/v1", api_key=key or "none", max_retries=1)


def failed(error: openai.APIError, client: openai.OpenAI, endpoint: str) -> int:
    """Says what went wrong in one sentence; the exit code of it."""
    import openai

    if isinstance(error, openai.APIConnectionError):
        where = client.base_url
        exits.complain(f"nothing answers at {where}; `sluice status` tells whether the suite runs, --http says where")
        return exits.UNAVAILABLE
    if not isinstance(error, openai.APIStatusError):
        exits.complain(f"the answer broke off: {error.message}")
        return exits.FAILED
    body = error.body
    said = body.get("message") if isinstance(body, dict) else ""
    way = f" `sluice ask {endpoint} TEXT…` does." if error.code == "wrong_interface" else ""
    exits.complain(str(said or f"the gateway answered {error.status_code}") + way)
    return _code(error.status_code)


def _code(status: int) -> int:
    codes = {400: exits.INVALID, 413: exits.INVALID, 401: exits.DENIED, 403: exits.DENIED}
    codes |= {404: exits.NOT_FOUND, 409: exits.CONFLICT}
    return codes.get(status, exits.UNAVAILABLE if status in (429, 503, 504) else exits.FAILED)

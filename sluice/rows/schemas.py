"""The row schemas: one function a schema, from the bytes of a row in any convention to its canonical bytes.

Canonical rows are JSON in UTF-8 with the fields of `sluice.rows.canonical`, of which `id`, `group` and `tags`, and
those for images, videos and sounds, are there where the row had them. Other fields of a row are dropped.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from sluice.rows.answers import pair_of, verdict_of
from sluice.rows.canonical import (
    About,
    ClassificationRow,
    EntitiesRow,
    FeedbackRow,
    Message,
    PreferenceRow,
    PretrainRow,
    RetrievalRow,
    SftRow,
)
from sluice.rows.conventions import PAIRS, Turn, turns_of
from sluice.rows.entities import entities_of, has_token_tags
from sluice.rows.fields import labels_of, matches_of
from sluice.rows.mentions import EVERY_NAME, MARKS, Mention, Reference, demand, marked, mentioned
from sluice.rows.objects import about, object_of
from sluice.rows.violations import RefusedError, missing, shape, text

_encode = msgspec.json.Encoder().encode
#: A conversation that may be taken as it is: one that names an image is looked at more closely.
_Plain = msgspec.defstruct(
    "_Plain", [("messages", list[Message]), *((name, object, UNSET) for name in sorted(EVERY_NAME))], bases=(About,)
)
_decode_sft = msgspec.json.Decoder(_Plain).decode
_decode_pretrain = msgspec.json.Decoder(PretrainRow).decode
CAPTIONS = ("caption", "text", "output", "answer", "completion", "response")
BOXES = ("bbox", "bboxes", "box", "boxes")
EXPRESSIONS = ("expression", "phrase", "sentence", "caption", "text")
_QUESTION = next(pair.fields for pair in PAIRS if pair.question == "question")
_ANSWERS = ("messages", "conversations", *(pair.answer for pair in PAIRS))


def sft(raw: bytes) -> bytes:
    """Return the canonical bytes of a conversation; RefusedError when it is none.

    Takes OpenAI messages, ShareGPT, Alpaca, query/response, prompt/completion and question/answer.
    """
    try:
        row: Any = _decode_sft(raw)
        if _is_sound(row.messages) and all(getattr(row, name) is UNSET for name in EVERY_NAME):
            return _encode(row)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass  # another convention, or wrong: the slow way tells
    return _conversation(object_of(raw))


def pretrain(raw: bytes) -> bytes:
    """Return the canonical bytes of a text; RefusedError when it is none."""
    try:
        row = _decode_pretrain(raw)
        if row.text.strip():
            return _encode(row)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    fields = object_of(raw)
    if "text" not in fields:
        raise missing("text", fields, "give each row a field `text`", ("id", "group", "tags"))
    return _encode(PretrainRow(text(fields["text"], "text"), **about(fields)))


def vqa(raw: bytes) -> bytes:
    """Return the canonical bytes of a conversation about an image, a video or a sound; RefusedError when it is none."""
    fields = object_of(raw)
    try:
        return _conversation(fields, tuple(MARKS))
    except RefusedError as error:
        if error.field != "answer" or error.kind != "missing-field":
            raise
        raise missing("output", fields, "add `output` or drop the row", (*EVERY_NAME, *_QUESTION)) from None


def grounding(raw: bytes) -> bytes:
    """Return the canonical bytes of a conversation about places in an image; RefusedError when it is none.

    Boxes (`bbox`, `boxes`) that stand beside a question or an `expression` are its answer, as JSON.
    """
    fields = object_of(raw)
    boxes = next((name for name in BOXES if name in fields), "")
    if boxes and not any(name in fields for name in _ANSWERS):
        fields = {**fields, "answer": _boxes(fields[boxes], boxes)}
    asked = next((name for name in EXPRESSIONS if name in fields), "")
    if asked and not _asks(fields):
        fields = {**fields, "question": fields[asked]}
    return _conversation(fields, ("images",))


def caption(raw: bytes) -> bytes:
    """Return the canonical bytes of what is said about an image, a video or a sound, or read in it; RefusedError."""
    return _said_of(object_of(raw), tuple(MARKS))


def asr(raw: bytes) -> bytes:
    """Return the canonical bytes of what is said in a sound; RefusedError when there is none."""
    return _said_of(object_of(raw), ("audios",))


def _said_of(fields: dict[str, object], demanded: tuple[str, ...]) -> bytes:
    """What is said of something named, of one of the kinds demanded, whatever its answer is called."""
    said = next((name for name in CAPTIONS if name in fields), "")
    if _asks(fields) or not said:
        return _conversation(fields, demanded)
    found = mentioned(fields)
    demand(fields, found, demanded)
    (asked,) = marked([""], 0, found, said)
    turns = [Turn("user", asked, said), Turn("assistant", text(fields[said], said), said)]
    return _encode(SftRow(_messages(turns), **found, **about(fields)))  # type: ignore[arg-type]


def preference(raw: bytes) -> bytes:
    """Return the canonical bytes of a prompt with two answers; RefusedError when it is none."""
    fields = object_of(raw)
    prompt, chosen, rejected = pair_of(fields)
    _check_prompt(prompt)
    for answer in (chosen, rejected):
        _check_last(answer)
    asked, named = _illustrated(fields, prompt, [*chosen, *rejected])
    return _encode(PreferenceRow(asked, _messages(chosen), _messages(rejected), **named, **about(fields)))


def feedback(raw: bytes) -> bytes:
    """Return the canonical bytes of a prompt, an answer and a verdict; RefusedError when it is none."""
    fields = object_of(raw)
    prompt, completion, label = verdict_of(fields)
    _check_prompt(prompt)
    _check_last(completion)
    asked, named = _illustrated(fields, prompt, completion)
    return _encode(FeedbackRow(asked, _messages(completion), label, **named, **about(fields)))


def retrieval(raw: bytes) -> bytes:
    """Return the canonical bytes of a query with what fits it; RefusedError when it is none."""
    fields = object_of(raw)
    query, fitting, others = matches_of(fields)
    found = mentioned(fields)
    (query,) = marked([query], 0, found, "query")
    return _encode(RetrievalRow(query, fitting, others, **found, **about(fields)))  # type: ignore[arg-type]


def classification(raw: bytes) -> bytes:
    """Return the canonical bytes of a text with its labels; RefusedError when it is none."""
    fields = object_of(raw)
    found = mentioned(fields)
    content, labels = labels_of(fields, bare=bool(found))
    (content,) = marked([content], 0, found, "text")
    return _encode(ClassificationRow(content, labels, **found, **about(fields)))  # type: ignore[arg-type]


def image_text_classification(raw: bytes) -> bytes:
    """Return the canonical bytes of a text about an image with its labels; RefusedError when it is none."""
    fields = object_of(raw)
    found = mentioned(fields)
    demand(fields, found, ("images",))
    content, labels = labels_of(fields)
    (content,) = marked([content], 0, found, "text")
    return _encode(ClassificationRow(content, labels, **found, **about(fields)))  # type: ignore[arg-type]


def entities(raw: bytes) -> bytes:
    """Return the canonical bytes of a text with named spans; RefusedError when it is none."""
    fields = object_of(raw)
    content, spans = entities_of(fields)
    own = {name: value for name, value in fields.items() if name != "tags" or not has_token_tags(fields)}
    return _encode(EntitiesRow(content, spans, **about(own)))


SCHEMAS: dict[str, Callable[[bytes], bytes]] = {
    "sft": sft,
    "vqa": vqa,
    "grounding": grounding,
    "caption": caption,
    "asr": asr,
    "pretrain": pretrain,
    "preference": preference,
    "feedback": feedback,
    "retrieval": retrieval,
    "classification": classification,
    "image-text-classification": image_text_classification,
    "entities": entities,
}


def check_row(raw: bytes, row_schema: str) -> bytes:
    """Return the canonical bytes of one row; RefusedError when it breaks the schema."""
    return SCHEMAS[row_schema](raw)


def _conversation(fields: dict[str, object], demanded: tuple[str, ...] = ()) -> bytes:
    """A conversation that ends with an answer, and what it names; of the kinds demanded it must name one."""
    turns = turns_of(fields)
    _check_turns(turns)
    if demanded:
        demand(fields, mentioned(fields, _mentions(turns)), demanded)
    messages, named = _illustrated(fields, turns)
    return _encode(SftRow(messages, **named, **about(fields)))


def _illustrated(
    fields: dict[str, object], asked: list[Turn], answers: Sequence[Turn] = ()
) -> tuple[list[Message], dict[str, Any]]:
    """Turns as messages with a mark for each thing that the row names; and what it names."""
    if strange := _mentions(answers):
        repair = "name it in the prompt"
        raise RefusedError(strange[0].field, "unsupported-content", "an answer of text", "another part", repair)
    found: dict[str, list[Reference]] = mentioned(fields, _mentions(asked))
    if not found:
        return _messages(asked), {}
    first = next(index for index, turn in enumerate(asked) if turn.role == "user")
    texts = marked([turn.content for turn in asked], first, found, asked[first].field)
    return [Message(turn.role, said) for turn, said in zip(asked, texts, strict=True)], dict(found)  # type: ignore[arg-type]


def _mentions(turns: Sequence[Turn]) -> list[Mention]:
    return [mention for turn in turns for mention in turn.mentions]


def _asks(fields: dict[str, object]) -> bool:
    return any(name in fields for name in ("messages", "conversations", *(pair.question for pair in PAIRS)))


def _boxes(value: object, field: str) -> str:
    """One box of four numbers, or several, as JSON."""
    boxes = value if isinstance(value, list) and value and isinstance(value[0], list) else [value]
    for box in boxes:
        numbers = box if isinstance(box, list) else []
        plain = [each for each in numbers if isinstance(each, int | float) and not isinstance(each, bool)]
        if len(plain) != 4 or len(numbers) != 4:
            repair = "give [x1, y1, x2, y2], or a list of such"
            raise RefusedError(field, "wrong-type", "boxes of four numbers", shape(value), repair)
    return msgspec.json.encode(value).decode()


def _is_sound(messages: list[Message]) -> bool:
    if not messages or messages[-1].role != "assistant":
        return False
    asked = False
    for message in messages:
        if not message.content.strip():
            return False
        asked = asked or message.role == "user"
    return asked


def _messages(turns: list[Turn]) -> list[Message]:
    return [Message(turn.role, turn.content) for turn in turns]  # type: ignore[arg-type]


def _check_turns(turns: list[Turn]) -> None:
    roles = [turn.role for turn in turns]
    for role in ("user", "assistant"):
        if role not in roles:
            raise _lacks(role, turns)
    _check_last(turns)


def _check_prompt(turns: list[Turn]) -> None:
    if all(turn.role != "user" for turn in turns):
        raise _lacks("user", turns)
    if turns[-1].role == "assistant":
        where, repair = turns[-1].field.rpartition(".")[0], "drop the answer: answers have fields of their own"
        raise RefusedError(where, "wrong-last-role", "the last message from the user", "one from the assistant", repair)


def _check_last(turns: list[Turn]) -> None:
    if turns[-1].role != "assistant":
        raise RefusedError(
            turns[-1].field.rpartition(".")[0],
            "wrong-last-role",
            "the last message from the assistant",
            f"one from the {turns[-1].role}",
            "add the answer or drop what follows the last one",
        )


def _lacks(role: str, turns: list[Turn]) -> RefusedError:
    where = turns[0].field.partition("[")[0] if turns else "prompt"
    return RefusedError(where, "missing-role", f"a message of the {role}", "none", "add one or drop the row")

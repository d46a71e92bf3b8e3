"""Questions about images: where they stand, and what of them is sent."""

import json

from services.evaluator.pictures import shown
from services.evaluator.questions import Question, read_questions
from sluice.evaluator import v1 as evaluator

ONE, TWO = ("sha256:" + letter * 64 for letter in "ab")


def image(url):
    return {"type": "image_url", "image_url": {"url": url}}


async def asked(row, schema="vqa"):
    async def pieces():
        yield json.dumps(row).encode() + b"\n"

    return await read_questions(pieces(), "chat", schema, evaluator.Suite(metrics=["exact_match"], max_tokens=8))


def row(*contents, **named):
    roles = ("user", "assistant") * len(contents)
    messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]
    return {"messages": messages, **named}


async def test_images_stand_where_their_marks_are_and_a_video_is_its_frames():
    (question,) = await asked(row("<image>what?", "a cat", "and <video>", "dogs", images=[ONE], videos=[[TWO, ONE]]))
    assert question.reference == "dogs" and question.asked["messages"] == [
        {"role": "user", "content": [image(ONE), {"type": "text", "text": "what?"}]},
        {"role": "assistant", "content": "a cat"},
        {"role": "user", "content": [{"type": "text", "text": "and "}, image(TWO), image(ONE)]},
    ]


async def test_what_cannot_be_shown_is_not_asked():
    assert await asked(row("<audio>what?", "a cat", audios=[ONE])) == []
    assert await asked(row("<image>what?", "a cat")) == []
    assert await asked(row("what?", "a cat", images=[ONE])) == []


async def test_images_are_read_when_they_are_asked_and_texts_stay_as_they_are():
    (question,) = await asked(row("<image><image>what?", "a cat", images=[ONE, TWO]), "caption")
    read = []

    async def reading(digest):
        read.append(digest)
        return "image/png", digest[-1].encode()

    sent = await shown(question, reading)
    assert read == [ONE, TWO] and sent.reference == "a cat"
    urls = [part["image_url"]["url"] for part in sent.asked["messages"][0]["content"][:2]]
    assert urls == ["data:image/png;base64,YQ==", "data:image/png;base64,Yg=="]
    plain = Question(1, {"messages": [{"role": "user", "content": "sha256:" + "a" * 64}]}, "x")
    assert await shown(plain, reading) is plain and len(read) == 2
    assert await shown(Question(1, {"prompt": "p"}, "x"), reading) == Question(1, {"prompt": "p"}, "x")

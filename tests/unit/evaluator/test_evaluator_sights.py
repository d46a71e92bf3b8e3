"""Questions about images, videos and sounds: where they stand, and what of them is sent."""

import json

import pytest

from services.evaluator.pictures import askable, shown, with_videos
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


async def reading(digest):
    return {"a": "image/png", "b": "audio/mpeg"}[digest[-1]], digest[-1].encode()


async def test_images_stand_where_their_marks_are_and_a_video_is_its_frames():
    (question,) = await asked(row("<image>what?", "a cat", "and <video>", "dogs", images=[ONE], videos=[[ONE, ONE]]))
    assert with_videos([question])
    sent = await shown(question, reading)
    url = "data:image/png;base64,YQ=="
    assert question.reference == "dogs" and sent.asked["messages"] == [
        {"role": "user", "content": [image(url), {"type": "text", "text": "what?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "a cat"}]},
        {"role": "user", "content": [{"type": "text", "text": "and "}, image(url), image(url)]},
    ]


async def test_a_video_goes_whole_to_a_model_that_takes_some():
    (question,) = await asked(row("<video>which way?", "up", videos=[[ONE, ONE]]))
    (message,) = (await shown(question, reading, videos=True)).asked["messages"]
    video = {"type": "video_url", "video_url": {"url": "data:video/jpeg;base64,YQ==,YQ=="}}
    assert message["content"] == [video, {"type": "text", "text": "which way?"}]


async def test_a_sound_goes_as_openai_has_it():
    (question,) = await asked(row("<audio>what?", "a cat", audios=[TWO]), "caption")
    assert not with_videos([question])
    (message,) = (await shown(question, reading)).asked["messages"]
    sound = {"type": "input_audio", "input_audio": {"data": "Yg==", "format": "mp3"}}
    assert message["content"] == [sound, {"type": "text", "text": "what?"}]


async def test_what_cannot_be_shown_is_not_asked():
    assert await asked(row("what?", "a cat", audios=[ONE])) == []
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


async def test_a_text_with_images_asks_for_its_labels():
    async def pieces():
        for content in ("<image>cough", "no mark"):
            yield json.dumps({"text": content, "label": ["b", "a", "b"], "images": [ONE]}).encode() + b"\n"

    suite = evaluator.Suite(metrics=["accuracy"])
    (question,) = await read_questions(pieces(), "classify", "image-text-classification", suite)
    sent = await shown(question, reading)
    assert (question.kind, question.reference) == ("labels", '["a", "b"]')
    content = [image("data:image/png;base64,YQ=="), {"type": "text", "text": "cough"}]
    assert sent.asked == {"messages": [{"role": "user", "content": content}]}


@pytest.mark.parametrize(
    ("content", "named", "senses", "fits"),
    [
        ("<image>" * 16, {"images": [ONE] * 16}, {"image"}, True),
        ("<image>" * 17, {"images": [ONE] * 17}, {"image"}, False),
        ("<video>", {"videos": [[ONE] * 17]}, {"image"}, False),
        ("<video>", {"videos": [[ONE] * 17]}, {"image", "video"}, True),
        ("<video>", {"videos": [[ONE] * 65]}, {"image", "video"}, False),
        ("<video><video>", {"videos": [[ONE]] * 2}, {"image", "video"}, False),
        ("<video><video>", {"videos": [[ONE]] * 2}, {"image"}, True),
        ("<audio><audio>", {"audios": [TWO] * 2}, {"audio"}, False),
    ],
)
async def test_what_an_engine_takes_in_no_request_is_known_beforehand(content, named, senses, fits):
    (question,) = await asked(row(f"{content}what?", "a cat", **named))
    assert askable(question, senses) is fits
    assert askable(Question(1, {"prompt": "p"}, "x"), senses)

"""What a request may not hold, however it is written."""

import json

import msgspec
import pytest

from services.gateway.worker.errors import InvalidRequest
from services.gateway.worker.screening import MAX_ELEMENTS, MAX_INPUTS, check_inputs, check_prompt

TOO_MANY = ["a"] * (MAX_INPUTS + 1)
members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@pytest.mark.parametrize("name", ["input", "documents", "items", "queries", "text_2"])
def test_so_many_texts_are_too_many_whatever_they_are_called(name: str) -> None:
    check_inputs(members(json.dumps({name: TOO_MANY[1:]})))
    with pytest.raises(InvalidRequest, match=f"`{name}` has more than {MAX_INPUTS} items"):
        check_inputs(members(json.dumps({name: TOO_MANY})))


@pytest.mark.parametrize("check", [check_prompt, check_inputs])
@pytest.mark.parametrize("name", ["media_io_kwargs", "mm_processor_kwargs"])
def test_how_media_are_decoded_is_not_for_callers_to_say(check, name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"`{name}` is not taken"):
        check(members(json.dumps({name: {"video": {"video_backend": "x"}}})))


@pytest.mark.parametrize("check", [check_prompt, check_inputs])
def test_what_would_take_seconds_to_decode_is_not_decoded(check) -> None:
    with pytest.raises(InvalidRequest, match=f"`messages` has more than {MAX_ELEMENTS} elements"):
        check(members(b'{"messages": [' + b"[]," * (MAX_ELEMENTS + 1) + b"[]]}"))


def test_a_video_of_more_frames_than_an_engine_takes_is_refused_and_not_cut() -> None:
    def asked(frames: int) -> dict[str, msgspec.Raw]:
        video = {"type": "video_url", "video_url": {"url": "data:video/jpeg;base64," + ",".join(["YQ=="] * frames)}}
        return members(json.dumps({"messages": [{"role": "user", "content": [video]}]}))

    check_prompt(asked(64))
    with pytest.raises(InvalidRequest, match="A video may have 64 frames"):
        check_prompt(asked(65))


@pytest.mark.parametrize("sound", ["x", {}, {"data": 7, "format": "wav"}, {"data": "YQ==", "format": "wav;x,"}])
def test_a_sound_is_base64_in_a_format_that_engines_decode(sound: object) -> None:
    def asked(sound: object) -> dict[str, msgspec.Raw]:
        part = {"type": "input_audio", "input_audio": sound}
        return members(json.dumps({"messages": [{"role": "user", "content": [part]}]}))

    check_prompt(asked({"data": "YQ==", "format": "mp3"}))
    with pytest.raises(InvalidRequest, match="`input_audio` must hold `data` in base64"):
        check_prompt(asked(sound))

"""Rows about images as a recipe reads them, and how their files are opened; no model is there."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from services.trainer.recipes.data.pictures import (
    SMALL_BYTES,
    data_url,
    frame_size,
    open_picture,
    read_seen,
    size_of,
    small_copies,
    small_copy,
)
from services.trainer.recipes.data.rows import read_conversations
from services.trainer.recipes.job.failures import BadInput

ONE, TWO = "a" * 64, "b" * 64
ANSWER = {"role": "assistant", "content": "a cat"}


def file_of(image: Image.Image, form: str = "PNG", **more: Any) -> bytes:
    made = io.BytesIO()
    image.save(made, form, **more)
    return made.getvalue()


@pytest.fixture
def write(tmp_path: Path) -> Any:
    (tmp_path / "assets").mkdir()
    for name in (ONE, TWO):
        (tmp_path / "assets" / name).write_bytes(file_of(Image.new("RGB", (3, 2))))

    def written(content: str, **named: Any) -> Path:
        row = {"messages": [{"role": "user", "content": content}, ANSWER], **named}
        (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n")
        return tmp_path / "train.jsonl"

    return written


def test_images_stand_where_their_marks_are_and_a_video_is_its_frames(write: Any) -> None:
    named = {"images": [f"sha256:{ONE}"], "videos": [[f"sha256:{TWO}", f"sha256:{ONE}"]]}
    (row,) = read_seen(write("<video>then <image>?", **named))
    kinds = [part.get("text", part["type"]) for part in row.messages[0]["content"]]
    assert kinds == ["image", "image", "then ", "image", "?"]
    assert [file.name for file in row.images] == [TWO, ONE, ONE] and row.answer == "a cat"


@pytest.mark.parametrize(
    ("content", "named", "sentence"),
    [
        ("what?", {"images": [f"sha256:{ONE}"]}, "line 1 has other marks in its texts than it names images"),
        ("<image><image>", {"images": [f"sha256:{ONE}"]}, "line 1 has other marks"),
        ("what?", {}, "line 1 has no image, video or sound before its answer"),
        ("<image>", {"images": [f"sha256:{ONE}"], "audios": ["x"]}, "line 1 has other marks"),
        ("<image><audio>", {"images": [f"sha256:{ONE}"], "audios": ["x"]}, "line 1 names sounds, which the base mod"),
        ("<image>", {"images": ["sha256:" + "0" * 64]}, "line 1 names an image or a sound 000000000000… that is not b"),
    ],
)
def test_rows_that_would_be_seen_wrongly_are_refused(write: Any, content: str, named: Any, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        read_seen(write(content, **named))


def test_a_video_is_one_where_the_model_takes_some_and_sounds_are_heard(write: Any) -> None:
    named = {"videos": [[f"sha256:{TWO}", f"sha256:{ONE}"]], "audios": [f"sha256:{ONE}"]}
    (row,) = read_seen(write("<video>what <audio>?", **named), {"image", "video", "audio"})
    kinds = [part.get("text", part["type"]) for part in row.messages[0]["content"]]
    assert kinds == ["video", "what ", "audio", "?"] and not row.images
    assert [[file.name for file in video] for video in row.videos] == [[TWO, ONE]]
    assert [file.name for file in row.sounds] == [ONE]
    with pytest.raises(BadInput, match="line 1 names images, which the base model does not see"):
        read_seen(write("<image>what <audio>?", images=[f"sha256:{ONE}"], audios=[f"sha256:{ONE}"]), {"audio"})
    with pytest.raises(BadInput, match="line 1 has a video of 65 frames; engines take 64"):
        read_seen(write("<video>?", videos=[[f"sha256:{ONE}"] * 65]), {"image", "video"})


def test_frames_are_of_one_size(write: Any, tmp_path: Path) -> None:
    one, other = tmp_path / "assets" / ONE, tmp_path / "other"
    other.write_bytes(file_of(Image.new("RGB", (4, 2))))
    assert frame_size([one, one]) == (3, 2)
    with pytest.raises(BadInput, match="frames of different sizes"):
        frame_size([one, other])


def test_a_recipe_that_sees_nothing_takes_no_rows_about_images(write: Any) -> None:
    assert read_conversations(write("what?"))
    with pytest.raises(BadInput, match="line 1 names images, videos or sounds, of which this recipe would see noth"):
        read_conversations(write("<image>what?", images=[f"sha256:{ONE}"]))


def test_an_image_is_upright_in_rgb_and_white_where_one_could_see_through_it(tmp_path: Path) -> None:
    lying = Image.new("RGB", (4, 2), (0, 0, 255))
    exif = lying.getexif()
    exif[0x0112] = 6  # to be turned by a quarter
    (tmp_path / "lying").write_bytes(file_of(lying, "JPEG", exif=exif))
    assert size_of(tmp_path / "lying") == (2, 4) == open_picture(tmp_path / "lying").size
    glass = Image.new("RGBA", (1, 1), (255, 0, 0, 0))
    for clear in (glass, glass.convert("LA")):
        assert open_picture(file_of(clear)).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (1, 1))
    assert open_picture(file_of(palette, transparency=0)).getpixel((0, 0)) == (255, 255, 255)
    assert open_picture(file_of(palette)).getpixel((0, 0)) == (0, 0, 0)
    assert open_picture(file_of(Image.new("L", (1, 1), 7))).getpixel((0, 0)) == (7, 7, 7)


def test_what_is_no_image_is_told_by_the_head_of_its_name(tmp_path: Path) -> None:
    broken, cut = tmp_path / ONE, tmp_path / TWO
    broken.write_bytes(b"no picture")
    cut.write_bytes(file_of(Image.effect_noise((64, 64), 9))[:900])
    for file, act in ((broken, size_of), (broken, open_picture), (cut, open_picture)):
        with pytest.raises(BadInput, match=f"image {file.name[:12]}… below in/assets cannot be decoded"):
            act(file)


def test_what_goes_into_a_probe_is_the_file_itself_or_a_small_copy(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(file_of(Image.new("RGB", (9, 9)), "JPEG"))
    large.write_bytes(file_of(Image.new("RGB", (1800, 900))))
    assert small_copy(small) == small.read_bytes() and data_url(small_copy(small)).startswith("data:image/jpeg;base64,")
    assert open_picture(small_copy(large)).size == (448, 224)
    head, _, content = data_url(small_copy(large)).partition(",")
    assert head == "data:image/png;base64" and base64.b64decode(content) == small_copy(large)


def test_the_frames_of_a_video_stay_of_one_size_whatever_their_files_weigh(tmp_path: Path) -> None:
    plain, noisy = tmp_path / "plain", tmp_path / "noisy"
    plain.write_bytes(file_of(Image.new("RGB", (600, 500))))
    noisy.write_bytes(file_of(Image.merge("RGB", [Image.effect_noise((600, 500), 99)] * 3)))
    assert plain.stat().st_size <= SMALL_BYTES < noisy.stat().st_size
    assert {open_picture(frame).size for frame in small_copies([plain, noisy])} == {(448, 373)}
    assert small_copies([plain, plain]) == [plain.read_bytes()] * 2


def test_a_row_that_no_engine_can_be_asked_is_known(write: Any) -> None:
    frames = [f"sha256:{ONE}"] * 17
    for senses, askable in (({"image", "video"}, True), ({"image"}, False)):  # there the frames are images
        (row,) = read_seen(write("<video>which way?", videos=[frames]), senses)  # type: ignore[arg-type]
        assert row.askable is askable
    (row,) = read_seen(write("<audio><audio>?", audios=[f"sha256:{ONE}"] * 2), {"audio"})
    assert not row.askable

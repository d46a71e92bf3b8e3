"""Rows about images as a recipe reads them, and how their files are opened; no model is there."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from services.trainer.recipes.failures import BadInput
from services.trainer.recipes.pictures import data_url, open_picture, read_seen, size_of, small_copy
from services.trainer.recipes.rows import read_conversations

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
        ("what?", {}, "line 1 has no image before its answer"),
        ("<image>", {"images": [f"sha256:{ONE}"], "audios": ["x"]}, "line 1 names sounds"),
        ("<image>", {"images": ["sha256:" + "0" * 64]}, "line 1 names an image 000000000000… that is not below in/a"),
    ],
)
def test_rows_that_would_be_seen_wrongly_are_refused(write: Any, content: str, named: Any, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        read_seen(write(content, **named))


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

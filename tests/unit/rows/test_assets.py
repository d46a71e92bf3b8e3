"""Images and sounds that rows name: each way to name them, marks for them, and what is said when one is wrong."""

import base64
import io
import json
import math
import struct
import sys
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
import soundfile
from PIL import Image

from sluice.rows import check_row
from sluice.rows.media import MAX_BYTES, UndecodableError, as_png, look
from sluice.rows.media.looking import MAX_PIXELS
from sluice.rows.violations import RefusedError
from tests.unit.rows.archive_files import jsonl, png, taken
from tests.unit.rows.stored import rows_of

ANSWER = {"role": "assistant", "content": "a"}
ONE, TWO = ["a.png"], ["a.png", "b.png"]


def canonical(row: dict[str, Any], row_schema: str = "sft") -> dict[str, Any]:
    return json.loads(check_row(json.dumps(row).encode(), row_schema))


def parts(*content: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [*content, {"type": "text", "text": "q"}]}, ANSWER]}


NAMED = [
    ({"image_path": "a.png", "question": "q", "output": "a"}, "<image>q", ONE),  # VQA
    ({"image_path": "a.png", "findings": "q", "impression": "a"}, "<image>q", ONE),  # reports of radiology
    ({"query": "q<image>", "response": "a", "images": ONE}, "q<image>", ONE),  # ms-swift
    ({"query": "q", "response": "a", "images": [{"path": "a.png", "bytes": None}]}, "<image>q", ONE),
    ({"instruction": "q", "output": "a", "images": TWO}, "<image><image>q", TWO),  # LLaMA-Factory
    (
        {"conversations": [{"from": "human", "value": "q\n<image>"}, {"from": "gpt", "value": "a"}], "image": "a.png"},
        "q\n<image>",
        ONE,
    ),
    (parts({"type": "image_url", "image_url": {"url": "a.png"}}), "<image>q", ONE),  # OpenAI
    (parts({"type": "image", "image": "a.png"}, {"type": "image", "image": "b.png"}), "<image><image>q", TWO),  # Qwen
    ({**parts({"type": "image"}), "images": ONE}, "<image>q", ONE),  # TRL
    ({"prompt": "is <image> a tag?", "completion": "a"}, "is <image> a tag?", None),
]


@pytest.mark.parametrize(("row", "asked", "images"), NAMED)
def test_every_way_to_name_images_gives_the_canonical_row(row, asked, images):
    found = canonical(row)
    assert found["messages"][0]["content"] == asked and found.get("images") == images
    if images:
        assert canonical(row, "vqa") == found == canonical(found)


def test_tasks_have_questions_of_their_own():
    caption = canonical({"image": "a.png", "text": "a dog"}, "caption")
    assert [each["content"] for each in caption["messages"]] == ["<image>", "a dog"]
    box = canonical({"image": "a.png", "expression": "the dog", "bbox": [1, 2, 3.5, 4]}, "grounding")
    assert [each["content"] for each in box["messages"]] == ["<image>the dog", "[1,2,3.5,4]"]
    assert canonical({"image": "a.png", "label": "cat"}, "classification")["text"] == "<image>"
    both = canonical({"image": "a.png", "text": "cough", "labels": ["sick", 3]}, "image-text-classification")
    assert both == {"text": "<image>cough", "label": ["sick", "3"], "images": ["a.png"]}
    video = canonical({"videos": [["1.jpg", "2.jpg"], "clip"], "query": "q", "response": "a"})
    assert video["videos"] == [["1.jpg", "2.jpg"], ["clip"]] and video["messages"][0]["content"] == "<video><video>q"
    pair = canonical({"prompt": "q", "chosen": "a", "rejected": "b", "images": ONE}, "preference")
    assert pair["prompt"][0]["content"] == "<image>q" and pair["images"] == ONE


@pytest.mark.parametrize(
    ("row", "row_schema", "field", "kind", "word"),
    [
        ({"question": "q", "output": "a"}, "vqa", "image_path", "missing-field", "image_path"),
        (
            {"imgae_path": "a.png", "question": "q", "output": "a"},
            "vqa",
            "image_path",
            "missing-field",
            "`imgae_path` →",
        ),
        ({"image_path": "a.png", "question": "q"}, "vqa", "output", "missing-field", "output"),
        ({"image_path": "a.png", "question": "q", "ouptut": "a"}, "vqa", "output", "missing-field", "`ouptut` →"),
        ({"images": TWO, "query": "<image>q", "response": "a"}, "sft", "query", "wrong-mark-count", "<image>"),
        ({**parts({"type": "image"}, {"type": "image"}), "images": ONE}, "sft", "images", "wrong-asset-count", "order"),
        (
            {**parts({"type": "image", "image": "a.png"}), "images": TWO},
            "sft",
            "messages[0].content[0]",
            "named-twice",
            "",
        ),
        ({"image": 3, "query": "q", "response": "a"}, "sft", "image", "wrong-type", "quotes"),
        ({"images": [" "], "query": "q", "response": "a"}, "sft", "images[0]", "empty-text", ""),
        ({"image": "a.png", "question": "q", "bbox": [1, 2]}, "grounding", "bbox", "wrong-type", "x1"),
        ({"text": "t", "label": "l"}, "image-text-classification", "image_path", "missing-field", "image_path"),
        ({"image": "a.png", "label": "l"}, "image-text-classification", "text", "missing-field", "text"),
        (parts({"type": "input_file", "file": {}}), "sft", "messages[0].content[0]", "unsupported-content", "out"),
    ],
)
def test_what_is_wrong_with_naming_is_told(row, row_schema, field, kind, word):
    with pytest.raises(RefusedError) as refused:
        canonical(row, row_schema)
    assert (refused.value.field, refused.value.kind) == (field, kind) and word in refused.value.repair


BESIDE = {
    "x/1.png": png(1),
    "x/2.PNG": png(2),
    "clip/001.png": png(3),
    "clip/002.png": png(4),
    "bad.png": b"\x89PNG\r\n",
}


def found(name: Any, beside=BESIDE, field: str = "image") -> Any:
    """The images that a name leads to, or what is wrong with it."""
    kept = taken(jsonl([{field: name, "query": "q", "response": "a"}]), "rows.jsonl", "sft", beside)
    if kept.outcome.accepted:
        return kept.rows[0][field if field in ("videos", "audios") else "images"]
    (violation,) = kept.outcome.violations
    return violation.kind, violation.repair


def test_names_lead_to_files_as_people_write_them():
    assert found("x/1.png") == found("./x//1.png") == found("x\\1.png") == [png(1)]
    assert found("data:image/png;base64," + base64.b64encode(png(7)).decode()) == [png(7)]
    assert found({"bytes": base64.b64encode(png(8)).decode()}) == [png(8)]
    assert (
        found(["clip"], field="videos")
        == [[png(3), png(4)]]
        == found([["clip/001.png", "clip/002.png"]], field="videos")
    )


@pytest.mark.parametrize(
    ("name", "kind", "repair"),
    [
        ("x/2.png", "missing-asset", "`x/2.PNG`?"),
        ("1.png", "missing-asset", "`x/1.png`?"),
        ("x/1.pngg", "missing-asset", "`x/1.png`?"),
        ("/data/x/1.png", "missing-asset", "`x/1.png`?"),
        ("../x/1.png", "missing-asset", "`x/1.png`?"),
        ("nothing.like.it", "missing-asset", "put it into"),
        ("https://host/1.png", "remote-asset", "download"),
        ("sha256:" + "0" * 64, "missing-asset", "send it along"),
        ("bad.png", "undecodable-image", "export"),
        ("data:image/png;base64,!", "undecodable-image", "base 64"),
    ],
)
def test_a_name_that_leads_nowhere_is_told_with_one_that_does(name, kind, repair):
    told = found(name)
    assert told[0] == kind and repair in told[1]


def test_rows_alone_name_no_files():
    assert found("x/1.png", {}) == (
        "missing-asset",
        "send it along: `--assets FOLDER`, or one archive of rows and files",
    )
    assert found("clip.mp4", {"clip.mp4": b"\0\0\0\x18ftypmp42"}, "video") == found(
        "clip.mp4", {"a.png": png()}, "video"
    )
    assert found("clip.mp4", {"a.png": png()}, "video")[0] == "no-frames"


def test_wrong_rows_are_put_aside_and_the_others_keep_their_images():
    rows = [{"image": name, "query": "q", "response": "a"} for name in ("x/1.png", "gone.png", "x/2.PNG")]
    kept = taken(jsonl(rows), "rows.jsonl", "sft", BESIDE, quarantine=True)
    assert kept.outcome.put_aside == 1 and [row["images"] for row in kept.rows] == [[png(1)], [png(2)]]


def test_a_row_without_images_has_the_key_that_it_always_had():
    plain = {"query": "q", "response": "a"}
    alone = taken(jsonl([plain]), "rows.jsonl", "sft")
    mixed = taken(
        jsonl([plain, {**plain, "image": "x/1.png"}, {**plain, "image": "x/2.PNG"}]), "rows.jsonl", "sft", BESIDE
    )
    keys = [key for _, (_, key) in rows_of(mixed.parts)]
    assert keys[0] == rows_of(alone.parts)[0][1][1] and len(set(keys)) == 3


def test_an_image_is_decoded_once_however_often_it_is_named(monkeypatch):
    rows = [{"images": ["x/1.png", "x/1.png"], "query": str(n), "response": "a"} for n in range(300)]
    kept = taken(jsonl(rows), "rows.jsonl", "sft", BESIDE)
    assert len(kept.assets) == 1 and kept.parts[0].assets == {"images": list(kept.assets)}


def test_images_in_parquet_of_hugging_face_datasets_are_taken_out(tmp_path):
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    rows = {
        "image": [{"bytes": png(5), "path": "a.png"}, {"bytes": b"no", "path": None}, None],
        "text": ["a", "b", "c"],
    }
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "a.parquet")
    kept = taken((tmp_path / "a.parquet").read_bytes(), "a.parquet", "caption")
    assert [row["images"] for row in kept.rows] == [[png(5)]]
    assert [each[1:] for each in kept.violations] == [
        (2, "image", "undecodable-image"),
        (3, "image_path", "missing-field"),
    ]
    sink = io.BytesIO()
    table = pa.table({"jpg": [png(6)], "images": [[{"bytes": png(7), "path": ""}]], "query": ["q"], "response": ["a"]})
    pa.parquet.write_table(table, sink)
    assert taken(sink.getvalue(), "a.parquet", "sft").rows[0]["images"] == [png(7)]
    assert taken(sink.getvalue(), "a.parquet", "sft", columns={"jpg": "images"}).rows[0]["images"] == [png(6)]


def image(form: str, size=(8, 6), mode="RGB") -> bytes:
    sink = io.BytesIO()
    Image.new(mode, size, 1).save(sink, form)
    return sink.getvalue()


def sound(form: str, subtype: str | None = None) -> bytes:
    sink = io.BytesIO()
    soundfile.write(sink, np.zeros(4000, np.float32), 16000, format=form, subtype=subtype)
    return sink.getvalue()


def test_what_bytes_are_is_found_by_decoding_them():
    for form in ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"):
        seen = look(image(form))
        assert (seen.type, seen.width, seen.height) == (f"image/{form.lower()}", 8, 6)
        shown = Image.open(io.BytesIO(as_png(image(form))))
        assert (shown.format, shown.size) == ("PNG", (8, 6))
    assert [look(sound(form)).type for form in ("WAV", "FLAC", "OGG")] == ["audio/wav", "audio/flac", "audio/ogg"]


def test_pixels_of_more_than_8_bits_are_shown_and_not_clipped():
    tones = np.arange(0, 64000, 1000).reshape(8, 8)
    pgm = b"P5 8 8 65535\n" + tones.astype(">u2").tobytes()
    assert (np.asarray(Image.open(io.BytesIO(as_png(pgm)))) == tones).all()
    for numbers in (tones.astype(np.int32) * 1000, tones.astype(np.float32) / 64000):
        sink = io.BytesIO()
        Image.fromarray(numbers).save(sink, "TIFF")
        shown = np.asarray(Image.open(io.BytesIO(as_png(sink.getvalue()))))
        assert (shown == np.rint(tones / 63000 * 255)).all()


def test_an_image_is_shown_upright_and_without_what_its_camera_says():
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "of somebody"
    for form in ("JPEG", "PNG", "TIFF"):
        sink = io.BytesIO()
        Image.new("RGB", (8, 6)).save(sink, form, exif=exif)
        shown = as_png(sink.getvalue())
        assert Image.open(io.BytesIO(shown)).size == (6, 8)
        assert b"somebody" in sink.getvalue() and b"somebody" not in shown


def test_a_later_frame_may_not_be_absurd_either():
    sink, tag = io.BytesIO(), struct.Struct("<HHLL")
    Image.new("L", (8, 6)).save(sink, "TIFF", save_all=True, append_images=[Image.new("L", (8, 6), 1)])
    content = bytearray(sink.getvalue())
    place = content.rindex(tag.pack(256, 4, 1, 8))
    for number in (256, 257):
        tag.pack_into(content, place + 12 * (number - 256), number, 4, 1, 10_000)
    assert as_png(bytes(content), 0)
    with pytest.raises(UndecodableError, match="asset-too-large"):
        as_png(bytes(content), 1)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"])
def test_a_cut_image_is_none(form):
    whole = image(form, (64, 64))
    for size in (16, len(whole) // 2):
        with pytest.raises(UndecodableError, match="undecodable-image"):
            look(whole[:size])


def test_a_large_image_is_decoded_as_well():
    whole = image("PNG", (5000, 4000), "L")
    assert look(whole).width == 5000
    with pytest.raises(UndecodableError, match="undecodable-image"):
        look(whole[: len(whole) // 2])


def test_sounds_that_are_cut_are_none():
    for content in (sound("WAV")[:40], sound("FLAC")[:60], b"RIFF", b"ID3\x04"):
        with pytest.raises(UndecodableError, match="undecodable-audio"):
            look(content)


def test_absurd_sizes_are_refused_before_anything_is_allocated():
    huge = bytearray(image("BMP"))
    huge[18:26] = (1 << 20).to_bytes(4, "little") + (1 << 20).to_bytes(4, "little")
    side = int(MAX_PIXELS**0.5) + 1
    for content in (bytes(huge), image("PNG", (side, side), "1"), bytes(MAX_BYTES + 1)):
        with pytest.raises(UndecodableError, match="asset-too-large"):
            look(content)


def test_looking_is_cheap_to_import():
    import subprocess

    heavy = "{'PIL', 'pydicom', 'soundfile', 'pyarrow'}"
    code = f"import sys, sluice.rows.media, sluice.client; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.parametrize(
    ("samples", "rate", "found"),
    [
        ([0.5], 2_000_000_000, "another in its head"),
        ([0.5, math.nan], 16_000, "some that are not"),
        ([math.inf], 16_000, "some that are not"),
        ([], 16_000, "a damaged, cut or empty one"),
    ],
)
def test_a_sound_that_is_none_is_refused(samples, rate, found):
    made = io.BytesIO()
    soundfile.write(made, np.array(samples), rate, "FLOAT", format="WAV")
    with pytest.raises(UndecodableError, match="undecodable-audio") as refused:
        look(made.getvalue())
    assert refused.value.found == found


def test_a_transcript_is_of_a_sound():
    row = canonical({"audio": "a.wav", "text": "good morning"}, "asr")
    assert row["audios"] == ["a.wav"] and [each["content"] for each in row["messages"]] == ["<audio>", "good morning"]
    for named in ({}, {"image_path": "a.png"}):
        with pytest.raises(RefusedError) as refused:
            canonical({**named, "text": "good morning"}, "asr")
        assert refused.value.field == "audios" and "`audios`" in refused.value.repair

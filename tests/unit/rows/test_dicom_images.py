"""DICOM files as images: what is shown of them, and how files that lie about their size are met."""

import io
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image as Pillow
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000, CTImageStorage, ExplicitVRLittleEndian

from sluice.rows.media.dicom import UnreadableDicom, frames, parse, quiet, read, stream_size

FILES = sorted((Path(pydicom.__file__).parent / "data" / "test_files").rglob("*.dcm"))


def file_of(pixels: np.ndarray, syntax: str = ExplicitVRLittleEndian, **values: object) -> bytes:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, "1.2.3"
    dataset.Modality = "CT"
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = pixels.dtype.itemsize * 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    buffer = io.BytesIO()
    with quiet():
        for name, value in values.items():
            setattr(dataset, name, value)
        dataset["PixelData"].is_undefined_length = dataset.file_meta.TransferSyntaxUID.is_encapsulated
        dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def tones(source: bytes | Path, frame: int = 0) -> np.ndarray:
    return np.asarray(Pillow.open(io.BytesIO(read(source, frame).png)))


RAMP = np.array([[-1000, 0, 40], [80, 1000, 3000]], dtype=np.int16)


def test_a_window_is_applied_after_the_rescale() -> None:
    stored = RAMP + 1024
    shown = tones(file_of(stored, WindowCenter=40, WindowWidth=81, RescaleSlope=1, RescaleIntercept=-1024))
    assert shown.tolist() == [[0, 2, 129], [255, 255, 255]]  # 255 * ((x - 39.5) / 80 + 0.5), PS3.3 C.11.2.1.2.1


def test_without_a_window_the_range_of_the_values_is_shown_and_padding_does_not_count() -> None:
    assert tones(file_of(RAMP)).tolist() == [[0, 64, 66], [69, 128, 255]]
    padded = tones(file_of(np.array([[-2000, 0, 100]], dtype=np.int16), PixelPaddingValue=-2000))
    assert padded.tolist() == [[0, 0, 255]]


def test_monochrome1_is_inverted() -> None:
    dark = tones(file_of(np.array([[0, 51, 255]], dtype=np.uint8), PhotometricInterpretation="MONOCHROME1"))
    assert dark.tolist() == [[255, 204, 0]]


def test_a_flat_image_an_empty_window_and_the_second_window() -> None:
    assert tones(file_of(np.full((2, 2), 7, dtype=np.uint16))).tolist() == [[0, 0], [0, 0]]
    pixels = np.array([[0, 100, 200]], dtype=np.uint16)
    assert tones(file_of(pixels, WindowCenter=0, WindowWidth=0)).tolist() == [[0, 128, 255]]
    assert tones(file_of(pixels, WindowCenter=[100, 5], WindowWidth=[201, 5])).tolist() == [[1, 128, 255]]


def test_a_lookup_table_is_applied() -> None:
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [4, 0, 8], [0, 10, 200, 255]
    item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    assert tones(file_of(np.array([[0, 1, 2, 3, 9]], dtype=np.uint8), VOILUTSequence=[item])).tolist() == [
        [0, 10, 200, 255, 255]
    ]


def test_each_frame_is_shown_alone_and_by_its_own_window() -> None:
    def groups(center: int) -> Dataset:
        window, group = Dataset(), Dataset()
        window.WindowCenter, window.WindowWidth = center, 2
        group.FrameVOILUTSequence = [window]
        return group

    pixels = np.array([[[0, 100]], [[0, 100]], [[0, 100]]], dtype=np.uint8)
    data = file_of(pixels, NumberOfFrames=3, PerFrameFunctionalGroupsSequence=[groups(50), groups(200), groups(50)])
    shown = [np.asarray(Pillow.open(io.BytesIO(each.png))).tolist() for each in frames(data)]
    assert shown == [[[0, 255]], [[0, 0]], [[0, 255]]]
    assert read(data, 1).attributes == {
        "modality": "CT", "photometric": "MONOCHROME2", "rows": 1, "columns": 2, "frames": 3,
    }  # fmt: skip
    with pytest.raises(UnreadableDicom, match="frame 3 is asked for"):
        read(data, 3)


def test_attributes_are_codes_and_nothing_else() -> None:
    data = file_of(RAMP, BodyPartExamined="CHEST", ViewPosition="PA", ImageLaterality="Wang, X.", PatientName="Wang^X")
    assert read(data).attributes == {
        "modality": "CT", "body_part": "CHEST", "view_position": "PA", "photometric": "MONOCHROME2",
        "rows": 2, "columns": 3, "frames": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"Rows": 65535, "Columns": 65535}, "65535 × 65535"),
        ({"NumberOfFrames": 2**31 - 1}, "frames of"),
        ({"NumberOfFrames": -1}, "frames of"),
        ({"SamplesPerPixel": 60000}, "60000"),
        ({"Rows": 8000, "Columns": 8000}, "breaks off in its pixel data"),
        ({"Rows": 0}, "Rows is missing"),
        ({"BitsAllocated": 4096}, "cannot be shown"),
    ],
)
def test_absurd_sizes_are_refused_before_anything_is_allocated(values: dict[str, object], said: str) -> None:
    with pytest.raises(UnreadableDicom, match=said):
        read(file_of(RAMP, **values))


def test_a_deflated_bomb_is_refused() -> None:
    plain = file_of(RAMP)
    meta = plain.index(b"1.2.840.10008.1.2.1\0")
    start = 144 + int.from_bytes(plain[140:144], "little")
    head = plain[:140] + (int.from_bytes(plain[140:144], "little") + 2).to_bytes(4, "little")
    head += plain[144 : meta - 2] + (22).to_bytes(2, "little") + b"1.2.840.10008.1.2.1.99" + plain[meta + 20 : start]
    squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    assert read(head + squeeze.compress(plain[start:]) + squeeze.flush()).attributes["rows"] == 2
    squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = (squeeze.compress(bytes(1 << 24)) + squeeze.flush(zlib.Z_FULL_FLUSH)) * 3
    with pytest.raises(UnreadableDicom, match="larger than 33554432 bytes"):
        parse(head + bomb, 1 << 25)


def test_a_file_of_too_many_bytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.dcm"
    path.write_bytes(file_of(RAMP))
    assert read(path).attributes["rows"] == 2
    with pytest.raises(UnreadableDicom, match="bytes and 100 are the most"):
        parse(path, 100)


def test_the_size_of_a_stream_is_read_from_it() -> None:
    buffer = io.BytesIO()
    Pillow.new("RGB", (30, 20)).save(buffer, "JPEG", comment=b"x" * 300)
    assert stream_size(buffer.getvalue()) == (20, 30, 3)
    for cut in range(0, len(buffer.getvalue()), 7):
        assert stream_size(buffer.getvalue()[:cut]) in (None, (20, 30, 3))
    buffer = io.BytesIO()
    Pillow.new("L", (30, 20)).save(buffer, "JPEG2000")
    assert stream_size(buffer.getvalue()) == (20, 30, 1)
    assert stream_size(b"") is None


def test_a_wrapper_that_never_ends_is_refused() -> None:
    buffer = io.BytesIO()
    Pillow.new("L", (3, 2)).save(buffer, "JPEG2000", no_jp2=True)
    wrapper = b"\0\0\0\x0cjP  \r\n\x87\n"
    for length, said in ((8, None), (0, "no JPEG stream")):
        stream = wrapper + length.to_bytes(4, "big") + b"free" + b"\0\0\0\0jp2c" + buffer.getvalue()
        data = file_of(np.zeros((2, 3), np.uint8), JPEG2000, PixelData=encapsulate([stream]))
        if said is None:
            assert stream_size(stream) == (2, 3, 1)
        else:
            with pytest.raises(UnreadableDicom, match=said):
                read(data)


def test_what_is_no_dicom_file_is_said_to_be_none() -> None:
    for data in (b"", b"DICM", bytes(132), b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICM" + b"\xff" * 1000):
        with pytest.raises(UnreadableDicom):
            read(data)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_of_pydicom_is_shown_or_refused(path: Path) -> None:
    """Whole, cut short or with a byte changed: a picture or one clear refusal, soon, and nothing else."""
    data = path.read_bytes()
    for damaged in (data, data[: len(data) // 2], data[:-100], data[:400], data[:-200] + b"\xff\xc3" + data[-198:]):
        begun = time.monotonic()
        try:
            Pillow.open(io.BytesIO(read(damaged).png)).load()
        except UnreadableDicom as refused:
            assert refused.message.startswith(("the ", "frame "))
        assert time.monotonic() - begun < 20


@pytest.mark.parametrize("path", [path for path in FILES if "SC_rgb_" in path.name], ids=lambda path: path.name)
def test_colors_are_those_that_were_stored_whatever_the_compression(path: Path) -> None:
    shown = tones(path).astype(int)
    if shown.shape[0] == 100:  # the stripes of the other sizes are other ones
        stripes = shown[[5, 25, 45, 95], 50]
        assert abs(stripes - [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]).max() <= 5


def test_all_images_of_pydicom_are_shown_but_those_that_are_damaged() -> None:
    """59 of its 79 files; 13 hold no image, 4 are no DICOM files of Part 10, 3 are damaged on purpose."""
    reasons: Counter[str] = Counter()
    for path in FILES:
        try:
            read(path)
            reasons["shown"] += 1
        except UnreadableDicom as refused:
            reason = next((word for word in ("no image", "no DICOM file") if word in refused.message), path.name)
            reasons[reason] += 1
    damaged = ["JPEG2000-embedded-sequence-delimiter.dcm", "MR_truncated.dcm", "badVR.dcm"]
    assert reasons == {"shown": 59, "no image": 13, "no DICOM file": 4, **dict.fromkeys(damaged, 1)}

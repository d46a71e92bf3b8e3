"""Rows with images in archives: laid out as their tools do it, and made to do harm."""

import io
import struct
import tarfile
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
import soundfile

from sluice.rows.checking import Rules
from sluice.rows.convert import convert
from sluice.rows.demands import Demands
from sluice.rows.formats.archives.contract import MAX_MEMBERS
from sluice.rows.identities import naming, treatment
from sluice.rows.stacks import Beside
from tests.unit.rows.archive_files import PACKS, jsonl, png, taken, tarred, zipped
from tests.unit.rows.stored import contents

ROWS = [{"image_path": f"images/{n}.png", "question": f"q{n}", "output": f"a{n}"} for n in range(5)]
IMAGES = {f"images/{n}.png": png(n) for n in range(5)}
FILES = {"rows.jsonl": jsonl(ROWS), **IMAGES}
DICOM = Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm"


def csv(rows):
    names = list(rows[0])
    return "\n".join([",".join(names), *(",".join(row[name] for name in names) for row in rows)]).encode()


@pytest.mark.parametrize("ending", PACKS)
def test_every_archive_brings_the_same_rows_and_only_the_images_they_name(ending):
    found = taken(PACKS[ending]({**FILES, "images/unused.png": png(9), "README.md": b"#"}), f"a.{ending}")
    assert found.outcome.accepted and [row["images"] for row in found.rows] == [[png(n)] for n in range(5)]
    assert [row["messages"][0]["content"] for row in found.rows] == [f"<image>q{n}" for n in range(5)]
    named, met = set(found.parts[0].assets["images"]), set(found.assets)
    # one that is read from the front meets an image before it is known that no row names it
    assert met == named if ending in ("zip", "tar") else len(met - named) == 1


@pytest.mark.parametrize("ending", ["zip", "tar.gz"])
@pytest.mark.parametrize(
    ("name", "write"), [("train.jsonl", jsonl), ("metadata.csv", csv), ("a/b/data.csv", csv), ("data.json", None)]
)
def test_paths_start_where_the_rows_file_is(ending, name, write):
    folder = name.rpartition("/")[0]
    write = write or (lambda rows: b"[" + b",".join(jsonl(rows).splitlines()) + b"]")
    files = {name: write(ROWS), **{f"{folder}/{path}".lstrip("/"): image for path, image in IMAGES.items()}}
    assert [row["images"] for row in taken(PACKS[ending](files), f"a.{ending}").rows] == [[png(n)] for n in range(5)]


def test_names_are_read_as_windows_writes_chinese_ones():
    rows, raw = jsonl([{"image_path": "胸片/一.png", "question": "q", "output": "a"}]), "胸片/一.png".encode("gb18030")
    stand_in = "x" * (len(raw) - 4) + ".png"
    files = {"rows.jsonl": rows, stand_in: png(1)}
    assert taken(zipped(files).replace(stand_in.encode(), raw), "a.zip").rows[0]["images"] == [png(1)]
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.GNU_FORMAT, encoding="gb18030") as archive:
        for name, content in {"rows.jsonl": rows, "胸片/一.png": png(1)}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    assert taken(sink.getvalue(), "a.tar").rows[0]["images"] == [png(1)]


def test_folders_with_files_of_rows_of_their_own_do_not_mix_their_images():
    files = {}
    for shade, folder in enumerate(("train", "test"), 1):
        files[f"{folder}/metadata.jsonl"] = jsonl([{"file_name": "1.png", "text": folder}])
        files[f"{folder}/1.png"] = png(shade)
    found = taken(zipped(files), "a.zip", "caption")
    said = {row["messages"][1]["content"]: row["images"] for row in found.rows}
    assert said == {"train": [png(1)], "test": [png(2)]}
    wrong = taken(zipped({**files, "test/metadata.jsonl": b'{"text": "x"}\n'}), "a.zip", "caption")
    assert wrong.violations == [("test/metadata.jsonl", 1, "image_path", "missing-field")]


def test_samples_of_webdataset_become_rows():
    sound = io.BytesIO()
    soundfile.write(sound, np.zeros(800, np.int16), 8000, format="WAV")
    files = {
        "0001.jpg": png(1),
        "0001.cls": b"3\n",
        "0002.jpg": png(2),
        "0002.cls": b"5",
        "0003.wav": sound.getvalue(),
        "0003.json": b'{"label": "dog", "id": "mine"}',
    }
    for ending in ("tar", "tar.gz"):
        rows = taken(PACKS[ending](files), f"shard-000.{ending}", "classification").rows
        assert [(row["id"], row["label"]) for row in rows] == [("0001", ["3"]), ("0002", ["5"]), ("mine", ["dog"])]
        assert rows[0]["images"] == [png(1)] and rows[2]["audios"] == [sound.getvalue()]
    captions = taken(tarred({"a/1.png": png(1), "a/1.txt": "狗".encode(), "a/2.png": png(2)}), "a.tar", "caption")
    assert captions.outcome.row_count == 1 and captions.violations[0][2:] == ("messages", "missing-field")


def test_images_in_folders_are_rows_with_labels():
    found = taken(zipped({"set/cat/1.png": png(1), "set/dog/1.png": png(2)}), "a.zip", "classification")
    assert [(row["label"], row["images"], row["text"]) for row in found.rows] == [
        (["cat"], [png(1)], "<image>"),
        (["dog"], [png(2)], "<image>"),
    ]
    assert taken(zipped({"cat/1.png": png(1)}), "a.zip", "vqa").violations == [("", 0, "", "no-rows-file")]


def test_dicom_files_are_rows_by_themselves_without_who_is_on_them():
    content = DICOM.read_bytes()
    found = taken(tarred({"study/1": content, "study/2.dcm": content, "DICOMDIR": b"x"}), "a.tar", "caption")
    rows = found.rows
    assert [row["images"] for row in rows] == [[content], [content]] and {row["group"] for row in rows} == {"1CT1"}
    said = rows[0]["messages"][1]["content"]
    assert "modality CT" in said and "rows 128" in said and "CompressedSamples" not in str(rows[0]["messages"])
    ((media, _),) = found.assets.values()
    assert (media.type, media.width, media.height) == ("application/dicom", 128, 128)


def dicom(**values):
    dataset = pydicom.dcmread(DICOM)
    for name, value in values.items():
        setattr(dataset, name, value)
    dataset.save_as(made := io.BytesIO(), enforce_file_format=True)
    return made.getvalue()


@pytest.mark.parametrize("policy", ["", "report", "mask"])
def test_a_patient_is_one_group_of_dicom_rows_and_under_mask_a_pseudonym(policy):
    key = bytes(range(16))
    files = {
        "a/1.dcm": dicom(PatientID="13800138000", StudyInstanceUID="1.2.1"),
        "b/2.dcm": dicom(PatientID="13800138000", StudyInstanceUID="1.2.2"),
        "b/3.dcm": dicom(PatientID="P2", StudyInstanceUID="1.2.3"),
        "c/4.dcm": dicom(PatientID=" ", PatientName="", StudyInstanceUID="1.2.4"),
    }
    demands = Demands(deidentify=policy)
    kept = {}

    def keep(digest, media, data):
        kept[digest] = data

    beside = Beside(keep=keep, treat=treatment(policy, key), whose=naming(policy, key))
    texts = {f"{name.removesuffix('.dcm')}.txt": b"x" for name in files}
    for sidecars, schema in (({}, "caption"), (texts, "caption"), ({}, "classification")):
        parts = []
        packed = io.BytesIO(zipped({**files, **sidecars}))
        convert(packed, "a.zip", Rules(schema, demands=demands), parts.append, beside=beside)
        rows = contents(parts)
        assert len(rows) == 4
        said = {pydicom.dcmread(io.BytesIO(kept[row["images"][0]])).PatientID: row["group"] for row in rows}
        if policy == "mask":
            assert len(said) == 3 and all(one == other and one.isalpha() for one, other in said.items())
        else:
            assert said == {"13800138000": "13800138000", "P2": "P2", "": "1.2.4"}


def test_a_broken_dicom_file_is_told_by_its_name():
    content = DICOM.read_bytes()
    found = taken(zipped({"cut.dcm": content[:-9000], "no.dcm": b"garbage" * 50}), "a.zip", "caption")
    cut, no = found.outcome.violations
    assert (cut.found, cut.repair) == ("`cut.dcm`: one that breaks off in its pixel data", "export or copy it again")
    assert no.found.startswith("`no.dcm`: ")


def bomb():
    """An archive whose directory says truthfully, as far as one can tell, that it becomes far more."""
    content = bytearray(zipped({"1.png": b"", "2.png": b""}))
    place = -1
    while (place := content.find(b"PK\1\2", place + 1)) >= 0:
        content[place + 24 : place + 28] = struct.pack("<L", 1 << 30)
    return bytes(content)


def lying(size):
    """A zip in which the first member claims another size."""
    content = bytearray(zipped({"a.png": png(), "rows.jsonl": jsonl([{**ROWS[0], "image_path": "a.png"}])}))
    place = content.index(b"PK\1\2")
    content[place + 24 : place + 28] = struct.pack("<L", size)
    return bytes(content)


def linked():
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        member = zipfile.ZipInfo("a.png")
        member.external_attr = 0o120777 << 16
        archive.writestr(member, "/etc/passwd")
    return sink.getvalue()


def encrypted():
    content = bytearray(zipped(FILES))
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(mark) + place] |= 1
    return bytes(content)


def long_name():
    """A header that says that the name of the next file has a terabyte."""
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    return member.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


def negative():
    """A header that says that what is said of the next file has less than nothing: all that follows, to `tarfile`."""
    head = bytearray(long_name()[:512])
    head[124:136] = (-512).to_bytes(12, "big", signed=True)
    head[148:156] = b"%06o\0 " % (256 + sum(head[:148]) + sum(head[156:]))
    return bytes(head) + bytes(150 << 20)


def sparse():
    member = tarfile.TarInfo("a.png")
    member.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.size": str(1 << 40), "GNU.sparse.map": "0,1"}
    member.size = 0
    return member.tobuf(tarfile.PAX_FORMAT) + bytes(1024)


def broken_header():
    content = bytearray(tarred(FILES))
    content[1024 + 512 * 2 + 150 :] = b"\xff" * len(content[1024 + 512 * 2 + 150 :])
    return bytes(content)


HOSTILE = {
    "up.zip": (lambda: zipped({"../a.png": png()}), "unsafe-path"),
    "deep.tar": (lambda: tarred({"a/../../b.png": png()}), "unsafe-path"),
    "root.tar.gz": (lambda: tarred({"/etc/a.png": png()}, "w:gz"), "unsafe-path"),
    "drive.zip": (lambda: zipped({"C:\\a.png": png()}), "unsafe-path"),
    "link.zip": (linked, "link-in-archive"),
    "symlink.tar": (lambda: tarred({}, x=tarfile.SYMTYPE), "link-in-archive"),
    "hardlink.tar.gz": (lambda: tarred(FILES, "w:gz", x=tarfile.LNKTYPE), "link-in-archive"),
    "device.tar": (lambda: tarred({}, x=tarfile.CHRTYPE), "link-in-archive"),
    "sparse.tar": (sparse, "link-in-archive"),
    "nested.zip": (lambda: zipped({"inner.tar.gz": b""}), "nested-archive"),
    "twice.tar": (lambda: tarred({"a.png": b"1", "./a.png": b"2"}), "doubled-member"),
    "locked.zip": (encrypted, "encrypted-archive"),
    "bomb.zip": (bomb, "file-too-large"),
    "long.tar": (long_name, "unsafe-path"),
    "negative.tar": (negative, "damaged-file"),
    "cut.zip": (lambda: zipped(FILES)[:-30], "damaged-file"),
    "cut.tar": (lambda: tarred(FILES)[:2000], "damaged-file"),
    "cut.tar.gz": (lambda: tarred(FILES, "w:gz")[:-40], "damaged-file"),
    "header.tar": (broken_header, "damaged-file"),
    "none.zip": (lambda: b"PK", "damaged-file"),
    "none.tar": (lambda: b"x" * 5000, "damaged-file"),
    "empty.zip": (lambda: zipped({}), "no-rows-file"),
    "only-images.tar": (lambda: tarred(IMAGES), "no-rows-file"),
    "two-kinds.zip": (lambda: zipped({"a.jsonl": b"", "b.csv": b""}), "several-rows-files"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_archive_that_would_do_harm_is_refused_as_a_whole(name):
    make, kind = HOSTILE[name]
    content = make()
    tracemalloc.start()
    begun = time.process_time()
    found = taken(content, name)
    spent, (_, most) = time.process_time() - begun, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.violations == [("", 0, "", kind)] and not found.outcome.accepted
    assert spent < 5 and most < 100 << 20
    assert "passwd" not in str(found.outcome.violations)


def test_sizes_that_lie_are_found_where_they_are_read():
    for size in (3, 1 << 20):
        assert taken(lying(size), "a.zip").violations == [("rows.jsonl", 1, "image_path", "undecodable-image")]
    assert taken(lying(200 << 20), "a.zip").violations == [("rows.jsonl", 1, "image_path", "asset-too-large")]


def test_a_million_members_are_refused_before_they_are_listed():
    entry = b"PK\1\2" + bytes(24) + struct.pack("<HHH", 1, 0, 0) + bytes(12) + b"x"
    directory = entry * (MAX_MEMBERS + 1)
    end = b"PK\5\6" + struct.pack("<HHHHLLH", 0, 0, 9, 9, len(directory), 0, 0)  # it says nine
    begun = time.process_time()
    assert taken(directory + end, "a.zip").violations == [("", 0, "", "too-many-members")]
    assert time.process_time() - begun < 2


def test_damage_at_any_place_ends_in_an_outcome():
    packs = [(ending, PACKS[ending](FILES)) for ending in ("zip", "tar", "tar.gz", "tar.zst")]
    for ending, whole in [*packs, ("zip", zipped(FILES, zipfile.ZIP_LZMA))]:
        for place in range(0, len(whole), max(1, len(whole) // 25)):
            content = bytearray(whole)
            content[place] ^= 0xFF
            outcome = taken(bytes(content), f"a.{ending}").outcome
            assert outcome.accepted or outcome.violations

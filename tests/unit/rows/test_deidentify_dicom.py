"""DICOM files through the basic profile: nothing that identifies is left, and what belongs together stays together."""

import io
import struct
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEGBaseline8Bit, SecondaryCaptureImageStorage

from kit.rpc.errors import Invalid
from sluice.rows.assets import Trouble
from sluice.rows.deidentify import Policy
from sluice.rows.deidentify.dicom import BurnedInAnnotation, Dates, Deidentified, deidentify
from sluice.rows.deidentify.profile import Action, action, table
from sluice.rows.identities import treatment
from sluice.rows.media import Media
from sluice.rows.media.dicom import UnreadableDicom, parse, quiet, read
from sluice.rows.media.looking import DICOM

KEY, OTHER_KEY = b"0123456789abcdef", b"fedcba9876543210"
FILES = sorted((Path(pydicom.__file__).parent / "data" / "test_files").rglob("*.dcm"))
TEXTS = {"AE", "LO", "LT", "SH", "ST", "UC", "UR", "UT", "CS", "PN"}


def image(**values: object) -> Dataset:
    """A small CT with somebody's name on it."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, "1.2.3.4.1"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3.1", "1.2.3.2"
    dataset.FrameOfReferenceUID = "1.2.840.10008.1.4.1.1"
    dataset.Modality, dataset.BodyPartExamined = "CT", "CHEST"
    dataset.PatientID, dataset.PatientName, dataset.PatientSex = "P-99812", "王小明^Wang", "M"
    dataset.StudyDate, dataset.StudyTime = "20240115", "101112"
    dataset.Rows = dataset.Columns = 4
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = bytes(range(16))
    with quiet():
        for name, value in values.items():
            setattr(dataset, name, value)
    return dataset


def file_of(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    with quiet():
        dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def after(done: Deidentified) -> Dataset:
    return pydicom.dcmread(io.BytesIO(done.data))


def item(**values: object) -> Dataset:
    dataset = Dataset()
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset


def filled() -> tuple[Dataset, list[bytes]]:
    """A file with a value of its own in every text attribute of the profile's table, at the top and three deep."""
    dataset, secrets = image(), []
    deep = Dataset()
    for tag in table():
        vr = pydicom.datadict.dictionary_VR(tag) if pydicom.datadict.dictionary_has_tag(tag) else ""
        if vr not in TEXTS or tag >> 16 < 8:
            continue
        for target in (dataset, deep):
            secrets.append(f"S{len(secrets):04d}X".encode())
            target.add_new(tag, vr, secrets[-1].decode())
    dataset.RequestAttributesSequence = [item(RequestedProcedureID="S9001X")]
    middle = item(ReferencedSOPSequence=[deep], StudyComments="S9002X")
    dataset.add_new(0x00081115, "SQ", [middle])  # Referenced Series Sequence is not in the table: its inside is cleaned
    block = dataset.private_block(0x0009, "S9003X ACME", create=True)
    block.add_new(0x01, "LO", "S9004X")
    block.add_new(0x02, "SQ", [item(PatientName="S9005X")])
    deep.private_block(0x0011, "S9006X", create=True).add_new(0x01, "UN", b"S9007X")
    dataset.add_new(0x60000022, "LO", "S9008X")
    dataset.add_new(0x50000022, "LO", "S9009X")
    return dataset, [*secrets, *(f"S{number}X".encode() for number in range(9001, 9010))]


def test_no_value_that_the_profile_removes_is_left_anywhere_in_the_file() -> None:
    dataset, secrets = filled()
    dataset.file_meta.SourceApplicationEntityTitle = "S9010X"
    data = b"S9011X".ljust(128) + file_of(dataset)[128:]
    secrets += [b"S9010X", b"S9011X"]
    assert len(secrets) > 600 and all(secret in data for secret in secrets)
    done = deidentify(data, KEY)
    assert [secret for secret in secrets if secret in done.data] == []
    assert done.data[:128] == bytes(128)


def test_the_file_says_what_was_done_and_the_picture_is_as_it_was() -> None:
    done = after(deidentify(file_of(image()), KEY))
    assert done.PatientIdentityRemoved == "YES" and "PS3.15" in done.DeidentificationMethod
    assert [code.CodeValue for code in done.DeidentificationMethodCodeSequence] == ["113100"]
    assert done.LongitudinalTemporalInformationModified == "REMOVED"
    assert (done.StudyDate, done.PatientSex, done.PatientName) == ("", "", "")
    assert (done.Modality, done.BodyPartExamined, done.PixelData) == ("CT", "CHEST", bytes(range(16)))
    assert done.file_meta.MediaStorageSOPInstanceUID == done.SOPInstanceUID != "1.2.3.4.1"


def put_in(data: bytes, tag: int, representation: bytes, content: bytes) -> bytes:
    """The file with an attribute as no tool would write it, right before the number of its rows."""
    place = data.index(b"\x28\x00\x10\x00US")
    head = struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, representation, 0, len(content))
    return data[:place] + head + content + data[place:]


@pytest.mark.parametrize("tag", [0x00180015, 0x00180022, 0x00180023, 0x00280303])
@pytest.mark.parametrize("representation", [b"UN", b"OB"])
def test_bytes_in_the_place_of_something_else_go(tag: int, representation: bytes) -> None:
    name = struct.pack("<HHL", 0x0010, 0x0010, 8) + b"S9012X^A"
    hidden = b"\xfe\xff\x00\xe0" + struct.pack("<L", len(name)) + name
    data = put_in(file_of(image()), tag, representation, hidden)
    assert b"S9012X" in data and b"S9012X" not in deidentify(data, KEY).data


def test_a_policy_that_refuses_takes_what_says_that_it_is_clean_and_survives_nonsense() -> None:
    refuse, media = treatment(Policy.REFUSE, b""), Media(DICOM, 4, 4)
    clean = file_of(image(PatientIdentityRemoved="YES"))
    assert refuse(clean, media) is clean
    overlay = clean.replace(b"\xe0\x7f\x10\x00", struct.pack("<HH2sH3s", 0x6000, 0x0102, b"US", 3, b"abc"), 1)
    for content, kind in ((file_of(image()), "identifies-person"), (overlay, "undecodable-image")):
        with pytest.raises(Trouble, match=kind):
            refuse(content, media)


def test_what_stands_behind_the_picture_goes() -> None:
    data = file_of(image(PixelData=bytes(range(16)) + b"S9013X"))
    assert b"S9013X" in data and after(deidentify(data, KEY)).PixelData == bytes(range(16))


def test_uids_stay_consistent_across_files_with_one_key() -> None:
    reference = [item(ReferencedSOPClassUID=CTImageStorage, ReferencedSOPInstanceUID="1.2.3.4.1")]
    second = image(SOPInstanceUID="1.2.3.4.2", ReferencedImageSequence=reference)
    first, later, foreign = (
        after(deidentify(file_of(dataset), key))
        for dataset, key in ((image(), KEY), (second, KEY), (image(), OTHER_KEY))
    )
    assert first.FrameOfReferenceUID == "1.2.840.10008.1.4.1.1"  # the standard's own stay
    assert first.SeriesInstanceUID == later.SeriesInstanceUID and first.StudyInstanceUID == later.StudyInstanceUID
    assert first.SOPInstanceUID != later.SOPInstanceUID
    assert later.ReferencedImageSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert later.ReferencedImageSequence[0].ReferencedSOPClassUID == first.SOPClassUID == CTImageStorage
    assert foreign.SeriesInstanceUID != first.SeriesInstanceUID
    assert all(len(uid) <= 64 and uid.startswith("2.25.") for uid in (first.SOPInstanceUID, first.SeriesInstanceUID))


def test_the_patient_is_one_pseudonym_by_key() -> None:
    one = deidentify(file_of(image()), KEY)
    same = deidentify(file_of(image(PatientName="Wang Xiaoming", StudyInstanceUID="1.2.9")), KEY)
    others = [deidentify(file_of(image(PatientID="P-99813")), KEY), deidentify(file_of(image()), OTHER_KEY)]
    assert one.patient == same.patient == after(one).PatientID and len(one.patient) == 16
    assert one.patient not in {other.patient for other in others}
    nameless = [deidentify(file_of(image(PatientID="", PatientName=name)), KEY).patient for name in ("", "", "A")]
    assert nameless[0] == nameless[1] != nameless[2]


def test_dates_move_together_by_days_of_the_patients_own() -> None:
    values = {"SeriesDate": "20240120", "AcquisitionDateTime": "20240116101112.5+0800", "PatientBirthDate": "19700101"}
    moved = after(deidentify(file_of(image(**values)), KEY, dates=Dates.SHIFT))
    study, series = (pydicom.valuerep.DA(date) for date in (moved.StudyDate, moved.SeriesDate))
    assert (series - study).days == 5 and 1 <= (pydicom.valuerep.DA("20240115") - study).days <= 3650
    assert moved.AcquisitionDateTime.endswith("101112.5+0800") and moved.StudyTime == "101112"
    assert moved.PatientBirthDate == "" and moved.LongitudinalTemporalInformationModified == "MODIFIED"
    assert [code.CodeValue for code in moved.DeidentificationMethodCodeSequence] == ["113100", "113107"]
    wrong = after(deidentify(file_of(image(StudyDate="2024JAN1", SeriesDate="00010101")), KEY, dates=Dates.SHIFT))
    assert (wrong.StudyDate, wrong.SeriesDate) == ("", "")


def test_a_name_that_is_repeated_elsewhere_goes_too() -> None:
    values = {
        "ManufacturerModelName": "Scanner of 王小明",
        "SoftwareVersions": ["7", "P-99812"],
        "Manufacturer": "Wangtech",
    }
    done = after(deidentify(file_of(image(**values)), KEY))
    assert (done.ManufacturerModelName, done.SoftwareVersions, done.Manufacturer) == ("", "", "Wangtech")


def test_a_name_in_a_comment_of_the_compressed_picture_is_refused() -> None:
    stream = b"\xff\xd8\xff\xfe" + struct.pack(">H", 16) + "王小明".encode() + b"12345" + b"\xff\xd9"
    dataset = image(PixelData=pydicom.encaps.encapsulate([stream]), PatientName="王小明")
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    with pytest.raises(UnreadableDicom, match="inside its compressed picture"):
        deidentify(file_of(dataset), KEY)


@pytest.mark.parametrize(
    ("values", "burned"),
    [
        ({}, ""),
        ({"BurnedInAnnotation": "NO"}, ""),
        ({"BurnedInAnnotation": "YES"}, "declared"),
        ({"SOPClassUID": SecondaryCaptureImageStorage}, "suspected"),
        ({"SOPClassUID": SecondaryCaptureImageStorage, "BurnedInAnnotation": "NO"}, ""),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "suspected"),
        ({"Modality": "US"}, "suspected"),
        ({"ConversionType": "WSD"}, "suspected"),
    ],
)
def test_text_on_the_picture_is_refused_by_policy(values: dict[str, object], burned: str) -> None:
    data = file_of(image(**values))
    assert deidentify(data, KEY, refuse_burned_in=False).burned_in == burned
    if burned:
        with pytest.raises(BurnedInAnnotation, match=f"burned-in annotation {burned}"):
            deidentify(data, KEY)


def test_overlays_inside_the_pixels_are_suspected_whatever_the_file_says() -> None:
    dataset = image(BurnedInAnnotation="NO")
    dataset.add_new(0x60000102, "US", 12)
    assert deidentify(file_of(dataset), KEY, refuse_burned_in=False).burned_in == "suspected"


@pytest.mark.parametrize(
    ("keyword", "expected"),
    [
        ("PatientName", Action.EMPTY),
        ("PatientID", Action.DUMMY),
        ("PatientAge", Action.REMOVE),
        ("InstitutionName", Action.DUMMY),
        ("SOPInstanceUID", Action.UID),
        ("ReferencedImageSequence", Action.INSIDE),
        ("SOPClassUID", Action.KEEP),
        ("BodyPartExamined", Action.KEEP),
        ("PixelData", Action.KEEP),
        ("OverlayData", Action.REMOVE),
    ],
)
def test_the_table_is_that_of_the_standard(keyword: str, expected: Action) -> None:
    tag = pydicom.datadict.tag_for_keyword(keyword) or 0x60003000
    vr = pydicom.datadict.dictionary_VR(tag)
    assert action(tag, vr) is expected


def test_a_short_key_and_bytes_of_other_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        deidentify(file_of(image()), b"short")
    for data in (b"", b"\x89PNG" * 100, bytes(200)):
        with pytest.raises(UnreadableDicom):
            deidentify(data, KEY)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_of_pydicom_is_cleaned_or_refused(path: Path) -> None:
    """None may crash; in those that are cleaned no name, number or instance UID is left, the picture is the same."""
    try:
        before = parse(path)
        done = deidentify(path, KEY, refuse_burned_in=False)
    except Invalid:
        return
    with quiet():
        cleaned = pydicom.dcmread(io.BytesIO(done.data))
        assert not [element for element in cleaned.iterall() if element.tag.is_private]
        left = [name for name in ("PatientBirthDate", "PatientSex", "ReferringPhysicianName") if cleaned.get(name)]
        assert left == [] and cleaned.PatientID == done.patient
        head = done.data.split(b"\xe0\x7f\x10\x00")[0]
        for name in ("PatientName", "PatientID", "SOPInstanceUID", "StudyInstanceUID"):
            value = str(before.get(name) or "").encode()
            assert len(value) < 6 or value not in head
        try:
            shown = read(path).png
        except UnreadableDicom:
            return
        assert read(done.data).png == shown

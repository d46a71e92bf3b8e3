"""De-identification of DICOM files by the basic profile of PS3.15, annex E; how pixels look is not known here.

Names, numbers, institutions, free text and private attributes go, at every depth. UIDs become others by a keyed hash,
so that with one key a series stays a series across files, and nobody without the key can go back. What is written on
the picture itself cannot be taken out here: files that say so, or that are screens, are refused.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kit.rpc.errors import Invalid
from sluice.rows.deidentify.cleaning import Cleaning, Dates
from sluice.rows.deidentify.leftovers import Identity
from sluice.rows.deidentify.profile import EDITION
from sluice.rows.media.dicom import UnreadableDicom, parse, translated

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["BurnedInAnnotation", "Dates", "Deidentified", "burned_in", "deidentify"]

LEAST_KEY_BYTES = 16
_DIRECTORY = "1.2.840.10008.1.3.10"
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
#: Conversion types of film, video and workstation screens (PS3.3 C.8.6.1).
_SCREENS = frozenset({"DV", "DF", "SD", "SI", "WSD"})


class BurnedInAnnotation(Invalid):
    """The picture itself says, or may say, whose it is."""


@dataclass(frozen=True)
class Deidentified:
    """A file after the profile.

    ``patient`` is the keyed pseudonym of the patient, also in PatientID: equal for one patient and key, so splits may
    be grouped by it. ``burned_in`` is ``declared`` or ``suspected`` where the picture may show a name, else empty.
    """

    data: bytes
    patient: str
    burned_in: str


def deidentify(
    source: bytes | Path, key: bytes, *, dates: Dates = Dates.REMOVE, refuse_burned_in: bool = True
) -> Deidentified:
    """A DICOM file without what the Basic Application Level Confidentiality Profile removes (PS3.15 E.2).

    ``key`` is a secret of at least 16 bytes, the same for all files of a dataset. ``dates`` are removed, or moved by a
    number of days that is the patient's own (the option of PS3.15 E.3.6). Raises BurnedInAnnotation unless
    ``refuse_burned_in`` is off, and UnreadableDicom for what is no such file or cannot be cleaned.
    """
    if len(key) < LEAST_KEY_BYTES:
        raise ValueError(f"a key of {LEAST_KEY_BYTES} bytes or more is needed")
    dataset = parse(source)
    with translated("de-identified"):
        if dataset.file_meta.get("MediaStorageSOPClassUID") == _DIRECTORY:
            raise UnreadableDicom("the DICOM file is a DICOMDIR, an index of others; leave it out")
        if not dataset.get("SOPClassUID") or not dataset.get("SOPInstanceUID"):
            raise UnreadableDicom("the DICOM file is no whole object: SOPClassUID or SOPInstanceUID is missing")
        burned = burned_in(dataset)
        if burned and refuse_burned_in:
            raise BurnedInAnnotation(_refusal(burned))
        identity = Identity(dataset)
        cleaning = Cleaning(key, dataset, dates)
        cleaning.clean(dataset)
        identity.blank(dataset)
        _declare(dataset, cleaning, dates)
        return Deidentified(_written(dataset, identity), cleaning.patient, burned)


def burned_in(dataset: Dataset) -> str:
    """``declared``, ``suspected`` or empty: whether the pixels show text about the patient.

    Suspected are overlays inside the pixel data, and, unless the file says NO itself, secondary captures, screens and
    ultrasound, on whose frames devices write the patient's name.
    """
    said = str(dataset.get("BurnedInAnnotation") or "").strip().upper()
    if said == "YES":
        return "declared"
    overlays = [group for group in range(0x6000, 0x6020, 2) if (group, 0x0102) in dataset]
    if any(dataset[group, 0x0102].value and (group, 0x3000) not in dataset for group in overlays):
        return "suspected"
    screen = (
        str(dataset.get("SOPClassUID", "")).startswith(_SECONDARY_CAPTURE)
        or dataset.get("ConversionType") in _SCREENS
        or "SCREEN" in str(dataset.get("ImageType", ""))
        or dataset.get("Modality") == "US"
    )
    return "suspected" if screen and said != "NO" else ""


def _refusal(burned: str) -> str:
    why = "says that its picture shows text about the patient" if burned == "declared" else "is a screen or a capture"
    return (
        f"the DICOM file {why} (burned-in annotation {burned}), which cannot be removed here; mask the picture and set "
        "BurnedInAnnotation to NO, or upload with burned-in annotation allowed"
    )


def _declare(dataset: Dataset, cleaning: Cleaning, dates: Dates) -> None:
    """Says in the file what was done to it (PS3.15 E.2, PS3.3 C.7.1.1 and C.12.1; codes of PS3.16 CID 7050)."""
    from pydicom import Dataset

    dataset.PatientID = cleaning.patient
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = f"Sluice, DICOM PS3.15 {EDITION} Table E.1-1"
    dataset.LongitudinalTemporalInformationModified = "MODIFIED" if dates is Dates.SHIFT else "REMOVED"
    codes = [("113100", "Basic Application Confidentiality Profile")]
    if dates is Dates.SHIFT:
        codes.append(("113107", "Retain Longitudinal Temporal Information Modified Dates Option"))
    dataset.DeidentificationMethodCodeSequence = []
    for value, meaning in codes:
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
        dataset.DeidentificationMethodCodeSequence.append(item)


def _written(dataset: Dataset, identity: Identity) -> bytes:
    """The bytes of the file, with a preamble and a file meta group of their own."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    implicit, little = dataset.original_encoding
    plain = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    syntax = dataset.file_meta.get("TransferSyntaxUID") or (ImplicitVRLittleEndian if implicit else plain)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.preamble = bytes(128)
    if syntax.is_encapsulated and identity.within(dataset.get("PixelData") or b""):
        raise UnreadableDicom(
            "the DICOM file repeats the patient's name or number inside its compressed picture; export it uncompressed"
        )
    if not syntax.is_encapsulated and dataset.get("PixelData"):
        from pydicom.pixels.utils import get_expected_length

        size = get_expected_length(dataset)
        dataset.PixelData = dataset.PixelData[: size + size % 2]  # what stands behind the last frame is no picture
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()

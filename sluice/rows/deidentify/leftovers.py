"""Names and numbers that a file removes in one place and repeats in another; which attributes go is not known here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.dataelem import DataElement, RawDataElement

_NUMBERS = frozenset(
    {
        "AccessionNumber",
        "AdmissionID",
        "InsurancePlanIdentification",
        "MedicalRecordLocator",
        "OtherPatientIDs",
        "PatientAddress",
        "PatientID",
        "PatientTelephoneNumbers",
    }
)
_TEXTS = frozenset({"AE", "CS", "LO", "LT", "SH", "ST", "UC", "UR", "UT"})
_CHARACTER_SET = 0x00080005
_LEAST_BYTES = 6
_WORDS = re.compile(r"[^\s^=,;]+")


class Identity:
    """The names and numbers of one file, as they were before it was cleaned."""

    def __init__(self, dataset: Dataset) -> None:
        words: set[str] = set()
        self._stored: set[bytes] = set()
        for inner, tag in _elements(dataset):
            stored = inner.get_item(tag)
            element = inner[tag]
            if element.VR != "PN" and element.keyword not in _NUMBERS:
                continue
            self._stored |= _bytes(stored)
            for text in element.value if element.VM > 1 else [element.value]:
                words |= set(_WORDS.findall(str(text or "")) if element.VR == "PN" else [str(text or "").strip()])
        telling = "|".join(sorted((re.escape(word) for word in words if _tells(word)), key=len, reverse=True))
        self._pattern = re.compile(rf"(?<![0-9A-Za-z])(?:{telling})(?![0-9A-Za-z])", re.I) if telling else None

    def blank(self, dataset: Dataset) -> None:
        """Empties every text that is left in the data set and holds one of them."""
        if self._pattern is None:
            return
        for inner, tag in _elements(dataset):
            element = inner[tag]
            if element.VR not in _TEXTS or tag == _CHARACTER_SET or tag >> 16 == 0x0028:
                continue
            if self._pattern.search(str(element.value)):
                element.value = None

    def within(self, stream: bytes) -> bool:
        """Whether one of them, of six bytes or more, stands in a compressed picture, whose format allows comments."""
        return any(each in stream for each in self._stored)


def _elements(dataset: Dataset) -> Iterator[tuple[Dataset, int]]:
    """Every data set and tag inside, down to the last sequence; pixel data is not looked at."""
    for tag in list(dataset.keys()):
        if tag >> 16 == 0x7FE0:
            continue
        yield dataset, tag
        if dataset[tag].VR == "SQ":
            for item in dataset[tag].value:
                yield from _elements(item)


def _tells(word: str) -> bool:
    """Whether a word is long enough to tell somebody: two Chinese characters, three letters or four digits."""
    return len(word) >= (2 if not word.isascii() else 4 if word.isdigit() else 3)


def _bytes(stored: DataElement | RawDataElement | None) -> set[bytes]:
    value = stored.value if stored is not None else None
    if not isinstance(value, bytes):
        return set()
    parts = (part.strip(b" \0") for part in value.split(b"\\"))
    return {part for part in parts if len(part) >= _LEAST_BYTES and len(set(part)) > 2}

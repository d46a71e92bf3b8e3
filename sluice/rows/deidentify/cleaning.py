"""One data set through the profile, attribute by attribute and at every depth; where it came from is not known here."""

from __future__ import annotations

import hmac
import re
import uuid
from datetime import date, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sluice.rows.deidentify.profile import Action, action

if TYPE_CHECKING:
    from pydicom import Dataset

MOST_DAYS = 3650
_PATIENT_GROUP = 0x0010
_DATE = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})")
#: What no text has (PS3.5 6.1.3), but for the ends of lines and the escapes of character sets.
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_TEXTS = frozenset({"AE", "CS", "DS", "IS", "LO", "LT", "SH", "ST", "UC", "UR", "UT"})
#: A pseudonym has no digits: some would look like the number of a telephone or a card.
_LETTERS = str.maketrans("0123456789abcdef", "ABCDEFGHIJKLMNOP")
_DUMMIES: dict[str, Any] = {
    "DA": "19000101",
    "TM": "000000",
    "DT": "19000101000000",
    "AS": "000D",
    "IS": "0",
    "DS": "0",
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"), "REMOVED"),
    **dict.fromkeys(("FD", "FL"), 0.0),
    **dict.fromkeys(("AT", "SL", "SS", "SV", "UL", "US", "UV"), 0),
    **dict.fromkeys(("OB", "OD", "OF", "OL", "OV", "OW", "UN"), bytes(8)),
}


class Dates(StrEnum):
    """What becomes of dates: they are removed, or moved by days of the patient's own, so that intervals stay."""

    REMOVE = "remove"
    SHIFT = "shift"


class Cleaning:
    """What one file is cleaned with: the key, and what follows from it and the patient."""

    def __init__(self, key: bytes, dataset: Dataset, dates: Dates) -> None:
        self._key = key
        self._dates = dates
        self.patient = pseudonym(key, dataset)
        self._days = timedelta(days=1 + int.from_bytes(self._hash("days", self.patient)[:8], "big") % MOST_DAYS)

    def clean(self, dataset: Dataset) -> None:
        """Applies the profile to the data set and all inside it."""
        from pydicom.datadict import dictionary_has_tag, dictionary_VR

        for tag in list(dataset.keys()):
            stored = dataset.get_item(tag)
            known = dictionary_VR(tag) if dictionary_has_tag(tag) else "UN"
            representation = known if stored is None or stored.VR in (None, "UN") else stored.VR
            wanted = action(tag, representation)
            if wanted in (Action.EMPTY, Action.REMOVE, Action.DUMMY) and self._moves(tag, representation):
                self._replace(dataset, tag, representation, self._moved(dataset, tag, representation))
            elif wanted is Action.REMOVE or (representation == "SQ" and known not in ("SQ", "UN")):
                del dataset[tag]
            elif wanted is Action.EMPTY:
                self._replace(dataset, tag, representation, None)
            elif wanted is Action.DUMMY:
                self._replace(dataset, tag, representation, self._dummy(representation))
            elif representation == "SQ":
                for item in dataset[tag].value:
                    self.clean(item)
            elif wanted is not Action.KEEP:
                self._replace(dataset, tag, representation, self._uids(dataset[tag].value))
            elif _holds_anything(dataset, tag, representation, known):
                del dataset[tag]

    def _replace(self, dataset: Dataset, tag: int, representation: str, value: Any) -> None:
        from pydicom import DataElement

        representation = {"US or SS": "US", "OB or OW": "OW"}.get(representation, representation[:2])
        dataset[tag] = DataElement(tag, representation, [] if value is None and representation == "SQ" else value)

    def _dummy(self, representation: str) -> Any:
        from pydicom import Dataset

        if representation == "SQ":
            return [Dataset()]
        return self._uid("") if representation == "UI" else _DUMMIES[representation[:2]]

    def _uids(self, value: Any) -> Any:
        if not value:
            return None
        return self._uid(str(value)) if isinstance(value, str) else [self._uid(str(each)) for each in value]

    def _uid(self, uid: str) -> str:
        """Another UID for this one, or the same where the standard itself has given it out (PS3.5 B.2, PS3.6 A)."""
        from pydicom.uid import UID

        if UID(uid).name != uid:
            return uid
        return f"2.25.{uuid.UUID(bytes=self._hash('uid', uid.strip())[:16], version=5).int}"

    def _moves(self, tag: int, representation: str) -> bool:
        """Whether a date or time is one that the option keeps: not the patient's own."""
        return self._dates is Dates.SHIFT and representation in ("DA", "DT", "TM") and tag >> 16 != _PATIENT_GROUP

    def _moved(self, dataset: Dataset, tag: int, representation: str) -> Any:
        value = dataset[tag].value
        if not value or representation == "TM":
            return value or None
        each = [value] if isinstance(value, str) else list(value)
        return [self._move(str(text)) for text in each]

    def _move(self, text: str) -> str:
        """The date of a DA or DT value days earlier; an empty value for what is no whole date."""
        found = _DATE.match(text.strip())
        if found is None:
            return ""
        try:
            moved = date(*(int(part) for part in found.groups())) - self._days
        except (ValueError, OverflowError):
            return ""
        return f"{moved:%Y%m%d}".rjust(8, "0") + text.strip()[found.end() :]

    def _hash(self, use: str, value: str) -> bytes:
        return _hash(self._key, use, value)


def pseudonym(key: bytes, dataset: Dataset) -> str:
    """What the patient is called in every file that is cleaned with the key: 16 letters."""
    return _hash(key, "patient", _whose(dataset)).hex()[:16].translate(_LETTERS)


def _hash(key: bytes, use: str, value: str) -> bytes:
    return hmac.digest(key, f"{use}\0{value}".encode(), "sha256")


def _holds_anything(dataset: Dataset, tag: int, representation: str, known: str) -> bool:
    """Whether an attribute to keep holds bytes in the place of numbers or of text, such as a sequence with a name."""
    if representation.startswith("O"):
        return "O" not in known
    element = dataset[tag]
    values = element.value if element.VM > 1 else [element.value]
    return representation in _TEXTS and any(_CONTROLS.search(str(each)) for each in values)


def _whose(dataset: Dataset) -> str:
    """What stands for the patient: the number, else name and birth date, else the study, which is of one patient."""
    number = str(dataset.get("PatientID") or "").strip()
    name = str(dataset.get("PatientName") or "").strip()
    if number:
        return f"id\0{number}"
    if name:
        return f"name\0{name}\0{dataset.get('PatientBirthDate') or ''}"
    return f"study\0{dataset.get('StudyInstanceUID') or dataset.get('SOPInstanceUID') or ''}"

"""The Basic Application Level Confidentiality Profile as a table: what it asks of each attribute. It changes no file.

The table is PS3.15 Table E.1-1 of edition 2026c, as the library `dicom-anonymizer` carries it. Of that library only
the table is used: it looks at the top level of a file alone, and draws new UIDs at random.
"""

from __future__ import annotations

from enum import StrEnum
from functools import cache


class Action(StrEnum):
    """What becomes of an attribute (PS3.15 Table E.1-1a), where a choice is left the one that always conforms."""

    REMOVE = "X"
    EMPTY = "Z"
    DUMMY = "D"
    UID = "U"
    #: Replace the UIDs inside and clean the rest; of sequences that refer to other instances.
    INSIDE = "U*"
    KEEP = "K"


#: The choice between X, Z and D depends on the type of the attribute in its IOD, which no table here knows: an empty
#: value conforms where X or Z would do, and a dummy where D might be needed.
_LISTS = {
    "X_TAGS": Action.REMOVE,
    "Z_TAGS": Action.EMPTY,
    "X_Z_TAGS": Action.EMPTY,
    "D_TAGS": Action.DUMMY,
    "Z_D_TAGS": Action.DUMMY,
    "X_D_TAGS": Action.DUMMY,
    "X_Z_D_TAGS": Action.DUMMY,
    "U_TAGS": Action.UID,
    "X_Z_U_STAR_TAGS": Action.INSIDE,
}
EDITION = "2026c"


@cache
def table() -> dict[int, Action]:
    from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector

    lists = dicom_anonymization_database_selector(f"dicomfields_{EDITION}")
    return {tag[0] << 16 | tag[1]: action for name, action in _LISTS.items() for tag in lists[name] if len(tag) == 2}


def action(tag: int, representation: str) -> Action:
    """What the profile asks of an attribute, by its tag and value representation.

    Beyond the table: private attributes, attributes that the data dictionary does not know, overlays and curves, and
    the groups that belong to messages and not to files are removed. An attribute of the dictionary that is not in the
    table is kept unless it is a name, a date or a time, which is emptied, or an instance's UID, which is replaced.
    """
    from pydicom.datadict import dictionary_has_tag, dictionary_keyword, repeater_has_tag

    group = tag >> 16
    if group % 2 or group < 0x0008 or group & 0xFF00 in (0x5000, 0x6000):
        return Action.REMOVE
    if tag in table():
        return table()[tag]
    if not dictionary_has_tag(tag) and not repeater_has_tag(tag):
        return Action.REMOVE
    if representation in ("PN", "DA", "DT", "TM"):
        return Action.EMPTY
    if representation == "UI" and not dictionary_keyword(tag).endswith(("ClassUID", "SyntaxUID")):
        return Action.UID
    return Action.INSIDE if representation == "SQ" else Action.KEEP

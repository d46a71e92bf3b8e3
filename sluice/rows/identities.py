"""What a policy asks of images that tell whose they are: they are cleaned, or DICOM refused. Texts are not its matter.

Of what stands written on a picture only what the file says of it can be known here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sluice.rows.assets import Trouble
from sluice.rows.deidentify import Policy
from sluice.rows.media import Media
from sluice.rows.media.looking import DICOM

if TYPE_CHECKING:
    from pydicom import Dataset

#: Gives the bytes that are kept in place of those that came. Raises Trouble.
Treat = Callable[[bytes, Media], bytes]
#: What the patient of a DICOM file is called in its row; empty where the file tells of none.
Whose = Callable[["Dataset"], str]


def as_it_is(content: bytes, media: Media) -> bytes:
    """Where nothing is asked."""
    return content


def as_it_says(dataset: Dataset) -> str:
    """The PatientID of a file, else its StudyInstanceUID: a study is of one patient (PS3.3 A.1.2.2)."""
    said = (str(dataset.get(name) or "").strip() for name in ("PatientID", "StudyInstanceUID"))
    return next(filter(None, said), "")


def naming(policy: str, key: bytes) -> Whose:
    """What patients are called by a policy: under `mask` as in the files that are kept then, never as they are."""
    if policy != Policy.MASK:
        return as_it_says
    from sluice.rows.deidentify.cleaning import pseudonym

    return lambda dataset: pseudonym(key, dataset)


def treatment(policy: str, key: bytes) -> Treat:
    """What is done by a policy: `mask` applies the basic profile of PS3.15 with a key of 16 bytes or more.

    Of other images it takes what is said beside their pixels. `refuse` refuses DICOM files that were not de-identified
    before; anything else leaves them as they are.
    """
    if policy == Policy.MASK:
        return lambda content, media: _masked(content, media, key)
    if policy == Policy.REFUSE:
        return lambda content, media: _known_clean(content) if media.type == DICOM else content
    return as_it_is


def _masked(content: bytes, media: Media, key: bytes) -> bytes:
    if media.type == DICOM:
        return _cleaned(content, key)
    if media.kind == "audio":
        return content
    from sluice.rows.deidentify.pictures import bare

    plain = bare(content, media.type)
    return content if plain == content else plain


def _cleaned(content: bytes, key: bytes) -> bytes:
    from sluice.rows.deidentify.dicom import BurnedInAnnotation, deidentify
    from sluice.rows.media.dicom import UnreadableDicom

    try:
        return deidentify(content, key).data
    except BurnedInAnnotation:
        repair = "mask the picture and set BurnedInAnnotation to NO, or leave the row out"
        raise _identifies("one on which, as it says, a name may be written", repair) from None
    except UnreadableDicom as error:
        raise Trouble("undecodable-image", "a DICOM file that can be cleaned", "another", error.message) from None


def _known_clean(content: bytes) -> bytes:
    from sluice.rows.deidentify.dicom import burned_in
    from sluice.rows.media.dicom import UnreadableDicom, parse, translated

    try:
        dataset = parse(content)
        with translated("read"):
            clean = dataset.get("PatientIdentityRemoved") == "YES" and not burned_in(dataset)
    except UnreadableDicom as error:
        raise Trouble("undecodable-image", "a DICOM file that can be read", "another", error.message) from None
    if not clean:
        raise _identifies("one that says whose it is", "de-identify it, or upload with `deidentify` mask")
    return content


def _identifies(found: str, repair: str) -> Trouble:
    return Trouble("identifies-person", "a DICOM file that identifies nobody", found, repair)

"""What a policy asks of images that tell whose they are: DICOM files are cleaned, or refused. Texts are not its matter.

Of what stands written on a picture only what the file says of it can be known here.
"""

from __future__ import annotations

from collections.abc import Callable

from sluice.rows.assets import Trouble
from sluice.rows.deidentify import Policy
from sluice.rows.media import Media
from sluice.rows.media.looking import DICOM

#: Gives the bytes that are kept in place of those that came. Raises Trouble.
Treat = Callable[[bytes, Media], bytes]


def as_it_is(content: bytes, media: Media) -> bytes:
    """Where nothing is asked."""
    return content


def treatment(policy: str, key: bytes) -> Treat:
    """What is done by a policy: `mask` applies the basic profile of PS3.15 with a key of 16 bytes or more.

    `refuse` refuses files that were not de-identified before; anything else leaves them as they are.
    """
    if policy == Policy.MASK:
        return lambda content, media: _cleaned(content, key) if media.type == DICOM else content
    if policy == Policy.REFUSE:
        return lambda content, media: _known_clean(content) if media.type == DICOM else content
    return as_it_is


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
    from sluice.rows.media.dicom import parse

    dataset = parse(content)
    if dataset.get("PatientIdentityRemoved") != "YES" or burned_in(dataset):
        raise _identifies("one that says whose it is", "de-identify it, or upload with `deidentify` mask")
    return content


def _identifies(found: str, repair: str) -> Trouble:
    return Trouble("identifies-person", "a DICOM file that identifies nobody", found, repair)

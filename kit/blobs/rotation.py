"""A new generation of the key-encryption key: every envelope is wrapped anew, no data is touched.

What is done is seen in each envelope itself, so whoever goes on after a crash needs to remember nothing.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from kit.blobs.encrypted import EncryptedBlobs
from kit.blobs.frames import ForeignKeyError, TamperedError, decode_envelope
from kit.blobs.kek import KeyGenerations, UnknownKeyError
from kit.blobs.upkeep import Place, places
from kit.rpc.errors import NotFound, StateConflict

#: What a blob that was wrapped by the former generation may take to be there.
SETTLED = timedelta(minutes=10)
_AT_A_TIME = 16


@dataclass
class Rewrapping:
    """How far a pass over all envelopes is."""

    total: int = 0
    #: Envelopes that were wrapped anew, and that the present generation had wrapped already.
    rewrapped: int = 0
    current: int = 0
    #: Envelopes that cannot be wrapped anew: damaged ones, and those of a key that is not held.
    damaged: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    @property
    def done(self) -> int:
        """The envelopes that were looked at."""
        return self.rewrapped + self.current + len(self.damaged) + len(self.foreign)


async def rewrap(blobs: EncryptedBlobs) -> AsyncIterator[Rewrapping]:
    """Wrap every data key with the generation that wraps now, also of blobs that were set aside; readers go on.

    Yields how far it is, at last once when all is done. What another deletes meanwhile stays deleted.
    """
    found = Rewrapping()
    async for _ in places(blobs.objects):
        found.total += 1
    yield found
    some: list[Place] = []
    async for place in places(blobs.objects):
        some.append(place)
        if len(some) == _AT_A_TIME:
            await asyncio.gather(*(_rewrap(blobs, each, found) for each in some))
            some = []
            yield found
    await asyncio.gather(*(_rewrap(blobs, each, found) for each in some))
    found.total = found.done
    yield found


async def _rewrap(blobs: EncryptedBlobs, place: Place, found: Rewrapping) -> None:
    name = f"{place.space}/{place.digest}"
    while True:
        try:
            content = await blobs.objects.read(place.path)
            envelope = decode_envelope(content)
            if (envelope.project, envelope.digest) != (place.space, place.digest):
                raise TamperedError("the envelope")
            if envelope.key_id == await asyncio.to_thread(lambda: blobs.kek.key_id):
                found.current += 1
                return
            anew = await asyncio.to_thread(envelope.rewrapped, blobs.kek)
        except FileNotFoundError:
            return
        except ForeignKeyError:
            found.foreign.append(name)
            return
        except TamperedError:
            found.damaged.append(name)
            return
        if await blobs.objects.replace(place.path, content, anew):
            found.rewrapped += 1
            return


async def retire(blobs: EncryptedBlobs, kek: KeyGenerations, key_id: str, now: datetime) -> None:
    """Destroy a generation of the key. What is damaged does not hold it up: no key opens that.

    Raises NotFound for one that is not held; StateConflict for the one that wraps, for one that did so a short while
    ago, and while anything is wrapped with it.
    """
    held = {each.key_id: each for each in kek.generations()}
    if key_id not in held:
        raise NotFound(f"no key `{key_id}` is held; there are {', '.join(held)}", resource=("Key", key_id))
    if held[key_id].wraps:
        raise StateConflict(f"the key `{key_id}` wraps what is stored now; rotate first")
    until = held[key_id].until
    if until is not None and now - until < SETTLED:
        raise StateConflict(
            f"the key `{key_id}` wrapped blobs until {until:%H:%M:%S} UTC, and one may be on its way still; "
            f"retire it after {until + SETTLED:%H:%M:%S} UTC"
        )
    if not (await used(blobs))[kek.key_id]:
        raise StateConflict("nothing in this store is wrapped with the present key; is it the store of the suite?")
    if in_use := await needing(blobs, set(held) - {key_id}):
        raise StateConflict(f"{in_use} blobs are wrapped with the key `{key_id}`; wrap them anew first")
    try:
        await asyncio.to_thread(kek.retire, key_id)
    except (UnknownKeyError, ValueError) as error:
        raise StateConflict(f"the key `{key_id}` was changed meanwhile; look again") from error


async def needing(blobs: EncryptedBlobs, kept: set[str]) -> int:
    """How many envelopes can be opened, and by none of these generations."""
    count = 0
    async for place in places(blobs.objects):
        try:
            envelope = decode_envelope(await blobs.objects.read(place.path))
            if envelope.key_id not in kept:
                await asyncio.to_thread(envelope.open, blobs.kek, place.space, place.digest)
                count += 1
        except (FileNotFoundError, TamperedError, ForeignKeyError):
            continue
    return count


async def used(blobs: EncryptedBlobs) -> Counter[str]:
    """How many envelopes say of each generation that it wrapped them."""
    found: Counter[str] = Counter()
    async for place in places(blobs.objects):
        try:
            found[decode_envelope(await blobs.objects.read(place.path)).key_id] += 1
        except (FileNotFoundError, TamperedError):
            continue
    return found

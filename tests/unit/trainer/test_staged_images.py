"""The images and sounds that rows name, on their way into a job's folder."""

import json

import grpc
import pytest

from kit.rpc.errors import NotFound, to_status
from services.trainer.agent import assets, staging
from services.trainer.folders import AttemptFolder
from sluice.dataset import v1 as dataset

NAME = "projects/p/datasets/d/versions/1"
PHOTO, FRAME, SCAN, SOUND = ("sha256:" + letter * 64 for letter in "abcd")
TYPES = {PHOTO: "image/png", FRAME: "image/jpeg", SCAN: "application/dicom", SOUND: "audio/wav"}


class Datasets:
    """A version whose rows name images; an asset comes in two pieces. After a break, or a loss, it is another one."""

    def __init__(self, rows, *, breaks_after=99, forgets=()):
        self.rows, self.asked, self.breaks_after, self.forgets = rows, [], breaks_after, list(forgets)

    async def GetDatasetVersion(self, request, timeout):
        digest = f"sha256:{len(self.rows)}"
        version = dataset.DatasetVersion(name=NAME, digest=digest, split_rows={"train": len(self.rows)})
        return dataset.GetDatasetVersionResponse(dataset_version=version)

    async def ReadDatasetVersion(self, request):
        yield dataset.ReadDatasetVersionResponse(rows=b"".join(json.dumps(row).encode() + b"\n" for row in self.rows))

    async def ReadAssets(self, request):
        self.asked.append((list(request.digests), request.rendering))
        for place, digest in enumerate(request.digests):
            if place == self.breaks_after:
                self.breaks_after = 99
                raise _error(grpc.StatusCode.UNAVAILABLE, "away")
            if digest in self.forgets:
                self.rows.pop()
                self.forgets.remove(digest)
                gone = NotFound("gone")
                raise _error(gone.code, gone.message, ("grpc-status-details-bin", to_status(gone).SerializeToString()))
            about = dataset.Asset(digest=digest, type=TYPES[digest])
            yield dataset.ReadAssetsResponse(asset=about, data=b"PNG of " if request.rendering == 2 else b"")
            yield dataset.ReadAssetsResponse(data=digest[-1].encode())


def _error(code, message, *details):
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*details), message)


def sources(given):
    return staging.Sources(given, None, None, given)


@pytest.fixture
def folder(tmp_path):
    made = AttemptFolder(tmp_path / "jobs" / "1")
    made.create()
    return made


def held(folder):
    return {file.name[0]: file.read_bytes() for file in (folder.path / "in" / "assets").iterdir()}


async def test_each_image_comes_once_and_one_of_dicom_as_a_viewer_shows_it(folder):
    given = Datasets([{"images": [PHOTO, SCAN]}, {"videos": [[FRAME, PHOTO]]}, {"audios": [SOUND]}])
    await staging._data(sources(given), NAME, folder, sees=True)
    assert held(folder) == {"a": b"a", "b": b"b", "c": b"PNG of c", "d": b"d"}
    assert given.asked == [([PHOTO, FRAME, SCAN, SOUND], dataset.RENDERING_ORIGINAL), ([SCAN], dataset.RENDERING_PNG)]
    folder.wipe("in")
    assert not (folder.path / "in").exists(), "they go with the rows"


async def test_a_recipe_that_sees_nothing_is_given_none(folder):
    given = Datasets([{"images": [PHOTO]}])
    await staging._data(sources(given), NAME, folder, sees=False)
    assert not given.asked and not (folder.path / "in" / "assets").exists()


async def test_after_a_break_only_what_is_lacking_comes(folder):
    there = folder.path / "in" / "assets"
    there.mkdir()
    (there / PHOTO.removeprefix("sha256:")).write_bytes(b"a")
    given = Datasets([{"images": [PHOTO, FRAME]}], breaks_after=0)
    await staging.patiently(lambda: staging._data(sources(given), NAME, folder, sees=True))
    assert [asked for asked, _ in given.asked] == [[FRAME], [FRAME]]
    assert held(folder) == {"a": b"a", "b": b"b"}


async def test_images_of_rows_that_are_forgotten_meanwhile_do_not_stay(folder):
    given = Datasets([{"images": [PHOTO]}, {"images": [FRAME, SCAN]}], forgets=[SCAN])
    await staging._data(sources(given), NAME, folder, sees=True)
    assert held(folder) == {"a": b"a"}


async def test_an_image_that_is_not_there_is_told(folder):
    given = Datasets([{"images": [PHOTO]}] * 2)
    given.forgets = [PHOTO]
    given.rows = Rows(given.rows)
    with pytest.raises(grpc.aio.AioRpcError):
        await staging._data(sources(given), NAME, folder, sees=True)


class Rows(list):
    """Rows of which none is ever forgotten."""

    def pop(self):
        """Nothing."""


def test_only_recipes_that_see_are_given_images():
    assert staging.SEEING == ("vision", "fusion", "audio") and assets.READ_AT_ONCE <= 256

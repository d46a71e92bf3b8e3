"""The dataset service dies at each state edge of an upload; the client goes on; one version is there and no rest."""

import json
import os
import random
import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from sluice import Client
from sluice.client import RowsRefused
from sluice.client.acknowledged import CHUNK_BYTES
from sluice.client.chunks import MESSAGE_BYTES
from sluice.client.uploads import UploadProgress
from tests.pipeline import until
from tests.seed import SEED
from tests.suite import ROOT, Suite, suite

ROWS = 30
#: Where the way of an upload is.
CODE = ("servicer/uploads.py", "supervisor.py", "uploads/judging.py")
#: A point of the service, and for which time it dies there. Of 30 MiB there are eight pieces and two parts.
EDGES = {
    "dataset_piece_stored": (1, 2, 4),  # its bytes are safe and not counted
    "dataset_piece_counted": (1, 4),  # counted and not acknowledged
    "dataset_handed_over": (1,),  # VALIDATING, and not answered
    "dataset_part_named": (1, 2),
    "dataset_part_stored": (1, 2),
    "dataset_before_version": (1,),
    "dataset_upload_ended": (1,),  # COMMITTED, and all pieces are there
    "dataset_pieces_deleted": (1,),
}
#: The same of a file whose last row is wrong: its parts are doomed.
REFUSED = {"dataset_part_stored": (2,), "dataset_upload_ended": (1,), "dataset_doomed_deleted": (1, 2)}
#: What the landing tier tries of files that are accepted; the rest is for `make prove`.
LANDING = ("dataset_part_stored:kill:2",)


def traps(edges):
    every = [f"{name}:kill:{number}" for name, times in edges.items() for number in times]
    landing = LANDING if edges is EDGES else ()
    return [pytest.param(trap, marks=[] if trap in landing else pytest.mark.prove) for trap in every]


def test_every_edge_of_the_way_of_an_upload_is_tried():
    code = "".join((ROOT / "services" / "dataset" / name).read_text("utf-8") for name in CODE)
    assert set(re.findall(r'failpoint\("(dataset_\w+)"\)', code)) == {*EDGES, *REFUSED}


@contextmanager
def running(folder: Path, trap: str = "") -> Iterator[tuple[Suite, Client]]:
    """A suite of its own for each death, whose dataset service starts armed, once: one that dies often is started again
    ever more slowly."""
    if trap:
        arm = folder / "home" / "run" / "arm"
        arm.mkdir(parents=True)
        (arm / "dataset").write_text(trap)
    settings = {"SLUICE_DATASET_DOOMED_S": "0.3", "SLUICE_SCRUB_BYTES_PER_S": "0"}
    with suite(folder, "registry", "dataset", module="tests.fakes.suite", **settings) as started:
        with Client(started.address("dataset"), started.key, "default") as client:
            yield started, client


@pytest.fixture
def rows(tmp_path):
    """A file of 30 MiB that nobody has sent before and that does not compress to nothing, and what is in it."""
    path = tmp_path / "rows.jsonl"
    written = [{"prompt": f"question {number}", "completion": os.urandom(1 << 19).hex()} for number in range(ROWS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in written))
    return path, {row["prompt"]: row["completion"] for row in written}


def fired(home: Path) -> list[str]:
    """What the service died of by a trap."""
    log = (home / "logs" / "dataset.log").read_text("utf-8", "replace")
    return re.findall(r"^failpoint (\w+): SIGKILL$", log, re.MULTILINE)


class SentAgain:
    """Hears how an upload goes, and how many bytes each death of the service had sent again at most."""

    def __init__(self) -> None:
        self.most, self._done = 0, 0

    def __call__(self, progress: UploadProgress) -> None:
        if progress.phase == "sending":
            self.most = max(self.most, self._done - (progress.done - MESSAGE_BYTES))
            self._done = progress.done


def sent(client: Client, name: str, path: Path, again: SentAgain | None = None):
    """The version that a file makes; a client that gives up on a service that is away too long asks again."""
    heard = again or SentAgain()
    return until(lambda: client.datasets.upload(name=name, path=path, task_type="sft", progress=heard), "a version", 90)


def nothing_is_left(home: Path) -> bool:
    """No piece, no doomed blob; every blob is of a part, and its data beside it."""
    blobs = home / "blobs" / "projects" / "default"
    with closing(sqlite3.connect(f"file:{home}/db/dataset.db?mode=ro", uri=True)) as database:
        named = {row[0].removeprefix("sha256:") for row in database.execute("SELECT digest FROM dataset_part")}
        rows = [database.execute(f"SELECT count(*) FROM dataset_{table}").fetchone() for table in ("piece", "doomed")]
    envelopes, data = set(files(blobs / "blobs")), files(blobs / "data")
    return rows == [(0,), (0,)] and not files(blobs / "uploads") and envelopes == named and len(data) == len(envelopes)


def files(folder: Path) -> list[str]:
    """The names of all files below a folder, of which some go while it is looked."""
    return [name for _, _, names in os.walk(folder) for name in names]


@pytest.mark.parametrize("trap", traps(EDGES))
def test_killed_at_an_edge_it_makes_exactly_one_version(tmp_path, rows, trap):
    path, expected = rows
    with running(tmp_path, trap) as (started, client):
        version = sent(client, "d", path, again := SentAgain())
        assert again.most <= CHUNK_BYTES
        until(lambda: fired(started.home) == [trap.partition(":")[0]], f"the death at {trap}", 20)
        assert version.row_count == ROWS
        until(lambda: nothing_is_left(started.home), "that nothing is left behind", 20)
        assert [each.version for each in until(lambda: client.datasets.versions("d"), "versions")] == [1]
        messages = client.datasets.open("d@1").polars()["messages"].to_list()
        assert {turns[0]["content"]: turns[1]["content"] for turns in messages} == expected


@pytest.mark.parametrize("trap", traps(REFUSED))
def test_killed_at_an_edge_of_a_file_that_is_refused_it_leaves_nothing(tmp_path, rows, trap):
    path = tmp_path / "wrong.jsonl"
    path.write_bytes(rows[0].read_bytes() + b'{"prompt": ""}\n')
    with running(tmp_path, trap) as (started, client):
        with pytest.raises(RowsRefused, match=f"row {ROWS + 1}"):
            sent(client, "d", path)
        until(lambda: fired(started.home) == [trap.partition(":")[0]], f"the death at {trap}", 20)
        until(lambda: nothing_is_left(started.home), "that nothing is left behind", 20)
        assert client.datasets.versions("d") == []


@pytest.mark.prove
def test_killed_over_and_over_at_random_it_comes_through(tmp_path, rows):
    """Not only at the edges that were thought of."""
    draw, over = random.Random(SEED), threading.Event()
    with running(tmp_path) as (started, client):

        def harm() -> None:
            for _ in range(4):
                if over.wait(draw.uniform(0.1, 1.5)):
                    return
                started.wait_restarted("dataset", started.kill("dataset"), 40)

        killer = threading.Thread(target=harm)
        killer.start()
        try:
            version = sent(client, "d", rows[0], again := SentAgain())
        finally:
            over.set()
            killer.join()
        assert version.row_count == ROWS and again.most <= CHUNK_BYTES
        until(lambda: nothing_is_left(started.home), "that nothing is left behind", 30)

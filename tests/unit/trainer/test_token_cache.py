"""Tokens of rows on this host: encrypted, found again for the same rows, gone with them."""

from pathlib import Path

import pytest

from kit.blobs import FileKek
from kit.rpc.errors import NotFound, Unavailable
from services.trainer.agent import tokens
from services.trainer.agent.attempt import Attempt
from services.trainer.agent.judge import Judges
from services.trainer.agent.reporter import Pace
from services.trainer.agent.staging import Sources, Staged
from services.trainer.folders import INPUTS, OUTPUTS, AttemptFolder, JobFolder
from services.trainer.token_cache import TokenCache, token_key
from sluice.dataset import v1 as dataset
from sluice.trainer import v1 as trainer

VERSION, OTHER = "projects/p/datasets/d/versions/1", "projects/p/datasets/d/versions/2"
ROWS = "sha256:" + "a" * 64
SECRET = b"where is my card " * 100


class Versions:
    """The digests that versions have now, or the fault that asking gives."""

    def __init__(self):
        self.now = {VERSION: ROWS, OTHER: ROWS}

    async def __call__(self, name):
        if isinstance(found := self.now[name], Exception):
            raise found
        return found


@pytest.fixture
def versions():
    return Versions()


@pytest.fixture
def cache(tmp_path):
    return TokenCache(tmp_path / "tokens", FileKek.create(tmp_path / "kek", home=tmp_path / "home"))


@pytest.fixture
def made(tmp_path):
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "train.arrow").write_bytes(SECRET)
    (folder / "validation.arrow").write_bytes(b"")
    return folder


async def test_what_was_kept_is_found_and_lies_there_encrypted(cache, versions, made, tmp_path):
    await cache.keep("k", VERSION, ROWS, made, versions)
    assert await cache.fetch("k", tmp_path / "in")
    assert {path.name: path.read_bytes() for path in (tmp_path / "in").iterdir()} == {
        "train.arrow": SECRET,
        "validation.arrow": b"",
    }
    stored = [path for path in cache.folder.rglob("*") if path.is_file()]
    assert stored and not any(b"card" in path.read_bytes() for path in stored)
    assert not await cache.fetch("another", tmp_path / "nothing") and not (tmp_path / "nothing").exists()


async def test_it_goes_when_rows_were_forgotten_or_the_version_is_no_more(cache, versions, made, tmp_path):
    await cache.keep("changed", VERSION, ROWS, made, versions)
    await cache.keep("gone", OTHER, ROWS, made, versions)
    versions.now = {VERSION: Unavailable("away"), OTHER: Unavailable("away")}
    await cache.clear(versions)
    assert len(list(cache.folder.iterdir())) == 2, "who cannot be asked has not said that they are gone"
    versions.now = {VERSION: "sha256:" + "b" * 64, OTHER: NotFound("no such version")}
    await cache.clear(versions)
    assert not list(cache.folder.iterdir())


async def test_rows_that_were_forgotten_while_it_trained_are_not_kept(cache, versions, made):
    versions.now[VERSION] = "sha256:" + "b" * 64
    await cache.keep("k", VERSION, ROWS, made, versions)
    assert not (cache.folder / "k").exists()


async def test_what_is_damaged_or_under_a_lost_key_is_as_if_it_were_not_there(cache, versions, made, tmp_path):
    for key in ("damaged", "foreign"):
        await cache.keep(key, VERSION, ROWS, made, versions)
    data = max((cache.folder / "damaged").rglob("*"), key=lambda path: path.is_file() and path.stat().st_size)
    data.write_bytes(bytes(data.stat().st_size))
    assert not await cache.fetch("damaged", tmp_path / "in") and not (tmp_path / "in").exists()
    other = TokenCache(cache.folder, FileKek.create(tmp_path / "other-kek", home=tmp_path / "home"))
    assert not await other.fetch("foreign", tmp_path / "in") and not list(cache.folder.iterdir())


async def test_an_entry_that_goes_while_it_is_read_is_as_if_it_were_not_there(cache, versions, made, tmp_path):
    class Gone(TokenCache):
        def _about(self, key):
            about = super()._about(key)
            (self.folder / key / "about.json").unlink()
            return about

    await cache.keep("k", VERSION, ROWS, made, versions)
    gone = Gone(cache.folder, cache._kek)
    assert not await gone.fetch("k", tmp_path / "in") and not (tmp_path / "in").exists()


async def test_what_a_recipe_was_still_writing_is_not_kept(cache, versions, made, tmp_path):
    (made / "train.arrow").rename(made / "train.part")
    await cache.keep("k", VERSION, ROWS, made, versions)
    assert await cache.fetch("k", tmp_path / "in")
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["validation.arrow"]


def test_the_key_is_of_rows_tokenizer_template_and_code_and_of_no_weights(tmp_path):
    def base(name: str, **files: str) -> Path:
        (tmp_path / name).mkdir()
        for file, text in {
            "tokenizer.json": "t",
            "chat_template.jinja": "c",
            "model.safetensors": "w",
            **files,
        }.items():
            (path := tmp_path / name / file).parent.mkdir(exist_ok=True)
            path.write_text(text)
        return tmp_path / name

    usual = token_key("sft", ROWS, base("a"), "code")
    assert usual == token_key("sft", ROWS, base("b", **{"model.safetensors": "others"}), "code")
    others = [
        token_key("sft", "sha256:" + "b" * 64, tmp_path / "a", "code"),
        token_key("sft", ROWS, tmp_path / "a", "other code"),
        token_key("sft", ROWS, base("c", **{"tokenizer.json": "u"}), "code"),
        token_key("sft", ROWS, base("d", **{"chat_template.jinja": "d"}), "code"),
        token_key("sft", ROWS, base("e", **{"config.json": "e"}), "code"),
        token_key("sft", ROWS, base("f", **{"spiece.model": "f"}), "code"),
        token_key("sft", ROWS, base("g", **{"qwen.tiktoken": "g"}), "code"),
        token_key("sft", ROWS, base("h", **{"chat_templates/tools.jinja": "h"}), "code"),
    ]
    assert len({usual, *others}) == 9
    assert token_key("embedding", ROWS, tmp_path / "a", "code") is None
    assert token_key("sft", ROWS, tmp_path / "none", "code") is None
    of_today = base("i", **{"chat_template.jinja": "Today is {{ strftime_now('%d %B') }}."})
    assert token_key("sft", ROWS, of_today, "code") is None


class Datasets:
    async def GetDatasetVersion(self, request, timeout):
        return dataset.GetDatasetVersionResponse(dataset_version=dataset.DatasetVersion(digest=ROWS))


@pytest.mark.parametrize("status", [0, 1, -9, None])
async def test_only_of_a_recipe_that_ended_well_tokens_are_kept(cache, tmp_path, status):
    class Staying(Attempt):
        async def _unless_cancelled(self):
            (self.folder.path / "in" / "base").mkdir()
            return Staged(ROWS, {})

        async def _train(self, lock, judge):
            (self.folder.path / "tokens").mkdir()
            (self.folder.path / "tokens" / "train.arrow").write_bytes(SECRET)
            return status

    spec = trainer.TrainingJobSpec(dataset_version=VERSION, sft=trainer.SftRecipe())
    job = trainer.TrainingJob(name="projects/p/trainingJobs/1", spec=spec)
    attempt = Staying(
        job,
        1,
        folder=JobFolder(tmp_path / "jobs" / "1"),
        attempts=None,
        sources=Sources(Datasets(), None, None, None, cache),
        environ={},
        recipes={},
        judges=Judges(job, str, str),
        pace=Pace(),
    )
    await attempt._stage_train_upload()
    assert cache.folder.is_dir() is (status == 0)


async def test_a_job_is_lent_the_tokens_of_one_before_it(cache, tmp_path):
    sources = Sources(Datasets(), None, None, None, cache)
    spec = trainer.TrainingJobSpec(dataset_version=VERSION, sft=trainer.SftRecipe())
    job, staged = trainer.TrainingJob(name="projects/p/trainingJobs/1", spec=spec), Staged(ROWS, {})
    found = []
    for number in range(2):
        folder = AttemptFolder(tmp_path / "jobs" / str(number) / "1")
        folder.create()
        (folder.path / "in" / "base").mkdir()
        (folder.path / "in" / "base" / "tokenizer.json").write_text("t")
        key = await tokens.lend(sources, job, staged, folder)
        found.append((folder.path / "in" / "tokens" / "train.arrow").is_file())
        (folder.path / "tokens").mkdir()
        (folder.path / "tokens" / "train.arrow").write_bytes(SECRET)
        await tokens.keep(sources, job, staged, folder, key)
        folder.wipe(*INPUTS, *OUTPUTS)
        assert not any((folder.path / name).exists() for name in ("in", "tokens")), "nothing decrypted stays"
    assert found == [False, True]

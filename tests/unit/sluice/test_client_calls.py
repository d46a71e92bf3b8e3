"""The groups of the client over a scripted suite: names, pages, watches, faults, events."""

import os
import stat
import subprocess
import sys

import pytest
from scripted_suite import UUID, Script

from kit.rpc import filters
from kit.rpc.errors import Invalid, NotFound, Stale, Unavailable
from services.trainer.agent import recipe
from sluice import Client, credentials
from sluice.cli import run
from sluice.client import specs
from sluice.dataset import v1 as dataset
from sluice.events import v1 as events
from sluice.registry import v1 as registry
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types
from tests.weights import folder_of, safetensors


def job(uuid: str, state: int = types.JOB_STATE_RUNNING, done: int = 0) -> trainer.TrainingJob:
    return trainer.TrainingJob(
        name=f"projects/default/trainingJobs/{uuid}", state=state, progress=types.Progress(done=done, total=10)
    )


def keep(script: Script, *jobs: trainer.TrainingJob) -> None:
    script.jobs.update({each.name: each for each in jobs})


def test_key_and_project_come_from_the_credentials_file(address, script: Script):
    path = credentials.remember(address, credentials.Credentials("sl_kept", "lab", "http://127.0.0.1:1"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with Client(address.replace("127.0.0.1", "localhost")) as client:
        assert client.project == "projects/lab"
        client.keys.whoami()
    assert script.metadata[0]["authorization"] == "Bearer sl_kept"
    assert credentials.forget(address).api_key == "sl_kept"
    assert credentials.recall(address) is None


def test_a_broken_credentials_file_is_one_sentence(address):
    path = credentials.credentials_path()
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(Invalid, match="cannot be read"):
        Client(address)
    with pytest.raises(Invalid):
        credentials.remember(address, credentials.Credentials("k"))
    assert path.read_text() == "{"


def test_the_recipes_are_those_that_the_trainer_starts():
    assert set(specs.RECIPES) == {name.partition("-")[0] for name in recipe.RECIPES}


def test_lists_go_through_all_pages(client, script: Script):
    keep(script, *(job(f"{index:08x}-0000-7000-8000-000000000000") for index in range(250)))
    assert len(client.jobs.list()) == 250
    assert len(client.jobs.list(limit=7)) == 7


@pytest.mark.parametrize(
    ("asked", "filter"),
    [
        ({}, ""),
        ({"filter": "task_type = sft"}, "task_type = sft"),
        ({"search": '诊断 a"b -x radiol*'}, r'"诊断" AND "a\"b" AND "-x" AND radiol*'),
        ({"tags": ["language=z h", "domain"]}, 'tags.language = "z h" AND tags:domain'),
        ({"filter": "a OR b", "search": "OR", "tags": ["k="]}, '(a OR b) AND "OR" AND tags.k = ""'),
    ],
)
def test_what_datasets_are_looked_for(client, script: Script, asked: dict[str, object], filter: str):
    client.datasets.list(**asked)
    assert script.requests[-1].filter == filter
    assert filters.parse(filter, filters.Fields(["task_type"], maps=["tags"], text=True)) is not None or not filter


def test_an_update_of_a_dataset_names_what_it_changes(client, script: Script):
    script.datasets["projects/default/datasets/d"] = dataset.Dataset(name="projects/default/datasets/d")
    client.datasets.update("d", description="", tags={"a": "b"}, classification="Sensitive", etag="3")
    sent = script.requests[-1]
    assert list(sent.update_mask.paths) == ["description", "tags", "classification"]
    assert (sent.dataset.etag, sent.dataset.classification) == ("3", dataset.CLASSIFICATION_SENSITIVE)
    with pytest.raises(Invalid, match=r"no classification `secret`.*public, internal, sensitive"):
        client.datasets.update("d", classification="secret")
    with pytest.raises(Invalid, match="nothing is to be changed"):
        client.datasets.update("d")
    with pytest.raises(Invalid, match="`A=1` is no tag"):
        client.datasets.list(tags=["A=1"])


def test_a_job_is_found_by_the_beginning_of_its_id(client, script: Script):
    keep(script, job("0193aaaa-0000-7000-8000-000000000000"), job("0193bbbb-0000-7000-8000-000000000000"))
    assert client.jobs.get("0193aa").name.endswith("0193aaaa-0000-7000-8000-000000000000")
    with pytest.raises(Invalid, match="begins the ids of 2"):
        client.jobs.get("0193")
    with pytest.raises(NotFound, match="there is no training job"):
        client.jobs.get("ffff")
    with pytest.raises(NotFound, match="there is no training job `my job`"):
        client.jobs.get("my job")


def test_a_watch_survives_a_break_and_ends_with_the_job(client, script: Script):
    script.job_snapshots = [job(UUID, done=1), job(UUID, done=5), job(UUID, types.JOB_STATE_SUCCEEDED, 10)]
    script.watch_breaks = [2]
    seen = [each.progress.done for each in client.jobs.watch(UUID)]
    assert seen == [1, 5, 1, 5, 10]
    assert client.jobs.wait(UUID).state == types.JOB_STATE_SUCCEEDED


def test_a_watch_can_be_left(client, script: Script):
    script.job_snapshots = [job(UUID, done=1), job(UUID, done=2)]
    for each in client.jobs.watch(UUID):
        assert each.progress.done == 1
        break


def test_faults_keep_their_kind(client, script: Script):
    keep(script, job(UUID))
    script.faults["Cancel"] = Stale("read the job again, then repeat")
    with pytest.raises(Stale, match="read the job again") as error:
        client.jobs.cancel(UUID, etag="old")
    assert error.value.reason_name == "STALE_ETAG"
    assert client.jobs.pause(UUID).state == types.JOB_STATE_PAUSING


def test_a_suite_that_is_not_there_is_named(monkeypatch):
    with (
        Client("127.0.0.1:1", api_key="k") as client,
        pytest.raises(Unavailable, match=r"127\.0\.0\.1:1 does not answer"),
    ):
        client.keys.whoami()


def test_train_makes_the_spec_and_names_each_call(client, script: Script):
    client.train(dataset="d@2", model="bot", base="base@1", task_type="sft", lora_rank=8, max_steps=5, seed=3)
    client.train(dataset="d", model="base", task_type="pretrain", hidden_size=64)
    sft, pretrain = (request.training_job.spec for request in script.requests)
    assert sft.dataset_version == "projects/default/datasets/d/versions/2"
    assert (sft.lora.rank, sft.optimization.max_steps, sft.seed) == (8, 5, 3)
    assert not sft.optimization.HasField("learning_rate")
    assert (pretrain.pretrain.shape.hidden_size, pretrain.pretrain.shape.layers) == (64, 2)
    assert script.requests[0].request_id and script.requests[0].request_id != script.requests[1].request_id


@pytest.mark.parametrize(
    ("recipe", "told", "sentence"),
    [
        ("sft", {"layers": 2}, "`sft` takes no layers"),
        ("pretrain", {"lora_rank": 2}, "`pretrain` takes no lora-rank"),
        ("sft", {"tuner": "full", "lora_rank": 2}, "full fine-tuning takes no lora-rank"),
        ("gdpo", {}, "there is no recipe `gdpo`"),
        ("sft", {"rank": 2}, "there is no hyperparameter `rank`"),
    ],
)
def test_hyperparameters_that_the_recipe_lacks(recipe, told, sentence):
    with pytest.raises(Invalid, match=sentence):
        specs.fill_recipe(trainer.TrainingJobSpec(), recipe, told)


def test_a_spec_from_a_file(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text("task_type: sft\ndataset: d@2\nmodel: bot\noptimization: {learning_rate: 0.001}\n")
    spec = specs.read_spec(path, "projects/p", {"model": "other"})
    assert (spec.dataset_version, spec.model) == ("projects/p/datasets/d/versions/2", "other")
    path.write_text("task_type: sft\nmodell: bot\n")
    with pytest.raises(Invalid, match="modell"):
        specs.read_spec(path, "projects/p", {})
    path.write_text("task_type: sft\nmodel: bot\n")
    with pytest.raises(Invalid, match="has no `dataset_version`"):
        specs.read_spec(path, "projects/p", {})


def test_a_folder_of_weights_is_imported(client, script: Script, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    with pytest.raises(Invalid, match=r"neither config\.json"):
        client.models.import_folder("base", folder, dataset="d@1")
    (folder / "config.json").write_text("{}")
    with pytest.raises(Invalid, match=r"no \*\.safetensors"):
        client.models.import_folder("base", folder, dataset="d@1")
    weights = safetensors(1 << 20)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / ".cache").mkdir()
    (folder / ".cache" / "junk").write_text("no")
    client.models.import_folder("base", folder, dataset="d@1", task_type="pretrain", gate_policy="baseline")
    header = script.imported[0].header
    assert [file.path for file in header.artifact.files] == ["config.json", "model.safetensors"]
    assert header.artifact.kind == types.ARTIFACT_KIND_FULL
    assert b"".join(part.chunk for part in script.imported[1:]) == b"{}" + weights
    assert script.models["projects/default/models/base"].gate_policy == "baseline"


def test_an_import_into_another_project_asks_that_one_what_it_has(client, script: Script, tmp_path):
    name = "projects/other/models/m"
    script.models[name] = registry.Model(name=name)
    client.models.import_folder(name, folder_of(tmp_path / "m"))
    assert script.imported[0].header.parent == name and script.asked_for_files == ["projects/other"]


def test_an_approval_goes_to_the_numbered_version(client, script: Script):
    name = "projects/default/models/bot/versions/3"
    script.model_versions[name] = registry.ModelVersion(name=name, version=3)
    client.models.approve("bot", "looks good", waiver=True)
    assert (script.requests[0].name, script.requests[0].waiver) == (name, True)


def test_a_command_approves_one_version_that_was_said(script: Script, address, monkeypatch, capsys):
    monkeypatch.setenv("SLUICE_ADDRESS", address)
    monkeypatch.setenv("SLUICE_API_KEY", "sl_test")
    name = "projects/default/models/bot/versions/3"
    script.model_versions[name] = registry.ModelVersion(name=name, version=3, etag="7")
    assert run(["models", "approve", "bot", "--reason", "good"]) == 2
    assert "`bot` means bot@3 now" in capsys.readouterr().err and not script.requests
    assert run(["models", "approve", "bot@3", "--reason", "good"]) == 0
    assert run(["models", "approve", "bot@3", "--etag", "6"]) == 0
    assert [(each.name, each.etag) for each in script.requests] == [(name, "7"), (name, "6")]


def test_keys_have_roles_by_their_names(client, script: Script):
    assert client.keys.create("ci", ["algorithm", "operations"]).secret == "sl_shown_once"
    roles = [(each.project, each.role) for each in script.requests[0].api_key.role_bindings]
    assert roles == [("projects/default", types.ROLE_ALGORITHM), ("projects/default", types.ROLE_OPERATIONS)]
    with pytest.raises(Invalid, match="there is no role `root`"):
        client.keys.create("x", ["root"])


def test_events_of_all_services_are_merged_and_filtered(client, script: Script):
    def event(sequence: int, subject: str) -> events.Event:
        made = events.Event(id=str(sequence), sequence=sequence, subject=subject)
        made.time.FromSeconds(sequence)
        return made

    script.events = {"trainer": [event(1, "projects/p/trainingJobs/a"), event(3, "x")], "registry": [event(2, "y")]}
    assert [each.sequence for each in client.events().list()] == [1, 2, 3]
    for each in client.events("trainer").tail(subject="trainingJobs/a"):
        assert each.sequence == 1
        break
    for each in client.events("trainer").tail(after={"trainer": 1}):
        assert each.sequence == 3
        break
    with pytest.raises(Invalid, match="there is no service `train`"):
        client.events("train")


def test_import_sluice_stays_light():
    code = "import sys, sluice; assert 'grpc' not in sys.modules; sluice.Client; assert 'grpc' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))

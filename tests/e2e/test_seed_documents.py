"""Scripts of the field over a whole suite: the documents' code runs, and its output folder holds what a job leaves."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kit.rpc.errors import Denied
from sluice import Client
from sluice.compat import SwiftTrainer, TrainingArguments, bases, rows
from sluice.types import v1 as types
from tests import seed_snippets as seeds
from tests.pipeline import Pipeline, pipeline, row
from tests.seeing import write_digits, write_qwen2_vl

STEPS = 6
ROWS = [dict(row("sft", number)) for number in range(40)]


@pytest.fixture
def base(running: Pipeline, tmp_path: Path) -> Path:
    """The base of the suite as a folder of this machine."""
    running.client.models.download("base@1", tmp_path / "tiny-base")
    return tmp_path / "tiny-base"


def trained(client: Client, base: Path, folder: Path, **more: Any) -> SwiftTrainer:
    args = TrainingArguments(folder / "bank-bot", task_type="sft", model_name_or_path=base, max_steps=STEPS, **more)
    return SwiftTrainer(args, train_dataset=ROWS, client=client)


def test_a_script_trains_in_the_suite_and_finds_everything_in_its_output_folder(
    running: Pipeline, base: Path, tmp_path: Path
) -> None:
    trainer = trained(running.client, base, tmp_path)
    done = trainer.train()
    assert (done.global_step, done.training_loss) == (STEPS, 0.5)
    job = trainer.job.name.rsplit("/", 1)[-1]
    assert done.folder == tmp_path / "bank-bot" / "task-type=sft" / job
    assert {"train.log", "steps.jsonl", "job.json", "sluice-manifest.json"} <= {
        each.name for each in done.folder.iterdir()
    }
    steps = [json.loads(line) for line in (done.folder / "steps.jsonl").read_text().splitlines()]
    assert [each["step"] for each in steps] == list(range(1, STEPS + 1)) and steps[1]["loss"] == 0.5
    assert all((done.folder / file.path).stat().st_size == file.size_bytes for file in trainer.version.artifact.files)
    assert trainer.save_model() == done.folder
    assert (trainer.save_model(tmp_path / "else") / "adapter_config.json").is_file()

    # Base and rows are known by what they hold: the script again sends nothing.
    spec = trainer.job.spec
    assert bases.version_of(running.client, base, task_type="sft") == spec.base_model_version
    assert spec.base_model_version.endswith("/models/tiny-base/versions/1")
    assert rows.version_of(running.client, ROWS, name="bank-bot-rows", task_type="sft") == spec.dataset_version


@pytest.mark.prove
def test_without_the_right_to_take_weights_out_the_rest_is_there(running: Pipeline, base: Path, tmp_path: Path) -> None:
    made = running.client.keys.create("no downloads", ["algorithm", "engineering"])
    with Client(running.client.address, made.secret) as client:
        trainer = trained(client, base, tmp_path)
        with pytest.raises(Denied, match=r"the weights stay in the suite as .* needs downloader"):
            trainer.train()
    folder = next((tmp_path / "bank-bot" / "task-type=sft").iterdir())
    assert (folder / "job.json").is_file() and not (folder / "adapter_config.json").exists()


@pytest.mark.prove
def test_other_rows_are_asked_of_what_was_trained(running: Pipeline, base: Path, tmp_path: Path) -> None:
    trainer = trained(running.client, base, tmp_path)
    trainer.eval_dataset = [dict(row("sft", number)) for number in range(100, 140)]
    done = trainer.train()
    figures = json.loads((done.folder / "evaluation.json").read_text())
    assert sum(each["rows"] for each in figures.values()) == 40
    assert figures["train"]["exact_match"] == 1.0  # what the made-up adapter answers


LABELS = ["科技", "体育", "娱乐", "财经", "军事"]
SMALL = {"hidden_size": 64, "layers": 1, "heads": 2, "kv_heads": 1, "vocab_size": 400, "max_position_embeddings": 256}
#: Each model that the documents name is this one.
NAMED = ("Qwen/Qwen3-7B", "BAAI/bge-small-zh-v1.5", "Qwen/Qwen3-1B", "qwen/Qwen-7B")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pipeline, Path]]:
    """A suite of real processes, and a mirror with a tiny model under each id that the documents name."""
    environ = {"SLUICE_ENGINE_SCRATCH_PROOF": "false", "SLUICE_ENGINE_MAX_MODEL_LEN": "256"}
    folder = tmp_path_factory.mktemp("real")
    with pipeline(folder, "services", **environ) as running:
        running.patience_s = 240
        text = running.upload("text", "pretrain", 150)
        job = running.client.train(dataset=text, model="tiny", task_type="pretrain", max_steps=12, **SMALL)
        running.client.models.download(running.version_of(running.end_of(job.name).name).name, folder / "tiny")
        for name in NAMED:
            shutil.copytree(folder / "tiny", folder / "mirror" / name)
        yield running, folder / "mirror"


def run(snippet: str, running: Pipeline, mirror: Path, folder: Path, given: str = "", ask: str = "") -> str:
    """Runs a document's code as a script of its own, in ``folder``; what ``ask`` prints."""
    environ = {**running.suite.variables, "SLUICE_MIRROR": str(mirror), "SLUICE_API_KEY": running.suite.key}
    environ |= {"SLUICE_ADDRESS": running.client.address, "HOME": str(folder), "PYTHONPATH": str(Path.cwd())}
    program = f"{given}\n{snippet}\n{ask}"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environ, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def files(folder: Path, task_type: str) -> set[str]:
    """What the newest job of a task type left below ``folder``."""
    jobs = sorted((folder / f"task-type={task_type}").iterdir())
    return {each.relative_to(jobs[-1]).as_posix() for each in jobs[-1].rglob("*") if each.is_file()}


@pytest.mark.prove
@pytest.mark.vllm
@pytest.mark.training
@pytest.mark.timeout(600)
def test_the_documents_preferences(real: tuple[Pipeline, Path], tmp_path: Path) -> None:
    given = "train_data = [{'prompt': f'Item {n}?', 'chosen': f'Shelf {n}.', 'rejected': 'No.'} for n in range(40)]"
    run(seeds.DPO, *real, tmp_path, given)
    left = files(tmp_path / "output" / "dpo-qwen3", "dpo")
    assert {"adapter_model.safetensors", "train.log", "steps.jsonl", "job.json"} <= left
    assert any("tfevents" in each for each in left)
    # The base is known to the suite by its import alone, and an engine has fetched it from there.
    evaluation = real[0].evaluation_of(real[0].client.models.version("dpo-qwen3@1").name)
    assert evaluation.state == types.JOB_STATE_SUCCEEDED, evaluation.failure


@pytest.mark.prove
@pytest.mark.training
@pytest.mark.timeout(600)
def test_the_documents_embedding(real: tuple[Pipeline, Path], tmp_path: Path) -> None:
    given = "train_data = [{'query': f'item {n}', 'positive': f'shelf {n * 7}'} for n in range(60)]"
    run(seeds.EMBEDDING, *real, tmp_path, given)
    trained, packed = sorted((tmp_path / "output" / "bge-finetuned" / "task-type=embedding").iterdir())
    assert (trained / "1_Pooling" / "config.json").is_file() and (trained / "train.log").is_file()
    assert (packed / "encoder" / "1_Pooling" / "config.json").is_file() and list(packed.glob("*.faiss"))


@pytest.mark.prove
@pytest.mark.vllm
@pytest.mark.training
@pytest.mark.timeout(600)
def test_the_documents_classifier_is_asked_other_rows(real: tuple[Pipeline, Path], tmp_path: Path) -> None:
    given = f"names = {LABELS!r}\n"
    given += "train_data = [{'text': f'news {n} {names[n % 5]}', 'label': names[n % 5]} for n in range(80)]\n"
    given += "eval_data = [{'text': f'more {n} {names[n % 5]}', 'label': names[n % 5]} for n in range(40)]"
    run(seeds.CLASSIFICATION, *real, tmp_path, given)
    jobs = list((tmp_path / "output" / "news-classifier" / "task-type=sequence-classification").iterdir())
    figures = json.loads((jobs[0] / "evaluation.json").read_text())
    assert sum(each["rows"] for each in figures.values()) == 40 and "accuracy" in figures["train"]


@pytest.mark.prove
@pytest.mark.training
@pytest.mark.timeout(600)
def test_the_documents_pictures(real: tuple[Pipeline, Path], tmp_path: Path) -> None:
    client = real[0].client
    client.models.import_folder("qwen-vl-7b", write_qwen2_vl(tmp_path / "sees"), task_type="vqa")
    names = write_digits(tmp_path / "pictures", 0, 40)
    rows = ({"image_path": name, "question": "which digit?", "output": str(n % 10)} for n, name in enumerate(names))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    hub = {"name": "custom_vqa_dataset", "path": tmp_path / "rows.jsonl", "assets": tmp_path / "pictures"}
    client.datasets.upload(**hub, task_type="vqa")
    run(seeds.VQA, *real, tmp_path)
    assert {"adapter_model.safetensors", "steps.jsonl"} <= files(tmp_path / "output", "vqa")


@pytest.mark.prove
@pytest.mark.training
@pytest.mark.timeout(300)
def test_the_documents_model_and_adapter_are_made_in_the_scripts_own_process(
    real: tuple[Pipeline, Path], tmp_path: Path
) -> None:
    ask = "print(type(model).__name__, model.peft_config['default'].r, len(tokenizer('shelf').input_ids) > 0)"
    assert run(seeds.LOCAL + seeds.LORA, *real, tmp_path, ask=ask).split() == ["PeftModelForCausalLM", "8", "True"]
    environ = "import os; os.environ['SLUICE_MIRROR'] = ''\n"  # so from the suite, which other tests told it
    real[0].client.models.import_base("qwen/Qwen-7B", real[1])
    assert run(seeds.LOCAL, *real, tmp_path, environ, "print(model.device)").strip() == "cpu"

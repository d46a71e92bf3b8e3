"""The documents' own code, as far as it goes without a suite: what a job would be told, and what is refused."""

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from scripted_suite import Script

import tasks
from kit.rpc.errors import Invalid, NotFound, StateConflict
from sluice import Client
from sluice.client import specs
from sluice.compat import MultiModalConfig, SwiftTrainer, TrainingArguments, bases, rows
from sluice.compat.arguments import hyperparameters
from sluice.dataset import v1 as dataset
from tests import seed_snippets as seeds
from tests.weights import folder_of


def told(snippet: str, **given: object) -> TrainingArguments:
    """The arguments that a snippet makes, up to where it trains."""
    scope: dict[str, object] = {"train_data": [{}], "eval_data": [{}], **given}
    exec(snippet.partition("trainer.train()")[0], scope)
    trainer = scope["trainer"]
    assert isinstance(trainer, SwiftTrainer)
    return trainer.args


@pytest.mark.parametrize(
    ("snippet", "model", "wanted"),
    [
        (seeds.DPO, "dpo-qwen3", {"batch_size": 4}),
        (seeds.EMBEDDING, "bge-finetuned", {"pooling_method": "mean", "normalize_embeddings": True}),
        (
            seeds.CLASSIFICATION,
            "news-classifier",
            {
                "label_names": ["科技", "体育", "娱乐", "财经", "军事"],
                "tuner": "lora",
                "lora_rank": 64,
                "max_length": 1024,
            },
        ),
        (seeds.VQA, "qwen-vl-7b-vqa", {"batch_size": 8, "epochs": 3}),
    ],
)
def test_the_documents_arguments_become_those_of_a_job(snippet, model, wanted):
    args = told(snippet)
    assert (args.model, args.hyperparameters) == (model, wanted)
    recipe = tasks.task_types()[args.task_type]["recipe"]
    given = {"task_type": args.task_type, "recipe": recipe, **args.hyperparameters}
    assert specs.training_spec("projects/p", dataset="d", model=args.model, **given).WhichOneof("recipe") == recipe


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ({"num_train_epochs": 2, "lr_scheduler_type": "constant_with_warmup"}, {"epochs": 2, "schedule": "constant"}),
        ({"optim": "adamw_torch", "bf16": True, "fp16": False}, {"optimizer": "adamw", "precision": "bfloat16"}),
        ({"use_lora": False}, {"tuner": "full"}),
        ({"quantization_bit": 4, "train_type": "lora"}, {"quantization": "nf4", "tuner": "lora"}),
        ({"save_steps": 10, "learning_rate": None, "use_inbatch_negatives": True}, {"checkpoint_every_steps": 10}),
    ],
)
def test_words_of_the_field_are_said_in_sluices(words, wanted):
    assert hyperparameters("embedding", words) == wanted


@pytest.mark.parametrize(
    ("task_type", "words", "said"),
    [
        ("sft", {"fp16": True}, "`fp16`: Sluice trains in float32 or bfloat16; write bf16=True"),
        ("sft", {"deepspeed": "ds.json"}, "`deepspeed`: how a job is spread is said by hyperparameters"),
        ("sft", {"logging_steps": 5}, "`logging_steps`: each step's figures are kept"),
        ("sft", {"lerning_rate": 1}, "there is no argument `lerning_rate`; there are "),
        ("embedding", {"use_inbatch_negatives": False}, "always compares with the other rows of its batch"),
        ("reranker", {"use_inbatch_negatives": True}, "`reranker` never takes the other rows"),
        ("sequence-classification", {"num_labels": 5}, "num_labels is 5, but not which; say label_names"),
        ("sequence-classification", {"num_labels": 5, "label_names": ["a", "b"]}, "and label_names has 2"),
        ("sft", {"num_train_epochs": 1, "max_epochs": 2}, "`max_epochs` says epochs 2, and another argument 1"),
        ("sft", {"quantization_bit": 3}, "in 4 or 8 bits, not 3"),
    ],
)
def test_what_is_done_otherwise_is_refused_with_the_way(task_type, words, said):
    with pytest.raises(Invalid) as refused:
        TrainingArguments(task_type=task_type, **words)
    assert said in refused.value.message


def test_a_model_of_this_process_and_no_rows_are_refused():
    args = TrainingArguments(task_type="sft", model_name_or_path="base")
    with pytest.raises(Invalid, match="model is a dict in this process, and the suite trains one of its own; name it"):
        SwiftTrainer(args, train_dataset="rows", model={})
    with pytest.raises(Invalid, match="there are no rows to train on; give train_dataset"):
        SwiftTrainer(args)
    for given in ("other", [{}]):
        with pytest.raises(Invalid, match="both say which rows to train on; give one"):
            SwiftTrainer(TrainingArguments(task_type="sft", dataset=__file__), train_dataset=given)
    with pytest.raises(StateConflict, match="nothing was trained yet"):
        SwiftTrainer(args, train_dataset="rows", client=Client("127.0.0.1:1", "k")).save_model()
    with pytest.raises(Invalid, match="dataset names 2 things; a job reads one dataset"):
        TrainingArguments(task_type="sft", dataset=["a", "b"])


def test_what_a_result_is_called(tmp_path):
    assert TrainingArguments(task_type="sft", model_name_or_path="qwen/Qwen2.5-7B").model == "qwen2-5-7b-sft"
    assert TrainingArguments("out/Bank Bot", task_type="sft").model == "bank-bot"
    assert MultiModalConfig("vl", "rows", "caption", model="mine").model == "mine"


@pytest.mark.parametrize(
    "given",
    [
        [{"text": "诊断"}, {"text": "b"}],
        pl.DataFrame({"text": ["诊断", "b"]}),
        pl.DataFrame({"text": ["诊断", "b"]}).to_arrow(),
    ],
    ids=["dicts", "polars", "arrow"],
)
def test_rows_in_memory_become_a_dataset_once(address, script: Script, given):
    with Client(address, "k") as client:
        name = rows.version_of(client, given, name="mine", task_type="pretrain")
        assert name == rows.version_of(client, given, name="mine", task_type="pretrain")
    sent = next(iter(script.received.values())).decode()
    assert [line.replace(" ", "") for line in sent.splitlines()] == ['{"text":"诊断"}', '{"text":"b"}']
    assert len(script.received) == 1 and name.startswith("projects/default/datasets/mine/versions/")


def test_a_file_is_uploaded_and_a_name_is_a_name(address, script: Script, tmp_path):
    file = tmp_path / "bank.jsonl"
    file.write_text('{"text": "a"}\n')
    with Client(address, "k") as client:
        assert "/datasets/bank/" in rows.version_of(client, str(file), name="x", task_type="pretrain")
        assert rows.version_of(client, "bank_intents@2", name="x", task_type="pretrain") == "bank_intents@2"
        for missing in ("./data/none.jsonl", "none.parquet", Path("none")):
            with pytest.raises(Invalid, match="there is no file"):
                rows.version_of(client, missing, name="x", task_type="pretrain")
        with pytest.raises(Invalid, match="row 1 is of list, not a dict"):
            rows.version_of(client, [[1, 2]], name="x", task_type="pretrain")
        with pytest.raises(Invalid, match="rows came as int; give dicts"):
            rows.version_of(client, 3, name="x", task_type="pretrain")


def test_a_folder_here_is_imported_and_an_id_is_looked_for_in_caches(address, script: Script, tmp_path, monkeypatch):
    folder_of(tmp_path / "mirror" / "qwen" / "Qwen-7B")
    monkeypatch.setenv("HOME", str(tmp_path))
    with Client(address, "k") as client:
        with pytest.raises(NotFound, match="nothing was imported as `qwen/Qwen-7B`; `sluice models import"):
            bases.version_of(client, "qwen/Qwen-7B", task_type="sft")
        monkeypatch.setenv("SLUICE_MIRROR", str(tmp_path / "mirror"))
        found = bases.version_of(client, "qwen/Qwen-7B", task_type="sft")
        assert found == "projects/default/models/qwen-qwen-7b/versions/1"
        assert script.imported[0].header.source_id == "qwen/Qwen-7B"
        found = bases.version_of(client, tmp_path / "mirror" / "qwen" / "Qwen-7B", task_type="sft")
        assert found == "projects/default/models/qwen-7b/versions/1"


def test_nothing_heavy_is_imported_with_the_names():
    program = "import sys, sluice.compat; print(sorted({'torch', 'transformers', 'peft'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_datasets_hub_of_the_documents(address, script: Script, tmp_path, monkeypatch):
    monkeypatch.setenv("SLUICE_ADDRESS", address)
    monkeypatch.setenv("SLUICE_API_KEY", "k")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "xray_reports.jsonl").write_text('{"image_path": "a.png", "question": "?", "output": "!"}\n')
    scope: dict[str, object] = {}
    exec(seeds.UPLOAD, scope)
    assert scope["dataset_id"] == "medical-chest-xray-report"
    assert isinstance(script.datasets["projects/default/datasets/medical-chest-xray-report"], dataset.Dataset)

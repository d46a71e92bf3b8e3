"""GKD: its loss is the paper's, a student comes as close to a stronger teacher as that is good, and what it is told is
what happens.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.trainer.recipes.job.failures import BadInput
from services.trainer.recipes.job.jobdir import JobDir, run_recorded
from tests.recipes import losses
from tests.recipes.jobs import LABELS, command, conversations, digests, make_job, progress, result

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore")]

Make = Callable[..., Path]
LORA = {"rank": 16, "dropout": 0.1}  # dropout, so that the random state matters too
HELD_OUT = conversations(72)[48:]


@pytest.fixture(scope="session")
def train(blank: Path) -> Callable[[Any], Any]:
    from services.trainer.recipes import distillation

    return distillation.train


def known(recipes: Any, blank: Path, folder: Path, rows: list[dict[str, Any]]) -> Path:
    parameters = {"full": {}, "optimization": {"learning_rate": 0.01, "batch_size": 8, "max_steps": 60}}
    job = make_job(folder / "job", "sft", parameters, rows, base=blank)
    assert run_recorded(job, recipes.sft.train) == 0
    return job / "out" / "model"


@pytest.fixture(scope="session")
def teacher(recipes: Any, blank: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that knows the answers."""
    return known(recipes, blank, tmp_path_factory.mktemp("teacher"), conversations())


@pytest.fixture(scope="session")
def student(recipes: Any, blank: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that is sure of the wrong answer to each question."""
    rows = [[*row["messages"]] for row in conversations()]
    for i, messages in enumerate(rows):
        messages[1] = {"role": "assistant", "content": LABELS[(i + 1) % 3]}
    return known(recipes, blank, tmp_path_factory.mktemp("student"), [{"messages": each} for each in rows])


@pytest.fixture(scope="session")
def louder(recipes: Any, blank: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that knows nothing but is surer of it than `blank`; the same weights on every machine."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("louder") / "model"
    shutil.copytree(blank, folder)
    model = AutoModelForCausalLM.from_pretrained(blank)
    with torch.no_grad():
        for weights in model.parameters():
            weights *= 4
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def gkd_job(tmp_path: Path) -> Make:
    """Makes a job directory: `gkd_job(base, teacher, name=…, optimization=…, **parameters)`."""

    def make(
        base: Path, teacher: Path, *, name: str = "job", optimization: dict[str, Any] | None = None, **parameters: Any
    ) -> Path:
        plan = {"learning_rate": 0.01, "batch_size": 8, "warmup_ratio": 0.0, "max_steps": 3, **(optimization or {})}
        parameters = {"optimization": plan, "max_new_tokens": 12, **parameters}
        job = make_job(tmp_path / name, "gkd", parameters, conversations(), base=base, validation=HELD_OUT)
        shutil.copytree(teacher, job / "in" / "teacher")
        return job

    return make


def exact(folder: Path, base: Path | None = None) -> float:
    """The share of held-out questions that a model answers as their rows do."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from services.trainer.recipes.data.conversations import prompt_ids

    tokenizer = AutoTokenizer.from_pretrained(base or folder)
    model = AutoModelForCausalLM.from_pretrained(base or folder)
    model = PeftModel.from_pretrained(model, folder) if base else model
    right = 0
    for row in HELD_OUT:
        ids = torch.tensor([prompt_ids(tokenizer, row["messages"][:-1])])
        made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
        said = tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)
        right += said.strip() == row["messages"][-1]["content"]
    return right / len(HELD_OUT)


LEARNED: dict[str, tuple[dict[str, Any], int]] = {
    "full": ({"full": {}, "lmbda": 0.25}, 60),
    "lora": ({"lora": LORA, "lmbda": 0.1}, 90),
    "own answers": ({"full": {}, "lmbda": 1.0, "beta": 0.5}, 60),
    "the teacher's answers": ({"full": {}, "lmbda": 0.0, "seq_kd": True, "beta": 0.0}, 60),
    "nf4": ({"lora": {"rank": 16, "quantization": "nf4"}, "lmbda": 0.1}, 90),
}


@pytest.mark.parametrize("kind", [k if k == "full" else pytest.param(k, marks=pytest.mark.prove) for k in LEARNED])
def test_a_student_closes_on_its_teacher(train: Any, gkd_job: Make, student: Path, teacher: Path, kind: str) -> None:
    told, steps = LEARNED[kind]
    job = gkd_job(student, teacher, optimization={"max_steps": steps}, **told)
    assert run_recorded(job, train) == 0, result(job)["error"]
    found = result(job)["metrics"]
    assert found["eval_teacher_divergence_before"] > 1.0
    assert found["eval_teacher_divergence"] < 0.05
    base = student if "lora" in told else None
    assert result(job)["artifact"]["kind"] == ("adapter" if base else "full")
    assert len((job / "parity.jsonl").read_text().splitlines()) == 8
    assert (exact(student), exact(teacher)) == (0.0, 1.0)
    # What four bits of a toy lose stands in `served_drift`.
    assert exact(job / "out" / "model", base) >= (0.5 if kind == "nf4" else 0.95)


@pytest.fixture(scope="session")
def absolute(blank: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The folders of two GPT-2 to which it matters at which place a token stands."""
    import torch
    from transformers import AutoConfig, GPT2Config, GPT2LMHeadModel

    folders, size = [], AutoConfig.from_pretrained(blank).vocab_size
    shape = {"vocab_size": size, "n_positions": 128, "n_embd": 32, "n_layer": 1, "n_head": 2, "initializer_range": 0.2}
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(GPT2Config(**shape, embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0))
        with torch.no_grad():
            model.transformer.wpe.weight *= 3
        folder = tmp_path_factory.mktemp("absolute") / "model"
        shutil.copytree(blank, folder)
        model.save_pretrained(folder)
        folders.append(folder)
    return folders


@pytest.mark.parametrize(("beta", "places"), [(0.0, "rotary"), (0.3, "rotary"), (1.0, "rotary"), (0.3, "absolute")])
def test_the_loss_is_the_papers(
    gkd_job: Make, blank: Path, louder: Path, absolute: list[Path], beta: float, places: str
) -> None:
    """Of answers that were sampled too, whatever the length of those they stand for and of their prompts."""
    import torch
    from datasets import Dataset

    from services.trainer.recipes import distillation
    from services.trainer.recipes.data.conversations import IGNORED
    from services.trainer.recipes.data.rows import read_conversations
    from services.trainer.recipes.models.base_model import load_base

    job = JobDir(gkd_job(*((blank, louder) if places == "rotary" else absolute)))
    tokenizer, model = load_base(job.base)
    teacher = distillation.load_teacher(job, tokenizer, model)
    _, rows = distillation.columns(tokenizer, read_conversations(job.train_rows)[:5], 128)
    trainer = distillation.gkd(
        {"beta": beta, "lmbda": 1.0, "max_new_tokens": 9},
        {"output_dir": str(job.checkpoints), "use_cpu": True, "bf16": False, "report_to": "none", "max_steps": 1},
        model=model,
        teacher_model=teacher,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[],
    )

    def ours(batch: dict[str, Any]) -> float:
        logs = []
        for each in (teacher, model):
            rows = zip(*(batch[name] for name in ("input_ids", "attention_mask", "labels")), strict=True)
            logs.append(torch.cat([token_logs(each, *row) for row in rows]))
        return losses.gkd(*logs, beta).item()

    def token_logs(of: Any, ids: Any, seen: Any, labels: Any) -> Any:
        """Row by row and without padding."""
        kept = seen.bool()
        logs = of(input_ids=ids[kept][None]).logits[0, :-1].log_softmax(-1)
        return logs[(labels[kept] != IGNORED)[1:]]

    batch = trainer.data_collator(rows)
    with torch.no_grad():
        said = trainer.compute_loss(trainer.model.eval(), batch).item()
        assert said == pytest.approx(ours(batch), rel=1e-4) and said > 0.01
    given = batch["input_ids"].clone()  # the trainer puts the answers that it samples in their place
    trainer.current_gradient_accumulation_steps = 1
    stepped = trainer.training_step(trainer.model, batch)
    assert not batch["attention_mask"][:, 0].all(), "prompts of several lengths"
    assert batch["input_ids"].shape != given.shape or not torch.equal(batch["input_ids"], given)
    with torch.no_grad():
        assert stepped.item() == pytest.approx(ours(batch), rel=1e-4)


def test_first_losses_are_those_that_they_were(train: Any, gkd_job: Make, blank: Path, louder: Path) -> None:
    job = gkd_job(blank, louder, full={})
    assert run_recorded(job, train) == 0
    assert [line["loss"] for line in progress(job, "step")] == pytest.approx([0.274219, 0.281186, 0.270506], abs=1e-5)
    assert result(job)["settings"]["lmbda"] == "0.5" and result(job)["settings"]["beta"] == "0.5"


@pytest.mark.prove
@pytest.mark.parametrize("tuner", [{"full": {}}, {"lora": LORA}], ids=["full", "lora"])
def test_a_paused_run_ends_as_an_unbroken_one(train: Any, gkd_job: Make, blank: Path, louder: Path, tuner: Any) -> None:
    plan = {"max_steps": 6, "batch_size": 4, "gradient_accumulation_steps": 2}
    whole, paused = (gkd_job(blank, louder, name=name, optimization=plan, **tuner) for name in ("whole", "paused"))
    assert run_recorded(whole, train) == 0
    command(paused, "pause")
    assert run_recorded(paused, train) == 0
    assert result(paused)["outcome"] == "paused" and result(paused)["metrics"]["steps"] == 1
    (paused / "control.json").unlink()
    assert run_recorded(paused, train) == 0
    assert digests(paused / "out") == digests(whole / "out")
    assert (paused / "parity.jsonl").read_bytes() == (whole / "parity.jsonl").read_bytes()
    measured = ("tokens_per_s", "first_step_s", "wall_s", "peak_", "eval_teacher_divergence_before")
    first, second = (
        {name: value for name, value in result(job)["metrics"].items() if not name.startswith(measured)}
        for job in (whole, paused)
    )
    assert first == second and first["tokens"] > 0


def test_another_tokenizer_is_refused(train: Any, gkd_job: Make, blank: Path, louder: Path) -> None:
    def refused(job: Path) -> str:
        assert run_recorded(job, train) == 1 and result(job)["error"]["reason"] == "BAD_INPUT"
        return str(result(job)["error"]["message"])

    job = gkd_job(blank, louder, name="template", full={})
    with (job / "in" / "teacher" / "chat_template.jinja").open("a", encoding="utf-8") as template:
        template.write(" ")
    assert refused(job).startswith("The teacher's chat template is not the base's, so ")

    job = gkd_job(blank, louder, name="tokens", full={})
    file = job / "in" / "teacher" / "tokenizer.json"
    written = json.loads(file.read_text("utf-8"))
    words = written["model"]["vocab"]
    words["!"], words["#"] = words["#"], words["!"]
    file.write_text(json.dumps(written), "utf-8")
    assert refused(job) == (
        "The teacher's tokenizer has other tokens than the base's; take a teacher of the same family."
    )
    job = gkd_job(blank, louder, name="none", full={})
    shutil.rmtree(job / "in" / "teacher")
    assert refused(job) == "teacher_model_version is empty; name the model version to learn from."


def test_a_teacher_is_cut_to_the_tokens_that_there_are(gkd_job: Make, blank: Path, louder: Path) -> None:
    from transformers import AutoModelForCausalLM

    from services.trainer.recipes import distillation
    from services.trainer.recipes.models.base_model import load_base

    job = JobDir(gkd_job(blank, louder))
    wide = AutoModelForCausalLM.from_pretrained(louder)
    wide.resize_token_embeddings(320)
    wide.save_pretrained(job.model("teacher"))
    tokenizer, model = load_base(job.base)
    assert distillation.load_teacher(job, tokenizer, model).get_output_embeddings().weight.shape == (300, 32)
    model.resize_token_embeddings(321)
    with pytest.raises(BadInput, match="tells 320 tokens apart and the base 321"):
        distillation.load_teacher(job, tokenizer, model)

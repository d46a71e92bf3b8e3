"""A head that names the class of a text with images, or its classes: `python -m services.trainer.recipes.fusion
JOBDIR`.

Early, one model that sees reads both, and the head is on its last token; late, an encoder of images and one of texts
make a vector each, and the head is on both. The head is trained whole, the rest by an adapter (`lora`, the default) or
itself (`full`): the part that reads text, and of the part that sees what is asked for. Leaves whole weights. Knows no
service.
"""

import sys
from collections.abc import Collection, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from services.trainer.recipes.job.failures import BadInput
from services.trainer.recipes.job.jobdir import JobDir, Outcome, run_recorded
from services.trainer.recipes.job.offline import prepare_process

prepare_process("torchvision")  # before torch and its kin, which the imports below bring
# ruff: noqa: E402

from services.trainer.recipes.models import torchvision_schemas  # noqa: F401  before transformers imports torchvision

# isort: split
import torch
from peft import PeftConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel, ProcessorMixin, Trainer, TrainingArguments, set_seed

from services.trainer.recipes.data.labeled_pictures import (
    Collator,
    Given,
    ReadsEach,
    ReadsOne,
    check_given,
    fitting,
    read_shown,
)
from services.trainer.recipes.data.pictures import data_url, open_picture, small_copy
from services.trainer.recipes.learning.classes import GRADES, MAX_CONFUSED, Classes, Grades, Loss, grades
from services.trainer.recipes.learning.optimization import Optimization, trainer_arguments
from services.trainer.recipes.learning.parity import PROMPTS, Probe, write_probes
from services.trainer.recipes.learning.progress import ProgressCallback
from services.trainer.recipes.learning.training import last_evaluation
from services.trainer.recipes.models.encoders import chosen_adapter
from services.trainer.recipes.models.fused_model import HEADS, Fusion, load_fused, save_apart
from services.trainer.recipes.models.sighted_model import confine, freeze
from services.trainer.recipes.models.tuning import save
from services.trainer.recipes.vision import trained, trained_parts
from services.trainer.refusals import enum_word
from sluice.model_parts import PartOfModel

ADAPTER_DEFAULTS = Optimization(learning_rate=5e-4, batch_size=8)
FULL_DEFAULTS = Optimization(learning_rate=5e-5, batch_size=8)
MAX_LENGTH = 2048
MAX_EVAL_ROWS = 256
READERS: dict[Fusion, type[ReadsOne] | type[ReadsEach]] = {"early": ReadsOne, "late": ReadsEach}


def train(job: JobDir) -> Outcome:
    job.report("phase", message="reading")
    spec = job.spec("fusion")
    parameters = spec.parameters
    adapter = chosen_adapter(spec, "SEQ_CLS")  # which trains the head whole
    optimization = (ADAPTER_DEFAULTS if adapter else FULL_DEFAULTS).given(parameters.get("optimization") or {})
    rows = read_shown(job.train_rows)
    held_out = job.held_out(read_shown, MAX_EVAL_ROWS)
    classes = Classes.of(rows, parameters)

    set_seed(spec.seed)
    asked = enum_word(parameters.get("fusion"), "FUSION_")
    fusion, processor, model = load_fused(job.base, asked, classes.names, classes.problem_type)
    reader = READERS[fusion](processor, model, parameters.get("max_length") or MAX_LENGTH)
    parts = trained_parts(parameters)
    job.settings.update({"fusion": fusion, "max_length": reader.max_length, "trained_parts": ", ".join(parts)})
    given, eval_given = (fitting(reader, classes, some) for some in (rows, held_out))
    reader.settle(given + eval_given)
    arguments = trainer_arguments(job, spec, optimization, len(given), model.num_parameters(), bool(eval_given))

    progress = ProgressCallback(job, parameters.get("log_every_steps") or 1)
    trainer = Trainer(
        model=tuned(model, adapter, parts, arguments),
        args=TrainingArguments(**arguments, remove_unused_columns=False, label_names=["labels"]),
        data_collator=Collator(reader),
        train_dataset=given,
        eval_dataset=eval_given or None,
        processing_class=processor,
        compute_loss_func=Loss(classes, [each.target for each in given], bool(parameters.get("balance_classes"))),
        compute_metrics=lambda found: grades(classes, found),
        callbacks=[progress, Grades(job)],
    )
    check_given(trainer.data_collator(given[:8]), given[:8])
    metrics = {"rows_dropped": float(len(rows) - len(given)), **trained(trainer, job, progress)}
    if progress.stopped:
        return Outcome(progress.stopped, metrics)
    if eval_given:
        last = last_evaluation(trainer)
        metrics |= {name: last[f"eval_{name}"] for name in (*GRADES, "loss")}
        metrics["eval_loss"] = metrics.pop("loss")
        job.notes["confusion"] = str(last.get("eval_confusion", f"left out above {MAX_CONFUSED} classes"))

    job.report("phase", message="saving")
    whole = saved(job, trainer.model, processor, fusion)
    write_probes(job, probes(whole, reader, eval_given or given))
    return Outcome("succeeded", metrics, {"kind": "full", "path": "out/model"})


def tuned(
    model: PreTrainedModel, adapter: PeftConfig | None, parts: list[PartOfModel], arguments: dict[str, Any]
) -> Any:
    """The model with what is trained of it, by an adapter or as it is. Raises BadInput as `confine` does."""
    if adapter is None:
        freeze(model, parts)
    else:
        confine(model, adapter, parts)
        adapter.target_modules = beside_heads(adapter.target_modules)
        model = get_peft_model(model, adapter)
    if arguments["gradient_checkpointing"]:
        model.enable_input_require_grads()  # else nothing before the first trained weight asks for a gradient
    return model


def beside_heads(targets: Collection[str]) -> set[str]:
    """The modules without those of heads, which are trained whole. Raises BadInput where there is no other."""
    found = {name for name in targets if name.split(".")[0] not in HEADS}
    if not found:
        raise BadInput(
            "target_modules names the head alone, which is trained whole; leave it empty for all linear modules, or "
            "name others."
        )
    return found


def saved(
    job: JobDir, model: PreTrainedModel | PeftModel, processor: ProcessorMixin, fusion: Fusion
) -> PreTrainedModel:
    """Writes `out/model/`, and gives the model that is in it, in float32."""
    if fusion == "early":
        save(job, model, processor)
        kind = type(model.get_base_model() if isinstance(model, PeftModel) else model)
        return kind.from_pretrained(job.out_model, dtype="float32", trust_remote_code=False).eval()
    whole = model.merge_and_unload() if isinstance(model, PeftModel) else model
    save_apart(whole, processor, job.fresh_out())
    return whole.cpu().float().eval()


@torch.no_grad()
def probes(model: PreTrainedModel, reader: ReadsOne | ReadsEach, several: Sequence[Given]) -> list[Probe]:
    """What the saved weights make of the first rows, large images scaled down."""
    made = []
    for each in islice(several, PROMPTS):
        images = [small_copy(file) for file in each.row.images]
        batch = reader.batch([each.text], [[open_picture(image) for image in images]])
        values = model(**batch).logits[0].float().tolist()
        asked = {"messages": [{"role": "user", "content": each.row.as_asked([data_url(image) for image in images])}]}
        made.append(Probe("logits", asked, batch["input_ids"][0].tolist(), values))
    return made


if __name__ == "__main__":
    sys.exit(run_recorded(Path(sys.argv[1]), train))

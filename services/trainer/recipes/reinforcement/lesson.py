"""What every method that learns from rewards begins with and what it leaves; knows no loss."""

from dataclasses import dataclass, replace
from typing import Any

from peft import PeftConfig
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, set_seed

from services.trainer.recipes.data.pairs import check_head, parity_prompts, still
from services.trainer.recipes.data.rows import read_conversations
from services.trainer.recipes.job.jobdir import JobDir, Outcome, Spec
from services.trainer.recipes.learning.optimization import Optimization, trainer_arguments
from services.trainer.recipes.learning.parity import write_parity
from services.trainer.recipes.learning.progress import ProgressCallback
from services.trainer.recipes.learning.training import train_or_resume
from services.trainer.recipes.models.base_model import have_padding, load_base, longest_of
from services.trainer.recipes.models.stored import number_of_weights
from services.trainer.recipes.models.tuning import adapter_config, check_targets, save
from services.trainer.recipes.reinforcement.rewards import rewards_of
from services.trainer.recipes.reinforcement.rollouts import (
    MAX_NEW_TOKENS,
    Base,
    HeldOut,
    Question,
    check_prompts,
    questions,
    report_rewards,
)
from services.trainer.reinforcement import BATCH_SIZE

DEFAULTS = Optimization(learning_rate=1e-6, batch_size=BATCH_SIZE, epochs=1.0)
MAX_LENGTH = 512
MAX_EVAL_ROWS = 256


def adapter_rate(width: int) -> float:
    """The usual learning rate of an adapter on a model of that width: 4e-5 at 4096, and higher on a narrower one, which
    with the same rate would have learned nothing. The exponent is what was found for LoRA on models of the Llama family
    (Schulman et al. 2025, doi:10.64434/tml.20250929).
    """
    return float(f"{4e-5 * (4096 / width) ** 0.78:.2g}")


@dataclass(frozen=True)
class Lesson:
    """A base, how it is trained, questions to it, and what its answers are worth."""

    job: JobDir
    spec: Spec
    optimization: Optimization
    adapter: PeftConfig | None
    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    max_length: int
    asked: list[Question]
    rows_dropped: int
    exam: HeldOut

    @classmethod
    def of(cls, job: JobDir, *recipes: str) -> "Lesson":
        """What the job directory has for one of `recipes`. Raises BadInput."""
        job.report("phase", message="reading")
        spec = job.spec(*recipes)
        parameters = spec.parameters
        adapter = adapter_config(parameters)
        conversations = read_conversations(job.train_rows)
        held_out = job.held_out(read_conversations, MAX_EVAL_ROWS)

        set_seed(spec.seed)
        tokenizer, model = load_base(job.base)
        have_padding(tokenizer)
        still(model)
        if adapter is not None:
            check_targets(model, adapter)
            check_head(adapter)
        width = model.config.get_text_config().hidden_size
        usual = replace(DEFAULTS, learning_rate=adapter_rate(width)) if adapter else DEFAULTS
        optimization = usual.given(parameters.get("optimization") or {})
        max_length = longest_of(parameters.get("max_length"), MAX_LENGTH, model)
        job.settings["max_length"] = max_length
        room, temperature = parameters.get("max_new_tokens") or MAX_NEW_TOKENS, parameters.get("temperature") or 1.0
        asked, eval_asked = (questions(tokenizer, some, room, max_length) for some in (conversations, held_out))
        exam = HeldOut(tokenizer, eval_asked, rewards_of(job, parameters, max_length), room, temperature)
        dropped = len(conversations) - len(asked)
        return cls(job, spec, optimization, adapter, tokenizer, model, max_length, asked, dropped, exam)

    def arguments(self, group: int, updates: int) -> dict[str, Any]:
        """Those of a trainer that makes `updates` steps on `group` answers to each question. Raises BadInput."""
        rows, weights = len(self.asked) * group * updates, number_of_weights(self.model)
        found = trainer_arguments(self.job, self.spec, self.optimization, rows, weights, evaluate=False)
        of_step = self.optimization.batch_size * self.optimization.gradient_accumulation_steps
        check_prompts(self.asked, of_step // group)
        return {**found, "include_num_input_tokens_seen": "no"}  # what answers is counted where it is drawn

    def taught(self, trainer: Trainer, progress: ProgressCallback) -> dict[str, float]:
        """Train, or go on with it; metrics of it and of held-out questions before."""
        return {
            "rows_dropped": float(self.rows_dropped),
            **self.exam.measured(trainer.model),
            **train_or_resume(trainer, self.job, progress),
            **report_rewards(trainer.state),
        }

    def ended(self, model: PreTrainedModel, base: Base, metrics: dict[str, float]) -> Outcome:
        """Put the model to the test, beside what training began with, and save it."""
        metrics = {**metrics, **self.exam.measured(model, base)}
        self.job.report("phase", message="saving")
        kind = save(self.job, model, self.tokenizer)
        prompts = [each.prompt for each in self.exam.asked or self.asked]
        write_parity(self.job, model, self.tokenizer, parity_prompts(self.tokenizer, prompts, self.max_length))
        return Outcome("succeeded", metrics, {"kind": kind, "path": "out/model"})

"""Scores that a reward model, `in/reward/`, gives to conversations; knows no trainer."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from services.trainer.recipes.data.conversations import tokenize
from services.trainer.recipes.data.rows import Message
from services.trainer.recipes.job.failures import BadInput
from services.trainer.recipes.job.jobdir import JobDir
from services.trainer.recipes.learning.optimization import device_type
from services.trainer.recipes.models.base_model import load_beside
from services.trainer.recipes.models.encoders import logits

ROLE = "reward"


@dataclass(frozen=True)
class RewardModel:
    """A frozen model with one score on top, and its own tokenizer."""

    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel

    @classmethod
    def load(cls, job: JobDir, longest: int) -> "RewardModel":
        """What the spec names. Raises BadInput where that is no reward model, whose score would be a new, random one,
        or where `longest` tokens are too many for it.
        """
        folder = job.model(ROLE)
        try:
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise BadInput(f"in/{ROLE} is not a Hugging Face model folder.") from error
        kinds = config.architectures or []
        if config.num_labels != 1 or not any(kind.endswith("ForSequenceClassification") for kind in kinds):
            raise BadInput("reward_model_version is no reward model; name a version of task type rm.")
        most = getattr(config.get_text_config(), "max_position_embeddings", None) or longest
        if most < longest:
            raise BadInput(f"The reward model takes {most} tokens and max_length is {longest}; lower max_length.")
        tokenizer, model = load_beside(job, ROLE, AutoModelForSequenceClassification)
        return cls(tokenizer, model.to(device_type()))

    def scores(self, conversations: Sequence[list[Message]]) -> list[float]:
        """The score of each conversation, which ends with an answer."""
        ids = [tokenize(self.tokenizer, messages).input_ids for messages in conversations]
        columns = [{"input_ids": each, "attention_mask": [1] * len(each)} for each in ids]
        return [float(value) for value in logits(self.model, self.tokenizer, columns)[:, 0]]

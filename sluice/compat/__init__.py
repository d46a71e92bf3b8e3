"""The names that the field's scripts import, over this suite: change the import, and the rest stays.

Jobs run in the suite and what they leave is brought back into ``output_dir``; ``prepare_model_and_tokenizer`` and
``Swift`` alone work in this process. Nothing heavy is imported before it is needed.
"""

from sluice.compat.arguments import MultiModalConfig, TrainingArguments
from sluice.compat.dataset_hub import DatasetHub
from sluice.compat.local_model import LoRAConfig, Swift, prepare_model, prepare_model_and_tokenizer
from sluice.compat.trainer import MultiModalTrainer, SwiftTrainer, Trainer, TrainOutput

__all__ = [
    "DatasetHub",
    "LoRAConfig",
    "MultiModalConfig",
    "MultiModalTrainer",
    "Swift",
    "SwiftTrainer",
    "TrainOutput",
    "Trainer",
    "TrainingArguments",
    "prepare_model",
    "prepare_model_and_tokenizer",
]

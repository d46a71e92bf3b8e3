"""What a person writes who trains an adapter with TRL and nothing else: `python benchmarks/trl_script.py FOLDER`.

`FOLDER` has `base/`, `rows.jsonl` and `settings.json`, what SFTConfig is told beside its defaults. It prints when it
was ready to read, when each step ended, how many tokens it has seen, and the peak of its memory.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from services.trainer.recipes.job.offline import prepare_process

prepare_process()  # an environment for TRL alone would not have what this hides
# ruff: noqa: E402

from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback, set_seed
from trl import SFTConfig, SFTTrainer


class Clock(TrainerCallback):
    """When steps ended, in epoch seconds."""

    def __init__(self) -> None:
        self.steps: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.steps.append(time.time())


def main(folder: Path) -> None:
    ready = time.time()
    settings = json.loads((folder / "settings.json").read_text())
    set_seed(settings["seed"])
    lines = (folder / "rows.jsonl").read_text("utf-8").splitlines()
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype="float32")
    clock = Clock()
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(output_dir=str(folder / "out"), assistant_only_loss=True, **settings),
        train_dataset=Dataset.from_list([json.loads(line) for line in lines]),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=32, lora_alpha=64, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[clock],
    )
    trainer.train()
    trainer.save_model()
    marks = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in marks if line.startswith("VmHWM:")) * 1024 / 1e6
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    told = {"ready": ready, "steps": clock.steps, "peak_rss_mb": peak, "losses": losses}
    print(json.dumps({**told, "tokens": trainer.state.num_input_tokens_seen}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

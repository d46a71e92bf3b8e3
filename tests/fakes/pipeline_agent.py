"""The trainer's real agent with the fake recipe of pipelines and without patience."""

import sys
from pathlib import Path

from services.trainer.agent.__main__ import main
from tests.fakes.trainer_agent import PACE

RECIPE = (sys.executable, "-S", str(Path(__file__).with_name("pipeline_recipe.py")))

if __name__ == "__main__":
    main(dict.fromkeys(("pretrain", "sft", "grpo"), RECIPE), PACE)

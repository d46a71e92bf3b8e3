"""The trainer's real agent with the fake recipe and without patience."""

import sys
from pathlib import Path

from services.trainer.agent.__main__ import main
from services.trainer.agent.reporter import Pace

RECIPE = (sys.executable, "-S", str(Path(__file__).with_name("recipe.py")))
PACE = Pace(quick_s=0.05, slow_s=0.3, look_s=0.02, cancel_s=0.5, away_s=0.2)

if __name__ == "__main__":
    main({"sft": RECIPE, "pretrain": RECIPE}, PACE)

"""How far an export's answers are from its source's, on the same tokens; knows no format and no file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from services.trainer.recipes.job.failures import Diverged, RecipeError

Columns = dict[str, list[int]]
#: Gives the logits of one row: (tokens, vocabulary).
Logits = Callable[[Columns], Tensor]

#: The largest `log_prob_drift` of an export that is whole, in nats: six times (AWQ) to a thousand times (merged
#: float32) what was measured on a 128-wide Qwen3 (docs/training.md, "Other forms");
#: of bfloat16, twice what the tests allow.
MERGED = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.1}
FEW_BITS = 1.0
GGUF = {16: 0.05, 8: 0.3}


@dataclass(frozen=True)
class Likelihoods:
    """Of each token that rows hold but their first: its log-probability in nats, and which one was the likeliest."""

    log_probs: Tensor  # (tokens,) float32
    best: Tensor  # (tokens,) int64

    @classmethod
    @torch.no_grad()
    def of(cls, logits: Logits, rows: Sequence[Columns]) -> "Likelihoods":
        """What a causal model finds of rows. Raises Diverged where it gives no finite numbers."""
        log_probs, best = [], []
        for row in rows:
            ids = torch.tensor(row["input_ids"])
            made = logits(row)[:-1].float().log_softmax(-1).cpu()
            log_probs.append(made.gather(1, ids[1:, None])[:, 0])
            best.append(made.argmax(-1))
        found = cls(torch.cat(log_probs), torch.cat(best))
        if not found.log_probs.isfinite().all():
            raise Diverged("The weights give log-probabilities that are no finite numbers; export another version.")
        return found

    def drift(self, other: "Likelihoods") -> dict[str, float]:
        """`log_prob_drift`, the mean absolute difference of the log-probabilities in nats; `top1_agreement`, the share
        of places where both find the same token the likeliest; and how many tokens that was.
        """
        return {
            "log_prob_drift": (self.log_probs - other.log_probs).abs().mean().item(),
            "top1_agreement": (self.best == other.best).float().mean().item(),
            "drift_tokens": float(len(self.best)),
        }


def judged(metrics: dict[str, float], most: float) -> dict[str, float]:
    """What `drift` gave. Raises RecipeError where that is more than `most` nats."""
    if not (found := metrics["log_prob_drift"]) <= most:
        raise RecipeError(
            f"The export is broken: its log-probabilities are {found:.2g} nats from its source's in the mean, more "
            f"than {most:g}. Export it in another form, and report this with the model's architecture."
        )
    return metrics


def logits_of(model: torch.nn.Module) -> Logits:
    """The logits that a model of transformers gives of one row."""

    def found(row: Columns) -> Tensor:
        columns = {name: torch.tensor([ids], device=model.device) for name, ids in row.items()}
        return model(**columns).logits[0]

    return found


def vectors_apart(ours: Tensor, theirs: Tensor) -> dict[str, float]:
    """`vector_cosine`, the mean and the least cosine of vectors of the same texts: both (texts, width)."""
    found = cosine_similarity(ours.float(), theirs.float(), dim=1)
    return {"vector_cosine": found.mean().item(), "vector_cosine_least": found.min().item()}

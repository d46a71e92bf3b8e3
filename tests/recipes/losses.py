"""The losses of the preference recipes as their papers write them, on log-likelihoods of answers: (rows,) tensors."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def dpo(ratio: Tensor, other: Tensor, beta: float, flipped: float = 0.0) -> Tensor:
    """Rafailov et al. 2023, eq. 7, of log π/π_ref of the chosen and the rejected answer; `flipped` is ε of Chowdhury
    et al. 2024, eq. 12.
    """
    margin = beta * (ratio - other)
    return ((1 - flipped) * -logsigmoid(margin) - flipped * -logsigmoid(-margin)).mean() / (1 - 2 * flipped)


def orpo(mean: Tensor, other: Tensor, likelihood: Tensor, beta: float) -> Tensor:
    """Hong et al. 2024, eqs. 4, 6 and 7: odds(p) = p / (1 - p) of the mean log-likelihood per token."""
    odds, odds_other = (torch.log(p / (1 - p)) for p in (mean.exp(), other.exp()))
    return -likelihood - beta * logsigmoid(odds - odds_other).mean()


def cpo(total: Tensor, other: Tensor, likelihood: Tensor, beta: float, weight: float) -> Tensor:
    """Xu et al. 2024, eqs. 3 and 5."""
    return -logsigmoid(beta * (total - other)).mean() - weight * likelihood


def simpo(mean: Tensor, other: Tensor, beta: float, gamma: float) -> Tensor:
    """Meng et al. 2024, eq. 6."""
    return -logsigmoid(beta * (mean - other) - gamma).mean()


def kto(ratio: Tensor, good: Tensor, divergence: Tensor, beta: float, desirable: float, undesirable: float) -> Tensor:
    """Ethayarajh et al. 2024, eqs. 7 and 8, λ being the constants of v; `divergence` are log π/π_ref of answers to
    other prompts.
    """
    reference = divergence.mean().clamp(min=0)
    gain = desirable * (1 - torch.sigmoid(beta * (ratio - reference)))
    loss = undesirable * (1 - torch.sigmoid(beta * (reference - ratio)))
    return torch.where(good, gain, loss).mean()


def token_logs(model: torch.nn.Module, prompt_ids: list[int], answer_ids: list[int]) -> tuple[Tensor, Tensor]:
    """Natural log-probabilities of the prompt's tokens but the first, and of the answer's."""
    ids = torch.tensor([prompt_ids + answer_ids])
    logs = model(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    return logs[: len(prompt_ids) - 1], logs[len(prompt_ids) - 1 :]


def gkd(teacher: Tensor, student: Tensor, beta: float) -> Tensor:
    """Agarwal et al. 2023, eq. 1, of natural log-probabilities (tokens, vocabulary); at 0 and 1 the limits that their
    figure A.1 names, forward and reverse KL.
    """
    p, q = teacher.exp(), student.exp()
    if beta in (0, 1):
        each = p * (teacher - student) if beta == 0 else q * (student - teacher)
    else:
        mixed = (beta * p + (1 - beta) * q).log()
        each = beta * p * (teacher - mixed) + (1 - beta) * q * (student - mixed)
    return each.sum(-1).mean()

"""The formulas of proximal policy optimization over tokens (Schulman et al. 2016, arXiv:1506.02438, and 2017,
arXiv:1707.06347); `counted` is 1 for what a model said and 0 for padding. Knows no model.
"""

import torch
from torch import Tensor


def token_rewards(worth: Tensor, logs: Tensor, base_logs: Tensor, counted: Tensor, beta: float) -> Tensor:
    """The reward of each token, (rows, tokens): what it costs to differ from the base (`logs` are natural
    log-probabilities), and, with the last that counts, what the answer is worth, (rows,).
    """
    rewards = -beta * (logs - base_logs) * counted
    last = counted.sum(1, keepdim=True).long() - 1
    return rewards.scatter_add(1, last, worth[:, None].to(rewards.dtype))


def advantages(rewards: Tensor, values: Tensor, counted: Tensor, gamma: float, gae_lambda: float) -> Tensor:
    """Generalized advantage estimates (Schulman et al. 2016, eq. 16): (rows, tokens), 0 where nothing counts.

    `values` are those before each token; after the last that counts there is nothing to come.
    """
    found, ahead, after = torch.zeros_like(rewards), torch.zeros_like(rewards[:, 0]), torch.zeros_like(rewards[:, 0])
    values = values * counted
    for place in reversed(range(rewards.shape[1])):
        surprise = rewards[:, place] + gamma * after - values[:, place]
        ahead = (surprise + gamma * gae_lambda * ahead) * counted[:, place]
        found[:, place], after = ahead, values[:, place]
    return found


def whitened(values: Tensor, counted: Tensor) -> Tensor:
    """Values that count, with mean 0 and standard deviation 1."""
    chosen = values[counted.bool()]
    return (values - chosen.mean()) / (chosen.std(correction=0) + 1e-8) * counted


def policy_loss(logs: Tensor, old_logs: Tensor, gains: Tensor, counted: Tensor, clip_range: float) -> Tensor:
    """The clipped objective (Schulman et al. 2017, eq. 7), negated, its mean over tokens."""
    ratio = torch.exp((logs - old_logs) * counted)
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return mean_counted(-torch.minimum(ratio * gains, clipped * gains), counted)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, counted: Tensor, clip_range: float) -> Tensor:
    """Half the squared error, that of values clipped about the old ones where it is larger; its mean over tokens."""
    clipped = old_values + (values - old_values).clamp(-clip_range, clip_range)
    return 0.5 * mean_counted(torch.maximum((values - returns) ** 2, (clipped - returns) ** 2), counted)


def mean_counted(values: Tensor, counted: Tensor) -> Tensor:
    return (values * counted).sum() / counted.sum().clamp(min=1)

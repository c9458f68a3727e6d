"""The training loop: next-word prediction, AdamW, a cosine schedule; nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from transformers import LlamaForCausalLM

IGNORED = -100  # the label transformers leaves out of the loss


@dataclass(frozen=True)
class Schedule:
    """How long to train, and how fast."""

    steps: int
    peak: float
    warmup: int

    def learning_rate(self, step: int) -> float:
        """Return the rate of a step, counted from 0: a linear rise, then half a cosine to 0."""
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        done = (step - self.warmup) / (self.steps - self.warmup)
        return self.peak * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class Batch:
    """Token ids and labels, both int64 of shape (rows, width), padded on the right.

    Causal attention never looks right, so padding needs no mask, only labels that ignore it.
    """

    ids: torch.Tensor
    labels: torch.Tensor


def train(
    model: LlamaForCausalLM, batches: Iterator[Batch], schedule: Schedule
) -> Iterator[tuple[int, float]]:
    """Train the model in place, and yield (steps done, loss) after every step."""
    optimizer = torch.optim.AdamW(
        model.parameters(), betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    model.train()
    for step in range(schedule.steps):
        batch = next(batches)
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate(step)
        loss = model(
            input_ids=batch.ids.to(model.device), labels=batch.labels.to(model.device)
        ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        yield step + 1, loss.item()
    model.eval()

"""What only the weights tell (`--deep`): damage, strangers, zero vectors, untrained tokens."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from mergekit.common import ModelReference
from torch import Tensor

from chatvec_method.checks.adapters import adapter_weight_findings
from chatvec_method.checks.findings import Finding, advice, error, warning
from chatvec_method.errors import first_line
from chatvec_method.facts.plan import MergePlan, PlannedTensor
from chatvec_method.facts.survey import Survey
from chatvec_method.kernel import CPU_CHUNK, SUPPORTED, all_finite
from chatvec_method.weights.reading import Reader

UNRELATED = 0.9
"""‖chat − base‖ / ‖base‖ from which two models are strangers. Two models that were trained apart
come to √2; instruction tuning moves weights by a few hundredths."""
TRAINED = 1e-3
"""‖cp's row − base's row‖ / ‖base's row‖ from which cp has trained a token."""


@dataclass
class _Way:
    """From base's layers to another model's."""

    moved: bool = False
    """Any weight is another."""
    squared_length: float = 0.0
    """Of the way, in all matrices."""
    squared_start: float = 0.0
    """Of base's matrices, seen from zero."""

    @property
    def length(self) -> float:
        """How long the way is, measured by base's distance from zero."""
        return math.sqrt(self.squared_length / self.squared_start)


def weight_findings(
    survey: Survey, on_tensor: Callable[[str], None] = lambda _: None
) -> Iterator[Finding]:
    """Read all weights, one tensor of each model at a time, and find what is wrong with them.

    Args:
        survey: A survey without problems.
        on_tensor: Is told the name of every tensor that has been read.
    """
    if survey.plan is None or survey.problems:
        return
    yield from adapter_weight_findings(survey)
    for model in survey.models.values():
        # Told without being deep; what has no files here yet cannot be read.
        if model.file_problem or model.folder is None or model.reference.lora:
            return
    reader = Reader(survey.plan.checkpoints, lazy_unpickle=survey.options.lazy_unpickle)
    yield from _of_weights(survey, survey.plan, reader, on_tensor)


def _of_weights(
    survey: Survey, plan: MergePlan, reader: Reader, on_tensor: Callable[[str], None]
) -> Iterator[Finding]:
    ways: dict[ModelReference, _Way] = defaultdict(_Way)
    damaged: set[ModelReference] = set()
    for planned in plan.tensors:
        try:
            tensors = _load(planned, reader)
        except Exception as problem:  # each kind of file fails in its own way
            yield error(
                "damaged-files",
                planned.name,
                f"it cannot be read ({first_line(problem)}).",
                "Download or save the models again.",
            )
            return
        for model, tensor in tensors.items():
            if model not in damaged and not _is_finite(tensor):
                damaged.add(model)
                yield error(
                    "not-finite",
                    model,
                    f"{planned.name} has NaN or infinite elements, so its checkpoint is damaged.",
                    "Download or convert it again.",
                )
        if planned.weight.vocabulary_axis is None:
            left_out = plan.roles.vectors | damaged
            sound = {model: t for model, t in tensors.items() if model not in left_out}
            _measure(sound, plan.roles.base, ways)
        on_tensor(planned.name)
    yield from _strangers(plan, ways)
    yield from _untrained_markers(survey, plan, reader)


def _is_finite(tensor: Tensor) -> bool:
    return tensor.dtype not in SUPPORTED or all_finite(tensor)


def _load(planned: PlannedTensor, reader: Reader) -> dict[ModelReference, Tensor]:
    """Return a tensor of each model that has it."""
    sources = ((model, planned.sources.get(model)) for model in planned.inputs)
    return {model: reader.tensor(model, source) for model, source in sources if source is not None}


def _measure(
    tensors: dict[ModelReference, Tensor],
    base_model: ModelReference,
    ways: dict[ModelReference, _Way],
) -> None:
    base = tensors.get(base_model)
    if base is None:
        return
    for model, tensor in tensors.items():
        if model == base_model or tensor.shape != base.shape:
            continue
        pairs = zip(
            base.reshape(-1).split(CPU_CHUNK), tensor.reshape(-1).split(CPU_CHUNK), strict=True
        )
        for base_part, part in pairs:
            moved = float((part.float() - base_part.float()).square().sum())
            ways[model].moved |= moved > 0
            if base.ndim > 1:  # the norms of strangers are alike
                ways[model].squared_length += moved
                ways[model].squared_start += float(base_part.float().square().sum())


def _strangers(plan: MergePlan, ways: dict[ModelReference, _Way]) -> Iterator[Finding]:
    for model in (*plan.roles.chats, plan.roles.cp):
        way = ways[model]
        if not way.squared_start:
            continue
        if not way.moved:
            is_chat = model != plan.roles.cp
            report = error if is_chat else warning
            yield report(
                "zero-vector",
                model,
                f"its layers are those of {plan.roles.base}: "
                + ("there is no chat vector in them." if is_chat else "cp has learnt nothing new."),
                "Write the model that was meant.",
            )
        elif way.length >= UNRELATED:
            yield error(
                "not-related",
                model,
                f"its layers are {way.length:.2f} times as far from those of {plan.roles.base} as "
                "those are from zero; a model trained from it stays within a few tenths.",
                f"Write a model that was trained from {plan.roles.base}.",
            )


def _untrained_markers(survey: Survey, plan: MergePlan, reader: Reader) -> Iterator[Finding]:
    """Whether cp trained the tokens that the template writes, from their rows."""
    embeddings = next((t for t in plan.tensors if t.kind == "embeddings"), None)
    if survey.format is None or embeddings is None:
        return
    tensors = _load(embeddings, reader)
    for marker in survey.format.markers:
        rows = {}
        for model, tensor in tensors.items():
            index = _ids(survey, model).get(marker)
            if index is not None and index < len(tensor):
                rows[model] = tensor[index]
        if rows.keys() != set(plan.roles.all) or plan.roles.vectors:
            continue
        base, cp, chat = rows[plan.roles.base], rows[plan.roles.cp], rows[plan.roles.chats[0]]
        if _distance(cp, base) >= TRAINED or _distance(chat, base) < TRAINED:
            continue
        ratio = embeddings.ratios[plan.roles.chats[0]]
        if ratio != 1:
            yield advice(
                "marker-untrained-row",
                "tokenizer.tokens",
                f"cp never trained {marker!r}, which the template writes: with the ratio {ratio:g} "
                "its row gets only so much of what chat learnt.",
                f'Write `tokens: {{"{marker}": {{source: {plan.roles.chats[0]}, force: true}}}}` '
                "below `tokenizer:`.",
            )


def _ids(survey: Survey, model: ModelReference) -> Mapping[str, int]:
    tokenizer = survey.models[model].tokenizer
    return tokenizer.ids if tokenizer else {}


def _distance(row: Tensor, base: Tensor) -> float:
    row, base = row.to(torch.float64), base.to(torch.float64)
    return float((row - base).norm() / base.norm().clamp_min(1e-12))

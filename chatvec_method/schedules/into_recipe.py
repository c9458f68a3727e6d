"""A schedule written into a recipe, and a recipe's ratios for models that nobody looked at.

Where in the recipe the ratio belongs, which layers each slice has and what its tensors are called
is taken from mergekit's own plan of the merge; afterwards the merge is planned again, and every
tensor's ratio held against the schedule.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mergekit.common import ModelReference
from mergekit.config import MergeConfiguration

from chatvec_method.errors import ChatVecError
from chatvec_method.facts.plan import MergePlan, PlannedTensor, slices_of
from chatvec_method.facts.ratio_lines import ratio_settings
from chatvec_method.recipe.blocks import loaded_or_none, with_block, with_value
from chatvec_method.recipe.edits import Edit, edited
from chatvec_method.recipe.file import KeyPath, Recipe, parse_recipe
from chatvec_method.recipe.yaml_text import load_yaml
from chatvec_method.schedules.cases import Case, Schedule, Tensor, as_data, as_yaml, ratio_cases
from chatvec_method.schedules.planners import Planner

TOLERANCE = 1e-6


def with_schedule(
    recipe: Recipe, schedule: Schedule, plan: Planner, chat: str | None = None
) -> str:
    """Return a recipe's text with a schedule as the ratio of a chat vector, its comments kept.

    Ratios that then never count are removed.

    Args:
        recipe: The recipe.
        schedule: The numbers.
        plan: What gives the recipe's plan.
        chat: The chat model, as the recipe names it; may be None if there is only one.

    Raises:
        ChatVecError: The recipe is refused, the schedule does not fit its models, or it cannot be
            written into the recipe.
    """
    before = plan(_with_any_ratio(recipe))
    reference = _chat_model(before, chat)
    text = recipe.text
    for place in _places(recipe, before, reference):
        cases = ratio_cases(schedule, place.tensors, before.layers, place.layers)
        text = _with_ratio(text, place.parameters, cases)
    written = parse_recipe(text, recipe.name)
    after = plan(written)
    _verify(after, schedule, reference)
    for setting in ratio_settings(written, after):
        if setting.never_counts:
            text = edited(text, [Edit(setting.path, remove=True)])
    return text


@dataclass(frozen=True)
class _Place:
    """Where in a recipe a chat model's ratio is written."""

    parameters: KeyPath
    layers: range
    """Of the output, for which it is."""
    tensors: tuple[Tensor, ...]


def _chat_model(plan: MergePlan, name: str | None) -> ModelReference:
    chats = plan.roles.chats
    if name is None and len(chats) == 1:
        return chats[0]
    for chat in chats:
        if str(chat) == name:
            return chat
    wrong = "has several chat models" if name is None else f"has no chat model {name}"
    raise ChatVecError(
        f"the recipe {wrong}.",
        "Write one of these: " + ", ".join(f"`--chat {chat}`" for chat in chats) + ".",
    )


def _places(recipe: Recipe, plan: MergePlan, chat: ModelReference) -> Iterator[_Place]:
    """Yield the chat model's `parameters:` in every slice, in which a list begins anew."""
    modules = plan.config.modules
    if len(modules) > 1:
        raise ChatVecError(
            f"{recipe.name}: its models have several parts ({', '.join(modules)}), each with "
            "layers of its own, and a schedule is for one.",
            "Write the ratio by hand, with filters.",
        )
    (name,) = modules
    above: KeyPath = ("modules", name) if recipe.config.modules else ()
    written = recipe.config.modules[name] if recipe.config.modules else recipe.config
    slices = slices_of(plan)
    for i, layers in enumerate(slices):
        sources = written.models or written.slices[i].sources
        here = (*above, "models") if written.models else (*above, "slices", i, "sources")
        yield _Place(
            (*here, [source.model for source in sources].index(chat), "parameters"),
            layers,
            tuple(_tensors(plan, chat, layers, before=i == 0, after=layers is slices[-1])),
        )


def _tensors(
    plan: MergePlan, chat: ModelReference, layers: range, *, before: bool, after: bool
) -> Iterator[Tensor]:
    """Yield the tensors of some layers, and what stands before and after all of them.

    mergekit takes the first slice's settings for what stands before, the last one's for the rest.
    """
    passed = False
    for tensor in plan.tensors:
        passed = passed or tensor.layer is not None
        inside = tensor.layer in layers if tensor.layer is not None else None
        if inside or (inside is None and (after if passed else before)):
            yield _tensor(tensor, chat)


def _tensor(tensor: PlannedTensor, chat: ModelReference) -> Tensor:
    return Tensor(tensor.inputs[chat].name, tensor.kind, tensor.layer)


def _with_ratio(text: str, parameters: KeyPath, cases: Sequence[Case]) -> str:
    """Return a recipe's text with a ratio in a block of its own, on one line where none can be."""
    plain = with_value(text, (*parameters, "ratio"), as_data(cases))
    lines = as_yaml(cases)
    if len(lines) == 1:
        return plain
    expected = load_yaml(plain)
    below_ratio = [line[2:] for line in lines[1:]]
    below_parameters = ["role: chat", *lines]  # the method knows no other parameter
    for path, block in (((*parameters, "ratio"), below_ratio), (parameters, below_parameters)):
        filled = with_block(text, path, block)
        if filled is not None and loaded_or_none(filled) == expected:
            return filled
    return plain


def _with_any_ratio(recipe: Recipe) -> Recipe:
    """Return a recipe with another ratio: what it has may be missing or wrong, and will go."""
    raw = _without_ratios(recipe.raw)
    raw["parameters"] = {**(raw.get("parameters") or {}), "ratio": 1.0}
    return replace(recipe, config=MergeConfiguration.model_validate(raw))


def _without_ratios(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_ratios(part) for part in value]
    if not isinstance(value, dict):
        return value
    kept = {key: _without_ratios(part) for key, part in value.items()}
    if isinstance(kept.get("parameters"), dict):
        kept["parameters"].pop("ratio", None)
    return kept


def _verify(plan: MergePlan, schedule: Schedule, chat: ModelReference) -> None:
    ratio_of = schedule.ratio_of(plan.layers)
    for tensor in plan.tensors:
        wanted, planned = ratio_of(_tensor(tensor, chat)), tensor.ratios[chat]
        if abs(wanted - planned) > TOLERANCE:
            raise ChatVecError(
                f"{tensor.name} would have the ratio {planned:g} and not {wanted:g}.",
                "Write the ratio by hand, with filters.",
            )

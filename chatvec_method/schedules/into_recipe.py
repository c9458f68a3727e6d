"""A schedule written into a recipe, and a recipe's ratios for models that nobody looked at.

Where in the recipe the ratio belongs, which layers each slice has and what its tensors are called
is taken from mergekit's own plan of the merge; afterwards the merge is planned again, and every
tensor's ratio held against the schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import yaml
from mergekit.common import ModelReference
from mergekit.config import MergeConfiguration
from mergekit.options import MergeOptions
from transformers import LlamaConfig

from chatvec_method.checks.ratios import ratio_findings
from chatvec_method.errors import ChatVecError
from chatvec_method.facts.models import look_up
from chatvec_method.facts.plan import MergePlan, PlannedTensor, plan_merge
from chatvec_method.facts.survey import Survey
from chatvec_method.method.refusals import Roles
from chatvec_method.recipe.edits import Edit, edited
from chatvec_method.recipe.file import KeyPath, Recipe, parse_recipe
from chatvec_method.schedules.cases import Case, Schedule, Tensor, as_data, as_yaml, ratio_cases

TOLERANCE = 1e-6
MARK = "the-schedule-goes-here"

Planner: TypeAlias = Callable[[Recipe], MergePlan]
"""What gives the plan of a recipe, whatever its ratios are."""


def planner_of_models(recipe: Recipe, trust_remote_code: bool = False) -> Planner:
    """Return what plans a recipe for the models that it names; no weights are read.

    Raises:
        ChatVecError: A model cannot be found.
    """
    names = sorted(recipe.config.referenced_models(), key=str)
    models = {name: look_up(name, trust_remote_code) for name in names}
    options = MergeOptions(trust_remote_code=trust_remote_code)
    return lambda changed: plan_merge(changed.config, models, options)


def planner_of_layers(layers: int) -> Planner:
    """Return what plans a recipe as for Llama-like models of so many layers.

    The models that it names are not looked at: it is planned for others, which have nothing but a
    config.
    """
    return lambda recipe: _plan_for_stand_ins(recipe, layers)


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
    survey = Survey(written, MergeOptions(), {}, after, None, None, None, ())
    for finding in ratio_findings(survey):
        if finding.code == "ratio-never-counts":
            text = edited(text, finding.edits)
    return text


def slices_of(plan: MergePlan) -> list[range]:
    """Return the layers of the output in each slice; a plan without slices is one."""
    ranges, start = [], 0
    for output_slice in next(iter(plan.config.modules.values())).slices:
        first, end = output_slice.sources[0].layer_range
        ranges.append(range(start, start + end - first))
        start += end - first
    return ranges


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
    plain = _set(text, (*parameters, "ratio"), as_data(cases))
    lines = as_yaml(cases)
    if len(lines) == 1:
        return plain
    expected = yaml.safe_load(plain)
    below_ratio = [line[2:] for line in lines[1:]]
    below_parameters = ["role: chat", *lines]  # the method knows no other parameter
    for path, block in (((*parameters, "ratio"), below_ratio), (parameters, below_parameters)):
        filled = _with_block(text, path, block)
        if filled is not None and _loaded(filled) == expected:
            return filled
    return plain


def _with_block(text: str, path: KeyPath, lines: Sequence[str]) -> str | None:
    """Return a text with lines as a value, None if that would stand in brackets or lose a comment.

    Comments inside an old ratio are about its numbers and go with it.
    """
    head, _, tail = _set(text, path, MARK).partition(MARK)
    replaced = text[len(head) : len(text) - len(tail)]
    before = head[head.rfind("\n") + 1 :]
    behind, newline, rest = tail.partition("\n")
    behind = behind.strip()
    if (behind and not behind.startswith("#")) or (path[-1] != "ratio" and "#" in replaced):
        return None
    if not before.strip():  # the old value was a block below its key
        block = f"\n{before}".join(lines)
        return f"{head}{block}{newline}{rest}"
    indent = " " * (len(before) - len(before.lstrip(" -")) + 2)
    block = "".join(f"\n{indent}{line}" for line in lines)
    return f"{head.rstrip()}{behind and ' ' + behind}{block}{newline}{rest}"


def _set(text: str, path: KeyPath, value: object) -> str:
    try:
        return edited(text, [Edit(path, value)])
    except ChatVecError:  # a list that is not indented below its key has no place for a scalar
        return edited(text, [Edit(path, remove=True), Edit(path, value)])


def _loaded(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None


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
        wanted, found = ratio_of(_tensor(tensor, chat)), tensor.ratios[chat]
        if abs(wanted - found) > TOLERANCE:
            raise ChatVecError(
                f"{tensor.name} would have the ratio {found:g} and not {wanted:g}.",
                "Write the ratio by hand, with filters.",
            )


def _plan_for_stand_ins(recipe: Recipe, layers: int) -> MergePlan:
    names = sorted(recipe.config.referenced_models(), key=str)
    with TemporaryDirectory() as folder:
        paths = {str(model): str(Path(folder) / str(i)) for i, model in enumerate(names)}
        config = LlamaConfig(num_hidden_layers=layers, architectures=["LlamaForCausalLM"])
        for path in paths.values():
            config.save_pretrained(path)
        stand_ins = MergeConfiguration.model_validate(_renamed(recipe.raw, paths))
        models = {model: look_up(model) for model in stand_ins.referenced_models()}
        plan = plan_merge(stand_ins, models, MergeOptions())
    real = {ModelReference.parse(paths[str(model)]): model for model in names}
    tensors = tuple(_with_models(tensor, real) for tensor in plan.tensors)
    return replace(plan, roles=_with_real(plan.roles, real), tensors=tensors)


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _renamed(part, names) for key, part in value.items()}
    if isinstance(value, list):
        return [_renamed(part, names) for part in value]
    return names.get(value, value) if isinstance(value, str) else value


def _with_models(
    tensor: PlannedTensor, real: Mapping[ModelReference, ModelReference]
) -> PlannedTensor:
    return replace(
        tensor,
        inputs={real[model]: weight for model, weight in tensor.inputs.items()},
        roles=_with_real(tensor.roles, real),
        ratios={real[chat]: ratio for chat, ratio in tensor.ratios.items()},
        settings={real[chat]: settings for chat, settings in tensor.settings.items()},
    )


def _with_real(roles: Roles, real: Mapping[ModelReference, ModelReference]) -> Roles:
    return Roles(real[roles.base], real[roles.cp], tuple(real[chat] for chat in roles.chats))

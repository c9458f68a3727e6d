"""A cp with more layers than base: blocks inserted between base's, as LLaMA-Pro does.

A chat vector has a place only in the layers that come from base's. Rows of a few matrices tell
which these are, and mergekit's `slices:` put the vector there. Every slice has to list the same
models, so that an inserted layer gets the vector of a neighbouring one with the ratio 0.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from chatvec_method.checks.findings import Finding, error
from chatvec_method.checks.rows import Rows
from chatvec_method.facts.models import Model, text_config
from chatvec_method.facts.survey import Survey
from chatvec_method.method.roles import Roles
from chatvec_method.method.settings import Settings, ratio_cases
from chatvec_method.recipe.edits import Edit

NUMBERED = re.compile(r"^(?P<stack>.+?)\.(?P<layer>\d+)\.(?P<part>.+)$")
WRITERS = re.compile(r"o_proj|down_proj|out_proj|dense|c_proj|\bw[o2]\b")
"""What an inserted block begins with at zero, so that it changes nothing: these tell it best."""
MATRICES = 8
"""Of so many in each layer a row is read."""
RELATED = 0.75
"""How far a layer may be from the one of base that it comes from, measured by how far it is from
the others. Of strangers, all are equally far."""
DECIMALS = 6


def depth_findings(survey: Survey, roles: Roles | None) -> Iterator[Finding]:
    """Find a cp that has base's layers and others between them."""
    if roles is None or any(model not in survey.models for model in roles.all):
        return
    if roles.vectors:  # whose layers are nobody's
        return
    models = survey.recipe.config.models
    base, cp = survey.models[roles.base], survey.models[roles.cp]
    chats = [survey.models[chat] for chat in roles.chats]
    count, more = _layers_of(base), _layers_of(cp)
    if models is None or not count or more <= count or any(_layers_of(c) != count for c in chats):
        return
    if _width(base) != _width(cp):
        return
    what = f"it has {more} layers, and {base} has {count}"
    origins = next((o for each in (base, *chats) if (o := _origins(cp, each, count, more))), None)
    if (
        origins is None
        and Rows(cp).readable
        and any(Rows(each).readable for each in (base, *chats))
    ):
        return  # its layers are not base's, which is told as models that are not related
    if origins is None:
        yield error(
            "depth-expanded",
            cp,
            f"{what}: layers seem to have been inserted between base's. Which ones these are is "
            "told where the models' safetensors files are here.",
            "Download the models and check again: the `slices:` to write are then shown by "
            "`chatvec check --fix`.",
        )
        return
    inserted = sorted(set(range(more)) - set(origins))
    yield error(
        "depth-expanded",
        cp,
        f"{what}. Of its layers, {_listed(inserted)} inserted, and the others come from base's: "
        "the chat vector belongs in those.",
        "Write `slices:` in the place of `models:`, as `chatvec check --fix` does: each run of "
        "base's layers with the same layers of base and chat, and each inserted layer with a "
        "neighbour of theirs and `ratio: 0`.",
        (
            Edit(("models",), rename="slices"),
            Edit(("slices",), list(_slices(survey, roles, origins, more))),
        ),
    )


def _layers_of(model: Model) -> int:
    return getattr(text_config(model.config), "num_hidden_layers", None) or 0


def _width(model: Model) -> tuple[Any, ...]:
    config = text_config(model.config)
    return config.model_type, config.hidden_size, getattr(config, "intermediate_size", None)


def _listed(numbers: Sequence[int]) -> str:
    *most, last = map(str, numbers)
    return f"numbers {', '.join(most)} and {last} are" if most else f"number {last} is"


# --- which layer comes from which -------------------------------------------------------------


def _origins(cp: Model, other: Model, count: int, more: int) -> tuple[int, ...] | None:
    """Return the layer of cp that comes from each layer of base, as a model of base's depth tells.

    None where their rows cannot be read, or where they are not alike.
    """
    of_cp, of_other = _both(_layers(cp, more), _layers(other, count))
    rows = [_rows(model, layers) for model, layers in ((cp, of_cp), (other, of_other))]
    if not rows[0] or not rows[1]:
        return None
    distances = torch.full((more, count), torch.inf, dtype=torch.float64)
    for i, own in enumerate(rows[0]):
        for j, others in enumerate(rows[1]):
            if of_cp[i].shapes == of_other[j].shapes:
                distances[i, j] = (own - others).norm() / others.norm().clamp_min(1e-12)
    origins = _in_order(distances)
    is_origin = torch.zeros_like(distances, dtype=torch.bool)
    is_origin[list(origins), list(range(count))] = True
    near = distances[is_origin]
    apart = distances[list(origins)][~is_origin[list(origins)]]
    apart = apart[apart.isfinite()]
    # Where no layer is made like another, that tells them; strangers are √2 apart.
    far = float(apart.median()) if len(apart) else math.sqrt(2)
    return origins if near.isfinite().all() and float(near.median()) < RELATED * far else None


def _in_order(distances: Tensor) -> tuple[int, ...]:
    """Return a row for each column, in rising order, so that their distances add up to the least.

    Of equals, the first row: an inserted layer stands behind the one that it was copied from.
    """
    rows, columns = distances.shape
    least = torch.full((rows + 1, columns + 1), torch.inf, dtype=distances.dtype)
    least[:, 0] = 0
    for j in range(1, columns + 1):
        for i in range(1, rows + 1):
            taken = least[i - 1, j - 1] + distances[i - 1, j - 1]
            least[i, j] = torch.minimum(least[i - 1, j], taken)
    chosen: list[int] = []
    i = rows
    for j in range(columns, 0, -1):
        while i > j and least[i - 1, j] <= least[i, j]:
            i -= 1
        chosen.append(i - 1)
        i -= 1
    return tuple(reversed(chosen))


@dataclass(frozen=True)
class _Layer:
    """The tensors of one layer, by the rest of their names."""

    names: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]


def _layers(model: Model, count: int) -> list[_Layer]:
    """Return the layers of the language model: the ones of which there are as many."""
    stacks: dict[str, dict[int, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    tensors = model.tensors or {}
    for name in tensors:
        if match := NUMBERED.match(name):
            stacks[match["stack"]][int(match["layer"])][match["part"]] = name
    stack = next((layers for layers in stacks.values() if set(layers) == set(range(count))), {})
    return [
        _Layer(names, {part: tensors[name].shape for part, name in names.items()})
        for _, names in sorted(stack.items())
    ]


def _both(own: Sequence[_Layer], others: Sequence[_Layer]) -> tuple[list[_Layer], list[_Layer]]:
    """Return two models' layers without what only one of them has, or has by another name."""
    shared = {part for layer in own for part in layer.names}
    shared &= {part for layer in others for part in layer.names}

    def restricted(layer: _Layer) -> _Layer:
        return _Layer(
            {part: name for part, name in layer.names.items() if part in shared},
            {part: shape for part, shape in layer.shapes.items() if part in shared},
        )

    return list(map(restricted, own)), list(map(restricted, others))


def _rows(model: Model, layers: Sequence[_Layer]) -> list[Tensor]:
    """Return a row of some matrices of each layer, of the same ones where layers are alike.

    What writes to the residual stream comes first; [] if anything cannot be read.
    """
    reader, rows = Rows(model), []
    for layer in layers:
        matrices = sorted(part for part, shape in layer.shapes.items() if len(shape) == 2)
        chosen = sorted(matrices, key=lambda part: not WRITERS.search(part))[:MATRICES]
        read = [reader.middle(layer.names[part]) for part in chosen]
        whole = [row for row in read if row is not None]
        if not read or len(whole) < len(read):
            return []
        rows.append(torch.cat(whole))
    return rows


# --- the slices -------------------------------------------------------------------------------


def _slices(
    survey: Survey, roles: Roles, origins: Sequence[int], more: int
) -> Iterator[dict[str, Any]]:
    """Yield the slices of the output, in order."""
    count = len(origins)
    cp, base = (survey.models[model] for model in (roles.cp, roles.base))
    for own, from_base, inserted in _runs(*_both(_layers(cp, more), _layers(base, count)), origins):
        sources = []
        for entry in survey.recipe.config.models or ():
            layers = own if entry.model == roles.cp else from_base
            parameters: dict[str, Any] = {"role": (entry.parameters or {})["role"]}
            if entry.model in roles.chats:
                settings = (entry.parameters, survey.recipe.config.parameters)
                ends = (own.start == 0, own.stop == more)
                place = _Place(survey.models[entry.model], layers, count, *ends)
                parameters["ratio"] = place.ratio(settings, inserted=inserted)
            sources.append(
                {
                    "model": str(entry.model),
                    "layer_range": [layers.start, layers.stop],
                    "parameters": parameters,
                }
            )
        yield {"sources": sources}


def _runs(
    of_cp: Sequence[_Layer], of_base: Sequence[_Layer], origins: Sequence[int]
) -> Iterator[tuple[range, range, bool]]:
    """Yield runs of cp's layers with the layers of base that they go with, and whether inserted."""
    from_base = {layer: j for j, layer in enumerate(origins)}
    start = 0
    while start < len(of_cp):
        first = from_base.get(start)
        end = start + 1
        if first is None:
            neighbour = _neighbour(of_cp[start], of_base, sum(i < start for i in origins))
            yield range(start, end), range(neighbour, neighbour + 1), True
        else:
            while from_base.get(end) == first + end - start:
                end += 1
            yield range(start, end), range(first, first + end - start), False
        start = end


def _neighbour(layer: _Layer, of_base: Sequence[_Layer], place: int) -> int:
    """Return the nearest layer of base that is made like one of cp, rather before it than behind.

    Args:
        layer: Of cp.
        of_base: All of base's; [] where their tensors are not known.
        place: How many of base's layers come before.
    """
    by_nearness = sorted(range(len(of_base)), key=lambda j: (abs(j - place + 0.75), j))
    alike = (j for j in by_nearness if of_base[j].shapes == layer.shapes)
    return next(alike, max(place - 1, 0))


class _Place:
    """Where in a chat model a slice is, for the ratio that belongs there."""

    def __init__(self, chat: Model, layers: range, count: int, first: bool, last: bool) -> None:
        self.layers, self.count = layers, count
        names = list(chat.tensors or {})
        outside = [name for name in names if not NUMBERED.match(name)]
        embeddings = [name for name in outside if "emb" in name or "wte" in name]
        rest = [name for name in outside if name not in embeddings]
        # mergekit takes the first slice's settings for embeddings, and the last one's for the rest.
        self.outside = [*(embeddings if first else ()), *(rest if last else ())]
        inside = [
            name for name in names if (m := NUMBERED.match(name)) and int(m["layer"]) in layers
        ]
        self.names = [*self.outside, *inside]

    def ratio(self, settings: Sequence[Settings], *, inserted: bool) -> Any:
        """Return the ratio of a recipe without slices, for this slice."""
        setting = next((s["ratio"] for s in settings if s and "ratio" in s), None)
        cases = ratio_cases(setting)
        lines = []
        if inserted or any(isinstance(value, list) for _, value in cases):
            lines += [
                {"filter": name.removesuffix(".weight"), "value": _first(cases, name)}
                for name in self.outside
            ]
        if inserted:
            lines.append({"value": 0})
        else:
            for pattern, value in cases:
                everything = pattern in (None, "*")
                if everything or any(str(pattern) in name for name in self.names):
                    named = {} if everything else {"filter": pattern}
                    lines.append({**named, "value": self._of_layers(value)})
        return lines[0]["value"] if len(lines) == 1 and "filter" not in lines[0] else lines

    def _of_layers(self, value: Any) -> Any:
        """Return a list over the depth of the whole model, for this slice's layers."""
        if not isinstance(value, list):
            return value
        numbers = []
        for layer in self.layers:
            place = layer / max(self.count - 1, 1) * (len(value) - 1)
            before = min(int(place), len(value) - 1)
            after, share = min(before + 1, len(value) - 1), place - before
            number = (1 - share) * float(value[before]) + share * float(value[after])
            numbers.append(round(number, DECIMALS))
        return numbers if len(numbers) > 1 else numbers[0]


def _first(cases: Sequence[tuple[str | None, Any]], name: str) -> Any:
    """Return the ratio of what stands outside the layers, where a list gives its first number."""
    for pattern, value in cases:
        if pattern in (None, "*") or str(pattern) in name:
            return value[0] if isinstance(value, list) else value
    return None

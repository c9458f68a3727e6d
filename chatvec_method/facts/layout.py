"""Which parameter of the transformers model each tensor of a checkpoint becomes.

Checkpoints of one architecture come in several spellings: experts one by one or joined, a vision
part under the name that its library once had, a language model under another prefix. transformers
knows them all, as it has to load them; its own rules, on a model without memory, tell here which
tensors of two checkpoints are the same one.
"""

from __future__ import annotations

import copy
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
import transformers
from mergekit.architecture.auto import infer_vocabulary_axes
from torch import Tensor
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
)

from chatvec_method.errors import first_line

LANGUAGE_MODEL = re.compile(r"(?:^|(?<=\.))(?:language_model|text_model)\.")
"""The part of a parameter's name that says that it belongs to a larger model's language model."""


@dataclass(frozen=True)
class Conversion:
    """Parameters that are made of stored tensors by transformers' own operations."""

    converter: WeightConverter = field(compare=False, repr=False)
    target: str
    """The parameter by whose name transformers calls the conversion."""
    parts: tuple[tuple[str, str], ...]
    """Pattern of the rule and name of each stored tensor, in transformers' order."""
    model: PreTrainedModel = field(compare=False, repr=False)
    """The model without memory, whose shapes some operations ask for."""

    @property
    def names(self) -> tuple[str, ...]:
        """The stored tensors that it takes."""
        return tuple(name for _, name in self.parts)

    def parameters(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the parameters that are made of tensors, by name.

        Args:
            tensors: By stored name, on any device; on "meta" only shapes and dtypes come out.
        """
        converter: Any = copy.deepcopy(self.converter)
        for pattern, name in self.parts:
            converter.add_tensor(self.target, name, pattern, tensors[name])
        converted = converter.convert(self.target, model=self.model, config=self.model.config)
        return {key: t[0] if isinstance(t, list) else t for key, t in converted.items()}


@dataclass(frozen=True)
class Layout:
    """How a checkpoint's tensors become the parameters of the transformers model."""

    parameter_names: frozenset[str]
    """All that the model has, tied ones included."""
    renamed: Mapping[str, str]
    """The parameter that each stored tensor is, where it is one as it stands."""
    conversions: Mapping[str, Conversion]
    """How each parameter is made that is not stored as it stands."""
    shapes: Mapping[str, tuple[tuple[int, ...], torch.dtype]]
    """Shape and dtype of each parameter that is made by a conversion."""
    unused: frozenset[str]
    """Stored tensors that transformers does not load, such as heads that predict further ahead."""
    vocabulary_axes: Mapping[str, int]
    """The axis of each parameter that has a row for each token."""
    tied: Mapping[str, str]
    """Of parameters that are one and the same, the first, by the names of the others."""
    misfits: Mapping[str, tuple[int, ...]]
    """The shape that the config gives each stored tensor that has another, and is not converted."""

    @property
    def missing(self) -> frozenset[str]:
        """The parameters that the checkpoint gives under no name, nor as tied to another."""
        given = {*self.renamed.values(), *self.conversions}
        given |= {name for name, one in self.tied.items() if one in given}
        given |= {one for name, one in self.tied.items() if name in given}
        return self.parameter_names - given

    def parameters_of(self, stored: str) -> tuple[str, ...]:
        """Return the parameters into which a stored tensor goes."""
        if stored in self.renamed:
            return (self.renamed[stored],)
        return tuple(self._made_of.get(stored, ()))

    @cached_property
    def _made_of(self) -> Mapping[str, list[str]]:
        """The parameters that are made of each stored tensor, of which there may be thousands."""
        parameters: dict[str, list[str]] = defaultdict(list)
        for parameter, conversion in self.conversions.items():
            for name in conversion.names:
                parameters[name].append(parameter)
        return parameters


def layout_of(
    config: PretrainedConfig,
    headers: Mapping[str, tuple[tuple[int, ...], torch.dtype]],
    trust_remote_code: bool = False,
) -> Layout | None:
    """Return how a checkpoint's tensors become parameters; None for what transformers cannot build.

    Args:
        config: The model's.
        headers: Shape and dtype of each stored tensor, quantised ones as they are once dequantised.
        trust_remote_code: Whether the model may be built by code of its own.
    """
    model = model_without_memory(config, trust_remote_code)
    if model is None:
        return None
    parameters: dict[str, Any] = model.state_dict()
    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    by_pattern = {pattern: rule for rule in converters for pattern in rule.source_patterns}
    prefix = model.base_model_prefix

    renamed: dict[str, str] = {}
    parts: dict[str, list[tuple[str, str]]] = {}
    unused = set()
    for stored in sorted(headers, key=dot_natural_key):
        name, pattern = rename_source_key(stored, renamings, converters, prefix, parameters)
        if name not in parameters and stored in parameters:
            name, pattern = rename_source_key(stored, [], [], prefix, parameters)
        if name not in parameters:
            unused.add(stored)
        elif pattern is None:
            renamed[stored] = name
        else:
            parts.setdefault(name, []).append((pattern, stored))

    conversions: dict[str, Conversion] = {}
    shapes: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
    for target, taken in parts.items():
        conversion = Conversion(by_pattern[taken[0][0]], target, tuple(taken), model)
        try:
            converted = conversion.parameters(_on_meta(conversion.names, headers))
        except Exception:  # parts are missing, or of shapes that do not fit: no such parameter
            unused |= set(conversion.names)
            continue
        conversions |= dict.fromkeys(converted, conversion)
        shapes |= {name: (tuple(t.shape), t.dtype) for name, t in converted.items()}
    return Layout(
        parameter_names=frozenset(parameters),
        renamed=renamed,
        conversions=conversions,
        shapes=shapes,
        unused=frozenset(unused),
        vocabulary_axes=infer_vocabulary_axes(model),
        tied=_tied(model),
        misfits={
            stored: shape
            for stored, name in renamed.items()
            if headers[stored][0] != (shape := tuple(parameters[name].shape))
        },
    )


def model_without_memory(
    config: PretrainedConfig, trust_remote_code: bool = False
) -> PreTrainedModel | None:
    """Return the transformers model of a config, on "meta"; None where it cannot be built."""
    try:
        return _built(config, trust_remote_code)
    except Exception:  # any class may refuse a config in its own way
        return None


def why_not_built(config: PretrainedConfig) -> str:
    """Return why a class of transformers cannot be built of a config; empty where it can.

    Nothing is said of classes of other people, and of those that need a package that is not here.
    """
    if not hasattr(transformers, (config.architectures or [""])[0]):
        return ""
    try:
        _built(config, trust_remote_code=False)
    except ImportError:
        return ""
    except Exception as error:
        return f"{type(error).__name__}: {first_line(error)}"
    return ""


def _built(config: PretrainedConfig, trust_remote_code: bool) -> PreTrainedModel:
    config = copy.deepcopy(config)
    parts: list[Any] = [config, *(getattr(config, name, None) for name in config.sub_configs)]
    for part in parts:
        if hasattr(part, "quantization_config"):
            del part.quantization_config
    with torch.device("meta"):
        model_class = getattr(transformers, (config.architectures or [""])[0], None)
        model: PreTrainedModel
        if model_class is not None:
            model = model_class(config)
        else:
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
        model.tie_weights()
    return model


def _tied(model: PreTrainedModel) -> dict[str, str]:
    first: dict[int, str] = {}
    tied = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if (one := first.setdefault(id(parameter), name)) != name:
            tied[name] = one
    return tied


def text_names(parameters: Iterable[str]) -> dict[str, str]:
    """Return parameters by what they would be called in the language model alone.

    A vision-language model has the language model's parameters below a prefix of their own, beside
    others of which a language model knows nothing.
    """
    return {LANGUAGE_MODEL.sub("", name, count=1): name for name in parameters}


def _on_meta(
    names: Sequence[str], headers: Mapping[str, tuple[tuple[int, ...], torch.dtype]]
) -> dict[str, Tensor]:
    return {
        name: torch.empty(headers[name][0], dtype=headers[name][1], device="meta") for name in names
    }

"""What can be loaded from a model's files: tensors as stored, dequantised, or converted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from chatvec_method.errors import ChatVecError
from chatvec_method.facts.layout import Conversion, Layout, layout_of, text_names
from chatvec_method.facts.models import Model, TensorHeader, config_value, text_config
from chatvec_method.facts.quantisation import Quantisation, quantisation_of

NOT_BUILT_OF = re.compile(
    r"_name_or_path|\w+_token_ids?|(torch_)?dtype|max_position_embeddings|transformers_version|use_cache"
)
"""Keys of configs in which a model and its descendants mostly differ."""


@dataclass(frozen=True)
class Weight:
    """A tensor of a checkpoint, by the name that it has where nothing is quantised."""

    name: str
    header: TensorHeader
    """Its shape, and the dtype for which it counts; of a quantised one, the model's own."""
    parts: tuple[str, ...]
    """The stored tensors that it is made of: one, or a quantised one with its scales."""
    quantised: bool = False
    """Whether loading computes it, in float32, from what is stored."""


@dataclass(frozen=True)
class Source:
    """Where a model has a tensor of the merge, and what loading it gives."""

    header: TensorHeader
    """Its file and place are known where it is stored as it stands."""
    weights: tuple[Weight, ...]
    """One, or all that a conversion takes."""
    conversion: Conversion | None = None
    parameter: str = ""
    """Which of the conversion's results it is."""

    @property
    def mapped(self) -> bool:
        """Whether it is stored as it stands, so that loading it reads nothing yet."""
        return self.conversion is None and not self.weights[0].quantised

    @property
    def bytes_read(self) -> int:
        """How much loading all of it reads, quantised weights counted as if they were not."""
        return sum(weight.header.bytes for weight in self.weights)


class Checkpoint:
    """A model's tensors, under every name by which they can be asked for."""

    def __init__(
        self,
        model: Model,
        trust_remote_code: bool = False,
        alike: Sequence[Checkpoint] = (),
    ) -> None:
        """Look at a model's headers.

        Args:
            model: The model.
            trust_remote_code: Whether it may be built by code of its own.
            alike: Checkpoints whose layout is taken where they have the same tensors and are built
                alike: of thousands of experts it takes seconds to find out.
        """
        self.model = model
        self.trust_remote_code = trust_remote_code
        self.alike = alike
        stored = model.tensors or {}
        self.quantisation: Quantisation | None = quantisation_of(
            stored, model.config.to_dict(), model.card
        )
        self.weights: Mapping[str, Weight] = dict(_weights(model, self.quantisation))

    def check_quantisation(self) -> None:
        """Check that its quantised tensors, if it has any, can be read.

        Raises:
            ChatVecError: They cannot.
        """
        quantisation = self.quantisation
        if quantisation is not None and quantisation.problem:
            problem = f"model {self.model}: {quantisation.problem}."
            raise ChatVecError(problem, quantisation.fix, code="quantised")

    def stored(self, names: Iterable[str]) -> Source | None:
        """Return where the first of some names is stored; None if none of them is."""
        weight = next((self.weights[name] for name in names if name in self.weights), None)
        return None if weight is None else Source(weight.header, (weight,))

    def parameter(self, name: str) -> Source | None:
        """Return where a parameter of the transformers model comes from."""
        layout = self.layout
        if layout is None:
            return None
        if name in self._stored_names:
            return self.stored([self._stored_names[name]])
        conversion = layout.conversions.get(name)
        if conversion is None:
            return None
        weights = tuple(self.weights[each] for each in conversion.names)
        shape, dtype = layout.shapes[name]
        return Source(TensorHeader(dtype, shape, ""), weights, conversion, name)

    def parameters_of(self, source: Source) -> tuple[str, ...]:
        """Return the parameters of the transformers model into which a source goes."""
        if source.conversion is not None:
            return (source.parameter,)
        return self.layout.parameters_of(source.weights[0].name) if self.layout else ()

    @cached_property
    def layout(self) -> Layout | None:
        """Which parameters its tensors become; None where transformers cannot build the model."""
        for other in self.alike:
            if other._headers == self._headers and other._built_of == self._built_of:
                return other.layout
        return layout_of(self.model.config, self._headers, self.trust_remote_code)

    @cached_property
    def _built_of(self) -> dict[str, Any]:
        """What its config says, but for what no model is built of."""
        said = self.model.config.to_dict()
        return {key: value for key, value in said.items() if not NOT_BUILT_OF.fullmatch(key)}

    @cached_property
    def _headers(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        return {n: (w.header.shape, w.header.dtype) for n, w in self.weights.items()}

    @cached_property
    def text_parameters(self) -> Mapping[str, str]:
        """Its parameters by what they are called in the language model alone."""
        return text_names(self.layout.parameter_names) if self.layout else {}

    @cached_property
    def _stored_names(self) -> Mapping[str, str]:
        return {name: each for each, name in self.layout.renamed.items()} if self.layout else {}


def _weights(model: Model, quantisation: Quantisation | None) -> Iterator[tuple[str, Weight]]:
    stored = model.tensors or {}
    parts = quantisation.parts if quantisation else {}
    taken = {part for names in parts.values() for part in names}
    taken |= quantisation.dropped if quantisation else frozenset()
    for name, header in stored.items():
        if name in taken:
            continue
        if model.reference.lora is not None and header.dtype.is_floating_point:
            # An adapter is added in float32, and that is no reason for an output in float32.
            header = TensorHeader(_own_dtype(model), header.shape, header.file)
        yield name, Weight(name, header, (name,))
    for name, names in parts.items():
        assert quantisation is not None
        header = TensorHeader(_own_dtype(model), quantisation.shapes[name], "")
        yield name, Weight(name, header, names, quantised=True)


def _own_dtype(model: Model) -> torch.dtype:
    """Return the dtype that a model's weights have where nothing is quantised or added to them."""
    dtype = config_value(text_config(model.config), "dtype") or model.config.dtype
    if not isinstance(dtype, torch.dtype) or dtype.itemsize < 2:
        return torch.bfloat16
    return dtype

"""mergekit's own planner, walked for what it would make tasks of."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mergekit.architecture import ModelArchitecture, WeightInfo, get_architecture_info
from mergekit.common import ModelReference
from mergekit.config import ConfigReader, InputSliceDefinition, MergeConfiguration
from mergekit.options import MergeOptions
from mergekit.plan import MergePlanner

from chatvec_method.errors import ChatVecError
from chatvec_method.facts.checkpoint import Checkpoint
from chatvec_method.facts.place import NotedTensor, Place
from chatvec_method.quiet import quiet


def noted_tensors(
    config: MergeConfiguration,
    checkpoints: Mapping[ModelReference, Checkpoint],
    options: MergeOptions,
    real: Mapping[ModelReference, ModelReference],
) -> tuple[ModelArchitecture, list[NotedTensor]]:
    """Return the architecture by which mergekit plans a recipe, and each tensor that it plans.

    Args:
        config: The recipe, which gets mergekit's own form.
        checkpoints: Of the models that it names.
        options: As for the merge.
        real: What messages call the models.

    Raises:
        ChatVecError: The recipe is refused, by the method or by mergekit.
    """
    try:
        with quiet():
            architecture = get_architecture_info(config, options)
            planner = _NotingPlanner(config, architecture, options, checkpoints)
            planner.note_tensors()
    except ChatVecError as error:
        raise ChatVecError(
            _with_real_names(error.problem, real), _with_real_names(error.fix, real), error.code
        ) from error
    except (RuntimeError, ValueError, KeyError, TypeError) as error:  # mergekit's own refusals
        raise ChatVecError(
            f"mergekit refuses the recipe: {_with_real_names(_reason(error), real)}.",
            "Write models of one architecture, with as many layers as the recipe takes from each.",
        ) from error
    # Its definition of Qwen2.5-VL has tensors without a number in its layers.
    once = {tensor.weight.name: tensor for tensor in reversed(planner.noted)}
    noted = list(reversed(once.values()))
    if not architecture.architectures:
        # Inferred from sets, whose order is another one in each process; files are to be the same.
        noted.sort(key=lambda tensor: _in_numeric_order(tensor.weight.name))
    return architecture, noted


def _in_numeric_order(name: str) -> list[str | int]:
    """Return a key by which layer 10 comes after layer 9."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _reason(error: Exception) -> str:
    """Return what mergekit says, without the whole config that it may quote."""
    if isinstance(error, KeyError):
        return f"it knows no {error} here"
    words = re.sub(r"\{.*\}", "", str(error), flags=re.DOTALL).split()
    return " ".join(words).removesuffix(".") or type(error).__name__


class _NotingPlanner(MergePlanner):  # type: ignore[misc]
    """mergekit's planner, which notes tensors and makes no tasks, so that no weights are needed."""

    def __init__(
        self,
        config: MergeConfiguration,
        architecture: ModelArchitecture,
        options: MergeOptions,
        checkpoints: Mapping[ModelReference, Checkpoint],
    ) -> None:
        donor = config.base_model or config.referenced_models()[0]
        config_of_output = donor.config(trust_remote_code=options.trust_remote_code)
        super().__init__(config, architecture, options, config_of_output)
        self.checkpoints = checkpoints
        self.module = ""
        self.layer: int | None = None
        self.noted: list[NotedTensor] = []

    def note_tensors(self) -> None:
        self.normalize_config()
        for name, module in self.config.modules.items():
            self.module = name
            self.plan_module(name, module)

    def plan_layer(self, sources: list[InputSliceDefinition], *args: Any, **kwargs: Any) -> None:
        self.layer = self._current_module_layers
        super().plan_layer(sources, *args, **kwargs)
        self.layer = None

    def plan_tensor(
        self,
        weight: WeightInfo,
        weights_in: Sequence[WeightInfo],
        models: Sequence[ModelReference],
        cfg_reader: ConfigReader,
    ) -> None:
        inputs = dict(zip(models, weights_in, strict=True))
        if weight.optional and not any(self._has(m, w) for m, w in inputs.items()):
            return
        slices = self.config.modules[self.module].slices
        number = next(i for i, each in enumerate(slices) if each is cfg_reader.slice_out)
        place = Place(self.module, self.module, number, self.layer, cfg_reader.t)
        self.noted.append(NotedTensor(weight, inputs, place))

    def _has(self, model: ModelReference, weight: WeightInfo) -> bool:
        """Tell whether a model has an optional tensor under a name of its own, as mergekit asks."""
        checkpoint = self.checkpoints[model]
        if checkpoint.model.tensors is None:
            return not getattr(checkpoint.model.config, "tie_word_embeddings", False)
        return checkpoint.stored([weight.name, *(weight.aliases or ())]) is not None


def _with_real_names(text: str, real: Mapping[ModelReference, ModelReference]) -> str:
    for stand_in, name in real.items():
        if stand_in != name:
            text = text.replace(str(stand_in), str(name))
    return text

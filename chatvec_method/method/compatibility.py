"""What the models' configs say about a merge, before any weight is read.

Errors for what cannot come out right, and a warning in mergekit's own log for what may be intended.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from mergekit.common import ModelReference, get_config_value
from transformers import PretrainedConfig

from chatvec_method.errors import ChatVecError
from chatvec_method.method.roles import Roles
from chatvec_method.method.settings import dtype_name, tokenizer_source, weights_dtype

if TYPE_CHECKING:
    from mergekit.config import MergeConfiguration

LOG = logging.getLogger("chatvec_method")


def check_models(
    recipe: MergeConfiguration,
    roles: Roles,
    configs: Mapping[ModelReference, PretrainedConfig],
    vocabulary_key: str,
) -> None:
    """Check that the models' configs permit the merge that the recipe asks for.

    Args:
        recipe: The recipe.
        roles: Who is who in it.
        configs: The config of every model that has a role.
        vocabulary_key: Where in a config the architecture has the rows of its embeddings.

    Raises:
        ChatVecError: A model is quantised, or tokens of the cp model would be lost or mixed up.
    """
    for model, config in configs.items():
        if model in roles.vectors and getattr(config, "quantization_config", None):
            raise ChatVecError(
                f"model {model} is a compressed chat vector, which mergekit-yaml does not read.",
                f"Use `chatvec merge`, or write it in full: `chatvec vector expand {model} OUT`.",
                code="compressed-vector",
            )
        if getattr(config, "quantization_config", None):
            raise ChatVecError(
                f"model {model} is quantised, and no chat vector can be made with it.",
                "Write the name of its unquantised version.",
            )
    _check_vocabularies(recipe, roles, configs, vocabulary_key)
    _warn_of_dtypes(recipe, roles, configs)


def _check_vocabularies(
    recipe: MergeConfiguration,
    roles: Roles,
    configs: Mapping[ModelReference, PretrainedConfig],
    key: str,
) -> None:
    try:
        rows = {model: get_config_value(config, key) for model, config in configs.items()}
    except RuntimeError:  # an architecture without a vocabulary
        return
    if len(set(rows.values())) == 1:
        return
    sizes = ", ".join(f"{model} {size}" for model, size in rows.items())
    source = tokenizer_source(recipe)
    if source is None:
        raise ChatVecError(
            f"the vocabularies differ in size ({sizes}), so rows must be matched by token.",
            f"Write `tokenizer: {{source: {roles.cp}}}`",
            code="vocabulary-sizes",
        )
    kept = recipe.base_model if source == "base" else source  # mergekit's "base" is base_model
    if kept != "union" and rows.get(kept, rows[roles.cp]) < rows[roles.cp]:
        raise ChatVecError(
            f"the vocabularies differ in size ({sizes}), and with the tokenizer of {kept} the "
            "output would lose tokens of cp.",
            f"Write `tokenizer: {{source: {roles.cp}}}`",
            code="cp-tokens-lost",
        )


def _warn_of_dtypes(
    recipe: MergeConfiguration, roles: Roles, configs: Mapping[ModelReference, PretrainedConfig]
) -> None:
    stored = {
        m: c.dtype
        for m, c in configs.items()
        if isinstance(c.dtype, torch.dtype) and m not in roles.vectors
    }
    cast = weights_dtype(recipe.dtype)
    if cast is None and recipe.out_dtype is None and len(set(stored.values())) > 1:
        LOG.warning(
            "the models' weights have different dtypes (%s), so the output's will be in one that "
            "holds them all, but for tensors with a ratio of 0, which stay as in cp. Write "
            "`out_dtype: bfloat16` (or another) to have one dtype.",
            _with_dtypes(stored),
        )
    rounded = {m: d for m, d in stored.items() if cast and torch.promote_types(d, cast) != cast}
    if rounded:
        LOG.warning(
            "`dtype: %s` makes mergekit round weights (%s) before the subtraction. Write "
            "`out_dtype: %s` in its place, which rounds the result once.",
            recipe.dtype,
            _with_dtypes(rounded),
            recipe.dtype,
        )


def _with_dtypes(stored: Mapping[ModelReference, torch.dtype]) -> str:
    return ", ".join(f"{model} {dtype_name(dtype)}" for model, dtype in stored.items())

"""An output's config and the files that come along with it, as mergekit writes them.

`streaming.py` takes mergekit's plan without its writer, so what mergekit's `run_merge` writes
besides the weights is written here. Tokenizer and generation config are left to `finish.py`, which
makes them the same whoever merged.
"""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

from mergekit.common import ModelReference, set_config_value

from chatvec_method.facts.survey import Survey
from chatvec_method.method.settings import weights_dtype


def write_config(survey: Survey, folder: Path) -> None:
    """Write `config.json`: that of base_model, with the output's layers, vocabulary and dtype.

    Args:
        survey: One without problems.
        folder: The output.
    """
    plan, recipe = survey.plan, survey.recipe.config
    assert plan is not None
    config = copy.deepcopy(survey.models[recipe.base_model].config)
    dtype = weights_dtype(recipe.out_dtype) or weights_dtype(recipe.dtype, "dtype")
    if dtype is not None:
        config.dtype = dtype
    for name, module in plan.config.modules.items():
        slices = (output_slice.sources[0].layer_range for output_slice in module.slices)
        architecture = plan.architecture.modules[name].architecture
        layers = sum(end - start for start, end in slices)
        if (recipe.slices or recipe.modules) and (key := architecture.num_layers_config_key()):
            set_config_value(config, key, layers)
    if survey.vocabulary is not None:
        key = plan.architecture.vocab_size_config_key or "vocab_size"
        set_config_value(config, key, survey.vocabulary.rows)
    config.save_pretrained(folder)


def copy_tagalong_files(survey: Survey, folder: Path) -> None:
    """Copy what the architecture needs besides, such as an image processor's settings."""
    donor: ModelReference = survey.recipe.config.base_model
    files = survey.plan.architecture.tagalong_files if survey.plan else None
    source = Path(donor.local_path(cache_dir=survey.options.transformers_cache, ignore_lora=True))
    for name in files or []:
        if (source / name).is_file():
            shutil.copy(source / name, folder / name)

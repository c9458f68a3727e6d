"""Models as mergekit can plan for them, where it could not for the real ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from mergekit.architecture import arch_info_for_config
from mergekit.common import ModelReference
from mergekit.config import MergeConfiguration

from chatvec_method.facts.checkpoint import Checkpoint
from chatvec_method.facts.layout import LANGUAGE_MODEL
from chatvec_method.quiet import quiet

INDEX_FILE = "model.safetensors.index.json"


def is_mixed(
    config: MergeConfiguration,
    checkpoints: Mapping[ModelReference, Checkpoint],
) -> bool:
    """Tell whether the models differ in architecture, and one has the others' within it."""
    names = {
        tuple(checkpoints[m].model.config.architectures or ()) for m in config.referenced_models()
    }
    if len(names) < 2:
        return False
    return any(
        layout is not None and any(map(LANGUAGE_MODEL.search, layout.parameter_names))
        for layout in (checkpoints[model].layout for model in config.referenced_models())
    )


@contextmanager
def as_mergekit_sees_them(
    config: MergeConfiguration,
    checkpoints: Mapping[ModelReference, Checkpoint],
    mixed: bool,
) -> Iterator[dict[ModelReference, ModelReference]]:
    """Yield stand-ins for models by which mergekit could not plan, put into the recipe.

    To plan, it looks into the files of models whose architecture it does not know, which may be on
    the hub, be quantised or be no more than an adapter yet; and it plans for models of one
    architecture only. A stand-in is a folder with a config and the names of tensors.
    """
    references = config.referenced_models()
    plain = not mixed and all(
        _layers_are_told(checkpoints[m])
        and checkpoints[m].model.folder is not None
        and m.lora is None
        and checkpoints[m].quantisation is None
        for m in references
    )
    if plain or (not mixed and _all_defined(references, checkpoints)):
        yield {}
        return
    like = _cp(config) if mixed else None
    with TemporaryDirectory() as scratch:
        stand_ins = {}
        for i, model in enumerate(references):
            folder = Path(scratch) / str(i)
            shown = checkpoints[like if like in checkpoints else model]
            _write_stand_in(folder, shown)
            stand_ins[model] = ModelReference.model_validate(str(folder))
        rename_models(config, stand_ins)
        yield stand_ins


def _all_defined(
    references: Sequence[ModelReference],
    checkpoints: Mapping[ModelReference, Checkpoint],
) -> bool:
    """Tell whether mergekit knows the architecture of all models without looking at their files."""
    with quiet():
        return all(
            checkpoints[m].quantisation is None
            and _layers_are_told(checkpoints[m])
            and len(checkpoints[m].model.config.architectures or ()) == 1
            and arch_info_for_config(checkpoints[m].model.config) is not None
            for m in references
        )


def _layers_are_told(checkpoint: Checkpoint) -> bool:
    """Tell whether a config has the number of layers where mergekit's definition looks for it."""
    config = checkpoint.model.config
    if len(config.architectures or ()) != 1:
        return True
    with quiet():
        architecture = arch_info_for_config(config)
    try:
        for module in architecture.modules.values() if architecture else ():
            if module.architecture.num_layers_config_key():
                module.architecture.num_layers(config)
    except RuntimeError:
        return False
    return True


def _cp(config: MergeConfiguration) -> ModelReference | None:
    parts = [config, *(config.modules or {}).values()]
    entries = [entry for part in parts for entry in part.models or ()]
    slices = [each for part in parts for each in part.slices or ()]
    entries += [source for each in slices for source in each.sources]
    held = ((entry.model, (entry.parameters or {}).get("role")) for entry in entries)
    return next((model for model, role in held if role == "cp"), None)


def _write_stand_in(folder: Path, checkpoint: Checkpoint) -> None:
    model = checkpoint.model
    folder.mkdir()
    settings = model.config.to_dict()
    settings.pop("quantization_config", None)
    if not _layers_are_told(checkpoint):
        # By no definition, then: mergekit infers the parts from the names of the tensors.
        settings["architectures"] = [f"{name}AsStored" for name in model.config.architectures or ()]
    text = json.dumps(settings, default=lambda value: str(value).removeprefix("torch."))
    (folder / "config.json").write_text(text, encoding="utf-8")
    if model.folder is not None and settings.get("auto_map"):
        for file in model.folder.glob("*.py"):
            shutil.copy(file, folder)
    index = {"weight_map": dict.fromkeys(checkpoint.weights, "model.safetensors")}
    (folder / INDEX_FILE).write_text(json.dumps(index), encoding="utf-8")


def rename_models(
    config: MergeConfiguration, names: Mapping[ModelReference, ModelReference]
) -> None:
    """Put other models into a recipe, in place: its `parameters:` stay the same objects."""
    parts = [config, *(config.modules or {}).values()]
    slices = [each for part in parts for each in part.slices or ()]
    entries = [entry for part in parts for entry in part.models or ()]
    entries += [source for each in slices for source in each.sources]
    for entry in entries:
        entry.model = names.get(entry.model, entry.model)
    for part in (config, *slices):
        if part.base_model is not None:
            part.base_model = names.get(part.base_model, part.base_model)
    if isinstance(config.tokenizer_source, ModelReference):
        config.tokenizer_source = names.get(config.tokenizer_source, config.tokenizer_source)
    if config.tokenizer is not None and isinstance(config.tokenizer.source, ModelReference):
        source = names.get(config.tokenizer.source, config.tokenizer.source)
        config.tokenizer = config.tokenizer.model_copy(update={"source": source})

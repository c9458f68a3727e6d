"""An adapter behind a model's name (`model+adapter`), looked at before peft opens it.

peft believes an adapter's config: it makes room for whatever rank is written there, tries regular
expressions of it on the model's names, and for other kinds of adapters than those that are added to
weights it opens further models. What is refused here is refused before peft is asked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi
from mergekit.common import ModelPath, ModelReference
from safetensors import safe_open

from chatvec_method.errors import ChatVecError, first_line
from chatvec_method.facts.on_hub import problems_as_errors
from chatvec_method.facts.patterns import problem_of
from chatvec_method.intake import check_pickle, read_json
from chatvec_method.snapshots import ADAPTER_WEIGHTS, Snapshot, adapter_snapshot_of
from chatvec_method.stated import ADAPTER_CONFIG, check_adapter

KINDS = ("LORA", "ADALORA", "LOHA", "LOKR", "IA3", "OFT", "VERA")
"""Those of peft's that are added to weights, and open nothing but their own files."""
LARGE_RANK = 1024
"""A rank that costs little beside the model."""
OF_PATTERNS = ("target_modules", "exclude_modules")
"""In the config, an expression or a list of names."""
SAFETENSORS, PICKLE = ADAPTER_WEIGHTS

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Adapter:
    """What is known of an adapter before it is added to its model."""

    path: ModelPath
    folder: Path | None = None
    """Where its config is, and its weights where they are here; None if there is a problem."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """`adapter_config.json` as it stands; empty if there is a problem."""
    shapes: Shapes = field(default_factory=dict)
    """Of its tensors, by the names that they have in its file; empty where only a download tells
    (a pickle on the hub)."""
    problem: ChatVecError | None = None
    """Why it cannot be added to the model."""


def look_up_adapter(
    reference: ModelReference, names: Collection[str], tensors: Iterable[str]
) -> Adapter | None:
    """Return what is known of a model's adapter, of which no weights are downloaded.

    Args:
        reference: The model; None comes back where it has no adapter.
        names: Of the model's files.
        tensors: The model's.
    """
    path = reference.lora
    if path is None:
        return None
    try:
        check_model_below(reference.model, names)
        folder = folder_of_adapter(path)
        if folder is not None:
            return adapter_in(folder, path, tensors)
        with problems_as_errors(ModelReference(model=path)):
            return _adapter_on_hub(path, tensors)
    except ChatVecError as error:
        return Adapter(path, problem=error)


def check_model_below(path: ModelPath, names: Collection[str]) -> None:
    """Check that a model to which an adapter is added brings none by itself.

    Args:
        path: The model's.
        names: Of its files.

    Raises:
        ChatVecError: transformers would load the model that its own adapter names.
    """
    if ADAPTER_CONFIG in names:
        raise ChatVecError(
            f"model {path} is an adapter itself: it has an {ADAPTER_CONFIG}.",
            "Write the model that it was trained on before the `+`.",
            code="no-such-adapter",
        )


def folder_of_adapter(path: ModelPath) -> Path | None:
    """Return where an adapter lies; None if it may be on the hub."""
    folder = Path(path.path)
    try:
        return folder if folder.is_absolute() or folder.exists() else None
    except OSError:  # no name that a file could have
        return None


def adapter_in(folder: Path, path: ModelPath, tensors: Iterable[str]) -> Adapter:
    """Return what the files of an adapter say.

    Args:
        folder: Where they are.
        path: What messages call it.
        tensors: The model's.

    Raises:
        ChatVecError: It is no adapter, or not one that can be added to a model's weights.
    """
    config = _config_in(folder, path)
    try:
        shapes = _shapes_in(folder)
    except ChatVecError:
        raise
    except Exception as error:  # a damaged header fails in many ways, and a pickle in any
        name = SAFETENSORS if (folder / SAFETENSORS).is_file() else PICKLE
        raise _damaged(folder / name, first_line(error)) from error
    if shapes is None:
        raise _without_weights(path)
    _check(path, config, shapes, tensors)
    return Adapter(path, folder, config, shapes)


def _adapter_on_hub(path: ModelPath, tensors: Iterable[str]) -> Adapter:
    here = adapter_snapshot_of(path.path, path.revision)
    if here.info is None:
        return adapter_in(here.folder, path, tensors)
    config = _config_in(here.folder, path)
    shapes = _shapes_on_hub(here, path)
    _check(path, config, shapes, tensors)
    return Adapter(path, here.folder, config, shapes)


def _config_in(folder: Path, path: ModelPath) -> Mapping[str, Any]:
    check_adapter(folder)
    if not (folder / ADAPTER_CONFIG).is_file():
        raise ChatVecError(
            f"{path} has no {ADAPTER_CONFIG}, so it is not an adapter.",
            "Write the folder or the hub's name of a LoRA behind the `+`.",
            code="no-such-adapter",
        )
    config: Mapping[str, Any] = read_json(folder / ADAPTER_CONFIG)
    return config


def _shapes_in(folder: Path) -> Shapes | None:
    """Return the shapes of an adapter's tensors; None if it has no weights."""
    if (file := folder / SAFETENSORS).is_file():
        with safe_open(file, framework="pt") as opened:
            names = list(opened.keys())
            return {name: tuple(opened.get_slice(name).get_shape()) for name in names}
    if (file := folder / PICKLE).is_file():
        check_pickle(file)
        # On "meta", storages are not read.
        state = torch.load(file, map_location="meta", weights_only=True)
        return {str(name): tuple(tensor.shape) for name, tensor in state.items()}
    return None


def _shapes_on_hub(here: Snapshot, path: ModelPath) -> Shapes:
    assert here.info is not None
    names = {sibling.rfilename for sibling in here.info.siblings or ()}
    if SAFETENSORS not in names:
        if PICKLE not in names:
            raise _without_weights(path)
        return {}
    revision = here.info.sha
    try:
        header = HfApi().parse_safetensors_file_metadata(path.path, SAFETENSORS, revision=revision)
    except ValueError as error:  # SafetensorsParsingError is none, but what is in a header may be
        raise _damaged(f"{SAFETENSORS} of {path}", first_line(error)) from error
    return {name: tuple(tensor.shape) for name, tensor in header.tensors.items()}


def _check(
    path: ModelPath, config: Mapping[str, Any], shapes: Shapes, tensors: Iterable[str]
) -> None:
    kind = config["peft_type"]
    if kind not in KINDS:
        raise ChatVecError(
            f"{path} is an adapter of the kind {kind!r:.60}, which is not added to weights.",
            f"Write one of the kinds {', '.join(KINDS)}.",
            code="no-such-adapter",
        )
    rank = max((config.get("r") or 0, *(config.get("rank_pattern") or {}).values()))
    stored = max((min(shape) for shape in shapes.values() if len(shape) > 1), default=LARGE_RANK)
    if rank > max(stored, LARGE_RANK):
        raise ChatVecError(
            f"{ADAPTER_CONFIG} of {path} has the rank {rank}, and its weights have {stored} at "
            "most.",
            "Download or save the adapter again.",
            code="unsafe-file",
        )
    if problem := problem_of(_patterns(config), tensors):
        raise ChatVecError(
            f"{ADAPTER_CONFIG} of {path}: an expression in it {problem}.",
            "Write the names of the modules in its place.",
            code="unsafe-file",
        )


def _patterns(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield all that peft takes for regular expressions."""
    for key in OF_PATTERNS:
        if isinstance(config.get(key), str):
            yield config[key]
    layers = config.get("layers_pattern") or ()
    yield from [layers] if isinstance(layers, str) else layers
    for key in ("rank_pattern", "alpha_pattern", "modules_to_save"):
        yield from config.get(key) or ()


def _damaged(file: object, why: str) -> ChatVecError:
    return ChatVecError(
        f"{file} cannot be read ({why}).",
        "Download or save the adapter again.",
        code="damaged-files",
    )


def _without_weights(path: ModelPath) -> ChatVecError:
    return ChatVecError(
        f"{path} has neither {SAFETENSORS} nor {PICKLE}.",
        "Download or save the adapter again.",
        code="damaged-files",
    )

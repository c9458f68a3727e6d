"""What is known of a model before any weight is read.

Config, generation config, tokenizer, the headers of its safetensors files and the licence in its
card, from a local folder or from the hub, of which no weights are downloaded.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import (
    HfApi,
    ModelCardData,
    ModelInfo,
    get_local_safetensors_metadata,
)
from huggingface_hub.errors import NotASafetensorsRepoError, SafetensorsParsingError
from huggingface_hub.utils import SafetensorsRepoMetadata
from mergekit.common import ModelPath, ModelReference
from mergekit.io import ShardedTensorIndex
from safetensors import SafetensorError, safe_open
from transformers import PretrainedConfig
from transformers.utils import GENERATION_CONFIG_NAME

from chatvec_method.errors import ChatVecError, first_line
from chatvec_method.facts.adapters import Adapter, look_up_adapter
from chatvec_method.facts.cards import as_used, card_in
from chatvec_method.facts.on_hub import UNREACHABLE, ask_hub, problems_as_errors, unreachable
from chatvec_method.facts.small_files import SmallFiles
from chatvec_method.facts.tokenizers import TokenizerFacts, look_up_tokenizer
from chatvec_method.intake import check_pickle
from chatvec_method.quiet import quiet
from chatvec_method.stated import check_forms, check_indexes, check_model

SAFETENSORS_DTYPES = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "C64": torch.complex64,
}
HEADER_LENGTH_BYTES = 8
LORA_DTYPE = "float32"
"""In which adapters are added to their model: its own dtype would round the sum."""


@dataclass(frozen=True)
class TensorHeader:
    """A tensor as its file's header describes it."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    file: str
    start: int | None = field(default=None, compare=False)
    """Where in the file its data begin, in bytes; None on the hub, or if they are packed."""

    @property
    def bytes(self) -> int:
        """The size of its data."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, repr=False)
class Model:
    """One of the models that a recipe names."""

    reference: ModelReference
    folder: Path | None
    """Where it lies; None if it has to be downloaded."""
    config: PretrainedConfig
    generation_config: Mapping[str, Any] | None
    """`generation_config.json` as it stands; None without one."""
    tokenizer: TokenizerFacts | None
    tokenizer_problem: str
    """Why there is no tokenizer; empty if there is one."""
    tensors: Mapping[str, TensorHeader] | None
    """By name; None where only a download would tell (a pickle on the hub, a LoRA)."""
    pickled: bool
    """Its weights are in pickle files."""
    file_problem: str
    """What is wrong with its weight files; empty if nothing is."""
    card: ModelCardData
    """The metadata of its card: licence, languages."""
    small_files: SmallFiles
    """Those besides its weights; of a model with an adapter, the model's."""
    adapter: Adapter | None = None
    """What is behind a `+` after its name."""
    commit: str | None = None
    """Of the hub's repository; None for a folder."""
    gated: bool = False
    """On the hub, it asks who reads it."""

    def __str__(self) -> str:
        return str(self.reference)

    def __repr__(self) -> str:
        return f"<Model {self}>"

    def check_files(self) -> None:
        """Check that nothing is wrong with its weight files.

        Raises:
            ChatVecError: Something is.
        """
        if self.file_problem:
            raise ChatVecError(f"model {self}: {self.file_problem}.", "Download it again.")

    @property
    def weights_dtype(self) -> torch.dtype | None:
        """The floating-point dtype that most of its weights are stored in; None where unknown."""
        sizes: Counter[torch.dtype] = Counter()
        for header in (self.tensors or {}).values():
            if header.dtype.is_floating_point:
                sizes[header.dtype] += header.bytes
        return max(sizes, key=sizes.__getitem__, default=None)

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The tokens at which it stops: of its generation config, else of its config."""
        ids = self.token_ids("eos_token_id")
        return tuple(dict.fromkeys(next((each for each in ids if each), ())))

    def token_ids(self, key: str) -> tuple[tuple[int, ...], ...]:
        """Return the numbers of tokens that its configs have under a key, nearest first.

        Args:
            key: `eos_token_id`, `bos_token_id` or `pad_token_id`, which may hold one or several.

        Returns:
            Those of its generation config, then of its config, then of its language model's.
        """
        configs = [self.config.to_dict(), text_config(self.config).to_dict()]
        held = [(self.generation_config or {}).get(key), *(config.get(key) for config in configs)]
        lists = [value if isinstance(value, list) else [value] for value in held]
        return tuple(tuple(i for i in each if type(i) is int) for each in lists)


def without_commits(names: object) -> str:
    """Return a model's name, or a text that names models, without the commits behind them."""
    return re.sub("@[0-9a-f]{40}", "", str(names))


def text_config(config: PretrainedConfig) -> PretrainedConfig:
    """Return the config of the language model, which may be a part of a larger one."""
    try:
        return config.get_text_config()
    except ValueError:  # several of them
        return config


def _check_text_config(config: PretrainedConfig, reference: ModelReference) -> None:
    """Check that what a config says of its language model is a config.

    Raises:
        ChatVecError: The class of the config knows no such part, and transformers would stop.
    """
    if not isinstance(text_config(config), PretrainedConfig):
        raise ChatVecError(
            f"model {reference}: its config has a `text_config`, `decoder`, `generator` or "
            f"`text_encoder`, and models of the type {config.model_type!r:.60} have no such part.",
            "Download or save the model again.",
            code="config-unreadable",
        )


def config_value(config: PretrainedConfig, name: str) -> Any:
    """Return what a config has under a name; None without it.

    Some attributes are another in each layer (Gemma 4's head_dim), for which transformers raises:
    then it is what the file says.
    """
    try:
        return getattr(config, name, None)
    except Exception:
        return config.to_dict().get(name)


def look_up_all(
    references: Iterable[ModelReference],
    trust_remote_code: bool = False,
    on_model: Callable[[ModelReference], None] = lambda _: None,
) -> tuple[dict[ModelReference, Model], list[ChatVecError]]:
    """Return what is known of each model, and for the others why nothing is.

    A hub that cannot be reached is asked once, and not again for every model.
    """
    models: dict[ModelReference, Model] = {}
    problems: list[ChatVecError] = []
    for reference in references:
        on_model(reference)
        silent = any(problem.code == UNREACHABLE for problem in problems)
        try:
            if silent and _folder(reference) is None:
                raise unreachable(reference)
            models[reference] = look_up(reference, trust_remote_code)
        except ChatVecError as error:
            problems.append(error)
    return models, problems


def look_up(reference: ModelReference, trust_remote_code: bool = False) -> Model:
    """Return what is known of a model.

    Args:
        reference: The model, as a recipe names it: a folder, or a repository of the hub.
        trust_remote_code: Whether its config and tokenizer may run code of their own.

    Raises:
        ChatVecError: It does not exist, is gated, cannot be reached, or has no readable config.
    """
    path = reference.model
    folder = _folder(reference)
    with problems_as_errors(reference), quiet():
        info = ask_hub(path) if folder is None else None
        small_files = _checked_files(path, folder, info)
        config = reference.config(trust_remote_code=trust_remote_code)
        _check_text_config(config, reference)
        generation_config = small_files.json(GENERATION_CONFIG_NAME)
        tokenizer, tokenizer_problem = look_up_tokenizer(small_files, trust_remote_code)
        tensors, pickled, file_problem = _tensors(reference, folder)
    return Model(
        reference=reference,
        adapter=look_up_adapter(reference, small_files.names, tensors or ()),
        folder=folder,
        config=config,
        generation_config=generation_config,
        tokenizer=tokenizer,
        tokenizer_problem=tokenizer_problem,
        tensors=tensors,
        pickled=pickled,
        file_problem=file_problem,
        small_files=small_files,
        card=card_in(folder) if folder else as_used(info.card_data if info else None),
        commit=info.sha if info else None,
        gated=bool(info and info.gated),
    )


def with_local_files(model: Model, folder: Path) -> Model:
    """Return a model whose files have come into a folder, with what they tell.

    Raises:
        ChatVecError: The folder holds what no model's does.
    """
    check_model(folder)
    tensors, pickled, file_problem = _tensors(model.reference, folder)
    return replace(
        model, folder=folder, tensors=tensors, pickled=pickled, file_problem=file_problem
    )


def tensors_in(folder: Path) -> tuple[dict[str, TensorHeader], str]:
    """Return the headers of the tensors in a folder, and what is wrong with its files if anything.

    Nothing else in the folder is looked at.
    """
    tensors, _, problem = _tensors(ModelReference(model=ModelPath(path=str(folder))), folder)
    return tensors or {}, problem


def _folder(reference: ModelReference) -> Path | None:
    """Return where a model lies; None if it is not a folder here, and may be on the hub."""
    path = Path(reference.model.path)
    try:
        exists, is_folder = path.exists(), path.is_dir()
    except OSError:  # no name that a file could have
        return None
    if exists and not is_folder:
        raise ChatVecError(
            f"model {reference} is a file, and a merge of whole models knows folders: only those "
            "have a config and a tokenizer, and layers over which a list of ratios can run.",
            "Write the folder's name (files alone are merged by `mergekit-pytorch`, with filters "
            "in place of lists).",
            code="model-is-a-file",
        )
    return path if exists else None


def small_files_of(reference: ModelReference) -> SmallFiles:
    """Return the files besides the weights of a model that need not be in a recipe.

    Raises:
        ChatVecError: It does not exist, is gated, or cannot be reached.
    """
    folder = _folder(reference)
    with problems_as_errors(reference):
        info = ask_hub(reference.model) if folder is None else None
        return _checked_files(reference.model, folder, info)


def _checked_files(path: ModelPath, folder: Path | None, info: ModelInfo | None) -> SmallFiles:
    """Return a model's small files, looked at before anything is made of them."""
    if folder is not None:
        check_model(folder)
        return SmallFiles.in_folder(path, folder)
    assert info is not None
    files = SmallFiles.on_hub(path, info)
    check_forms(files.bytes, path)
    return files


def _tensors(
    reference: ModelReference, folder: Path | None
) -> tuple[dict[str, TensorHeader] | None, bool, str]:
    """Return the headers, whether the files are pickles, and what is wrong with them."""
    path = reference.model
    try:
        if folder is None:
            found = HfApi().get_safetensors_metadata(path.path, revision=path.revision)
        else:
            check_indexes(folder)
            found = get_local_safetensors_metadata(folder)
        starts = _data_starts(folder, found) if folder else {}
        problem = _missing_tensors(found) or (_cut_short(folder, found, starts) if folder else "")
        if folder and not problem and (damage := _damage(folder, found)):
            return None, False, damage
        problem = problem or _unknown_dtype(found)
        headers = {
            name: TensorHeader(
                dtype=SAFETENSORS_DTYPES.get(tensor.dtype, torch.uint8),
                shape=tuple(tensor.shape),
                file=file,
                start=starts[file] + tensor.data_offsets[0] if starts else None,
            )
            for file, metadata in found.files_metadata.items()
            for name, tensor in metadata.tensors.items()
        }
    except NotASafetensorsRepoError:
        return _pickled_tensors(folder)
    except ChatVecError as error:
        return None, False, error.problem.removesuffix(".")
    except Exception as error:  # a damaged header or index fails in many ways
        if folder is None and not isinstance(error, (ValueError, SafetensorsParsingError)):
            raise
        if isinstance(error, FileNotFoundError) and error.filename:
            return None, False, f"{Path(error.filename).name} is missing, which the index names"
        return None, False, first_line(error)
    return headers, False, problem


def _missing_tensors(found: SafetensorsRepoMetadata) -> str:
    for name, file in found.weight_map.items():
        if name not in found.files_metadata[file].tensors:
            return f"the index says that {name} is in {file}, but it is not"
    return ""


def _unknown_dtype(found: SafetensorsRepoMetadata) -> str:
    for file, metadata in found.files_metadata.items():
        for name, tensor in metadata.tensors.items():
            if tensor.dtype not in SAFETENSORS_DTYPES:
                return f"{name} in {file} has the dtype {tensor.dtype}, which torch cannot handle"
    return ""


def _data_starts(folder: Path, found: SafetensorsRepoMetadata) -> dict[str, int]:
    """Return where each file's header ends."""
    starts = {}
    for name in found.files_metadata:
        with (folder / name).open("rb") as stream:
            length = int.from_bytes(stream.read(HEADER_LENGTH_BYTES), "little")
        starts[name] = HEADER_LENGTH_BYTES + length
    return starts


def _cut_short(folder: Path, found: SafetensorsRepoMetadata, starts: Mapping[str, int]) -> str:
    for name, metadata in found.files_metadata.items():
        data = max((tensor.data_offsets[1] for tensor in metadata.tensors.values()), default=0)
        expected, size = starts[name] + data, (folder / name).stat().st_size
        if size < expected:
            return f"{name} has {size} bytes of the {expected} that its header announces"
    return ""


def _damage(folder: Path, found: SafetensorsRepoMetadata) -> str:
    """Return what safetensors, which will open the files, says against one of them."""
    for name in found.files_metadata:
        try:
            with safe_open(folder / name, framework="pt"):
                pass
        except (OSError, SafetensorError) as error:
            return f"{name} is damaged ({first_line(error)})"
    return ""


def _pickled_tensors(folder: Path | None) -> tuple[dict[str, TensorHeader] | None, bool, str]:
    if folder is None:
        return None, True, ""
    try:
        for file in folder.glob("*.bin"):
            check_pickle(file)
        index = ShardedTensorIndex.from_disk(str(folder))
    except ChatVecError as error:
        return None, True, error.problem.removesuffix(".")
    except Exception as error:
        if any(folder.glob("pytorch_model.bin*")):
            return None, True, f"pytorch_model.bin cannot be read ({first_line(error)})"
        return None, False, "it has neither safetensors nor pytorch_model.bin files"
    headers = {}
    for shard in index.shards:
        try:
            # Mapped, storages are not even touched.
            state = torch.load(
                folder / shard.filename, map_location="cpu", weights_only=True, mmap=True
            )
            for name, tensor in state.items():
                _check_unpickled(name, tensor)
                headers[name] = TensorHeader(tensor.dtype, tuple(tensor.shape), shard.filename)
        except Exception as error:  # it may hold anything
            return None, True, f"{shard.filename} cannot be read ({first_line(error)})"
    return headers, True, ""


def _check_unpickled(name: Any, tensor: Any) -> None:
    """Check that an entry of a pickle is a tensor that can be read by its name.

    Raises:
        ValueError: It is something else.
    """
    if not isinstance(name, str):
        raise ValueError(f"{name!r:.60} in it is no tensor's name")
    if not isinstance(tensor, torch.Tensor):
        raise ValueError(f"{name} in it is no tensor")
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
        raise ValueError(f"{name} in it is sparse, quantised or without its numbers")


def embedding_rows(model: Model) -> int | None:
    """Return how many rows a model's embeddings have."""
    for name, header in (model.tensors or {}).items():
        if name.endswith(("embed_tokens.weight", "wte.weight", "word_embeddings.weight")):
            return header.shape[0]
    return getattr(model.config, "vocab_size", None)


DTYPE_NAMES = {dtype: name for name, dtype in SAFETENSORS_DTYPES.items()}

"""What is known of a model before any weight is read.

Config, generation config, tokenizer, the headers of its safetensors files and the licence in its
card, from a local folder or from the hub, of which no weights are downloaded. A tokenizer of 128k
tokens takes some 200 MB while it is loaded, so only what is asked of it is kept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import (
    HfApi,
    ModelCard,
    ModelCardData,
    get_local_safetensors_metadata,
    get_safetensors_metadata,
    hf_hub_download,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    NotASafetensorsRepoError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    SafetensorsParsingError,
)
from huggingface_hub.utils import SafetensorsRepoMetadata, validate_repo_id
from mergekit.common import ModelPath, ModelReference
from mergekit.io import ShardedTensorIndex
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from chatvec_method.errors import ChatVecError

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
}
HEADER_LENGTH_BYTES = 8


@dataclass(frozen=True)
class TensorHeader:
    """A tensor as its file's header describes it."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    file: str

    @property
    def bytes(self) -> int:
        """The size of its data."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class TokenizerFacts:
    """What a merge needs to know of a tokenizer."""

    ids: Mapping[str, int]
    """Every token's id, added tokens included."""
    added: frozenset[str]
    """Tokens that are found in a text before anything else is, and never cut into pieces."""
    special: Mapping[str, str]
    """The tokens with a part to play: bos_token, eos_token, pad_token, ..."""
    chat_template: str | None

    @property
    def tokens(self) -> dict[int, str]:
        """Every id's token."""
        return {i: token for token, i in self.ids.items()}


@dataclass(frozen=True)
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

    def __str__(self) -> str:
        return str(self.reference)

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The tokens at which it stops: of its generation config, else of its config."""
        generation = self.generation_config or {}
        ids = generation.get("eos_token_id", getattr(self.config, "eos_token_id", None))
        return tuple(ids) if isinstance(ids, list) else () if ids is None else (ids,)


def look_up(reference: ModelReference, trust_remote_code: bool = False) -> Model:
    """Return what is known of a model.

    Args:
        reference: The model, as a recipe names it: a folder, or a repository of the hub.
        trust_remote_code: Whether its config and tokenizer may run code of their own.

    Raises:
        ChatVecError: It does not exist, is gated, cannot be reached, or has no readable config.
    """
    path = reference.model
    folder = Path(path.path) if Path(path.path).exists() else None
    if folder is not None and not folder.is_dir():
        raise ChatVecError(
            f"model {reference} is a file, and a merge of whole models knows folders: only those "
            "have a config and a tokenizer, and layers over which a list of ratios can run.",
            "Write the folder's name (files alone are merged by `mergekit-pytorch`, with filters "
            "in place of lists).",
        )
    with _problems_as_errors(reference):
        if folder is None:
            validate_repo_id(path.path)
            HfApi().auth_check(path.path)
        config = reference.config(trust_remote_code=trust_remote_code)
        generation_config = _json_file(path, folder, "generation_config.json")
    tokenizer, tokenizer_problem = _tokenizer(path, trust_remote_code)
    tensors, pickled, file_problem = _tensors(reference, folder)
    return Model(
        reference=reference,
        folder=folder,
        config=config,
        generation_config=generation_config,
        tokenizer=tokenizer,
        tokenizer_problem=tokenizer_problem,
        tensors=tensors,
        pickled=pickled,
        file_problem=file_problem,
        card=_card(path, folder),
    )


def tokenizer_facts(tokenizer: PreTrainedTokenizerBase) -> TokenizerFacts:
    """Return what a merge needs to know of a loaded tokenizer."""
    template = tokenizer.chat_template
    if isinstance(template, dict):  # several, by name
        template = template.get("default")
    return TokenizerFacts(
        ids=tokenizer.get_vocab(),
        added=frozenset(tokenizer.get_added_vocab()),
        special={k: v for k, v in tokenizer.special_tokens_map.items() if isinstance(v, str)},
        chat_template=template,
    )


@contextmanager
def _problems_as_errors(reference: ModelReference) -> Iterator[None]:
    """Turn what the hub and transformers raise about a model into one message."""
    name = reference.model.path
    try:
        yield
    except ChatVecError:
        raise
    except Exception as error:
        causes = list(_causes(error))
        if _any(causes, GatedRepoError):
            raise ChatVecError(
                f"model {reference} is gated, and you are not logged in with an account that may "
                "read it.",
                f"Ask for access on https://huggingface.co/{name} and log in with `hf auth login`.",
            ) from error
        if _any(causes, RevisionNotFoundError):
            raise ChatVecError(
                f"model {reference}: the hub has no such revision.",
                f"Write `{name}` for the newest, or another name after the @.",
            ) from error
        if _any(causes, RepositoryNotFoundError, HFValidationError):
            raise ChatVecError(
                f"model {reference} is neither a folder here nor a model on the hub (or a private "
                "one of somebody else).",
                "Write its full name, as in `upstage/SOLAR-10.7B-v1.0`, or the path of its folder.",
            ) from error
        if _any(causes, OfflineModeIsEnabled, LocalEntryNotFoundError, ConnectionError) or any(
            type(cause).__module__.startswith(("httpx", "httpcore")) for cause in causes
        ):
            raise ChatVecError(
                f"model {reference} is no folder here, and the hub cannot be reached.",
                "Check the network (and HF_HUB_OFFLINE, HF_ENDPOINT), or put the model into a "
                f"folder `{name}` below the current one: it is then taken from there.",
            ) from error
        reason = str(error).strip().splitlines() or [type(error).__name__]
        if "trust_remote_code" in str(error):
            raise ChatVecError(
                f"model {reference} brings code of its own for its config.",
                "Read that code, and pass `--trust-remote-code` if you trust it.",
            ) from error
        raise ChatVecError(
            f"model {reference}: its config cannot be read ({reason[0]})",
            "Download or save the model again; it needs a `config.json` that transformers knows.",
        ) from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _any(causes: list[BaseException], *types: type[BaseException]) -> bool:
    return any(isinstance(cause, types) for cause in causes)


def _json_file(path: ModelPath, folder: Path | None, name: str) -> dict[str, Any] | None:
    if folder is None:
        try:
            file = Path(hf_hub_download(path.path, name, revision=path.revision))
        except EntryNotFoundError:
            return None
    else:
        file = folder / name
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def _tokenizer(path: ModelPath, trust_remote_code: bool) -> tuple[TokenizerFacts | None, str]:
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            path.path, revision=path.revision, trust_remote_code=trust_remote_code
        )
        return tokenizer_facts(tokenizer), ""
    except Exception as error:  # each kind of tokenizer fails in its own way
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return None, lines[0]


def _tensors(
    reference: ModelReference, folder: Path | None
) -> tuple[dict[str, TensorHeader] | None, bool, str]:
    """Return the headers, whether the files are pickles, and what is wrong with them."""
    if reference.lora is not None:
        return None, False, ""
    path = reference.model
    try:
        if folder is None:
            found = get_safetensors_metadata(path.path, revision=path.revision)
        else:
            found = get_local_safetensors_metadata(folder)
    except NotASafetensorsRepoError:
        return _pickled_tensors(folder)
    except FileNotFoundError as error:
        return None, False, f"{Path(error.filename).name} is missing, which the index names"
    except SafetensorsParsingError as error:
        return None, False, str(error).splitlines()[0]
    problem = _missing_tensors(found) or (_cut_short(folder, found) if folder else "")
    headers = {
        name: TensorHeader(
            SAFETENSORS_DTYPES.get(tensor.dtype, torch.uint8), tuple(tensor.shape), file
        )
        for file, metadata in found.files_metadata.items()
        for name, tensor in metadata.tensors.items()
    }
    return headers, False, problem


def _missing_tensors(found: SafetensorsRepoMetadata) -> str:
    for name, file in found.weight_map.items():
        if name not in found.files_metadata[file].tensors:
            return f"the index says that {name} is in {file}, but it is not"
    return ""


def _cut_short(folder: Path, found: SafetensorsRepoMetadata) -> str:
    for name, metadata in found.files_metadata.items():
        file = folder / name
        with file.open("rb") as stream:
            header = int.from_bytes(stream.read(HEADER_LENGTH_BYTES), "little")
        data = max((tensor.data_offsets[1] for tensor in metadata.tensors.values()), default=0)
        expected, size = HEADER_LENGTH_BYTES + header + data, file.stat().st_size
        if size < expected:
            return f"{name} has {size} bytes of the {expected} that its header announces"
    return ""


def _pickled_tensors(folder: Path | None) -> tuple[dict[str, TensorHeader] | None, bool, str]:
    if folder is None:
        return None, True, ""
    try:
        index = ShardedTensorIndex.from_disk(str(folder))
    except Exception:  # mergekit says no more than that it found nothing it can read
        return None, False, "it has neither safetensors nor pytorch_model.bin files"
    headers = {}
    for shard in index.shards:
        try:
            # On "meta", storages are not read; mapped, they are not even touched.
            state = torch.load(
                folder / shard.filename, map_location="meta", weights_only=True, mmap=True
            )
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            return None, True, f"{shard.filename} cannot be read ({reason})"
        for name, tensor in state.items():
            headers[name] = TensorHeader(tensor.dtype, tuple(tensor.shape), shard.filename)
    return headers, True, ""


def _card(path: ModelPath, folder: Path | None) -> ModelCardData:
    try:
        if folder is None:
            return HfApi().model_info(path.path, revision=path.revision).card_data or (
                ModelCardData()
            )
        file = folder / "README.md"
        if file.is_file():
            return ModelCard.load(file).data
    except Exception:  # a card is free text, and nothing but our own card depends on it
        pass
    return ModelCardData()

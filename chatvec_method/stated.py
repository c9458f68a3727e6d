"""What the small files of a model may say, held against their form before a library believes them.

Libraries count up to the numbers of a config, take names in it for classes and for files to write,
and stop with whatever error they meet first where a value is of another kind than they think. What
is checked here is what they, and we, do that with; the rest of the files is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    TypeAdapter,
    ValidationError,
)

from chatvec_method.errors import ChatVecError
from chatvec_method.intake import check_folder, is_file_name, json_of, read_bytes

MOST_LAYERS = 1000
MOST_COUNTED = 1_000_000
COUNTS_LAYERS = re.compile(r"(num|n)_.*layers?|n_layers?|.*depths?|(num|n)_.*(blocks|stages)")
COUNTS = re.compile(r"(num|n)_.+")
LARGEST_NUMBER = 1 << 63
MOST_VALUES = 300_000
"""In a config, which transformers copies again and again; a chat vector's lists its tokens."""
MOST_NAMED = 100_000
"""Of those, the ones with a key; names of 20,000 labels, and their numbers, fit."""
MOST_SPECIAL_TOKENS = 20_000
"""In one list, which transformers searches for each of them."""
MOST_KEYS = 2000
"""Of a config, each of which becomes an attribute."""
MOST_RANK = 1 << 16
MOST_ALPHA = 1 << 20
LONGEST_PATTERN = 10_000
ADAPTER_CONFIG = "adapter_config.json"


def _as_file_name(name: str) -> str:
    if not is_file_name(name):
        raise ValueError("it is no plain name of a file")
    return name


def _as_number(text: str) -> str:
    if not (text.isascii() and text.isdigit()):
        raise ValueError("it is no number")
    return text


ClassName: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z_]\w{0,199}$")]
FileName: TypeAlias = Annotated[str, AfterValidator(_as_file_name)]
Digits: TypeAlias = Annotated[str, AfterValidator(_as_number)]
TokenIds: TypeAlias = StrictInt | list[StrictInt] | None
Rank: TypeAlias = Annotated[StrictInt, Field(ge=0, le=MOST_RANK)]
Alpha: TypeAlias = Annotated[float, Field(ge=-MOST_ALPHA, le=MOST_ALPHA)]
Pattern: TypeAlias = Annotated[str, Field(max_length=LONGEST_PATTERN)]
AutoMap: TypeAlias = dict[str, str | list[str | None] | None] | list[str | None] | None


class _Said(BaseModel):
    model_config = ConfigDict(extra="allow", protected_namespaces=())


class _NamedTemplate(_Said):
    name: FileName
    template: str


class _Token(_Said):
    content: str


Template: TypeAlias = str | list[_NamedTemplate] | dict[FileName, str] | None
Token: TypeAlias = str | _Token | None
SpecialTokens: TypeAlias = Annotated[list[Token], Field(max_length=MOST_SPECIAL_TOKENS)]


class _Config(_Said):
    architectures: list[ClassName] | None = None
    auto_map: AutoMap = None
    bos_token_id: TokenIds = None
    eos_token_id: TokenIds = None
    model_type: Annotated[str, Field(max_length=200)] | None = None
    pad_token_id: TokenIds = None
    quantization_config: dict[str, Any] | None = None
    tie_word_embeddings: bool | None = None
    torch_dtype: str | dict[str, Any] | None = None
    transformers_weights: Literal["model.safetensors", "model.safetensors.index.json"] | None = None
    """transformers loads this file, whatever else is there, and mergekit does not."""
    vocab_size: StrictInt | None = None


class _GenerationConfig(_Said):
    bos_token_id: StrictInt | list[Any] | None = None
    eos_token_id: StrictInt | list[Any] | None = None
    max_length: float | None = None
    max_new_tokens: float | None = None
    pad_token_id: StrictInt | list[Any] | None = None


class _TokenizerConfig(_Said):
    added_tokens_decoder: dict[Digits, _Token] | None = None
    additional_special_tokens: SpecialTokens | None = None
    auto_map: AutoMap = None
    bos_token: Token = None
    chat_template: Template = None
    eos_token: Token = None
    fast_tokenizer_files: list[FileName] | None = None
    model_max_length: float | None = None
    pad_token: Token = None
    tokenizer_class: str | None = None
    unk_token: Token = None


class _ChatTemplate(_Said):
    chat_template: Template = None


class _Index(_Said):
    weight_map: dict[str, FileName]


class _AdapterConfig(_Said):
    alpha_pattern: dict[Pattern, Alpha] | None = None
    base_model_name_or_path: str | None = None
    exclude_modules: Pattern | list[str] | None = None
    layer_replication: None = None
    """It would give the model other layers than its config has."""
    layers_pattern: Pattern | list[Pattern] | None = None
    lora_alpha: Alpha = 1
    megatron_config: None = None
    """peft imports a module of which the file says the name."""
    modules_to_save: list[Pattern] | None = None
    peft_type: str
    r: Rank = 1
    rank_pattern: dict[Pattern, Rank] | None = None
    target_modules: Pattern | list[str] | None = None


FORMS: dict[str, Any] = {
    "config.json": _Config,
    "generation_config.json": _GenerationConfig,
    "tokenizer_config.json": _TokenizerConfig,
    "special_tokens_map.json": dict[str, Token | SpecialTokens],
    "added_tokens.json": dict[str, StrictInt],
    "chat_template.json": _ChatTemplate,
}
INDEX_FORMS: dict[str, Any] = {
    "model.safetensors.index.json": _Index,
    "pytorch_model.bin.index.json": _Index,
}
ADAPTER_FORMS: dict[str, Any] = {ADAPTER_CONFIG: _AdapterConfig}


def check_model(folder: Path) -> None:
    """Check all that can be checked of a model's folder before a library opens it.

    Raises:
        ChatVecError: Names the file, and what is wrong with it.
        OSError: The folder cannot be read.
    """
    check_folder(folder)
    check_forms(_reader(folder), folder)


def check_indexes(folder: Path) -> None:
    """Check that the indexes of a model's weights name files of its folder, and no others.

    Raises:
        ChatVecError: Names the file, and what is wrong with it.
        OSError: The folder cannot be read.
    """
    _check(INDEX_FORMS, _reader(folder), folder)


def check_adapter(folder: Path) -> None:
    """Check all that can be checked of an adapter's folder before peft opens it.

    Raises:
        ChatVecError: Names the file, and what is wrong with it.
        OSError: The folder cannot be read.
    """
    check_folder(folder)
    _check(ADAPTER_FORMS, _reader(folder), folder)


def check_forms(read: Callable[[str], bytes | None], place: object) -> None:
    """Check the forms of a model's small files, but for indexes.

    Args:
        read: Gives a file's content, None where there is none.
        place: Where they are, for messages.

    Raises:
        ChatVecError: Names the file, and what is wrong with it.
    """
    _check(FORMS, read, place)


def _reader(folder: Path) -> Callable[[str], bytes | None]:
    def read(name: str) -> bytes | None:
        file = folder / name
        return read_bytes(file) if file.is_file() else None

    return read


def _check(forms: Mapping[str, Any], read: Callable[[str], bytes | None], place: object) -> None:
    for name in forms:
        content = read(name)
        if content is not None:
            file = place / name if isinstance(place, Path) else f"{name} of {place}"
            check_form(name, json_of(content, file), place)


def check_form(name: str, said: Any, place: object) -> None:
    """Check what a file says against its form.

    Args:
        name: One of FORMS, INDEX_FORMS or ADAPTER_FORMS.
        said: Its content.
        place: The model's name, for messages.

    Raises:
        ChatVecError: Names the place in the file.
    """
    if name == "generation_config.json" and not isinstance(said, dict):
        return  # of no use to anybody, and nobody takes it for more
    try:
        _form(name).validate_python(said)
    except ValidationError as error:
        # Of a value that may be of several kinds, each kind has an error: the deepest says most.
        deepest = max(error.errors(), key=lambda each: len([*_keys(said, each["loc"])]))
        where = ".".join(str(part) for part in _keys(said, deepest["loc"])) or "its content"
        raise ChatVecError(
            f"{name} of {place}: `{where:.100}` is {_shown(deepest['input'])}, which it cannot be.",
            "Download or save the model again.",
            code="config-unreadable",
        ) from error
    if name in ("config.json", "generation_config.json"):
        _check_length(name, said, place)
    if name == "config.json":
        for key, value in _values(said):
            if type(value) is int:
                _check_number(key, value, place)


@cache
def _form(name: str) -> TypeAdapter[Any]:
    return TypeAdapter({**FORMS, **INDEX_FORMS, **ADAPTER_FORMS}[name])


def _keys(said: Any, location: tuple[str | int, ...]) -> Iterator[str | int]:
    """Yield the keys that lead to an error, without the names of the types that were tried."""
    for part in location:
        in_list = isinstance(said, list) and isinstance(part, int) and part < len(said)
        if in_list or (isinstance(said, dict) and part in said):
            said = said[part]
            yield part


def _shown(value: Any) -> str:
    return f"{str(value)[:60]!r}" if isinstance(value, str) else f"{value!r:.60}"


def _values(said: Any) -> Iterator[tuple[str, Any]]:
    """Yield the plain values in a config with the key that each has, or its list has."""
    rest: list[tuple[str, Any]] = [("", said)]
    while rest:
        key, value = rest.pop()
        if isinstance(value, dict):
            rest += [(str(name), inner) for name, inner in value.items()]
        elif isinstance(value, list):
            rest += [(key, inner) for inner in value]
        else:
            yield key, value


def _check_length(name: str, said: dict[str, Any], place: object) -> None:
    values = named = 0
    rest: list[Any] = [said]
    while rest:
        each = rest.pop()
        values += 1
        if isinstance(each, dict):
            named += len(each)
            rest += each.values()
        elif isinstance(each, list):
            rest += each
    if len(said) > MOST_KEYS or named > MOST_NAMED or values > MOST_VALUES:
        raise ChatVecError(
            f"{name} of {place} has {len(said)} keys, {named} with those within it, and {values} "
            f"values; {MOST_KEYS}, {MOST_NAMED} and {MOST_VALUES} are the most.",
            "Download or save the model again.",
            code="config-unreadable",
        )


def _check_number(key: str, number: int, place: object) -> None:
    most = LARGEST_NUMBER
    if COUNTS_LAYERS.fullmatch(key):
        most = MOST_LAYERS
    elif COUNTS.fullmatch(key):
        most = MOST_COUNTED
    if abs(number) > most:
        raise ChatVecError(
            f"config.json of {place}: `{key:.100}` is {str(number)[:40]}, and {most} is the most "
            "that it can be.",
            "Download or save the model again.",
            code="config-unreadable",
        )

"""What is right, told without a line of the product or of mergekit.

Transformers loads base, chat, cp and the output in float32, which holds bfloat16 and float16
exactly; every element of the output must then be the float64 sum, rounded once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
)

from .miniatures import ROLES, Trio, counterpart
from .tokenizer_families import FAMILIES, SENTENCE, Family

Array = np.ndarray[Any, Any]
LEFT_TO_THE_MERGE = {
    *("_name_or_path", "transformers_version", "dtype", "torch_dtype"),
    *("bos_token_id", "eos_token_id", "pad_token_id"),
}
"""What the config of an output may say otherwise than cp's; the ids are looked at by themselves."""
VOCABULARY_SIZES = {"vocab_size", "vocab_size_per_layer_input"}
KNOWN_BY_ALL = "PreTrainedTokenizerFast"
"""A class that every transformers knows, and that takes tokenizer.json as it is."""


@dataclass
class Verdict:
    """What is wrong with an output."""

    in_tensors: list[str] = field(default_factory=list)
    """What is wrong with weights: lost, or other than the sum."""
    in_files: list[str] = field(default_factory=list)
    """What is wrong with all the rest: config, tokenizer, stop tokens."""
    elements: int = 0
    off: int = 0
    missing: int = 0
    stops_at: tuple[str, ...] = ()
    """The tokens at which the output stops, by its own files."""
    tensors: list[str] = field(default_factory=list)
    """Those that are wrong or missing."""

    @property
    def problems(self) -> list[str]:
        return [*self.in_tensors, *self.in_files]


@dataclass(frozen=True)
class Loaded:
    """A model, and what transformers says of its files."""

    model: PreTrainedModel
    info: dict[str, list[str]]

    @property
    def weights(self) -> dict[str, Tensor]:
        return self.model.state_dict()


class Oracle:
    """The right answer for a trio, loaded once for all that is made of it."""

    def __init__(self, trio: Trio) -> None:
        self.trio = trio
        self.family: Family = FAMILIES[trio.entry.tokenizer]
        self._inputs = [_load(trio.folder / role, sees=trio.sees(role)) for role in ROLES]
        self._vocabulary_tensors = _vocabulary_tensors(self.cp.model)
        self.dtype = getattr(torch, trio.entry.out_dtype or _dtype_name(trio.entry.dtypes[2]))

    @property
    def cp(self) -> Loaded:
        """Cp as transformers loads it."""
        return self._inputs[2]

    def judge(self, out: Path) -> Verdict:
        """Return what is wrong with an output."""
        verdict = Verdict()
        try:
            loaded = _load(out, sees=self.trio.sees("cp"))
        except Exception as error:  # each architecture fails in its own way
            verdict.in_tensors.append(f"does not load: {_line(error)}")
            return verdict
        self._judge_keys(loaded, verdict)
        self._judge_weights(loaded, out, verdict)
        self._judge_prediction_layer(out, verdict)
        self._judge_tokenizer(out, verdict)
        self._judge_stop(loaded, out, verdict)
        self._judge_config(out, verdict)
        self._judge_files(out, verdict)
        return verdict

    # --- Weights ------------------------------------------------------------------------------

    def _judge_keys(self, loaded: Loaded, verdict: Verdict) -> None:
        cp = self.cp
        for kind, keys in loaded.info.items():
            if new := sorted(set(keys) - set(cp.info.get(kind, ()))):
                verdict.in_tensors.append(f"{len(new)} {kind.replace('_', ' ')}: {_some(new)}")
                verdict.missing += len(new) if kind == "missing_keys" else 0
                verdict.tensors += new

    def _judge_weights(self, loaded: Loaded, out: Path, verdict: Verdict) -> None:
        found = loaded.weights
        dtypes = {self.dtype, *(d for d in _stored_dtypes(out) if d == torch.float32)}
        absent = set(loaded.info.get("missing_keys", ()))
        ids = vocabulary(out)
        wrong: dict[str, int] = {}
        for name, tensor in self.cp.weights.items():
            if not tensor.is_floating_point() or name not in found or name in absent:
                continue
            places, expected = self.expected(name, ids)
            result = found[name] if places is None else found[name][places]
            if tuple(result.shape) != expected.values.shape:
                wrong[name] = expected.values.size
            else:
                got = result.double().numpy()
                wrong[name] = min(int(expected.differs(got, dtype).sum()) for dtype in dtypes)
            verdict.elements += expected.values.size
        for name in sorted(self.cp.weights.keys() - found.keys()):
            verdict.in_tensors.append(f"no {name} in the model that loads")
        verdict.off = sum(wrong.values())
        if verdict.off:
            names = [name for name, count in wrong.items() if count]
            verdict.tensors += names
            verdict.in_tensors.append(
                f"{verdict.off} of {verdict.elements} elements off in {len(names)} tensors: "
                f"{_some(names)}"
            )

    def expected(self, name: str, ids: Mapping[str, int]) -> tuple[list[int] | None, Sum]:
        """Return what a tensor should be: the rows that are meant, None for all, and their sum.

        What base and chat do not have, as a text model has no eyes, is cp's. By token, a token
        that a model lacks has cp's row there, as mergekit documents, or that of the model which
        the recipe names as its source.
        """
        cp = self.cp.weights[name]
        others = [each.weights for each in self._inputs[:2]]
        base, chat = (w.get(counterpart(name, w), cp) for w in others)
        if name not in self._vocabulary_tensors or self.trio.entry.vocabulary == "same":
            return None, _sum(base, chat, cp, self.trio.entry.ratio)
        vocabularies = [vocabulary(f) for f in (self.trio.base, self.trio.chat, self.trio.cp)]
        named = self.trio.recipe["tokenizer"].get("tokens", {})
        rows: list[list[Tensor]] = [[], [], []]
        places = []
        for token, place in sorted(ids.items(), key=lambda item: item[1]):
            owner, owners_ids = (chat, vocabularies[1]) if token in named else (cp, vocabularies[2])
            if token not in owners_ids:
                continue
            for tensor, own_ids, taken in zip((base, chat, cp), vocabularies, rows, strict=True):
                known = token in own_ids
                taken.append(tensor[own_ids[token]] if known else owner[owners_ids[token]])
            places.append(place)
        return places, _sum(*(torch.stack(taken) for taken in rows), self.trio.entry.ratio)

    def _judge_prediction_layer(self, out: Path, verdict: Verdict) -> None:
        """Tensors that transformers does not load must not be lost: kept as they are, or merged."""
        if not self.trio.prediction:
            return
        found = _stored(out)
        base, chat, cp = (_stored(f) for f in (self.trio.base, self.trio.chat, self.trio.cp))
        lost = sorted(self.trio.prediction - found.keys())
        if lost:
            verdict.missing += len(lost)
            verdict.tensors += lost
            verdict.in_tensors.append(f"{len(lost)} tensors that cp has are lost: {_some(lost)}")
        changed = []
        for name in sorted(self.trio.prediction & found.keys()):
            got = found[name].double().numpy()
            merged = _sum(base[name], chat[name], cp[name], self.trio.entry.ratio)
            kept = _sum(base[name], base[name], cp[name], 0)
            right = ((e, d) for e in (kept, merged) for d in (self.dtype, torch.float32))
            if all(expected.differs(got, dtype).any() for expected, dtype in right):
                changed.append(name)
        if changed:
            verdict.in_tensors.append(f"{len(changed)} tensors are neither: {_some(changed)}")

    # --- Tokens -------------------------------------------------------------------------------

    def _judge_tokenizer(self, out: Path, verdict: Verdict) -> None:
        try:
            own, cps = (AutoTokenizer.from_pretrained(f) for f in (out, self.trio.cp))
        except Exception as error:  # each kind of tokenizer fails in its own way
            verdict.in_files.append(f"its tokenizer does not load: {_line(error)}")
            return
        if own(SENTENCE)["input_ids"] != cps(SENTENCE)["input_ids"]:
            verdict.in_files.append("plain text gets other ids than from cp's tokenizer")
        if own.decode(own(SENTENCE)["input_ids"]) != cps.decode(cps(SENTENCE)["input_ids"]):
            verdict.in_files.append("ids are read otherwise than by cp's tokenizer")
        expected = vocabulary(self.trio.cp)
        found = vocabulary(out)
        moved = [t for t, i in expected.items() if found.get(t) != i]
        if moved:
            verdict.in_files.append(f"{len(moved)} tokens have another id: {_some(moved)}")
        named = self.trio.recipe.get("tokenizer", {}).get("tokens", {})
        if more := sorted(found.keys() - expected.keys() - set(named)):
            verdict.in_files.append(f"{len(more)} tokens that nobody asked for: {_some(more)}")
        for marker in self.family.markers:
            ids = own(marker, add_special_tokens=False)["input_ids"]
            ids = [i for i in ids if own.convert_ids_to_tokens(i) != "▁"]
            if ids != [found.get(marker)]:
                verdict.in_files.append(f"{marker} is not one token but {ids}")
        if not own.chat_template:
            verdict.in_files.append("no chat template")
        elif own.chat_template != self.family.template:
            verdict.in_files.append("the chat template is not chat's")
        name, cps_name = (
            str(_json(folder / "tokenizer_config.json").get("tokenizer_class"))
            for folder in (out, self.trio.cp)
        )
        if name != KNOWN_BY_ALL and name.removesuffix("Fast") != cps_name.removesuffix("Fast"):
            verdict.in_files.append(f"tokenizer_class is {name} in place of {cps_name}")

    def _judge_stop(self, loaded: Loaded, out: Path, verdict: Verdict) -> None:
        ids = vocabulary(out)
        tokens = {i: token for token, i in ids.items()}
        settings = loaded.model.generation_config
        stops = settings.eos_token_id
        stops = stops if isinstance(stops, list) else [] if stops is None else [stops]
        verdict.stops_at = tuple(tokens.get(number, f"<{number}>") for number in stops)
        for name, value in self.family.sampling.items():
            if (found := getattr(settings, name, None)) != value:
                verdict.in_files.append(f"{name} is {found}, and chat's is {value}")
        for role, token in (("bos", self.family.bos), ("pad", self.family.pad)):
            number = getattr(settings, f"{role}_token_id")
            if token is not None and number not in (None, ids.get(token)):
                verdict.in_files.append(f"{role}_token_id is {number}, which is not {token}")
        said = {self.family.eos, self.family.end_of_turn, *self.family.all_stops}
        if more := [token for token in verdict.stops_at if token not in said]:
            verdict.in_files.append(f"stops at {_some(more)}, of which no model's files say so")
        end = ids.get(self.family.end_of_turn)
        if end not in stops:
            verdict.in_files.append(f"does not stop at {self.family.end_of_turn}")
            return
        try:
            if _spoken(loaded.model, end) != 2 and _spoken(self.cp.model, end) is not None:
                verdict.in_files.append(f"generates on after {self.family.end_of_turn}")
        except Exception as error:  # each architecture fails in its own way
            verdict.in_files.append(f"does not generate: {_line(error)}")

    # --- Files --------------------------------------------------------------------------------

    def _judge_config(self, out: Path, verdict: Verdict) -> None:
        own, cps = (AutoConfig.from_pretrained(f).to_dict() for f in (out, self.trio.cp))
        ignored = set(LEFT_TO_THE_MERGE)
        if self.trio.entry.vocabulary != "same":
            ignored |= VOCABULARY_SIZES
        verdict.in_files += [f"config: {d}" for d in differences(own, cps, ignored)]
        if str(own.get("dtype")).removeprefix("torch.") != _dtype_name(self.dtype):
            verdict.in_files.append(f"config: dtype is {own.get('dtype')}")
        raws = (_json(folder / "config.json") for folder in (self.trio.cp, out))
        cps_keys, own_keys = (set(_paths(raw)) for raw in raws)
        if lost := sorted(cps_keys - own_keys):
            verdict.in_files.append(f"config.json no longer says {_some(lost)}, which others read")

    def _judge_files(self, out: Path, verdict: Verdict) -> None:
        for file in sorted(self.trio.cp.glob("*process*.json")):
            copied = out / file.name
            if not copied.is_file() or copied.read_bytes() != file.read_bytes():
                verdict.in_files.append(f"lacks cp's {file.name}")


# --- Numbers ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sum:
    """A sum in float64, and how far float64 itself may be off."""

    values: Array
    slack: Array

    def differs(self, found: Array, dtype: torch.dtype) -> Array:
        """Return which elements are not this, rounded once to a dtype."""
        lowest = rounded(self.values - self.slack, dtype)
        highest = rounded(self.values + self.slack, dtype)
        differing: Array = ~((lowest <= found) & (found <= highest))
        return differing


def _sum(base: Tensor, chat: Tensor, cp: Tensor, ratio: float) -> Sum:
    """Return cp + ratio · (chat − base) in float64.

    The ratio is the decimal fraction as it is written. Numerator and denominator are applied one
    after the other, so that a sum midway between two results is seen to be midway.
    """
    exact = Fraction(str(ratio))
    b, c, p = (tensor.double().numpy() for tensor in (base, chat, cp))
    total = (exact.denominator * p + exact.numerator * (c - b)) / exact.denominator
    return Sum(total, 2.0**-51 * (np.abs(p) + np.abs(ratio) * (np.abs(c) + np.abs(b))))


def rounded(values: Array, dtype: torch.dtype) -> Array:
    """Return float64 values rounded once to a dtype, to nearest with ties to even, in float64.

    By way of float32, as torch converts, some would be rounded twice.
    """
    if dtype == torch.float32:
        return values.astype(np.float32).astype(np.float64)
    if dtype == torch.float16:
        return values.astype(np.float16).astype(np.float64)
    near = values.astype(np.float32)
    bits = near.view(np.uint32).astype(np.int64)
    odd = (near.astype(np.float64) != values) & (bits & 1 == 0)
    further = np.abs(values) > np.abs(near.astype(np.float64))
    bits = np.where(odd, np.where(further, bits + 1, bits - 1), bits)
    bits = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) << 16
    return (bits & 0xFFFFFFFF).astype(np.uint32).view(np.float32).astype(np.float64)


# --- Reading ----------------------------------------------------------------------------------


def _load(folder: Path, *, sees: bool) -> Loaded:
    loader = AutoModelForImageTextToText if sees else AutoModelForCausalLM
    model, info = loader.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    told = {k: [str(key) for key in keys] for k, keys in info.items() if keys}
    return Loaded(model.eval(), told)


def _vocabulary_tensors(model: PreTrainedModel) -> set[str]:
    """Return the names of tensors with a row for each token."""
    rows = []
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        rows += [p for p in (getattr(module, k, None) for k in ("weight", "bias")) if p is not None]
    ids = {id(parameter) for parameter in rows}
    named = model.named_parameters(remove_duplicate=False)
    return {name for name, parameter in named if id(parameter) in ids}


def vocabulary(folder: Path) -> dict[str, int]:
    """Return token → id by tokenizer.json itself; nothing if there is none."""
    content = _json(folder / "tokenizer.json")
    if not content:
        return {}
    words = content["model"]["vocab"]
    if isinstance(words, list):
        words = {piece: i for i, (piece, _) in enumerate(words)}
    return {**words, **{token["content"]: token["id"] for token in content["added_tokens"]}}


def _stored(folder: Path) -> dict[str, Tensor]:
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as shard:
            tensors |= {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118
    return tensors


def _stored_dtypes(folder: Path) -> set[torch.dtype]:
    return {tensor.dtype for tensor in _stored(folder).values()}


class _Says(LogitsProcessor):
    """Makes a model say one token and then another, whatever it thinks."""

    def __init__(self, prompt: int, first: int, then: int) -> None:
        self.prompt, self.first, self.then = prompt, first, then

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        forced = torch.full_like(scores, -torch.inf)
        said = input_ids.shape[1] - self.prompt
        forced[:, self.then if said else self.first] = 0
        return forced


def _spoken(model: PreTrainedModel, end: int) -> int | None:
    """Return how many tokens a model says that means to end its turn with the second.

    None if this architecture does not generate without a picture.
    """
    prompt = torch.tensor([[20, 21, 22]])
    says = LogitsProcessorList([_Says(prompt.shape[1], 23, end)])
    try:
        spoken = model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            logits_processor=says,
            do_sample=False,
            max_new_tokens=5,
        )
    except AttributeError as error:
        if "image" not in str(error):
            raise
        return None
    return int(spoken.shape[1]) - prompt.shape[1]


# --- Configs ----------------------------------------------------------------------------------


def differences(
    own: Mapping[str, Any], cps: Mapping[str, Any], ignored: Iterable[str], at: str = ""
) -> list[str]:
    """Return what two configs say differently, in words."""
    found = []
    for key in sorted(own.keys() | cps.keys()):
        if key in ignored:
            continue
        mine, theirs = own.get(key), cps.get(key)
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            found += differences(mine, theirs, ignored, f"{at}{key}.")
        elif at and key == "tie_word_embeddings" and mine and theirs is None:
            continue  # said for transformers 4, which asks the language model's config
        elif mine != theirs:
            found.append(f"{at}{key} is {mine} in place of {theirs}")
    return found


def _paths(config: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """Yield the keys under which a config says something, each with those above it."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _paths(value, f"{at}{key}.")
        elif value is not None and key not in LEFT_TO_THE_MERGE - {"torch_dtype"}:
            yield f"{at}{key}"


def _json(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (", …" if len(listed) > 3 else "")


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"

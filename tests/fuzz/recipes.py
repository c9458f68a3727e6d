"""Recipes changed at random: as data, and as text."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import yaml

from tests.fuzz.values import changed, value

CATALOGUE = Path(__file__).resolve().parents[2] / "recipes"
MODELS = "examples/world/models"
BASE, CHAT, CP = (f"{MODELS}/{name}" for name in ("base", "chat", "cp"))
POOL: tuple[Any, ...] = (
    *(BASE, CHAT, CP, f"{CP}@main", f"{CP}+{CHAT}", "no/such-model", "a" * 300, "."),
    *("bfloat16", "float16", "int8", "auto", "chatml", "linear", "task_arithmetic", "chat_vector"),
    *({"source": CP}, {"source": "union"}, {"source": CP, "pad_to_multiple_of": -7}),
    *({"source": CP, "tokens": {"<|x|>": {"source": CHAT, "force": True}}},),
    *([0, 1], [0, 30000], [1, 0], [-1, 1], [0.1] * 30, [{"filter": "mlp", "value": 0.5}]),
    *([{"model": CP, "parameters": {"role": "cp"}}] * 5,),
    *({"source": {"kind": "model_token", "model": BASE, "token_id": 5}, "force": True},),
    *({"kind": "zero"}, {"kind": "model_token", "model": CHAT, "token": "</s>"}, [CP, CHAT]),
    *([0, 4], [1, 3], [4, 4], [3, 5], [0.2, 1.0], [{"value": 0.5}, {"filter": "mlp", "value": 0}]),
    *([{"filter": r"layers\.[0-9", "value": 1}, {"value": 0}], [[0.1, 0.2]], "0.5", "1/3", 0.3333),
    *(["all"], ["*"], ["config-differs"] * 2, ["vocabulary-order", 5], "config-differs"),
    *({"default": {"slices": []}}, {"int8_mask": True, "normalize": True, "ratio": 0.5}),
    *("float32", "fp16", "torch.bfloat16", "auto", "base", f"{CP}/", f"./{CP}", f"{CP}@{'a' * 40}"),
)
LINES = (
    "x: &x [1, 2]",
    "y: *x",
    "<<: *x",
    "a: !!bool maybe",
    "a: !!timestamp x",
    "a: !!python/object/apply:os.system [ls]",
    "a: !!binary x",
    "a: &a [*a]",
    '"\\ud800": 1',
    "? [a]",
    ": ",
    "- ",
    "%YAML 1.2",
    "---",
    "...",
    "ratio: 1e999",
    "ratio: 0x10",
    "a: 1:2:3:4",
    "b: 2024-13-41",
    "\t",
    "# comment",
    "c: |2-",
    "d: 'unended",
    "out_dtype: float16 # again",
    "parameters: {ratio: 0.5}",
    "  - model: examples/world/models/chat",
    "    parameters: {role: chat, ratio: [1, 0.5, 0]}",
    "tokenizer_source: union",
    "modules: {text_decoder: {slices: []}}",
    "slices: [{sources: [{model: x, layer_range: [0, 4]}]}]",
    "  accept: [config-differs, config-differs]",
    "chat_template: |-\n  {% for m in messages %}",
)
LONGEST_COPIES = 1 << 22
"""Characters; a line may be long, and its copies would take the memory that a trial has."""
SIGNS = "[]{}:,&*!|>'\"%@`#-?\n \t\\\x00\x1b\u202e한0é~"


def recipes() -> list[dict[str, Any]]:
    """Return recipes that are right, each with something that others have not."""
    roles = [(BASE, {"role": "base"}), (CHAT, {"role": "chat", "ratio": 0.5}), (CP, {"role": "cp"})]
    models = [{"model": model, "parameters": own} for model, own in roles]
    plain: dict[str, Any] = {
        "merge_method": "chat_vector",
        "base_model": CP,
        "models": models,
        "tokenizer": {"source": CP},
    }
    filters = [
        {"filter": "embed_tokens", "value": 0.5},
        {"filter": "mlp", "value": [1.0, 0.5, 0.2]},
        {"value": 1.0},
    ]
    without = [(BASE, {"role": "base"}), (CHAT, {"role": "chat"}), (CP, {"role": "cp"})]
    sources = [{"model": model, "layer_range": [0, 2], "parameters": own} for model, own in without]
    return [
        plain,
        {**plain, "tokenizer": {"source": CP, "pad_to_multiple_of": 64}, "out_dtype": "float16"},
        {**plain, "tokenizer": {"source": "union"}, "chat_template": "auto", "dtype": "float32"},
        {
            **plain,
            "models": [{"model": model, "parameters": own} for model, own in without],
            "parameters": {"ratio": filters},
            "chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}",
            "chatvec": {"accept": ["template-differs"], "language": "ko"},
        },
        {
            "merge_method": "chat_vector",
            "base_model": CP,
            "slices": [{"sources": sources}],
            "tokenizer_source": CP,
            "parameters": {"ratio": [1.0, 0.5]},
        },
        {
            **{key: plain[key] for key in ("merge_method", "base_model")},
            "slices": [
                {"sources": [{**source, "layer_range": layers} for source in sources]}
                for layers in ([0, 2], [2, 3])
            ],
            "tokenizer": {"source": CP, "tokens": {"</s>": {"source": CHAT, "force": True}}},
            "dtype": "bfloat16",
            "parameters": {"ratio": filters},
        },
        {
            "merge_method": "linear",
            "models": [
                {"model": CP, "parameters": {"weight": 1.0}},
                {"model": CHAT, "parameters": {"weight": 0.3333}},
                {"model": BASE, "parameters": {"weight": -0.3333}},
            ],
            "parameters": {"normalize": False},
            "tokenizer_source": CP,
        },
        {
            "merge_method": "task_arithmetic",
            "base_model": BASE,
            "models": [
                {"model": CHAT, "parameters": {"weight": 0.5}},
                {"model": CP, "parameters": {"weight": 1.0}},
            ],
        },
    ]


@cache
def of_catalogue() -> tuple[str, ...]:
    """Return the catalogue's recipes with their comments, the models replaced by the world's."""
    texts = []
    for file in sorted(CATALOGUE.glob("*.yaml")):
        text = file.read_text(encoding="utf-8")
        for entry in yaml.safe_load(text)["models"]:
            model = f"{MODELS}/{entry['parameters']['role']}"
            text = text.replace(entry["model"], model)
        texts.append(text)
    return tuple(texts)


def recipe(random: Random) -> str:
    """Return the text of a changed recipe: one of data, or one of the catalogue as it stands."""
    if random.random() < 0.6:
        return changed_recipe(random.choice(recipes()), POOL, random)
    text = random.choice(of_catalogue())
    for _ in range(random.choice([0, 1, 1, 2, 5])):
        text = _changed_text(text, random)
    if random.random() < 0.2:
        text = text.replace("\n", random.choice(["\r\n", "\r", "\n\n", "\u2028"]))
    return text


def changed_recipe(data: Any, pool: tuple[Any, ...], random: Random) -> str:
    """Return the text of a recipe, changed as data and as text.

    Args:
        data: The recipe.
        pool: Values that mean something in recipes.
        random: Decides.
    """
    with suppress(RecursionError):  # it is nested too deep to be changed once more
        for _ in range(random.choice([0, 1, 1, 1, 2, 3, 5])):
            data = changed(data, random, pool)
    text = _written(data, random)
    if random.random() < 0.3:
        for _ in range(random.choice([1, 1, 2, 5])):
            text = _changed_text(text, random)
    return text


def _written(data: Any, random: Random) -> str:
    if random.random() < 0.2:
        return json.dumps(data, default=str)
    style = random.choice([None, False, True])
    try:
        return str(yaml.safe_dump(data, sort_keys=False, default_flow_style=style))
    except (yaml.YAMLError, RecursionError):
        return json.dumps(data, default=str)


def _changed_text(text: str, random: Random) -> str:
    lines = text.split("\n")
    at = random.randrange(len(lines))
    position = random.randrange(len(text) + 1)
    match random.randrange(9):
        case 0:
            del lines[at]
        case 1:
            most = LONGEST_COPIES // (len(lines[at]) + 1) + 1
            lines[at:at] = [lines[at]] * min(random.choice([1, 2, 100, 20000]), most)
        case 2:
            lines[at] = random.choice(["  ", " ", "\t", "- "]) + lines[at]
        case 3:
            lines[at] = lines[at].lstrip()
        case 4:
            lines.insert(at, random.choice(LINES))
        case 5:
            return text[:position] + random.choice(SIGNS) + text[position:]
        case 6:
            return text[:position]
        case 7:
            return _bomb(random) + text
        case _:
            key, colon, _ = lines[at].partition(":")
            lines[at] = f"{key}{colon} {str(value(random))[:2000]}"
    return "\n".join(lines)


def _bomb(random: Random) -> str:
    """Return aliases of aliases, under a key that means something or nothing."""
    key = random.choice("parameters chatvec tokenizer x slices base_model dtype".split())
    levels = random.choice([2, 5, 9, 20])
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join([*lines, f"{key}: *l{levels - 1}", ""])

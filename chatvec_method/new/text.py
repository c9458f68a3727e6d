"""A draft as the text of a recipe: its keys in the order of the catalogue, reasons above them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import yaml

from chatvec_method.new.draft import Draft
from chatvec_method.recipe.file import METADATA

WIDTH = 98
BLOCK_NOTE = "for the catalogue; mergekit ignores it"


def recipe_text(draft: Draft, opening: str) -> str:
    """Return the text of a draft below its opening comment."""
    raw, reasons = draft.raw, draft.reasons
    parts = [opening + _block(raw[METADATA], reasons[METADATA, "accept"])]
    parts.append(f"merge_method: {raw['merge_method']}\n")
    parts.append(_commented(reasons["base_model",], f"base_model: {_flow(raw['base_model'])}\n"))
    parts.append("models:\n" + "".join(_model(entry) for entry in raw["models"]))
    if "tokenizer" in raw:
        parts.append(_tokenizer(raw["tokenizer"], draft))
    if "chat_template" in raw:
        parts.append(_commented(reasons["chat_template",], _template(raw["chat_template"])))
    parts.append(_commented(reasons["out_dtype",], f"out_dtype: {raw['out_dtype']}\n"))
    return _apart(parts)


def _apart(parts: Sequence[str]) -> str:
    """Return parts with empty lines between them, but for single lines that follow each other."""
    text = parts[0]
    for before, part in pairwise(parts):
        alone = before.count("\n") == part.count("\n") == 1
        text += part if alone else f"\n{part}"
    return text


def _block(block: Mapping[str, Any], reasons: Sequence[str]) -> str:
    lines = [f"{METADATA}: # {BLOCK_NOTE}"]
    for key, value in block.items():
        if key == "accept":
            lines += [f"  {line}" for line in _comment(reasons, WIDTH - 2)]
        lines.append(f"  {key}: {_flow(value)}")
    return "\n".join(lines) + "\n"


def _model(entry: Mapping[str, Any]) -> str:
    name, parameters = _flow(entry["model"]), entry["parameters"]
    ratio = parameters.get("ratio")
    if not isinstance(ratio, list):
        return f"  - model: {name}\n    parameters: {_flow(parameters)}\n"
    role = f"      role: {parameters['role']}"
    lines = [f"  - model: {name}", "    parameters:", role, "      ratio:"]
    return "\n".join([*lines, *(f"        - {_flow(case)}" for case in ratio)]) + "\n"


def _tokenizer(settings: Mapping[str, Any], draft: Draft) -> str:
    reasons = draft.reasons
    lines = _comment(reasons["tokenizer",] + reasons["tokenizer", "source"], WIDTH)
    if set(settings) == {"source"}:
        return "\n".join([*lines, f"tokenizer: {_flow(dict(settings))}"]) + "\n"
    lines.append("tokenizer:")
    for key, value in settings.items():
        if key != "source":
            lines += [f"  {line}" for line in _comment(reasons["tokenizer", key], WIDTH - 2)]
        if key == "tokens":
            lines.append("  tokens:")
            lines += [f"    {_quoted(token)}: {_flow(row)}" for token, row in value.items()]
        else:
            lines.append(f"  {key}: {_flow(value)}")
    return "\n".join(lines) + "\n"


def _template(template: str) -> str:
    """Return a template as a block of lines, or in quotes where YAML would change it in a block."""
    lines = "\n".join(f"  {line}".rstrip() for line in template.split("\n"))
    block = f"chat_template: |-\n{lines}\n" if "\n" in template else ""
    try:
        if block and yaml.safe_load(block) == {"chat_template": template}:
            return block
    except yaml.YAMLError:
        pass
    return f"chat_template: {_flow(template)}\n"


def _commented(reasons: Sequence[str], text: str) -> str:
    """Return a key's text below its reasons, or before them where both are short."""
    short = reasons[0] if len(reasons) == 1 else ""
    line = f"{text.rstrip()} # {short}"
    if short and "\n" not in text.rstrip() and len(line) <= WIDTH:
        return f"{line}\n"
    return "\n".join([*_comment(reasons, WIDTH), text])


def _comment(reasons: Sequence[str], width: int) -> list[str]:
    sentences = (r if r.endswith((".", ":", "`")) else f"{r}." for r in reasons)
    return [
        f"# {line}"
        for sentence in sentences
        for line in textwrap.wrap(
            _begun(sentence),
            width - 2,
            break_on_hyphens=False,
            break_long_words=False,
        )
    ]


def _begun(sentence: str) -> str:
    """Return a sentence with a capital letter, unless it begins with a name."""
    word = sentence.partition(" ")[0]
    return sentence[:1].upper() + sentence[1:] if word.isalpha() and word != "cp" else sentence


def _quoted(token: str) -> str:
    text: str = yaml.safe_dump(token, default_style='"', allow_unicode=True, width=float("inf"))
    return text.strip()


def _flow(value: Any) -> str:
    """Return a value on one line, as YAML has it."""
    text: str = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=float("inf")
    )
    return text.strip().removesuffix("\n...").strip()

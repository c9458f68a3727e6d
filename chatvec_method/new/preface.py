"""The opening comment of a new recipe and its block for the catalogue, of what was really seen."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from mergekit.common import ModelReference

import chatvec_method
from chatvec_method.facts.cost import Cost
from chatvec_method.facts.licences import MEANING, licence_of, strictest, strictness
from chatvec_method.facts.models import Model, config_value, embedding_rows, text_config
from chatvec_method.facts.output import expected_headers
from chatvec_method.facts.survey import Survey
from chatvec_method.method.roles import Roles
from chatvec_method.method.settings import dtype_name

WIDTH = 98
PAPER = "https://arxiv.org/abs/2310.04799"
NOT_STATED = "none stated"
UNDETERMINED = "und"
"""The code of a language that nobody told."""


def about(survey: Survey, roles: Roles, cost: Cost, language: str | None) -> dict[str, Any]:
    """Return a recipe's block for the catalogue."""
    licences: dict[str, Any] = {base: _stated(survey.models[m]) for base, m in _bases(roles)}
    for role in ("chat", "vector"):
        own = [chat for chat in roles.chats if roles.role_of(chat) == role]
        stated = [_stated(survey.models[chat]) for chat in own]
        if stated:
            licences[role] = stated if len(stated) > 1 else stated[0]
    return {
        "title": title_of(roles),
        "language": language or language_of(survey, roles) or UNDETERMINED,
        "licences": {**licences, "cp": _stated(survey.models[roles.cp])},
        "gated": [str(model) for model in survey.models.values() if model.gated],
        "disk_gb": gigabytes(_models_bytes(survey) + _output_bytes(survey)),
        "memory_gb": max(1, math.ceil((cost.memory or 0) / 1e9)),
        "source": PAPER,
        "measured": None,
    }


def opening_comment(survey: Survey, roles: Roles, block: dict[str, Any], file: str) -> str:
    """Return the comment that a recipe opens with, in the style of the catalogue.

    Args:
        survey: Of the recipe.
        roles: Who is who in it.
        block: Its block for the catalogue.
        file: What it will be called.
    """
    lines = [f"# {block['title']}", "#"]
    for label, paragraphs in _sections(survey, roles, block, file):
        start = f"# {label}: ".ljust(9)
        for paragraph in paragraphs:
            # Tables and commands stay as they are.
            wrapped = (
                textwrap.wrap(paragraph, WIDTH - len(start), break_on_hyphens=False)
                if "   " not in paragraph
                else [paragraph]
            )
            for line in wrapped:
                lines.append(start + line)
                start = "#".ljust(len(start))
    return "\n".join(lines) + "\n"


def title_of(roles: Roles) -> str:
    """Return a recipe's title: the names of cp and of the chat models."""
    names = [_short(model) for model in (roles.cp, *roles.chats)]
    return " + ".join(names).replace("|", "/")


def language_of(survey: Survey, roles: Roles) -> str | None:
    """Return the language that cp has learnt, as its card tells; None where it does not."""
    of_base = [code for base in roles.bases for code in _languages(survey.models[base])]
    of_cp = _languages(survey.models[roles.cp])
    new = [code for code in of_cp if code not in of_base and code != "en"]
    return next(iter(new), None)


def gigabytes(size: int) -> float | int:
    """Return a size in GB, with two digits, or as a whole number where it is large."""
    if size >= 10e9:
        return round(size / 1e9)
    return float(f"{max(size, 1e7) / 1e9:.2g}")


def _sections(
    survey: Survey, roles: Roles, block: dict[str, Any], file: str
) -> Iterator[tuple[str, list[str]]]:
    cp = survey.models[roles.cp]
    vectors = " and ".join(_short(chat) for chat in roles.chats)
    language = block["language"]
    kind = "a chat model" if language == UNDETERMINED else f"a chat model ({language})"
    yield (
        "Makes",
        [
            f"{kind}{_of_size(survey)}: {_short(roles.cp)} with the chat "
            f"vector{'s' if len(roles.chats) > 1 else ''} of {vectors}. {_layers(cp)} layers; "
            f"{_vocabularies(survey, roles)}."
        ],
    )
    yield "Models", [*_models(survey, roles), f"{_gates(survey)}{_strictest(survey)}"]
    models, output = gigabytes(_models_bytes(survey)), gigabytes(_output_bytes(survey))
    unknown = [str(model) for model in survey.models.values() if model.tensors is None]
    needs = (
        f"{block['disk_gb']} GB of disk ({models} models, {output} output) and about "
        f"{block['memory_gb']} GB of memory with `chatvec merge` (an estimate)."
    )
    if unknown:
        needs += f" The size of {', '.join(unknown)} is not known, and comes to that."
    yield "Needs", [needs]
    yield "Run", [f"chatvec merge {file} out/", f"mergekit-yaml {file} out/ && chatvec finish out/"]
    yield (
        "Vary",
        [
            "`ratio: 0.5` where answers come in the chat model's language; `chatvec schedule` "
            "writes a ratio for every layer."
        ],
    )
    yield (
        "From",
        [
            f"the method is {PAPER}. Written by chatvec new {chatvec_method.__version__} after the "
            "models' configs, tokenizers and headers; nobody has measured the result."
        ],
    )


def _models(survey: Survey, roles: Roles) -> list[str]:
    rows = []
    named = [*_bases(roles), *((roles.role_of(chat), chat) for chat in roles.chats)]
    named.append(("cp", roles.cp))
    for role, reference in named:
        model = survey.models[reference]
        dtype = model.weights_dtype
        notes = [dtype_name(dtype)] if dtype is not None else []
        notes += ["gated"] if model.gated else []
        notes += ["pickles (.bin) only"] if model.pickled else []
        rows.append((role, str(reference), _stated(model), "  ".join(notes)))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return [
        "   ".join(
            (f"{role:<{widths[0]}}", f"{name:<{widths[1]}}", f"{terms:<{widths[2]}}", notes)
        ).rstrip()
        for role, name, terms, notes in rows
    ]


def _gates(survey: Survey) -> str:
    """Return that no model is gated, where the hub says so of all of them."""
    models = survey.models.values()
    open_to_all = all(model.commit is not None and not model.gated for model in models)
    return "None is gated. " if open_to_all else ""


def _strictest(survey: Survey) -> str:
    licences = [licence_of(model) for model in survey.models.values()]
    strict = strictest(licences)
    meaning = MEANING[strictness(strict)]
    if strict is None:
        lacking = [str(m) for m in survey.models.values() if licence_of(m) is None]
        who = "all of them" if len(lacking) == len(licences) else " and ".join(lacking)
        return f"No licence is stated for {who}, {meaning}: ask those who made them."
    if len(set(licences)) == 1:
        return f"The licence of all is {strict}, {meaning}."
    return f"All of these licences apply to the result; the strictest is {strict}, {meaning}."


def _of_size(survey: Survey) -> str:
    size = sum(math.prod(h.shape) for h in _expected(survey))
    if not size:
        return ""
    return f" of {size / 1e9:.1f} B parameters" if size >= 5e7 else f" of {size} parameters"


def _vocabularies(survey: Survey, roles: Roles) -> str:
    rows = {
        role: embedding_rows(survey.models[m]) for role, m in (("cp", roles.cp), *_bases(roles))
    }
    if "base" not in rows:
        return f"the vocabulary has {rows['cp']} rows"
    if rows["cp"] == rows["base"]:
        return f"the vocabulary has {rows['cp']} rows in base and cp"
    return f"the vocabulary is cp's {rows['cp']}, base has {rows['base']}"


def _bases(roles: Roles) -> list[tuple[str, ModelReference]]:
    return [("base", base) for base in roles.bases]


def _layers(model: Model) -> Any:
    return config_value(text_config(model.config), "num_hidden_layers")


def _models_bytes(survey: Survey) -> int:
    return sum(h.bytes for model in survey.models.values() for h in (model.tensors or {}).values())


def _output_bytes(survey: Survey) -> int:
    return sum(header.bytes for header in _expected(survey))


def _expected(survey: Survey) -> list[Any]:
    headers = expected_headers(survey.plan, survey.vocabulary) if survey.plan else {}
    return [header for header in headers.values() if header is not None]


def _stated(model: Model) -> str:
    return licence_of(model) or NOT_STATED


def _short(reference: ModelReference) -> str:
    name = reference.model.path.rstrip("/").rpartition("/")[2]
    return f"{name} with {reference.lora.path.rpartition('/')[2]}" if reference.lora else name


def _languages(model: Model) -> Sequence[str]:
    held: Any = model.card.language
    listed = held if isinstance(held, list) else [held]
    return [
        "no" if code is False else code for code in listed if isinstance(code, str) or code is False
    ]

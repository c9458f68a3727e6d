"""The model card of a merge: what it was made of, how strongly, how to talk to it, whose it is.

The metadata at its top is for the Hugging Face Hub, the text for people. All of it comes from the
survey: what a person wants to add (samples, figures, warnings) belongs below it or in a card of
their own.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from mergekit.common import ModelReference

import chatvec_method
from chatvec_method.facts.chat_format import (
    ENDS_A_TURN,
    ChatFormat,
    StopToken,
    sampling_defaults,
    speaking_chat,
)
from chatvec_method.facts.licences import licence_of
from chatvec_method.facts.models import Model, without_commits
from chatvec_method.facts.plan import KINDS, MergePlan, layer_runs, ratio_table
from chatvec_method.facts.survey import ReadySurvey, Survey
from chatvec_method.finishing.markdown import code, prose, table
from chatvec_method.pictures.style import shown
from chatvec_method.recipe.pins import commits_in

PAPER = "https://arxiv.org/abs/2310.04799"
SHORT = 7
"""Characters of a commit, as git shows it."""
LINK = re.compile(r"https://[^\s<>\"'()\[\]]+")
BCP47 = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")
LONGEST_TABLE = 16
"""Rows; a longer table is folded away."""
TEMPLATE = """\
---
{{ card_data }}
---

# {{ title }}

{{ summary }}

It is a merge of pre-trained language models, made with \
[mergekit](https://github.com/cg123/mergekit) and the merge method [Chat Vector]({{ paper }}), \
without training:

    θ_out = θ_cp + {{ sum }}

## Models

{{ models }}

{{ licences }}

## Ratios

How much of the chat vector is added, in each layer and each kind of tensor: 0 leaves the cp model
as it is, 1 adds all that instruction tuning changed.

{% if picture %}![The ratio of every layer and kind of tensor](ratio.png)

{% endif %}{{ ratios }}

## Chat

{{ chat }}
{% if conversational %}
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

name = {{ name }}  # the folder, or the full name on the hub
tokenizer = AutoTokenizer.from_pretrained(name)
model = AutoModelForCausalLM.from_pretrained(name, dtype="auto", device_map="auto")

messages = [{"role": "user", "content": "..."}]
prompt = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
).to(model.device)
output = model.generate(**prompt, max_new_tokens=512)
answer = output[0, prompt["input_ids"].shape[1] :]
print(tokenizer.decode(answer, skip_special_tokens=True))
```

With chatvec-method installed, `chatvec chat {{ command }}` talks to it in a terminal.
{% endif %}
{%- if measured %}
## Measured

{{ measured }}
{% endif %}
## Recipe

Made on {{ date }} with {{ versions }} from this configuration:

{{ fence }}yaml
{{ recipe }}
{{ fence }}
{%- if hashes %}

These are its weights, every tensor of them held against the recipe:

{{ hashes }}
{%- endif %}

## Citation

```bibtex
@inproceedings{huang-etal-2024-chat,
    title = "Chat Vector: A Simple Approach to Equip {LLM}s with Instruction Following and Model
             Alignment in New Languages",
    author = "Huang, Shih-Cheng and Li, Pin-Zu and Hsu, Yu-chi and Chen, Kuang-Ming and Lin, Yu Tung
              and Hsiao, Shih-Kai and Tsai, Richard and Lee, Hung-yi",
    booktitle = "Proceedings of the 62nd Annual Meeting of the Association for Computational
                 Linguistics (Volume 1: Long Papers)",
    year = "2024",
    pages = "10943--10959",
    url = "https://aclanthology.org/2024.acl-long.590",
}
```
"""


def model_card(
    survey: Survey | ReadySurvey,
    name: str,
    date: str,
    *,
    picture: bool = True,
    hashes: Mapping[str, str] | None = None,
) -> str:
    """Return the card of a merge's output, as the hub takes it.

    Args:
        survey: Of the recipe, without problems.
        name: What the model is called.
        date: The day on which it was made, as in `2025-01-31`.
        picture: Whether the picture of its ratios lies beside it.
        hashes: SHA-256 of the files of weights, by name; None to tell none.
    """
    survey = survey.ready()
    plan, chat = survey.plan, survey.format
    recipe = survey.recipe.text.rstrip()
    card = ModelCard.from_template(
        _metadata(survey, plan, chat),
        template_str=TEMPLATE,
        title=prose(name),
        name=json.dumps(name, ensure_ascii=False),
        command=shlex.quote(name),
        summary=_summary(survey, plan),
        sum=_sum(plan),
        paper=PAPER,
        models=_models(survey, plan),
        licences=_licences(survey, plan),
        picture=picture,
        ratios="\n\n".join(_ratios(survey, plan)),
        chat="\n\n".join(_chat(survey, plan, chat)),
        conversational=chat.template is not None,
        date=date,
        versions=f"chatvec-method {chatvec_method.__version__} and mergekit {version('mergekit')}",
        fence="`" * max(3, 1 + max((len(run) for run in re.findall("`+", recipe)), default=0)),
        recipe=recipe,
        measured=_measured(survey),
        hashes=table(("file", "SHA-256"), [(f"`{n}`", f"`{h}`") for n, h in (hashes or {}).items()])
        if hashes
        else "",
    )
    return f"{str(card).rstrip()}\n"


def date_of(card: str) -> str | None:
    """Return the day on which a card says that its model was made; None if it is none of ours."""
    line = re.search(r"^Made on (\d{4}-\d\d-\d\d) with chatvec-method ", card, re.MULTILINE)
    return line[1] if line else None


def _metadata(survey: ReadySurvey, plan: MergePlan, chat: ChatFormat) -> ModelCardData:
    hub_names = _hub_names(survey, plan)
    languages = _languages(survey, plan)
    plain = [code for code in languages if re.fullmatch("[a-z]{2,3}|multilingual|code", code)]
    return ModelCardData(
        base_model=hub_names or None,
        base_model_relation="merge" if hub_names else None,
        language=plain or None,
        # The hub takes longer codes than ISO's under a key of their own.
        language_bcp47=[c for c in languages if c not in plain and BCP47.fullmatch(c)] or None,
        **common_licence(survey),
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["mergekit", "merge", "chat-vector", *(["conversational"] if chat.template else [])],
    )


# --- The models ------------------------------------------------------------------------------


def _in_roles(plan: MergePlan) -> list[tuple[str, ModelReference]]:
    """Return the models with their roles, cp first: it is what the output mostly is."""
    several = len(plan.roles.chats) > 1
    chats = []
    for number, chat in enumerate(plan.roles.chats, 1):
        role = plan.roles.role_of(chat)
        chats.append((f"{role} {number}" if several else role, chat))
    return [("cp", plan.roles.cp), *chats, *(("base", base) for base in plan.roles.bases)]


def _hub_names(survey: ReadySurvey, plan: MergePlan) -> list[str]:
    names: list[str] = []
    for _, model in _in_roles(plan):
        if _is_of_hub(survey, model):
            names.append(model.model.path)
        if model.lora is not None and not Path(model.lora.path).exists():
            names.append(model.lora.path)
    return list(dict.fromkeys(name for name in names if _is_hub_name(name)))


def _is_of_hub(survey: ReadySurvey, model: ModelReference) -> bool:
    """Tell whether a model came from the hub: a folder `models/cp` has such a name, too."""
    return survey.models[model].commit is not None and _is_hub_name(model.model.path)


def _is_hub_name(path: str) -> bool:
    if path.count("/") != 1 or path.startswith((".", "/", "~")):
        return False
    try:
        validate_repo_id(path)
    except HFValidationError:
        return False
    return True


def _linked(
    survey: ReadySurvey, model: ModelReference, commits: Mapping[str, str] | None = None
) -> str:
    """Return a model's name, with a link if it is on the hub: to the commit, where that is told."""
    path, name = model.model.path, without_commits(model)
    if not _is_of_hub(survey, model):
        return code(name)
    commit = (commits or {}).get(path)
    if commit is None:
        return f"[{prose(name)}](https://huggingface.co/{path})"
    short = name.replace(path, f"{path}@{commit[:SHORT]}", 1)
    return f"[{prose(short)}](https://huggingface.co/{path}/tree/{commit})"


def _measured(survey: ReadySurvey) -> str:
    """Return what the recipe says was measured on its output; "" if nothing was."""
    measured = survey.recipe.metadata.get("measured")
    return prose(measured) if isinstance(measured, str) else ""


def _summary(survey: ReadySurvey, plan: MergePlan) -> str:
    chats = " and ".join(_linked(survey, chat) for chat in plan.roles.chats)
    vector = "chat vectors" if len(plan.roles.chats) > 1 else "chat vector"
    cp = _linked(survey, plan.roles.cp)
    if plan.roles.base is None:
        return (
            f"{cp} with the {vector} {chats}: what instruction tuning changed in the model from "
            "which it descends."
        )
    base = _linked(survey, plan.roles.base)
    return (
        f"{cp} with the {vector} of {chats}: what instruction tuning changed in comparison with "
        f"{base}, from which all of them descend."
    )


def _sum(plan: MergePlan) -> str:
    if len(plan.roles.chats) == 1:
        return "ratio · (θ_chat − θ_base)"
    numbered = range(1, len(plan.roles.chats) + 1)
    return " + ".join(f"ratio_{i} · (θ_chat_{i} − θ_base)" for i in numbered)


def _models(survey: ReadySurvey, plan: MergePlan) -> str:
    header = ["role", "model", "licence", "languages"]
    commits = commits_in(survey.recipe.raw)
    rows = []
    for role, reference in _in_roles(plan):
        model = survey.models[reference]
        languages = ", ".join(_own_languages(model))
        licence = prose(_licence(model, survey) or "not stated")
        rows.append([role, _linked(survey, reference, commits), licence, prose(languages)])
    if not any(row[-1] for row in rows):
        header, rows = header[:-1], [row[:-1] for row in rows]
    return table(header, rows)


def _languages(survey: ReadySurvey, plan: MergePlan) -> list[str]:
    """Return the recipe's language first, then those of the models' cards."""
    codes = _codes(survey.recipe.metadata.get("language"))
    for _, reference in _in_roles(plan):
        codes += _own_languages(survey.models[reference])
    return list(dict.fromkeys(codes))


def _own_languages(model: Model) -> list[str]:
    return [*_codes(model.card.language), *_codes(model.card.get("language_bcp47"))]


def _codes(value: Any) -> list[str]:
    """Return language codes from YAML, for which Norwegian's `no` is False."""
    values = value if isinstance(value, list) else [value]
    return ["no" if v is False else v for v in values if v is False or isinstance(v, str)]


def _licence(model: Model, survey: ReadySurvey) -> str | None:
    """Return a model's licence, of its card or else of the recipe."""
    stated: Any = licence_of(model)
    if stated is None:
        roles, listed = survey.plan.roles, survey.recipe.metadata.get("licences")
        listed = listed if isinstance(listed, dict) else {}
        chats = listed.get("chat")
        chats = chats if isinstance(chats, list) else [chats] * len(roles.chats)
        of_recipe = {roles.base: listed.get("base"), roles.cp: listed.get("cp")}
        of_recipe |= dict(zip(roles.chats, chats, strict=False))
        stated = of_recipe.get(model.reference)
    return stated if isinstance(stated, str) else None


def common_licence(survey: ReadySurvey) -> dict[str, Any]:
    """Return the licence in the words of the hub: `other`, where it is not the same for all."""
    models = [survey.models[reference] for _, reference in _in_roles(survey.plan)]
    names = list(dict.fromkeys(_licence(model, survey) for model in models))
    if None in names:
        return {}
    joined = "-and-".join(str(name) for name in names)
    in_words_of_hub = all(model.card.license != "other" for model in models)
    if len(names) == 1 and in_words_of_hub and re.fullmatch("[a-z0-9.-]+", joined):
        return {"license": joined}
    links = {model.card.license_link for model in models}
    link = links.pop() if len(links) == 1 else None
    return {
        "license": "other",
        "license_name": re.sub("[^a-z0-9.-]+", "-", joined.lower()),
        **({"license_link": link} if LINK.fullmatch(str(link)) else {}),
    }


def _licences(survey: ReadySurvey, plan: MergePlan) -> str:
    stated = {_licence(survey.models[reference], survey) for _, reference in _in_roles(plan)}
    if None in stated:
        return "All of the models' licences apply to the result; not all of them are stated here."
    if len(stated) == 1:
        return f"The licence of all of them is {prose(str(*stated))}, and it applies to the result."
    return "All of these licences apply to the result together."


# --- The ratios ------------------------------------------------------------------------------


def _ratios(survey: ReadySurvey, plan: MergePlan) -> Iterator[str]:
    for number, chat in enumerate(plan.roles.chats, 1):
        if len(plan.roles.chats) > 1:
            yield f"**ratio_{number}**, of {_linked(survey, chat)}:"
        kinds = {
            kind: {layer: " and ".join(map(shown, ratios)) for layer, ratios in layers.items()}
            for kind, layers in ratio_table(plan.language_model)[chat].items()
        }
        within = [kind for kind in KINDS if any(i is not None for i in kinds.get(kind, {}))]
        rows = [
            (
                str(first) if first == last else f"{first}–{last}",
                *(ratios.get(kind, "–") for kind in within),
            )
            for first, last, ratios in layer_runs(kinds)
        ]
        yield _folded(table(("layers", *within), rows), len(rows))
        outside = [
            f"{'final norm' if kind == 'norms' else kind} {kinds[kind][None]}"
            for kind in ("embeddings", "norms", "head", "other")
            if None in kinds.get(kind, {})
        ]
        if outside:
            yield f"Outside the layers: {', '.join(outside)}."


def _folded(text: str, rows: int) -> str:
    if rows <= LONGEST_TABLE:
        return text
    return f"<details><summary>Layer by layer</summary>\n\n{text}\n\n</details>"


# --- The chat format -------------------------------------------------------------------------


def _chat(survey: ReadySurvey, plan: MergePlan, chat: ChatFormat) -> Iterator[str]:
    yield (
        f"The chat template comes from {prose(without_commits(chat.template.origin))}."
        if chat.template
        else "No chat template is known."
    )
    if chat.stops:
        yield "Generation stops at any of these tokens:"
        yield table(
            ("token", "id", "what it is"),
            [(code(stop.token), str(stop.id), _reason(stop)) for stop in chat.stops],
        )
    if sampling := sampling_defaults(speaking_chat(plan.roles, survey.models)):
        settings = ", ".join(code(f"{name}={value}") for name, value in sampling.items())
        yield f"`generation_config.json` has the chat model's settings: {settings}."


def _reason(stop: StopToken) -> str:
    if stop.origin == ENDS_A_TURN:
        return stop.origin
    return f"a stop token of {prose(without_commits(stop.origin))}"

"""How the output is to be talked to: its chat template, what ends a turn, where generation stops.

A chat model answers in the format it was tuned on, and its answers end with a token of that format.
Both are properties of its tokenizer and generation config, which a merge does not carry over. Here
they are worked out for the output: `check` tells what is missing, `finish` writes what is not.
"""

from __future__ import annotations

import importlib.resources
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mergekit.common import ModelReference
from mergekit.config import MergeConfiguration

from chatvec_method.errors import first_line
from chatvec_method.facts.models import Model
from chatvec_method.facts.tokenizers import TokenizerFacts
from chatvec_method.method.roles import Roles
from chatvec_method.rendering import TemplateError, render

QUESTION, ANSWER, AGAIN = "⟦question⟧", "⟦answer⟧", "⟦again⟧"
CONVERSATION = (
    {"role": "user", "content": QUESTION},
    {"role": "assistant", "content": ANSWER},
    {"role": "user", "content": AGAIN},
)
MARKER = re.compile(r"<\|[^<>|\s]+\|>|<[a-z]+(?:_[a-z]+)+>")
"""What looks like a special token of a chat format: `<|im_start|>`, `<start_of_turn>`."""
SPECIAL_ROLES = ("bos_token", "eos_token", "pad_token")
ENDS_A_TURN = "ends a turn"
"""The origin of the stop token that the chat template writes."""


@dataclass(frozen=True)
class Template:
    """A chat template, and where the output has it from."""

    text: str
    origin: str


@dataclass(frozen=True)
class StopToken:
    """A token at which generation stops, and whose it is."""

    token: str
    id: int
    origin: str


@dataclass(frozen=True)
class ChatFormat:
    """All that the output's tokenizer and configs have to say for it to chat and to stop."""

    template: Template | None
    problem: str
    """Why the template cannot be used; empty if it can."""
    markers: tuple[str, ...]
    """The special tokens that it writes, in order of appearance, bos and eos among them."""
    end_of_turn: str | None
    """The token that ends an answer."""
    stops: tuple[StopToken, ...]
    special: Mapping[str, str]
    """The output tokenizer's bos_token, eos_token and pad_token."""
    ignored_stops: tuple[str, ...]
    """Stop tokens of the models that are none in the output, each with the reason."""


def chat_format(
    config: MergeConfiguration,
    roles: Roles,
    models: Mapping[ModelReference, Model],
    tokens: Mapping[str, int],
) -> ChatFormat:
    """Return how the output is to be talked to.

    Args:
        config: The recipe.
        roles: Who is who in it.
        models: What is known of the models, at least of those with a role.
        tokens: The output's tokens and their ids.
    """
    chats = [models[other] for other in roles.chats]
    chat, cp = speaking_chat(roles, models), models[roles.cp]
    special = _special_tokens(chat, cp, tokens)
    template = choose_template(config, chat, models)
    rendered, problem = "", ""
    markers: tuple[str, ...] = ()
    if template is not None:
        rendered, problem = _rendered(template.text, special)
        vocabularies = [tokens, *(m.tokenizer.ids for m in models.values() if m.tokenizer)]
        markers = _markers(rendered, template, special, chat, vocabularies)
    end_of_turn = _end_of_turn(rendered, markers, special)
    if template is not None:
        # A template may end the last answer otherwise than one that a question follows.
        last, _ = _rendered(template.text, special, CONVERSATION[:2], add_generation_prompt=False)
        added = chat.tokenizer.added if chat.tokenizer else ()
        ends = [token for token in (*markers, *added, *special.values()) if token in last]
        end_of_turn = _end_of_turn(last, ends, special) or end_of_turn
    end_of_turn = end_of_turn or special.get("eos_token")
    stops, ignored = _stops(end_of_turn, chats, cp, tokens)
    return ChatFormat(template, problem, markers, end_of_turn, stops, special, ignored)


def speaking_chat(roles: Roles, models: Mapping[ModelReference, Model]) -> Model:
    """Return the chat model whose format the output takes: the first that has a template."""
    chats = [models[chat] for chat in roles.chats]
    return next((m for m in chats if m.tokenizer and m.tokenizer.chat_template), chats[0])


def choose_template(
    config: MergeConfiguration, chat: Model, models: Mapping[ModelReference, Model]
) -> Template | None:
    """Return the template of the recipe's `chat_template:`, else that of the chat model.

    `auto` means what it means in mergekit, the template that most of the models have; where two
    are equally frequent, of which mergekit takes either, it is the chat model's.
    """
    wanted = config.chat_template
    own = chat.tokenizer.chat_template if chat.tokenizer else None
    if wanted == "auto":
        counts = auto_candidates(models)
        if counts:
            most = max(counts.values())
            tied = [text for text, count in counts.items() if count == most]
            if own is not None and (own.strip() in tied):
                return Template(own.strip(), f"{chat} (`chat_template: auto`)")
            holder = next(m for m in models.values() if template_of(m) == tied[0])
            return Template(tied[0], f"{holder} (`chat_template: auto`)")
    elif wanted:
        built_in = _built_in(wanted)
        if built_in is not None:
            return Template(built_in, f"mergekit's own `{wanted}`")
        return Template(wanted, "the recipe")
    if own is not None:
        return Template(own, str(chat))
    for model in models.values():
        if model.tokenizer and model.tokenizer.chat_template:
            return Template(model.tokenizer.chat_template, str(model))
    return None


def auto_candidates(models: Mapping[ModelReference, Model]) -> Counter[str]:
    """Return the templates among which `chat_template: auto` chooses, and how many have each."""
    return Counter(text for model in models.values() if (text := template_of(model)))


def template_of(model: Model) -> str | None:
    """Return a model's template as mergekit compares it."""
    text = model.tokenizer.chat_template if model.tokenizer else None
    return text.strip() if text else None


def _built_in(name: str) -> str | None:
    """Return the template that mergekit has under a name."""
    if len(name) >= 256 or "\n" in name or "{" in name:
        return None
    folder = importlib.resources.files("mergekit") / "_data" / "chat_templates"
    file = folder / f"{name}.jinja"
    return file.read_text(encoding="utf-8") if file.is_file() else None


def _special_tokens(chat: Model, cp: Model, tokens: Mapping[str, int]) -> dict[str, str]:
    """Return the output's special tokens: the chat model's, and cp's where it lacks those."""
    special = {}
    for role in SPECIAL_ROLES:
        for model in (chat, cp):
            token = model.tokenizer.special.get(role) if model.tokenizer else None
            if token is not None and token in tokens:
                special[role] = token
                break
    return special


def _rendered(
    template: str,
    special: Mapping[str, str],
    messages: Sequence[Mapping[str, str]] = CONVERSATION,
    *,
    add_generation_prompt: bool = True,
) -> tuple[str, str]:
    """Return a short conversation in a template, or why that fails."""
    text, problem = "", ""
    for conversation in (messages, _in_parts(messages)):
        try:
            text = render(
                template, conversation, special, add_generation_prompt=add_generation_prompt
            )
        except TemplateError as error:
            problem = problem or first_line(error)
            continue
        if all(message["content"] in text for message in messages[1:]):
            return text, ""
        problem = problem or "it leaves out what was said"
    return text, problem


def _in_parts(messages: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Return messages as models that see or hear get them: some templates know nothing else."""
    return [
        {"role": each["role"], "content": [{"type": "text", "text": each["content"]}]}
        for each in messages
    ]


def _markers(
    rendered: str,
    template: Template,
    special: Mapping[str, str],
    chat: Model,
    vocabularies: Sequence[Collection[str]],
) -> tuple[str, ...]:
    """Return the special tokens in a rendered conversation, and what only looks like one.

    In the chat model's own template, what no model has as a token is text, on which it was tuned
    as such (Zephyr's `<|user|>`). In any other template it is a token that is missing.
    """
    looks = set(MARKER.findall(rendered))
    if template_of(chat) == template.text.strip():
        looks = {look for look in looks if any(look in tokens for tokens in vocabularies)}
    added = chat.tokenizer.added if chat.tokenizer else ()
    inside = {t for t in (*added, *special.values(), *looks) if t.strip() and t in rendered}
    # A marker within a longer one (`<|im|>` in `<|im|>>`) does not count by itself.
    whole = {t for t in inside if not any(t != other and t in other for other in inside)}
    return tuple(sorted(whole, key=rendered.index))


def _end_of_turn(rendered: str, markers: Sequence[str], special: Mapping[str, str]) -> str | None:
    """Return the special token that follows an answer, None where ordinary text does."""
    after = rendered.partition(ANSWER)[2].lstrip()
    follows = max((m for m in markers if after.startswith(m)), key=len, default=None)
    # A template that forgets to end a turn goes on with the next one's beginning.
    begins = follows == special.get("bos_token") != special.get("eos_token")
    return None if begins else follows


def _stops(
    end_of_turn: str | None, chats: Sequence[Model], cp: Model, tokens: Mapping[str, int]
) -> tuple[tuple[StopToken, ...], tuple[str, ...]]:
    """Return the stop tokens of the output, by what they are and not by their numbers.

    A number that a model stops at means a token of its own vocabulary, and is only believed where
    that is a special token: Llama-3-Open-Ko's generation config still has Llama 2's `2`, which is
    a punctuation mark in its vocabulary. What its tokenizer calls eos is always one.
    """
    stops: dict[str, StopToken] = {}
    ignored: list[str] = []
    if end_of_turn is not None and end_of_turn in tokens:
        stops[end_of_turn] = StopToken(end_of_turn, tokens[end_of_turn], ENDS_A_TURN)
    for model in (*chats, cp):
        if model.tokenizer is None:
            continue
        tokens_by_id = model.tokenizer.tokens
        special = _special_in(model.tokenizer)
        own = [tokens_by_id.get(number) for number in model.eos_token_ids]
        for number, token in zip(model.eos_token_ids, own, strict=True):
            if token is None:
                ignored.append(f"{number} of {model}, which has no such token")
            elif token not in special:
                ignored.append(f"{number} of {model}, which is the ordinary token {token!r} there")
        for token in dict.fromkeys([*own, model.tokenizer.special.get("eos_token")]):
            if token is None or token not in special:
                continue
            if token in tokens:
                stops.setdefault(token, StopToken(token, tokens[token], str(model)))
            else:
                ignored.append(f"{token!r} of {model}, which the output does not have")
    return tuple(stops.values()), tuple(dict.fromkeys(ignored))


def same_special_token(model: Model, number: Any, tokens: Mapping[str, int]) -> int | None:
    """Return the output's number of the special token that has a number in a model, if it has it.

    Args:
        model: The model whose number it is.
        number: Of a token, as a config has it: perhaps None, or out of range.
        tokens: The output's tokens and their ids.
    """
    if model.tokenizer is None or not isinstance(number, int):
        return None
    token = model.tokenizer.tokens.get(number, "")
    return tokens.get(token) if token in _special_in(model.tokenizer) else None


def _special_in(tokenizer: TokenizerFacts) -> frozenset[str]:
    return tokenizer.added | set(tokenizer.special.values())


def sampling_defaults(chat: Model) -> dict[str, Any]:
    """Return how the chat model's generation config samples, and how long its answers may be.

    Where it does not sample, what only matters to sampling is left out: transformers ignores it,
    and refuses to save it.
    """
    generation = chat.generation_config or {}
    sampling = ("temperature", "top_p", "top_k", "min_p", "typical_p")
    names = ["do_sample", "repetition_penalty", "max_new_tokens", "max_length"]
    if generation.get("do_sample"):
        names += sampling
    return {name: generation[name] for name in names if generation.get(name) is not None}

"""Whether the output will chat and stop: its template, the template's tokens, its stop tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from mergekit.common import ModelReference

from chatvec_method.checks.findings import Finding, advice, error, warning
from chatvec_method.checks.vocabulary import token_edits
from chatvec_method.facts.chat_format import ChatFormat, auto_candidates, template_of
from chatvec_method.facts.models import Model
from chatvec_method.facts.plan import MergePlan, PlannedTensor
from chatvec_method.facts.survey import Survey
from chatvec_method.method.roles import Roles
from chatvec_method.recipe.edits import Edit


def readiness_findings(survey: Survey) -> Iterator[Finding]:
    """Find what keeps the output from chatting and from stopping."""
    if survey.plan is None or survey.format is None:
        return
    yield from _template(survey, survey.plan.roles, survey.format)
    if survey.format.template is not None and survey.tokens is not None:
        yield from _markers(survey, survey.plan, survey.format.markers)
    yield from _stops(survey.format)


def _template(survey: Survey, roles: Roles, chat_format: ChatFormat) -> Iterator[Finding]:
    template = chat_format.template
    if template is None:
        yield warning(
            "no-chat-template",
            "chat_template",
            "neither the recipe nor any model has a chat template, so nobody can talk to the "
            "output but with a prompt of their own.",
            "Write the format that the chat model was tuned on as `chat_template:`, or one of "
            "mergekit's own: `chatml`, `alpaca`, `llama3`, `mistral`, `exaone`.",
        )
        return
    if chat_format.problem and survey.tokens is not None:
        yield error(
            "template-broken",
            "chat_template",
            f"the chat template of {template.origin} cannot be used: {chat_format.problem}.",
            "Write one that renders a user's and an assistant's messages, in jinja, or the name of "
            "one of mergekit's own: `chatml`, `alpaca`, `llama3`, `mistral`, `exaone`.",
        )
    if survey.recipe.config.chat_template == "auto":
        yield from _auto(survey, roles)


def _auto(survey: Survey, roles: Roles) -> Iterator[Finding]:
    counts = auto_candidates(survey.models)
    chat = next((survey.models[c] for c in roles.chats if template_of(survey.models[c])), None)
    if not counts or chat is None:
        return
    own, most = template_of(chat) or "", max(counts.values())
    first = [text for text, count in counts.items() if count == most]
    edits = (Edit(("chat_template",), own),)
    fix = f"Write the template of {chat} out under `chat_template:`."
    if len(first) > 1:
        yield warning(
            "auto-template-tie",
            "chat_template",
            f"{len(first)} different templates are equally frequent among the models, and with "
            "`auto` stock mergekit takes either, by chance. chatvec takes the chat model's.",
            fix,
            edits,
        )
    elif first[0] != own:
        yield warning(
            "auto-template-not-chat",
            "chat_template",
            f"with `auto` the output gets the template that most models have, and that is not the "
            f"one that {chat} was tuned on.",
            fix,
            edits,
        )


def _markers(survey: Survey, plan: MergePlan, markers: Sequence[str]) -> Iterator[Finding]:
    """The special tokens that the template writes: unknown, missing, or untrained."""
    roles, tokens = plan.roles, survey.tokens or {}
    owners = {
        marker: next((c for c in roles.chats if _has(survey.models[c], marker)), None)
        for marker in markers
    }
    unknown = [m for m, chat in owners.items() if chat is None and m not in tokens]
    if unknown:
        yield warning(
            "marker-unknown",
            "chat_template",
            f"the template writes {_quoted(unknown)}, tokens of no chat model and not of the "
            "output: no model was tuned on this format.",
            "Write the template of the chat model, or leave `chat_template:` out.",
        )
    known = {marker: chat for marker, chat in owners.items() if chat is not None}
    missing = {m: chat for m, chat in known.items() if m not in tokens}
    if missing:
        yield error(
            "marker-missing",
            "tokenizer.tokens",
            f"the template writes {_quoted(missing)}, which the chat model knows as one token each "
            "and the output would read in pieces.",
            f"Write `tokenizer: {{source: {roles.cp}, tokens: {_lines(missing)}}}`",
            token_edits(survey, roles, missing),
        )
    untrained = {
        m: chat
        for m, chat in known.items()
        if m not in missing and not _given(survey, m) and _untrained(survey, roles, m)
    }
    ratios = {t.ratios[c] for t in plan.tensors if _is_row(t) for c in set(untrained.values())}
    if ratios - {1.0}:
        shown = " and ".join(f"{ratio:g}" for ratio in sorted(ratios))
        yield advice(
            "marker-untrained",
            "tokenizer.tokens",
            f"the template writes {_quoted(untrained)}, which base and cp have and, having no "
            f"template, hardly trained: with the ratio {shown} their rows get only so much of what "
            "chat learnt.",
            f"Write `tokenizer: {{source: {roles.cp}, tokens: {_lines(untrained)}}}` to give them "
            "chat's rows (`chatvec check --deep` tells whether cp trained them).",
            token_edits(survey, roles, untrained),
        )


def _is_row(tensor: PlannedTensor) -> bool:
    return tensor.kind in ("embeddings", "head")


def _has(model: Model, token: str) -> bool:
    return model.tokenizer is not None and token in model.tokenizer.ids


def _given(survey: Survey, token: str) -> bool:
    """Whether the recipe says itself where a token's row comes from."""
    settings = survey.recipe.config.tokenizer
    return token in ((settings and settings.tokens) or {})


def _untrained(survey: Survey, roles: Roles, token: str) -> bool:
    """Whether base and cp have a token that they never saw, as far as tokenizers tell."""
    for reference in (roles.base, roles.cp):
        tokenizer = survey.models[reference].tokenizer
        if tokenizer is None or token not in tokenizer.ids or tokenizer.chat_template:
            return False
        if token in tokenizer.special.values():
            return False
    return True


def _quoted(tokens: Iterable[str]) -> str:
    return ", ".join(map(repr, tokens))


def _lines(tokens: Mapping[str, ModelReference]) -> str:
    rows = (f'"{token}": {{source: {chat}, force: true}}' for token, chat in tokens.items())
    return "{" + ", ".join(rows) + "}"


def _stops(chat_format: ChatFormat) -> Iterator[Finding]:
    if not chat_format.stops:
        yield warning(
            "no-stop-token",
            "generation_config.json",
            "no token is known at which the output's answers end, so it will talk on.",
            "Write a chat model whose tokenizer has an eos_token.",
        )
    for ignored in chat_format.ignored_stops:
        yield advice(
            "stop-token-ignored",
            "generation_config.json",
            f"`eos_token_id` {ignored}, so `chatvec merge` leaves it out of the stop tokens.",
            "Nothing.",
        )

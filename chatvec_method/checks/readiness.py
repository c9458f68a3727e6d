"""Whether the output will chat and stop: its template, the template's tokens, its stop tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from mergekit.common import ModelReference

from chatvec_method.checks.findings import Finding, advice, error, warning
from chatvec_method.checks.markers import missing_markers, owned_markers
from chatvec_method.checks.templates import Difference, around, difference
from chatvec_method.checks.vocabulary import token_edits
from chatvec_method.facts.chat_format import (
    ChatFormat,
    Template,
    auto_candidates,
    speaking_chat,
    template_of,
)
from chatvec_method.facts.plan import MergePlan, PlannedTensor
from chatvec_method.facts.survey import Survey
from chatvec_method.method.roles import Roles
from chatvec_method.method.vector import vector_facts
from chatvec_method.recipe.edits import Edit

LONGEST_TEMPLATE = 4000
"""A longer one is left out of a recipe: without `chat_template:`, chatvec takes it all the same."""


def readiness_findings(survey: Survey) -> Iterator[Finding]:
    """Find what keeps the output from chatting and from stopping."""
    if survey.plan is None or survey.format is None:
        return
    yield from _template(survey, survey.plan.roles, survey.format)
    if survey.format.template is not None and survey.tokens is not None:
        unknown = _unknown_markers(survey)
        yield from _not_of_a_model(survey, survey.plan.roles, unknown)
        if not unknown:  # else that has told that the template is another model's
            yield from _of_another_model(survey, survey.plan.roles, survey.format.template)
        yield from _markers(survey, survey.plan)
    yield from _stops(survey, survey.format)


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


def _of_another_model(survey: Survey, roles: Roles, template: Template) -> Iterator[Finding]:
    """Tell of a template in the recipe that is not the chat model's: often it was copied along."""
    if survey.recipe.config.chat_template in (None, "auto"):
        return
    chat = speaking_chat(roles, survey.models)
    own, special = template_of(chat), chat.tokenizer.special if chat.tokenizer else {}
    if own is None:
        return
    differs = difference(template.text, own, special)
    others = [survey.models[model] for model in (*roles.chats, roles.cp) if model != chat.reference]
    same = [m for m in others if (text := template_of(m)) and not _differ(template, text, special)]
    if differs is None or any(model.reference in roles.chats for model in same):
        return
    report = warning if differs in (Difference.TURNS, Difference.SYSTEM) and not same else advice
    yield report(
        "template-differs",
        "chat_template",
        f"{template.origin} has another chat template than {chat}, which was tuned on its own. "
        f"They differ {differs.value}: a question is `{around(template.text, special)}` here, and "
        f"`{around(own, special)}` there" + (f" (it is that of {same[0]})." if same else "."),
        f"Remove `chat_template:`, or write the template of {chat} there, which stock mergekit "
        "then writes too.",
        _own_template(own),
    )


def _differ(template: Template, text: str, special: Mapping[str, str]) -> bool:
    return difference(template.text, text, special) is not None


def _own_template(own: str) -> tuple[Edit, ...]:
    """Return the edit that gives the output the chat model's template."""
    path = ("chat_template",)
    return (Edit(path, own) if len(own) <= LONGEST_TEMPLATE else Edit(path, remove=True),)


def _unknown_markers(survey: Survey) -> list[str]:
    """Return the template's special tokens that neither a chat model has nor the output."""
    tokens = survey.tokens or {}
    return [m for m, chat in owned_markers(survey).items() if chat is None and m not in tokens]


def _not_of_a_model(survey: Survey, roles: Roles, unknown: Sequence[str]) -> Iterator[Finding]:
    own = template_of(speaking_chat(roles, survey.models))
    if unknown:
        yield warning(
            "marker-unknown",
            "chat_template",
            f"the template writes {_quoted(unknown)}, tokens of no chat model and not of the "
            "output: no model was tuned on this format.",
            "Write the template of the chat model, or leave `chat_template:` out.",
            _own_template(own) if own and survey.recipe.config.chat_template else (),
        )


def _markers(survey: Survey, plan: MergePlan) -> Iterator[Finding]:
    """The special tokens that the template writes: missing or untrained."""
    roles = plan.roles
    owners = {m: chat for m, chat in owned_markers(survey).items() if chat is not None}
    missing = missing_markers(survey)
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
        for m, chat in owners.items()
        if m not in missing
        and not _given(survey, m)
        and _untrained(survey, roles, m)
        and _has_own_row(survey, roles, chat, m)
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


def _given(survey: Survey, token: str) -> bool:
    """Whether the recipe says itself where a token's row comes from."""
    settings = survey.recipe.config.tokenizer
    return token in ((settings and settings.tokens) or {})


def _has_own_row(survey: Survey, roles: Roles, chat: ModelReference, token: str) -> bool:
    """Whether a chat's own row of a token is there: a vector has it of what base lacks alone."""
    if chat not in roles.vectors:
        return True
    facts = vector_facts(survey.models[chat].config)
    return facts is not None and token in facts.added_tokens


def _untrained(survey: Survey, roles: Roles, token: str) -> bool:
    """Whether base and cp have a token that they never saw, as far as tokenizers tell."""
    for reference in (*roles.bases, roles.cp):
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


def _stops(survey: Survey, chat_format: ChatFormat) -> Iterator[Finding]:
    if not chat_format.stops:
        yield warning(
            "no-stop-token",
            "generation_config.json",
            "no token is known at which the output's answers end, so it will talk on.",
            "Write a chat model whose tokenizer has an eos_token.",
        )
    missing = tuple(f"{marker!r} of " for marker in missing_markers(survey))
    for ignored in chat_format.ignored_stops:
        if missing and ignored.startswith(missing):  # told as a marker that is missing
            continue
        yield advice(
            "stop-token-ignored",
            "generation_config.json",
            f"`eos_token_id` {ignored}, so `chatvec merge` leaves it out of the stop tokens.",
            "Nothing.",
        )

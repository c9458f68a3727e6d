"""What a check does not decide: whose config and tokenizer the output keeps, template, dtype."""

from __future__ import annotations

import torch
from mergekit.common import ModelReference

from chatvec_method.checks.findings import Severity
from chatvec_method.checks.readiness import LONGEST_TEMPLATE
from chatvec_method.checks.roles import is_chat_name
from chatvec_method.facts.chat_format import auto_candidates, speaking_chat, template_of
from chatvec_method.facts.models import Model, config_value, embedding_rows, text_config
from chatvec_method.method.settings import dtype_name
from chatvec_method.new.draft import Draft

OUT_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
ALIKE = ("model_type", "num_hidden_layers", "tie_word_embeddings")


def choose_base_model(draft: Draft) -> None:
    """Write the model whose config and tokenizer the output keeps: chat where both fit, else cp."""
    models, roles = draft.survey.models, draft.roles
    chat, cp = speaking_chat(roles, models), models[roles.cp]
    why_not = _what_of_chat_does_not_fit(draft, chat, cp)
    if why_not:
        draft.write(("base_model",), str(roles.cp), f"The output keeps the config of cp. {why_not}")
        return
    longer = ""
    own, others = (_positions(model) for model in (chat, cp))
    if own and others and own > others:
        longer = f" Its config says {own} positions, cp's {others}."
    tokens = "the same tokens as cp"
    if _are_renamed(draft):
        tokens = "cp's tokens, some under the names that its template writes"
    draft.write(
        ("base_model",),
        str(chat),
        f"The chat model: it has {tokens}, and the same config where that matters, so its "
        f"tokenizer, chat template and stop tokens fit the output.{longer}",
    )


def _what_of_chat_does_not_fit(draft: Draft, chat: Model, cp: Model) -> str:
    """Return why the output cannot have the chat model's config and tokenizer; "" if it can."""
    if chat.tokenizer is None or cp.tokenizer is None:
        lacking = chat if chat.tokenizer is None else cp
        return f"{lacking} has no tokenizer that loads."
    if chat.tokenizer.ids.keys() != cp.tokenizer.ids.keys() and not _are_renamed(draft):
        ours, theirs = len(cp.tokenizer.ids), len(chat.tokenizer.ids)
        return f"cp has {ours} tokens, {chat} {theirs}, and they are not the same."
    if embedding_rows(chat) != embedding_rows(cp):
        rows = embedding_rows(cp), embedding_rows(chat)
        return f"cp has {rows[0]} rows of embeddings, {chat} {rows[1]}."
    for name in ALIKE:
        values = [config_value(text_config(model.config), name) for model in (cp, chat)]
        if values[0] != values[1]:
            return f"cp's `{name}` is {values[0]}, that of {chat} {values[1]}."
    if chat.config.model_type != cp.config.model_type:
        return f"cp is a {cp.config.model_type}, {chat} a {chat.config.model_type}."
    for finding in draft.check().findings:
        if finding.code == "config-differs":
            field = finding.message.partition(":")[0]
            return f"{field} among the models, and most of the output is cp."
    return ""


def _are_renamed(draft: Draft) -> bool:
    """Tell whether the models have the same rows, and only other names for some tokens."""
    codes = ("vocabulary-order", "vocabulary-sizes")
    told = [finding for finding in draft.check().findings if finding.code in codes]
    return bool(told) and all(finding.severity is Severity.WARNING for finding in told)


def _positions(model: Model) -> int | None:
    positions = config_value(text_config(model.config), "max_position_embeddings")
    return positions if isinstance(positions, int) else None


def choose_tokenizer_source(draft: Draft) -> None:
    """Have the tokens in the order of base_model, where it has the same ones as cp."""
    settings, roles = draft.raw.get("tokenizer"), draft.roles
    donor = ModelReference.parse(draft.raw["base_model"])
    if not isinstance(settings, dict) or donor == roles.cp or settings["source"] != str(roles.cp):
        return
    tokenizers = [draft.survey.models[model].tokenizer for model in (donor, roles.cp)]
    if None not in tokenizers and tokenizers[0].ids.keys() == tokenizers[1].ids.keys():  # type: ignore[union-attr]
        draft.write(("tokenizer", "source"), str(donor))


def choose_template(draft: Draft) -> None:
    """Write the chat template, unless it comes along with the tokenizer."""
    models, roles = draft.survey.models, draft.roles
    chat = speaking_chat(roles, models)
    own, candidates = template_of(chat), auto_candidates(models)
    if own is None:
        return
    settings = draft.raw.get("tokenizer") or {}
    owner = ModelReference.parse(str(settings.get("source", draft.raw["base_model"])))
    if owner in models and template_of(models[owner]) == own:
        return
    if len(candidates) == 1:
        draft.write(("chat_template",), "auto", f"That of {chat}, the only one there is.")
        return
    others = sorted({str(m) for m in models.values() if template_of(m) not in (None, own)})
    gamble = (
        f"{' and '.join(others)} have another" if len(others) > 1 else f"{others[0]} has another"
    )
    if len(own) > LONGEST_TEMPLATE:
        draft.give_reasons(
            ("out_dtype",),
            f"No `chat_template:`: that of {chat} has {len(own)} characters, and `chatvec merge` "
            f"and `chatvec finish` take it by themselves; with `auto`, as {gamble}, stock mergekit "
            "might not.",
        )
        return
    draft.write(
        ("chat_template",),
        own,
        f"That of {chat}, written out: {gamble}, and with `auto` the output might get that one.",
    )


def choose_dtype(draft: Draft) -> None:
    """Write the output's dtype: that of cp's weights."""
    models, roles = draft.survey.models, draft.roles
    stored = models[roles.cp].weights_dtype or getattr(models[roles.cp].config, "dtype", None)
    dtype = stored if stored in OUT_DTYPES else torch.bfloat16
    others = {model.weights_dtype for model in models.values()} - {dtype, None}
    reason = "that of cp's weights" if stored == dtype else "cp's weights have another, of no use"
    if others:
        reason += "; not `dtype:`, which would round the others before the subtraction"
    draft.write(("out_dtype",), dtype_name(dtype), reason)


def named_as_chat(name: str) -> bool:
    """Tell whether a model is named like one that was tuned to chat or to reason."""
    return is_chat_name(ModelReference.parse(name))

"""Tokens that would be mixed up, filled in from another model, or lost (traps 4 to 6)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TypeAlias

from mergekit.common import ModelReference

from chatvec_method.checks.findings import Finding, advice, error, warning
from chatvec_method.checks.markers import missing_markers
from chatvec_method.facts.models import Model, embedding_rows
from chatvec_method.facts.survey import Survey
from chatvec_method.facts.token_text import text_of
from chatvec_method.facts.tokenizers import TokenizerFacts
from chatvec_method.facts.vocabulary import Row, Vocabulary
from chatvec_method.method.roles import Roles
from chatvec_method.method.settings import tokenizer_source
from chatvec_method.recipe.edits import Edit

Sources: TypeAlias = tuple[str, ...]
"""Whose row stands for a token in base, in each chat model and in cp: a role, "mean" or "zero"."""

MOST_EDITS = 100
"""Beyond so many tokens, a recipe is not the place to list them."""
TOKENIZER_FIX = (
    "Download it again, with its tokenizer files, or put those of the model that it was "
)
TOKENIZER_FIX += "trained from beside its weights, if it was trained with them."
MULTIPLES = tuple(2**k for k in range(12, 2, -1))
"""To which people pad."""


def vocabulary_findings(survey: Survey, roles: Roles | None) -> Iterator[Finding]:
    """Find what happens to tokens that a person would not expect."""
    if roles is None or any(model not in survey.models for model in roles.all):
        return
    config = survey.recipe.config
    aligned = bool(config.tokenizer or config.tokenizer_source)
    yield from _unloadable(survey, roles, aligned)
    if not aligned:
        yield from _by_position(survey, roles)
        yield from _truncated(survey, roles)
    else:
        yield from _beyond_rows_by_token(survey, roles)
        yield from _lost(survey, roles)
    if survey.vocabulary is not None:
        filled = _filled_by_vectors if roles.vectors else _filled
        yield from filled(survey, roles, survey.vocabulary)
        yield from _padding(survey, roles, survey.vocabulary)


def token_sources(roles: Roles, vocabulary: Vocabulary) -> dict[Sources, list[str]]:
    """Return the output's tokens by whose rows stand for them in base, the chats and cp."""
    names = _role_names(roles)
    tokens: dict[Sources, list[str]] = defaultdict(list)
    for token in sorted(vocabulary.ids, key=vocabulary.ids.__getitem__):
        rows = (vocabulary.sources(model, token) for model in roles.all)
        tokens[tuple(_source(r, names) for r in rows)].append(token)
    return tokens


def tokenizer_edits(
    survey: Survey, roles: Roles, *edits: Edit, source: str | None = None
) -> tuple[Edit, ...]:
    """Return edits below `tokenizer:`, with those that make it where it is missing.

    Where the recipe says nothing of a tokenizer, the output gets that of `source`, or else cp's.
    """
    config = survey.recipe.config
    if config.tokenizer is not None:
        return edits
    given = Edit(("tokenizer", "source"), str(config.tokenizer_source or source or roles.cp))
    if config.tokenizer_source is None:
        return (given, *edits)
    return (Edit(("tokenizer_source",), remove=True), given, *edits)


def token_edits(
    survey: Survey, roles: Roles, sources: Mapping[str, ModelReference]
) -> tuple[Edit, ...]:
    """Return the edits that give tokens a model's row each, none where they are too many."""
    if len(sources) > MOST_EDITS:
        return ()
    rows = (
        Edit(("tokenizer", "tokens", token), {"source": str(source), "force": True})
        for token, source in sources.items()
    )
    return tokenizer_edits(survey, roles, *rows)


def _source(rows: Sequence[Row], names: Mapping[ModelReference, str]) -> str:
    if len(rows) == 1:
        return names[rows[0].model]
    return "mean" if rows else "zero"


def _role_names(roles: Roles) -> dict[ModelReference, str]:
    several = len(roles.chats) > 1
    names = {model: roles.role_of(model) for model in roles.all}
    names |= {chat: f"{names[chat]} {i + 1}" for i, chat in enumerate(roles.chats) if several}
    return names


def _unloadable(survey: Survey, roles: Roles, aligned: bool) -> Iterator[Finding]:
    donor = survey.recipe.config.base_model
    for reference in roles.all:
        model = survey.models[reference]
        if model.tokenizer is not None:
            continue
        problem = f"its tokenizer does not load ({model.tokenizer_problem})"
        fix = TOKENIZER_FIX
        if reference == donor:
            gives = tokenizer_source(survey.recipe.config) in (None, "base", "union", donor)
            need = "it is to give the output one" if gives else "mergekit matches tokens by it"
            yield error(
                "tokenizer-unreadable",
                model,
                f"{problem}, and as base_model {need}.",
                fix,
                certain=True,
            )
        elif not aligned and _rows_count(survey, reference):
            yield warning(
                "tokenizer-unreadable",
                model,
                f"{problem}, so it is not known whether the same rows are the same tokens.",
                fix,
            )
        elif not aligned or _stand_in_fits(survey, model):
            yield from _assumed(survey, model, problem, fix)
        else:
            yield error(
                "tokenizer-unreadable",
                model,
                f"{problem}, and mergekit would assume without a word that it is that of "
                "base_model, which has tokens for which there is no row here.",
                fix,
                certain=True,
            )


def _assumed(survey: Survey, model: Model, problem: str, fix: str) -> Iterator[Finding]:
    """Tell of a tokenizer that is missing, where rows can be found all the same."""
    if _rows_count(survey, model.reference):
        yield error(
            "tokenizer-unreadable",
            model,
            f"{problem}, and mergekit would assume without a word that it is that of base_model.",
            fix,
        )
    else:
        yield advice(
            "tokenizer-unreadable",
            model,
            f"{problem}. It does not matter here: the ratios of embeddings and head are 0.",
            "Nothing.",
        )


def _rows_count(survey: Survey, reference: ModelReference) -> bool:
    """Whether a model's embeddings or head are a part of the sum."""
    if survey.plan is None:
        return True
    by_token = [t for t in survey.plan.tensors if t.weight.vocabulary_axis is not None]
    return any(reference in tensor.readers for tensor in by_token)


def _stand_in_fits(survey: Survey, model: Model) -> bool:
    """Whether a model has a row for every token of base_model."""
    donor = survey.models.get(survey.recipe.config.base_model)
    if donor is None or donor.tokenizer is None:
        return False
    rows = embedding_rows(model)
    return rows is None or max(donor.tokenizer.ids.values(), default=0) < rows


def _truncated(survey: Survey, roles: Roles) -> Iterator[Finding]:
    """Trap 7: embeddings cut to the smallest vocabulary, and a config that does not say so."""
    if survey.options.unsafe_truncate_embeddings and len(_all_rows(survey, roles)) > 1:
        yield error(
            "truncated-embeddings",
            "--unsafe-truncate-embeddings",
            "it cuts the embeddings to the smallest vocabulary, and the config still names the "
            "larger one.",
            "Leave the option out, and match rows by token with `tokenizer: {source: ...}`.",
        )


def _all_rows(survey: Survey, roles: Roles) -> dict[int, ModelReference]:
    """Return the numbers of rows that the models have."""
    rows = {model: embedding_rows(survey.models[model]) for model in roles.all}
    return {count: model for model, count in rows.items() if count is not None}


def _by_position(survey: Survey, roles: Roles) -> Iterator[Finding]:
    """Trap 4: without `tokenizer:`, rows are added up by their number."""
    cp = survey.models[roles.cp]
    sizes = {m: rows for m in roles.all if (rows := embedding_rows(survey.models[m])) is not None}
    edits = tokenizer_edits(survey, roles)
    fix = f"Write `tokenizer: {{source: {roles.cp}}}`"
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{model} {size}" for model, size in sizes.items())
        yield error(
            "vocabulary-sizes",
            "tokenizer",
            f"the vocabularies differ in size ({listed}), so rows must be matched by token.",
            fix,
            edits,
        )
        return
    yield from _beyond_rows(survey, roles)
    for reference in (*roles.bases, *roles.chats):
        other = survey.models[reference].tokenizer
        if cp.tokenizer is None or other is None or not _rows_count(survey, reference):
            continue
        rows = embedding_rows(cp) or 0
        tokens, others = cp.tokenizer.tokens, other.tokens
        differing = [i for i in sorted(tokens.keys() & others.keys()) if tokens[i] != others[i]]
        differing = [i for i in differing if i < rows]
        if not differing:
            continue
        i = differing[0]
        message = (
            f"it has as many rows as {roles.cp}, but {len(differing)} of them stand for other "
            f"tokens (row {i} is {others[i]!r} here and {tokens[i]!r} in cp), and without "
            "`tokenizer:` rows are added up by their number"
        )
        if len(_moved(cp.tokenizer, other)) > 1:
            yield error("vocabulary-order", reference, f"{message}.", fix, edits)
        else:
            yield warning(
                "vocabulary-order",
                reference,
                f"{message}. As no token changed places with another, these may be tokens renamed.",
                f"Nothing, if they were renamed; else: {fix}",
            )


def _moved(cp: TokenizerFacts, other: TokenizerFacts) -> list[str]:
    """Return the tokens that another model has on a row on which cp has another token.

    A token that was renamed may come again behind all others, where transformers adds what the
    tokenizer's class has by default (the tokenizer of R1's distillations is such).
    """
    of_cp = cp.tokens
    return [
        token
        for token, row in cp.ids.items()
        if (elsewhere := other.ids.get(token, row)) != row and elsewhere in of_cp
    ]


def _beyond_rows(survey: Survey, roles: Roles) -> Iterator[Finding]:
    """Tell of tokens that the output would have and no row for."""
    donor = survey.models.get(survey.recipe.config.base_model)
    rows = embedding_rows(survey.models[roles.cp])
    if donor is None or donor.tokenizer is None or rows is None:
        return
    tokens = donor.tokenizer.tokens
    beyond = [tokens[i] for i in sorted(tokens) if i >= rows]
    if beyond:
        yield error(
            "tokens-beyond-rows",
            donor,
            f"its tokenizer, which the output gets, has {_tokens(beyond)} beyond the {rows} rows "
            "of the embeddings: a text with them could not be read.",
            "Write `tokenizer: {source: base}`: mergekit then drops tokens of base_model without "
            "a row.",
            tokenizer_edits(survey, roles, source="base"),
        )


def _beyond_rows_by_token(survey: Survey, roles: Roles) -> Iterator[Finding]:
    """Tell of tokens that the output has too and a model no row for; base_model's do not matter."""
    config, tokens = survey.recipe.config, _output_tokens(survey) or ()
    for reference in roles.all:
        model = survey.models[reference]
        rows = embedding_rows(model)
        if reference == config.base_model or model.tokenizer is None or rows is None:
            continue
        ids = model.tokenizer.ids
        beyond = [t for t in sorted(ids, key=ids.__getitem__) if ids[t] >= rows and t in tokens]
        if not beyond:
            continue
        fix = (
            "Write a folder with a copy of the model from whose tokenizer such tokens are removed."
        )
        edits: tuple[Edit, ...] = ()
        if reference == roles.cp:
            fix = (
                f"Write `base_model: {reference}` and `tokenizer: {{source: base}}`: mergekit then "
            )
            fix += "drops tokens of base_model without a row."
            path = ("tokenizer", "source") if config.tokenizer else ("tokenizer_source",)
            edits = (Edit(("base_model",), str(reference)), Edit(path, "base"))
        yield error(
            "tokens-beyond-rows",
            model,
            f"its tokenizer has {_tokens(beyond)} beyond its {rows} rows of embeddings, as the "
            "output's has: mergekit cannot match that.",
            fix,
            edits,
        )


def _output_tokens(survey: Survey) -> Collection[str] | None:
    """Return the output's tokens, also where mergekit would not get as far as to build them."""
    if survey.vocabulary is not None:
        return survey.vocabulary.ids
    model = survey.models.get(_tokenizer_owner(survey))
    return model.tokenizer.ids if model is not None and model.tokenizer else None


def _tokenizer_owner(survey: Survey) -> ModelReference | None:
    """Return the model whose tokenizer the output gets by `tokenizer:`; None for a union."""
    config = survey.recipe.config
    source = tokenizer_source(config)
    if source == "base":
        return config.base_model
    return source if isinstance(source, ModelReference) else None


def _lost(survey: Survey, roles: Roles) -> Iterator[Finding]:
    names, tokens = _role_names(roles), _output_tokens(survey)
    if tokens is None:
        return
    missing = missing_markers(survey)
    for reference in roles.all:
        own = survey.models[reference].tokenizer
        if own is None:
            continue
        lost = [t for t in sorted(own.ids, key=own.ids.__getitem__) if t not in tokens]
        if reference == _tokenizer_owner(survey):  # then only what has no row is left out
            lost = []
        if reference != roles.cp:  # what the template writes is told as missing
            lost = [token for token in lost if token not in missing]
        if not lost:
            continue
        if reference != roles.cp:
            yield advice(
                "tokens-dropped",
                reference,
                f"the output will not have {_tokens(lost)} of {names[reference]}.",
                "Nothing, unless you need them: "
                f'`tokenizer: tokens: {{"{lost[0]}": {{source: {reference}}}}}` adds one.',
            )
            continue
        short = survey.recipe.config.tokenizer is None
        path = ("tokenizer_source",) if short else ("tokenizer", "source")
        # A padding token may be meant to go, the words of a language never are.
        report = warning if all(token in own.added for token in lost) else error
        yield report(
            "cp-tokens-lost",
            ".".join(path),
            f"the output would lose {_tokens(lost)} of cp.",
            f"Write `tokenizer: {{source: {roles.cp}}}`",
            (Edit(path, str(roles.cp)),),
        )


def _filled(survey: Survey, roles: Roles, vocabulary: Vocabulary) -> Iterator[Finding]:
    """Trap 5: a token that a model lacks gets the row of another."""
    names = _role_names(roles)
    own = tuple(names.values())
    given = set((survey.recipe.config.tokenizer and survey.recipe.config.tokenizer.tokens) or {})
    for sources, all_tokens in sorted(token_sources(roles, vocabulary).items()):
        tokens = [token for token in all_tokens if token not in given]
        if not tokens or sources == own:
            continue
        base, *chats, cp = sources
        lacking = [name for name, source in zip(own, sources, strict=True) if source != name]
        row = formula(sources, own)
        if cp != "cp":
            yield from _lacked_by_cp(roles, sources, tokens)
        elif all(chat == base for chat in chats):
            yield advice(
                "tokens-of-cp",
                "tokenizer",
                f"{_lack(lacking)} {_tokens(tokens)}: their rows stay cp's at any ratio.",
                "Nothing: that is how new tokens are meant to come through.",
            )
        elif base == "base":
            yield warning(
                "tokens-without-chat",
                "tokenizer.tokens",
                f"{_lack(lacking)} {_tokens(tokens)}, which base and cp have: their rows become "
                f"{row}, and that is not a chat vector.",
                f"Write `tokens: {{{_row(tokens[0], roles.cp)}}}` to keep cp's.",
                token_edits(survey, roles, dict.fromkeys(tokens, roles.cp)),
            )
        else:
            chat = roles.chats[next(i for i, source in enumerate(chats) if source != base)]
            yield advice(
                "tokens-without-base",
                "tokenizer.tokens",
                f"base lacks {_tokens(tokens)}, which chat and cp have: their rows become {row}.",
                f"Write `tokens: {{{_row(tokens[0], chat)}}}` for chat's row at any ratio, "
                f"`source: {roles.cp}` for cp's, or nothing.",
                token_edits(survey, roles, dict.fromkeys(tokens, chat)),
            )


def _filled_by_vectors(survey: Survey, roles: Roles, vocabulary: Vocabulary) -> Iterator[Finding]:
    """Trap 5, where chat − base is there already: tokens of cp alone, or of chat alone."""
    own = {model: vocabulary.original_ids.get(model, {}) for model in roles.all}
    given = set((survey.recipe.config.tokenizer and survey.recipe.config.tokenizer.tokens) or {})
    tokens = [t for t in sorted(vocabulary.ids, key=vocabulary.ids.__getitem__) if t not in given]
    of_cp = [t for t in tokens if not any(t in own[chat] for chat in roles.chats)]
    of_chat = [t for t in tokens if t not in own[roles.cp] and t not in of_cp]
    if of_cp:
        yield advice(
            "tokens-of-cp",
            "tokenizer",
            f"no chat vector has {_tokens(of_cp)}: their rows stay cp's at any ratio.",
            "Nothing: that is how new tokens are meant to come through.",
        )
    if of_chat:
        yield advice(
            "tokens-without-cp",
            "tokenizer",
            f"cp lacks {_tokens(of_chat)}: their rows are the chat model's at any ratio.",
            f"Nothing, or write `tokenizer: {{source: {roles.cp}}}` to leave them out.",
        )


def _lacked_by_cp(roles: Roles, sources: Sources, tokens: Sequence[str]) -> Iterator[Finding]:
    row = formula(sources, tuple(_role_names(roles).values()))
    if sources[-1] == "zero":
        yield warning(
            "tokens-without-row",
            "tokenizer",
            f"no model has a row for {_tokens(tokens)}: the output's are zeros.",
            "Nothing, if no text has these tokens; else write `tokens:` with a `source:` for them.",
        )
    elif len(set(sources)) == 1:  # as the recipe asks, with a union
        yield advice(
            "tokens-without-cp",
            "tokenizer",
            f"cp lacks {_tokens(tokens)}: their rows are {row}'s at any ratio.",
            f"Nothing, or write `tokenizer: {{source: {roles.cp}}}` to leave them out.",
        )
    else:
        yield warning(
            "tokens-without-cp",
            "tokenizer",
            f"cp lacks {_tokens(tokens)}: their rows become {row}.",
            f"Write `tokenizer: {{source: {roles.cp}}}` to leave them out, or nothing if they are "
            "meant.",
        )


def formula(sources: Sources, own: Sources) -> str:
    """Return what a token's row becomes, as a formula of whose rows are added up."""
    base, *chats, cp = sources
    several = len(own) > 3
    terms = [
        f" + r{i + 1 if several else ''}·({chat} - {base})"
        for i, chat in enumerate(chats)
        if chat != base
    ]
    return cp + "".join(terms)


def _row(token: str, source: ModelReference) -> str:
    return f'"{token}": {{source: {source}, force: true}}'


def _lack(names: Sequence[str]) -> str:
    return " and ".join(names) + (" lacks" if len(names) == 1 else " lack")


def _padding(survey: Survey, roles: Roles, vocabulary: Vocabulary) -> Iterator[Finding]:
    """Trap 6: with `tokenizer:`, there are as many rows as tokens."""
    rows, tokens = embedding_rows(survey.models[roles.cp]), len(vocabulary.ids)
    settings = survey.recipe.config.tokenizer
    if rows is None or rows <= vocabulary.rows or (settings and settings.pad_to_multiple_of):
        return
    multiple = next((m for m in MULTIPLES if -(-tokens // m) * m == rows), rows)
    yield warning(
        "padding-lost",
        "tokenizer.pad_to_multiple_of",
        f"cp has {rows} rows for {tokens} tokens, and with `tokenizer:` the output has {tokens}: "
        "rows that only pad are lost, on which fast kernels and other tools may rely.",
        f"Write `pad_to_multiple_of: {multiple}` below `tokenizer:`, for {rows} rows again.",
        tokenizer_edits(survey, roles, Edit(("tokenizer", "pad_to_multiple_of"), multiple)),
    )


def _tokens(tokens: Sequence[str], most: int = 3) -> str:
    shown = ", ".join(repr(text_of(token)) for token in tokens[:most])
    if len(tokens) == 1:
        return f"the token {shown}"
    return f"{len(tokens)} tokens ({shown}{', ...' if len(tokens) > most else ''})"

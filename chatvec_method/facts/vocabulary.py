"""Which row of which model stands for a token of the output, where the recipe has `tokenizer:`.

mergekit matches rows by token, and fills in for a model that lacks one by rules of its own
(tokenizer/embed.py). Its own functions build the tokenizer and choose the fillings here, so that a
check can count what happens to the tokens, and a verification can find each row again. Only they
load tokenizers, and no more than it takes: each is some 50 MB as long as it is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from immutables import Map
from mergekit.common import ImmutableMap, ModelReference
from mergekit.config import MergeConfiguration
from mergekit.io.tasks import GatherTensors
from mergekit.tokenizer import BuildTokenizer, PermutedVocabulary
from mergekit.tokenizer.build import build_tokenizer
from mergekit.tokenizer.config import ModelTokenEmbedding, TokenEmbeddingConfig, ZeroEmbedding
from transformers import PreTrainedTokenizerBase

from chatvec_method.errors import ChatVecError, first_line
from chatvec_method.facts.models import Model, config_value, small_files_of, text_config
from chatvec_method.facts.plan import MergePlan
from chatvec_method.facts.tokenizers import look_up_tokenizer
from chatvec_method.method.settings import tokenizer_source
from chatvec_method.method.vector import added_of, base_of, vector_facts
from chatvec_method.quiet import quiet


@dataclass(frozen=True)
class Row:
    """A row of a model's embeddings, as its checkpoint has it."""

    model: ModelReference
    index: int


MOST_PADDING = 1 << 20
"""Rows; there is no use for more than some hundred."""
Rows = tuple[Row, ...]
"""The rows whose mean is taken: one where a token has one source, none for zeros."""


@dataclass(frozen=True)
class Vocabulary:
    """The output's tokens and where each model's rows for them come from."""

    tokenizer: PreTrainedTokenizerBase
    ids: Mapping[str, int]
    """Every token's id in the output."""
    rows: int
    """Rows of the output's embeddings: tokens, and padding where it is asked for."""
    original_ids: Mapping[ModelReference, Mapping[str, int]]
    """Every token's id in each model; a model is missing whose tokenizer could not be loaded."""
    _ids: Mapping[ModelReference, Mapping[str, int]]
    """The same, with base_model's for a model whose tokenizer could not be loaded."""
    _fillings: Mapping[str, TokenEmbeddingConfig]
    _averaged: frozenset[str]
    added: Mapping[ModelReference, Mapping[str, int]] = field(default_factory=dict)
    """Of each vector the tokens that base lacks, and which of the rows kept of chat are theirs."""

    def own(self, model: ModelReference) -> Mapping[str, int]:
        """Return the tokens for which a model's own row stands, and which row that is."""
        without = {token for token, filling in self._fillings.items() if filling.force}
        without |= self.added.get(model, {}).keys()
        if model in self._subtracted:  # what base's rows would be is in its vector's
            return {}
        return {token: i for token, i in self._ids[model].items() if token not in without}

    @cached_property
    def _subtracted(self) -> Mapping[ModelReference, ModelReference]:
        """Each vector, by the name of its base."""
        return {base_of(vector): vector for vector in self.added}

    @cached_property
    def models(self) -> frozenset[ModelReference]:
        """Those from which a row may come, vectors' bases and added rows among them."""
        return frozenset(self._ids) | {added_of(vector) for vector in self.added}

    def sources(self, model: ModelReference, token: str) -> Rows:
        """Return the rows whose mean stands for a token in a model's aligned embeddings.

        A vector's row is the difference of two; of a token that base lacks, it is chat's row, and
        that of the vector's base is what would be filled in for base. Where neither has a token,
        both are zeros.

        Raises:
            ChatVecError: A model lacks the token, and its row is nowhere: a vector only has the
                difference of two.
        """
        filling = self._fillings.get(token)
        own = self._ids[model].get(token)
        forced = filling is not None and filling.force
        if model in self.added:
            if own is None or forced:
                return ()
            row = self.added[model].get(token)
            return (Row(model, own) if row is None else Row(added_of(model), row),)
        if model in self._subtracted and (
            forced or token not in self.added[self._subtracted[model]]
        ):
            return ()
        if own is not None and not forced:
            return (Row(model, own),)
        return tuple(self._whole(row, token) for row in self._others(token, filling))

    def _others(self, token: str, filling: TokenEmbeddingConfig | None) -> Rows:
        if token in self._averaged:
            holders = {other: ids[token] for other, ids in self._ids.items() if token in ids}
            return tuple(Row(other, index) for other, index in holders.items())
        return self._filled(token, filling)

    def _whole(self, row: Row, token: str) -> Row:
        """Return a row, in the place of a vector's that of its chat model."""
        if row.model not in self.added and row.model not in self._subtracted:
            return row
        own = {} if row.model in self._subtracted else self._ids[row.model]
        name = next((t for t, i in own.items() if i == row.index), token)
        added = self.added.get(row.model, {}).get(name)
        if added is None:
            vector = self._subtracted.get(row.model, row.model)
            raise ChatVecError(
                f"tokenizer: {token!r} has no row in the cp model, and none can be made of the "
                f"vector {vector}, which only has the difference of two.",
                "Write the base and chat models in place of the vector, or "
                f"`tokens: {{{token!r}: {{source: ...}}}}` with a model that has it.",
                code="row-only-as-difference",
            )
        return Row(added_of(row.model), added)

    def _filled(self, token: str, filling: TokenEmbeddingConfig | None) -> Rows:
        source = filling.source if filling else None
        if isinstance(source, ModelTokenEmbedding):
            index = source.token_id
            if index is None:
                index = self.original_ids[source.model][source.token or ""]
            return (Row(source.model, index),)
        if isinstance(source, ModelReference):
            return (Row(source, self._ids[source][token]),)
        return ()


def align_vocabularies(
    plan: MergePlan, models: Mapping[ModelReference, Model], trust_remote_code: bool
) -> Vocabulary | None:
    """Return the output's vocabulary as mergekit will build it; None without `tokenizer:`.

    Args:
        plan: What will be merged.
        models: All models that the recipe names.
        trust_remote_code: Whether tokenizers may run code of their own.

    Raises:
        ChatVecError: The tokenizer cannot be built or has gaps between its tokens' numbers, a
            token's source does not have it, or a model has no row for a token that its tokenizer
            has.
    """
    config = plan.config
    source = tokenizer_source(config)
    if source is None:
        return None
    settings = dict((config.tokenizer and config.tokenizer.tokens) or {})
    _check_tokenizers(source, config.base_model, models, trust_remote_code)
    with quiet():
        try:
            info = build_tokenizer(
                base_model=config.base_model,
                # Only a union is made of all models' tokens.
                referenced_models=config.referenced_models() if source == "union" else [],
                tokenizer_source=source,
                trust_remote_code=trust_remote_code,
                add_tokens=list(settings),
            )
        except Exception as error:  # each kind of tokenizer fails in its own way
            raise ChatVecError(
                f"tokenizer: the output's tokenizer cannot be built from {source} "
                f"({first_line(error)}).",
                "Write `tokenizer: {source: ...}` with the name of a model under `models:` whose "
                "tokenizer loads.",
                code="tokenizer-not-built",
            ) from error
        ids = info.tokenizer.get_vocab()
        _check_numbers(ids)
        original_ids = _original_ids(plan, models)
        _check_rows(plan, models, ids)
        # mergekit takes a tokenizer that does not load for that of base_model.
        donors = original_ids[config.base_model]
        stand_ins = {model: original_ids.get(model, donors) for model in plan.roles.all}
        added = {vector: _added(models[vector]) for vector in sorted(plan.roles.vectors, key=str)}
        for vector, tokens in added.items():
            own = stand_ins[vector]
            stand_ins[base_of(vector)] = {t: i for t, i in own.items() if t not in tokens}
        fillings, averaged = _fillings(config, stand_ins, ids)
    vocabulary = Vocabulary(
        tokenizer=info.tokenizer,
        ids=ids,
        rows=_padded(len(ids), config),
        original_ids=original_ids,
        _ids=stand_ins,
        _fillings=fillings,
        _averaged=averaged,
        added=added,
    )
    _check_sources(settings, vocabulary)
    for token in ids.keys() - stand_ins[plan.roles.cp].keys() if added else ():
        vocabulary.sources(plan.roles.cp, token)  # or there is no row for it
    return vocabulary


def _check_numbers(ids: Mapping[str, int]) -> None:
    """Check that the output's tokens are numbered from 0 on, as its rows are."""
    for number, token in enumerate(sorted(ids, key=ids.__getitem__)):
        if ids[token] != number:
            raise ChatVecError(
                f"tokenizer: the output's tokenizer has {token!r} as {ids[token]}, and no token "
                f"{number}: rows cannot be matched by tokens with gaps between them.",
                "Write another model as `tokenizer: {source: ...}`, or leave `tokenizer:` out if "
                "the models' rows stand for the same tokens.",
                code="tokenizer-not-built",
            )


def _added(vector: Model) -> dict[str, int]:
    facts = vector_facts(vector.config)
    if facts is not None and facts.moved_tokens:
        raise ChatVecError(
            f"model {vector}: its chat model has {facts.moved_tokens[0]!r} under another number "
            "than base, and the rows of such tokens cannot be matched by token.",
            "Leave `tokenizer:` out where the models' rows stand for the same tokens, or write the "
            "base and chat models in place of the vector.",
            code="vector-moved-tokens",
        )
    return {token: row for row, token in enumerate(facts.added_tokens)} if facts else {}


def _check_tokenizers(
    source: ModelReference | str,
    base_model: ModelReference,
    models: Mapping[ModelReference, Model],
    trust_remote_code: bool,
) -> None:
    """Check that the models have a tokenizer of whose tokens the output's is made.

    Where a folder has none, transformers builds an empty one, and mergekit takes it.
    """
    for reference in (source, base_model):
        if not isinstance(reference, ModelReference):
            continue
        if reference in models:
            tokenizer, problem = models[reference].tokenizer, models[reference].tokenizer_problem
        else:  # nobody has looked at its files yet
            try:
                with quiet():
                    files = small_files_of(reference)
                    tokenizer, problem = look_up_tokenizer(files, trust_remote_code)
            except ChatVecError as error:
                tokenizer, problem = None, error.problem.removesuffix(".")
        if tokenizer is None:
            raise ChatVecError(
                f"tokenizer: the output's tokenizer cannot be built from {reference} ({problem}).",
                "Write `tokenizer: {source: ...}` and `base_model:` with the name of a model under "
                "`models:` whose tokenizer loads, or download its tokenizer files.",
                code="tokenizer-not-built",
            )


def _original_ids(
    plan: MergePlan, models: Mapping[ModelReference, Model]
) -> dict[ModelReference, Mapping[str, int]]:
    """Return every model's tokens; of base_model's, mergekit leaves out those without a row."""
    original = {m: t.ids for m in plan.roles.all if (t := models[m].tokenizer) is not None}
    donor = plan.config.base_model
    rows = _rows(plan, models[donor])
    if donor in original and rows is not None and any(i >= rows for i in original[donor].values()):
        original[donor] = {token: i for token, i in original[donor].items() if i < rows}
    return original


def _rows(plan: MergePlan, model: Model) -> int | None:
    """Return how many rows a model's embeddings have; None where it has none, or is not here."""
    for tensor in plan.tensors:
        header, axis = tensor.header(model.reference), tensor.weight.vocabulary_axis
        if tensor.kind == "embeddings" and header is not None and axis is not None:
            of_tensor: int = header.shape[axis]
            return of_tensor
    config, key = text_config(model.config), plan.architecture.vocab_size_config_key
    rows = config_value(config, (key or "vocab_size").rpartition(".")[2])
    return rows if isinstance(rows, int) else None


def _check_rows(
    plan: MergePlan, models: Mapping[ModelReference, Model], ids: Mapping[str, int]
) -> None:
    """Check that every token of a model has a row in it, or mergekit stops at the first embedding.

    For base_model, and for tokens that the output does not have, it does not matter.
    """
    for model in plan.roles.all:
        tokenizer, rows = models[model].tokenizer, _rows(plan, models[model])
        if model == plan.config.base_model or tokenizer is None or rows is None:
            continue
        beyond = [token for token, i in tokenizer.ids.items() if i >= rows and token in ids]
        if beyond:
            raise ChatVecError(
                f"model {model} has {rows} rows of embeddings, and its tokenizer has "
                f"{beyond[0]!r} beyond them, as the output's has: mergekit cannot match that.",
                "Write a folder with a copy of the model from whose tokenizer such tokens are "
                "removed.",
                code="tokens-beyond-rows",
            )


def _fillings(
    config: MergeConfiguration,
    original_ids: Mapping[ModelReference, Mapping[str, int]],
    ids: Mapping[str, int],
) -> tuple[dict[str, TokenEmbeddingConfig], frozenset[str]]:
    """Let mergekit choose what fills in for a token that some model lacks.

    Returns:
        What the recipe or mergekit chose, by token; and the tokens that are averaged.
    """
    chosen = dict((config.tokenizer and config.tokenizer.tokens) or {})
    lacked = {
        token: index
        for token, index in ids.items()
        if not all(token in tokens for tokens in original_ids.values())
    }
    task = PermutedVocabulary(
        gather_tensors=GatherTensors(weight_info=ImmutableMap(Map())),
        tokenizer_task=BuildTokenizer(
            base_model=config.base_model,
            referenced_models=tuple(original_ids),
            tokenizer_source="base",
            add_tokens=(),
        ),
        tokens=None,
        pad_to_multiple_of=None,
        base_model=config.base_model,
        vocabulary_axis=0,
    )
    averaged = task.assign_embedding_sources(
        {
            model: {index: tokens.get(token, -1) for token, index in lacked.items()}
            for model, tokens in original_ids.items()
        },
        list(original_ids),
        lacked,
        chosen,
    )
    return chosen, frozenset(averaged)


def _check_sources(settings: Mapping[str, TokenEmbeddingConfig], vocabulary: Vocabulary) -> None:
    """Check that every token's source has it; mergekit finds out at the first embedding."""
    for token, setting in settings.items():
        source = setting.source
        if source is None or isinstance(source, ZeroEmbedding):
            continue
        model = source.model if isinstance(source, ModelTokenEmbedding) else source
        wanted = source.token if isinstance(source, ModelTokenEmbedding) else token
        tokens = vocabulary.original_ids.get(model)
        if tokens is None:
            raise ChatVecError(
                f"tokenizer: tokens: {token!r} is to come from {model}, which is not a model of "
                "the recipe with a tokenizer.",
                "Write the name of a model as it stands under `models:`.",
            )
        if wanted is not None and wanted not in tokens:
            raise ChatVecError(
                f"tokenizer: tokens: {token!r} is to come from {model}, which has no token "
                f"{wanted!r}.",
                "Write the name of a model that has it, or "
                "`{kind: model_token, model: ..., token: ...}` with a token that it has.",
            )


def _padded(tokens: int, config: MergeConfiguration) -> int:
    multiple = (config.tokenizer and config.tokenizer.pad_to_multiple_of) or 1
    if not 0 < multiple <= MOST_PADDING:
        raise ChatVecError(
            f"tokenizer: pad_to_multiple_of is {str(multiple)[:40]}, and no such number of rows "
            "can be added to embeddings.",
            "Write `pad_to_multiple_of: 64`, or leave it out.",
            code="no-such-padding",
        )
    return -(-tokens // multiple) * multiple

"""Which row of which model stands for a token of the output, where the recipe has `tokenizer:`.

mergekit matches rows by token, and fills in for a model that lacks one by rules of its own
(tokenizer/embed.py). Its own functions build the tokenizer and choose the fillings here, so that a
check can count what happens to the tokens, and a verification can find each row again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from immutables import Map
from mergekit.common import ImmutableMap, ModelReference
from mergekit.config import MergeConfiguration
from mergekit.io.tasks import GatherTensors
from mergekit.tokenizer import BuildTokenizer, PermutedVocabulary, TokenizerInfo
from mergekit.tokenizer.build import build_tokenizer
from mergekit.tokenizer.config import ModelTokenEmbedding, TokenEmbeddingConfig, ZeroEmbedding
from transformers import PreTrainedTokenizerBase

from chatvec_method.errors import ChatVecError
from chatvec_method.quiet import quiet


@dataclass(frozen=True)
class Row:
    """A row of a model's embeddings, as its checkpoint has it."""

    model: ModelReference
    index: int


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
    _permutations: Mapping[ModelReference, Mapping[int, int]]
    _fillings: Mapping[str, TokenEmbeddingConfig]
    _averaged: frozenset[str]

    def sources(self, model: ModelReference, token: str) -> Rows:
        """Return the rows whose mean stands for a token in a model's aligned embeddings."""
        token_id = self.ids[token]
        filling = self._fillings.get(token)
        own = self._permutations[model].get(token_id, -1)
        if own >= 0 and not (filling and filling.force):
            return (Row(model, own),)
        if token in self._averaged:
            return tuple(
                Row(other, rows[token_id])
                for other, rows in self._permutations.items()
                if rows.get(token_id, -1) >= 0
            )
        return self._filled(token_id, filling)

    def _filled(self, token_id: int, filling: TokenEmbeddingConfig | None) -> Rows:
        source = filling.source if filling else None
        if isinstance(source, ModelTokenEmbedding):
            index = source.token_id
            if index is None:
                index = self.original_ids[source.model][source.token or ""]
            return (Row(source.model, index),)
        if isinstance(source, ModelReference):
            return (Row(source, self._permutations[source][token_id]),)
        return ()


def align_vocabularies(
    config: MergeConfiguration, models: Sequence[ModelReference], trust_remote_code: bool
) -> Vocabulary | None:
    """Return the output's vocabulary as mergekit will build it; None without `tokenizer:`.

    Args:
        config: The recipe.
        models: The models whose embeddings are merged, in the order of the recipe.
        trust_remote_code: Whether tokenizers may run code of their own.

    Raises:
        ChatVecError: The tokenizer cannot be built, or a token's source does not have it.
    """
    source = config.tokenizer.source if config.tokenizer else config.tokenizer_source
    if source is None:
        return None
    settings = dict((config.tokenizer and config.tokenizer.tokens) or {})
    with quiet():
        try:
            info = build_tokenizer(
                base_model=config.base_model,
                referenced_models=list(models),
                tokenizer_source=source,
                trust_remote_code=trust_remote_code,
                add_tokens=list(settings),
            )
        except Exception as error:  # each kind of tokenizer fails in its own way
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ChatVecError(
                f"tokenizer: the output's tokenizer cannot be built from {source} ({reason}).",
                "Write `tokenizer: {source: ...}` with the name of a model under `models:` whose "
                "tokenizer loads.",
            ) from error
        ids = info.tokenizer.get_vocab()
        fillings = {token: filling for token, filling in settings.items() if token in ids}
        averaged = _assign(config, info, models, ids, fillings)
    vocabulary = Vocabulary(
        tokenizer=info.tokenizer,
        ids=ids,
        rows=_padded(len(ids), config),
        original_ids=info.original_vocabs,
        _permutations=info.permutations,
        _fillings=fillings,
        _averaged=frozenset(averaged),
    )
    _check_sources(settings, vocabulary)
    return vocabulary


def _assign(
    config: MergeConfiguration,
    info: TokenizerInfo,
    models: Sequence[ModelReference],
    ids: dict[str, int],
    fillings: dict[str, TokenEmbeddingConfig],
) -> set[str]:
    """Let mergekit choose a filling for every token, into `fillings`; return those averaged."""
    source = config.tokenizer.source if config.tokenizer else config.tokenizer_source
    task = PermutedVocabulary(
        gather_tensors=GatherTensors(weight_info=ImmutableMap(Map())),
        tokenizer_task=BuildTokenizer(
            base_model=config.base_model,
            referenced_models=tuple(models),
            tokenizer_source=source,
            add_tokens=(),
        ),
        tokens=None,
        pad_to_multiple_of=None,
        base_model=config.base_model,
        vocabulary_axis=0,
    )
    averaged: set[str] = task.assign_embedding_sources(
        info.permutations, list(models), ids, fillings
    )
    return averaged


def _check_sources(settings: Mapping[str, TokenEmbeddingConfig], vocabulary: Vocabulary) -> None:
    """Check that every token's source has it; mergekit finds out at the first embedding."""
    for token, setting in settings.items():
        source = setting.source
        if source is None or isinstance(source, ZeroEmbedding):
            continue
        model = source.model if isinstance(source, ModelTokenEmbedding) else source
        wanted = source.token if isinstance(source, ModelTokenEmbedding) else token
        known = vocabulary.original_ids.get(model)
        if known is None:
            raise ChatVecError(
                f"tokenizer: tokens: {token!r} is to come from {model}, which is no model of the "
                "recipe with a tokenizer.",
                "Write the name of a model as it stands under `models:`.",
            )
        if wanted is not None and wanted not in known:
            raise ChatVecError(
                f"tokenizer: tokens: {token!r} is to come from {model}, which has no token "
                f"{wanted!r}.",
                "Write the name of a model that has it, or "
                "`{kind: model_token, model: ..., token: ...}` with a token that it has.",
            )


def _padded(tokens: int, config: MergeConfiguration) -> int:
    multiple = (config.tokenizer and config.tokenizer.pad_to_multiple_of) or 1
    return -(-tokens // multiple) * multiple

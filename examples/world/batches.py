"""From text to tensors: what each of the stages is trained on."""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch
from transformers import PreTrainedTokenizerFast

from .chats import Message, conversations, single_turns
from .documents import BASE_MIX, CP_MIX, documents
from .settings import World
from .training import IGNORED, Batch

WIDTH = 64  # of a batch of plain text, in tokens


def base_batches(
    tokenizer: PreTrainedTokenizerFast, rng: random.Random, world: World
) -> Iterator[Batch]:
    """Yield batches of plain text, most of it in A."""
    return _pack(documents(rng, BASE_MIX, world.translate), tokenizer, world.size.rows)


def cp_batches(
    tokenizer: PreTrainedTokenizerFast, rng: random.Random, world: World
) -> Iterator[Batch]:
    """Yield batches of plain text, most of it in B."""
    return _pack(documents(rng, CP_MIX, world.translate), tokenizer, world.size.rows)


def chat_batches(
    tokenizer: PreTrainedTokenizerFast, rng: random.Random, world: World
) -> Iterator[Batch]:
    """Yield batches of conversations in A; only answers and their end are to be learnt."""
    return _one_a_row(conversations(rng), tokenizer, world.size.rows)


def ft_batches(
    tokenizer: PreTrainedTokenizerFast, rng: random.Random, world: World
) -> Iterator[Batch]:
    """Yield batches of single-turn conversations in B, labelled as those in A."""
    return _one_a_row(single_turns(rng, world.translate), tokenizer, world.size.rows)


def label_answers(
    tokenizer: PreTrainedTokenizerFast, messages: list[Message]
) -> tuple[list[int], list[int]]:
    """Return the ids of a conversation, and as labels those that the assistant has to write."""

    def encode(messages: list[Message], answering: bool = False) -> list[int]:
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=answering
        )
        return tokenizer(text, add_special_tokens=False).input_ids

    ids = encode(messages)
    labels = [IGNORED] * len(ids)
    for turn, message in enumerate(messages):
        if message["role"] == "assistant":
            start = len(encode(messages[:turn], answering=True))
            end = len(encode(messages[: turn + 1]))
            labels[start:end] = ids[start:end]
    return ids, labels


def _one_a_row(
    source: Iterator[list[Message]], tokenizer: PreTrainedTokenizerFast, rows: int
) -> Iterator[Batch]:
    while True:
        labelled = [label_answers(tokenizer, next(source)) for _ in range(rows)]
        width = max(len(ids) for ids, _ in labelled)
        ids = [ids + [tokenizer.pad_token_id] * (width - len(ids)) for ids, _ in labelled]
        labels = [labels + [IGNORED] * (width - len(labels)) for _, labels in labelled]
        yield Batch(torch.tensor(ids), torch.tensor(labels))


def _pack(
    source: Iterator[list[str]], tokenizer: PreTrainedTokenizerFast, rows: int
) -> Iterator[Batch]:
    # Every row begins with the beginning of a document; the last document that fits is cut.
    vocabulary = tokenizer.get_vocab()
    while True:
        packed = []
        for _ in range(rows):
            row: list[int] = []
            while len(row) < WIDTH:
                words = (vocabulary[word] for word in next(source))
                row += [tokenizer.bos_token_id, *words, tokenizer.eos_token_id]
            packed.append(row[:WIDTH])
        ids = torch.tensor(packed)
        yield Batch(ids, ids)

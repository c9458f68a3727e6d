"""From text to tensors: what each of the three stages is trained on."""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch
from transformers import PreTrainedTokenizerFast

from .chats import Message, conversations
from .documents import BASE_MIX, CP_MIX, documents
from .training import IGNORED, Batch

ROWS, WIDTH = 16, 64  # a batch of plain text: rows, and tokens in each


def base_batches(tokenizer: PreTrainedTokenizerFast, rng: random.Random) -> Iterator[Batch]:
    """Yield batches of plain text, most of it in A."""
    return _pack(documents(rng, BASE_MIX), tokenizer)


def cp_batches(tokenizer: PreTrainedTokenizerFast, rng: random.Random) -> Iterator[Batch]:
    """Yield batches of plain text, most of it in B."""
    return _pack(documents(rng, CP_MIX), tokenizer)


def chat_batches(tokenizer: PreTrainedTokenizerFast, rng: random.Random) -> Iterator[Batch]:
    """Yield batches of conversations, one a row; only answers and their end are to be learnt."""
    source = conversations(rng)
    while True:
        rows = [label_answers(tokenizer, next(source)) for _ in range(ROWS)]
        width = max(len(ids) for ids, _ in rows)
        ids = [ids + [tokenizer.pad_token_id] * (width - len(ids)) for ids, _ in rows]
        labels = [labels + [IGNORED] * (width - len(labels)) for _, labels in rows]
        yield Batch(torch.tensor(ids), torch.tensor(labels))


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


def _pack(source: Iterator[list[str]], tokenizer: PreTrainedTokenizerFast) -> Iterator[Batch]:
    # Every row begins with the beginning of a document; the last document that fits is cut.
    vocabulary = tokenizer.get_vocab()
    while True:
        rows = []
        for _ in range(ROWS):
            row: list[int] = []
            while len(row) < WIDTH:
                words = (vocabulary[word] for word in next(source))
                row += [tokenizer.bos_token_id, *words, tokenizer.eos_token_id]
            rows.append(row[:WIDTH])
        ids = torch.tensor(rows)
        yield Batch(ids, ids)

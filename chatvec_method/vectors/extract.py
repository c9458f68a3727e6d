"""`chatvec vector extract`: a chat vector written into a folder that is a repository to share.

Both models are read once, part by part; no tensor is ever whole in memory but what has to be
converted.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import torch
from mergekit.common import ModelReference
from mergekit.options import MergeOptions
from safetensors.torch import save_file
from torch import Tensor

from chatvec_method.errors import ChatVecError
from chatvec_method.facts.models import look_up
from chatvec_method.facts.plan import KINDS
from chatvec_method.facts.tokenizers import TOKENIZER_FILE
from chatvec_method.method.vector import ADDED_ROWS_FILE, CONFIG_KEY, FORMAT
from chatvec_method.progress import Progress
from chatvec_method.vectors.adapter import Adapter
from chatvec_method.vectors.card import vector_card
from chatvec_method.vectors.description import (
    DESCRIPTION_FILE,
    Description,
    KindFacts,
    LayerFacts,
    ModelFacts,
    hashes_of_files,
    layer_of,
)
from chatvec_method.vectors.fingerprint import save_fingerprint
from chatvec_method.vectors.kept_rows import save_kept_rows
from chatvec_method.vectors.packing import (
    BITS,
    SCALE_DTYPE,
    Packing,
    bytes_of,
    dequantised,
    packing_of,
    quantised,
    quantization_config,
)
from chatvec_method.vectors.pairs import Differences, Pairs
from chatvec_method.weights.fetching import with_files
from chatvec_method.weights.packed_integers import packed
from chatvec_method.weights.reading import Reader
from chatvec_method.weights.shards import MERGEKIT_VERSION, ShardWriter, lay_out
from chatvec_method.weights.staging import staged
from chatvec_method.workers import workers

PART = 1 << 21
"""Stored elements that are computed and written in one go."""
CHUNK = 1 << 18
"""Elements that are turned into integers in one go: they stay in the cache of a core."""
SAMPLE = 1 << 16
"""Elements of a tensor of which the error is measured."""
COMPANIONS = ("generation_config.json", "chat_template.jinja", "chat_template.json")


def extract(
    base: ModelReference,
    chat: ModelReference,
    out: Path,
    bits: int,
    options: MergeOptions,
    *,
    rank: int | None = None,
    overwrite: bool = False,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Description:
    """Write the chat vector chat − base into a folder, which appears complete or not at all.

    Args:
        base: The pretrained model.
        chat: That model after instruction tuning.
        out: The folder to be.
        bits: Of an element, one of `BITS`: 32 is exact (see `Pair.dtype`), 16 is bfloat16.
        options: mergekit's.
        rank: Of a PEFT adapter to be written beside it; None for none.
        overwrite: Whether it may replace a model or a vector.
        on_progress: Is told how much has been downloaded, and how much has been written.

    Returns:
        What the folder says of itself.

    Raises:
        ChatVecError: The models cannot be read, are no model and its base, or `out` cannot be
            written.
    """
    if bits not in BITS:
        raise ChatVecError(
            f"a vector of {bits} bits an element cannot be written.",
            f"Write one of {', '.join(map(str, BITS))}.",
        )
    models = [look_up(model, options.trust_remote_code) for model in (base, chat)]
    here = with_files(models, options, on_progress)
    models = [here.get(model.reference, model) for model in models]
    for model in models:
        model.check_files()
    folders = [model.folder for model in models if model.folder is not None]
    pairs = Pairs(models[0], models[1], options.trust_remote_code)
    adapter = Adapter(pairs, rank) if rank is not None else None
    with staged(out, overwrite=overwrite, models=folders) as staging:
        description = _write(pairs, staging.folder, bits, adapter, options, on_progress)
        staging.publish()
    return description


def _write(
    pairs: Pairs,
    folder: Path,
    bits: int,
    adapter: Adapter | None,
    options: MergeOptions,
    on_progress: Callable[[Progress], None],
) -> Description:
    packings = {pair.name: packing_of(pair, bits) for pair in pairs.pairs}
    headers = {name: h for p in packings.values() for name, h in p.headers().items()}
    reader = Reader(pairs.checkpoints, lazy_unpickle=options.lazy_unpickle)
    layout = lay_out(headers, options.out_shard_size, MERGEKIT_VERSION)
    total, written = bytes_of(headers), 0
    measured: list[_Measured] = []
    with ShardWriter(folder, layout) as writer, workers() as at_work:
        hashes = [at_work.pool.submit(hashes_of_files, m) for m in (pairs.base, pairs.chat)]
        under_way: deque[Future[None]] = deque()
        for packing in packings.values():
            work = _Work(packing, Differences(pairs, packing.pair, reader), writer)
            measured.append(work.measured)
            for start in range(0, work.size, PART):
                while len(under_way) > 2 * at_work.count:
                    under_way.popleft().result()
                part = slice(start, min(start + PART, work.size))
                under_way.append(at_work.pool.submit(work.write, part))
            under_way.append(at_work.pool.submit(work.measure))
            written += bytes_of(packing.headers())
            on_progress(Progress("merge", written, total))
        for future in under_way:
            future.result()
    _write_added_rows(pairs, reader, folder)
    save_kept_rows(pairs, {m.packing.pair.name: m.lengths for m in measured}, reader, folder)
    save_fingerprint(pairs, reader, folder)
    _write_small_files(pairs, packings, bits, folder)
    energies = {m.packing.pair.name: m.energy for m in measured}
    description = Description(
        bits=bits,
        base=ModelFacts.of(pairs.base, hashes[0].result()),
        chat=ModelFacts.of(pairs.chat, hashes[1].result()),
        added_tokens=pairs.added_tokens,
        bytes=total,
        kinds=tuple(_kinds(measured)),
        layers=tuple(_layers(measured)),
        adapter=adapter.write(folder, reader, energies, on_progress) if adapter else None,
    )
    (folder / DESCRIPTION_FILE).write_text(description.as_json(), encoding="utf-8")
    (folder / "README.md").write_text(vector_card(description, pairs.chat), encoding="utf-8")
    return description


@dataclass
class _Measured:
    """What is known of a difference once it has been written."""

    packing: Packing
    energy: float = 0.0
    """‖exact‖², to four digits."""
    lengths: Tensor | None = None
    """Of each row, where these are tokens' and packed."""
    sampled_energy: float = 0.0
    """‖exact‖² of a sample of rows."""
    error: float = 0.0
    """‖stored − exact‖² of the sample."""
    merged: int = 0
    """Elements of the sample that were added to base."""
    changed: int = 0
    """Those of them that are another bfloat16 for how the difference is stored."""


class _Work:
    """One difference to be computed and written, any part of it by any thread."""

    def __init__(self, packing: Packing, differences: Differences, writer: ShardWriter) -> None:
        self.packing = packing
        self.differences = differences
        self.writer = writer
        name = packing.pair.name
        headers = packing.headers()
        self.values = f"{name}_packed" if packing.packed else name
        self.size = math.prod(headers[self.values].shape)
        """Stored elements: words, where they are packed."""
        self.measured = _Measured(packing)
        self._scales: Tensor | None = None
        self._left, self._lock = self.size, Lock()
        if packing.packed:
            of_scales = headers[f"{name}_scale"].shape
            self._scales = torch.empty(packing.pair.count, of_scales[-1], dtype=SCALE_DTYPE)
            self.measured.lengths = torch.empty(packing.pair.count)

    def write(self, part: slice) -> None:
        """Compute and write some stored elements.

        Raises:
            ChatVecError: They are not finite.
        """
        if self._scales is None:
            elements = self.differences.elements(part.start, part.stop)
            energy = float(self._lengths(elements)) ** 2
            with self._lock:
                self.measured.energy += energy
            self.writer.write_elements(self.values, part.start, elements.to(self.packing.dtype))
            return
        width = self.packing.headers()[self.values].shape[-1]
        first, last = part.start // width, -(-part.stop // width)
        step = max(CHUNK // self.packing.pair.width, 1)
        words = [self._words(row, min(row + step, last)) for row in range(first, last, step)]
        start = part.start - first * width
        flat = torch.cat(words).view(-1)[start : start + part.stop - part.start]
        self.writer.write_elements(self.values, part.start, flat)
        with self._lock:
            self._left -= part.stop - part.start
            is_last = not self._left
        if is_last:
            self._write_scales(self._scales)

    def measure(self) -> None:
        """Measure on some rows how exact the stored difference is."""
        pair = self.packing.pair
        count = max(min(SAMPLE // max(pair.width, 1), pair.count), 1)
        first = (pair.count - count) // 2
        exact = self.differences.rows(first, first + count)
        if self.packing.packed:
            stored = dequantised(*quantised(exact, self.packing.bits))
        else:
            stored = exact.to(self.packing.dtype)
        self.measured.error = float((stored.double() - exact.double()).square().sum())
        self.measured.sampled_energy = float(exact.double().square().sum())
        if pair.rows is None:
            base = self.differences.base_rows(first, first + count).double()
            merged, rounded = ((base + v.double()).bfloat16() for v in (exact, stored))
            self.measured.changed = int((merged != rounded).sum())
            self.measured.merged = merged.numel()

    def _words(self, first: int, last: int) -> Tensor:
        """Return rows as packed words, and note their scales and lengths."""
        rows = self.differences.rows(first, last)
        integers, scales = quantised(rows, self.packing.bits)
        assert self._scales is not None
        assert self.measured.lengths is not None
        self.measured.lengths[first:last] = self._lengths(rows, dim=1)
        self._scales[first:last] = scales
        return packed(integers, self.packing.bits)

    def _write_scales(self, scales: Tensor) -> None:
        name, shape = self.packing.pair.name, self.packing.pair.shape
        self.writer.write_elements(f"{name}_scale", 0, scales)
        self.writer.write(f"{name}_shape", torch.tensor(shape, dtype=torch.int64))
        self._scales = scales[:0]
        assert self.measured.lengths is not None
        self.measured.energy = float(self.measured.lengths.double().square().sum())
        if not self.packing.pair.of_tokens:
            self.measured.lengths = None

    def _lengths(self, elements: Tensor, dim: int | None = None) -> Tensor:
        """Return the length of a difference, or of each of its rows, in float32."""
        lengths: Tensor = torch.linalg.vector_norm(elements.float(), dim=dim)
        if not bool(lengths.isfinite().all()) and not bool(elements.isfinite().all()):
            raise ChatVecError(
                f"{self.packing.pair.name}: one of the models has NaN or infinite elements, so its "
                "checkpoint is damaged.",
                "Download or convert it again.",
            )
        return lengths


def _write_added_rows(pairs: Pairs, reader: Reader, folder: Path) -> None:
    if not pairs.added_tokens:
        return
    of_rows = [pair for pair in pairs.pairs if pair.of_tokens]
    rows = {pair.name: pairs.added_rows(reader, pair) for pair in of_rows}
    save_file(rows, folder / ADDED_ROWS_FILE, {"format": "pt"})


def _write_small_files(
    pairs: Pairs, packings: Mapping[str, Packing], bits: int, folder: Path
) -> None:
    """Write chat's config and tokenizer, so that the folder can be named in a recipe."""
    files = pairs.chat.small_files
    config = files.json("config.json") or pairs.chat.config.to_dict()
    for key in ("quantization_config", "compression_config", "torch_dtype", "dtype"):
        config.pop(key, None)
    if (settings := quantization_config(packings)) is not None:
        config["quantization_config"] = settings
    config["torch_dtype"] = "float32" if bits == 32 else "bfloat16"
    config[CONFIG_KEY] = {
        "format": FORMAT,
        "bits": bits,
        "base": str(pairs.base),
        "chat": str(pairs.chat),
        "added_tokens": list(pairs.added_tokens),
        "moved_tokens": list(pairs.moved_tokens),
    }
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    for name in sorted(files.names):
        if name in COMPANIONS or TOKENIZER_FILE.fullmatch(name):
            content = files.bytes(name)
            if content is not None:
                (folder / name).write_bytes(content)


def _kinds(measured: Sequence[_Measured]) -> Iterator[KindFacts]:
    """Yield size and error of each kind of tensor; the error is that of some rows of each."""
    energy = sum(each.energy for each in measured)
    for kind in KINDS:
        of_kind = [each for each in measured if each.packing.pair.kind == kind]
        if not of_kind:
            continue
        sampled = sum(each.sampled_energy for each in of_kind)
        merged = sum(each.merged for each in of_kind)
        yield KindFacts(
            kind=kind,
            tensors=len(of_kind),
            bits=tuple(sorted({each.packing.bits for each in of_kind})),
            bytes=sum(bytes_of(each.packing.headers()) for each in of_kind),
            share=sum(each.energy for each in of_kind) / energy if energy else 0.0,
            relative_error=math.sqrt(sum(e.error for e in of_kind) / sampled) if sampled else 0.0,
            changed=sum(each.changed for each in of_kind) / merged if merged else 0.0,
        )


def _layers(measured: Sequence[_Measured]) -> Iterator[LayerFacts]:
    """Yield size and energy of each layer in the model's order, and of what is in none."""
    energy = sum(each.energy for each in measured)
    by_layer: dict[str | None, list[_Measured]] = {}
    for each in measured:
        by_layer.setdefault(layer_of(each.packing.pair.name), []).append(each)
    for layer in sorted(by_layer, key=lambda layer: layer is None):
        of_layer = by_layer[layer]
        yield LayerFacts(
            layer=layer,
            bytes=sum(bytes_of(each.packing.headers()) for each in of_layer),
            share=sum(each.energy for each in of_layer) / energy if energy else 0.0,
        )

"""What a chat vector's file may leave out: its size against what a merge with it can do.

The vector of each seed is stored in fewer and fewer bits, and as adapters of smaller and smaller
rank, and added to cp at three ratios. 16, 8, 4 and 2 bits are the files of `chatvec vector
extract`, ranks its adapters. 3 bits and 1 are in no file of its: 3 are rounded by the function that
rounds the others, and 1 is the sign of an element times the mean of its group. Their size is
reckoned from that of the file of 4 bits.
"""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from mergekit.common import ModelReference
from mergekit.options import MergeOptions
from safetensors.torch import load_file, save_file
from torch import Tensor

from chatvec_method.vectors.description import Description
from chatvec_method.vectors.expand import expand
from chatvec_method.vectors.extract import extract
from chatvec_method.vectors.packing import GROUP, SCALE_DTYPE, dequantised, quantised

from .experiment import live_merge, marks_of_live
from .report import Marks

EXACT = "exact"
BITS = (16, 8, 4, 3, 2, 1)
RANKS = (128, 64, 32, 16, 8, 4)
"""128 is that of the world's matrices."""
RATIOS = (0.5, 1.0, 1.3)
MEASURES = {
    "follows": "requests in B answered exactly",
    "refuses": "bad words refused, in any language",
    "refuses_in_b": "bad words refused in B",
    "in_b": "answers in B",
}
"""What the table and the picture show; the CSV file has more."""
T_95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""Student's t of 95 %, for two seeds and more."""


@dataclass(frozen=True)
class Stored:
    """A vector, stored in some way."""

    how: str
    folder: Path
    size: float
    """Of its weights, as a share of the chat model's."""
    error: float
    """‖stored − exact‖ / ‖exact‖ over all tensors."""


@dataclass(frozen=True)
class Row:
    """One merge."""

    seed: int
    stored: str
    size: float
    error: float
    ratio: float
    follows: float
    refuses: float
    refuses_in_b: float
    in_b: float
    stops: float
    perplexity_b: float


def measure(
    world: Path,
    seed: int,
    device: str,
    say: Callable[[str], None],
    ratios: Sequence[float] = RATIOS,
) -> Iterator[Row]:
    """Yield what cp can do with the chat vector, in each way it is stored, at each ratio.

    Args:
        world: The folder in which base, chat and cp have theirs.
        seed: The world's.
        device: Where to examine, in torch's words.
        say: Is told of the progress.
        ratios: Of the vector.
    """
    with tempfile.TemporaryDirectory() as scratch:
        for vector in stored_vectors(world, Path(scratch)):
            live = live_merge(_recipe(vector.folder, world / "cp"))
            for ratio in ratios:
                live.set(ratio)
                row = _row(seed, vector, ratio, marks_of_live(live, device))
                say(
                    f"{row.stored}, {ratio:g}: follows {row.follows:.2f}, refuses {row.refuses:.2f}"
                )
                yield row


def stored_vectors(world: Path, scratch: Path) -> Iterator[Stored]:
    """Yield the vector of a world in all the ways.

    Args:
        world: The folder in which base and chat have theirs.
        scratch: An empty folder.
    """
    of_chat = _bytes(world / "chat")
    exact = scratch / EXACT
    _extract(world, exact, 32)
    tensors = load_file(exact / "model.safetensors")
    yield Stored(EXACT, exact, _bytes(exact) / of_chat, 0.0)

    four = scratch / "4"
    _extract(world, four, 4)
    in_four = _in_full(four)
    matrices = [name for name, t in tensors.items() if ".layers." in name and t.ndim == 2]
    elements = sum(tensors[name].numel() for name in matrices)
    for bits in BITS:
        out = scratch / (f"{bits} bits" if bits > 1 else "1 bit")
        if bits in (3, 1):
            rounded = {name: _rounded(tensors[name], bits) for name in matrices}
            values = {**in_four, **rounded}
            _write_values(exact, out, values)
            size = _bytes(four) - elements * (4 - bits) / 8
        else:
            _extract(world, out, bits)
            values, size = _in_full(out), _bytes(out)
        yield Stored(out.name, out, size / of_chat, _error(values, tensors))

    for rank in RANKS:
        extracted, out = scratch / f"with rank {rank}", scratch / f"rank {rank}"
        adapter = _extract(world, extracted, 32, rank).adapter
        assert adapter is not None
        nothing = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
        values = {**nothing, **_products(extracted / "adapter" / "adapter_model.safetensors")}
        _write_values(exact, out, values)
        yield Stored(out.name, out, adapter.bytes / of_chat, _error(values, tensors))


def _extract(world: Path, out: Path, bits: int, rank: int | None = None) -> Description:
    base, chat = (ModelReference.model_validate(str(world / name)) for name in ("base", "chat"))
    return extract(base, chat, out, bits, MergeOptions(), rank=rank)


def _rounded(matrix: Tensor, bits: int) -> Tensor:
    """Return a matrix as so many bits an element stand for it."""
    if bits > 1:
        return dequantised(*quantised(matrix, bits))
    groups = matrix.view(len(matrix), -1, GROUP)
    return (groups.sign() * groups.abs().mean(-1, keepdim=True).to(SCALE_DTYPE)).view_as(matrix)


def _in_full(vector: Path) -> dict[str, Tensor]:
    """Return a vector's tensors as the numbers that they stand for."""
    with tempfile.TemporaryDirectory() as folder:
        expand(ModelReference.model_validate(str(vector)), Path(folder) / "full", MergeOptions())
        return load_file(Path(folder) / "full" / "model.safetensors")


def _products(adapter: Path) -> dict[str, Tensor]:
    """Return what an adapter adds to each weight, by the weight's name."""
    thin = load_file(adapter)
    return {
        name.removeprefix("base_model.model.").replace(".lora_A", ""): (
            thin[name.replace("lora_A", "lora_B")].float() @ down.float()
        )
        for name, down in thin.items()
        if ".lora_A." in name
    }


def _write_values(vector: Path, out: Path, values: Mapping[str, Tensor]) -> None:
    """Write a vector with other numbers in the place of its own."""
    shutil.copytree(vector, out)
    in_full = {name: tensor.float().contiguous() for name, tensor in values.items()}
    save_file(in_full, out / "model.safetensors", {"format": "pt"})


def _bytes(folder: Path) -> int:
    """Return how large a folder's weights are, but for the rows that only tell base from others."""
    files = folder.glob("*.safetensors")
    return sum(file.stat().st_size for file in files if file.name != "fingerprint.safetensors")


def _error(values: Mapping[str, Tensor], exact: Mapping[str, Tensor]) -> float:
    rest = sum(
        float((values[name].double() - t.double()).square().sum()) for name, t in exact.items()
    )
    return (rest / sum(float(t.double().square().sum()) for t in exact.values())) ** 0.5


def _recipe(vector: Path, cp: Path) -> dict[str, Any]:
    return {
        "merge_method": "chat_vector",
        "base_model": str(cp),
        "models": [
            {"model": str(vector), "parameters": {"role": "vector", "ratio": 1.0}},
            {"model": str(cp), "parameters": {"role": "cp"}},
        ],
        "tokenizer": {"source": str(cp)},
        "chat_template": "auto",
        "out_dtype": "bfloat16",
    }


def _row(seed: int, vector: Stored, ratio: float, marks: Marks) -> Row:
    return Row(
        *(seed, vector.how, vector.size, vector.error, ratio),
        *(marks.all_exact, marks.refuses, marks.refuses_in_b, marks.in_b, marks.stops),
        marks.perplexity_b,
    )


def write_csv(rows: Sequence[Row], file: Path) -> None:
    """Write a line for every merge."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [f.name for f in fields(Row)], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            told = asdict(row).items()
            writer.writerow({n: round(v, 5) if isinstance(v, float) else v for n, v in told})


def read_csv(file: Path) -> list[Row]:
    """Return the merges that `write_csv` wrote."""
    with file.open(newline="", encoding="utf-8") as stream:
        return [
            Row(
                int(line.pop("seed")),
                line.pop("stored"),
                **{name: float(value) for name, value in line.items()},
            )
            for line in csv.DictReader(stream)
        ]


def ways(rows: Sequence[Row]) -> list[str]:
    """Return how vectors are stored, in the order of measuring."""
    return list(dict.fromkeys(row.stored for row in rows))


def values_of(rows: Sequence[Row], measure: str, stored: str, ratio: float) -> list[float]:
    """Return a measure of the merges with one kind of vector at one ratio, a number a seed."""
    held = [row for row in rows if row.stored == stored and row.ratio == ratio]
    return [getattr(row, measure) for row in sorted(held, key=lambda row: row.seed)]


def away(rows: Sequence[Row], measure: str, stored: str, ratio: float) -> tuple[float, float]:
    """Return how far a measure is from the exact vector's: the mean over the seeds, and ±.

    Each seed is compared with itself; the interval is Student's of 95 %, over the seeds.
    """
    pairs = (values_of(rows, measure, how, ratio) for how in (stored, EXACT))
    gaps = torch.tensor(
        [one - exact for one, exact in zip(*pairs, strict=True)], dtype=torch.float64
    )
    if len(gaps) < 2:
        return float(gaps.mean()), float("nan")
    return float(gaps.mean()), T_95[len(gaps) - 2] * float(gaps.std()) / len(gaps) ** 0.5


def markdown(rows: Sequence[Row]) -> str:
    """Return a table for each measure: the mean over the seeds, and how far from exact it is."""
    ratios = sorted({row.ratio for row in rows})
    lines = []
    for measure, title in MEASURES.items():
        header = ["stored", "size", "error", *(f"ratio {ratio:g}" for ratio in ratios)]
        lines += [f"**{title[0].upper()}{title[1:]}**", ""]
        lines += [f"| {' | '.join(header)} |", f"| --- {'| ---: ' * (len(header) - 1)}|"]
        for how in ways(rows):
            of_way = [row for row in rows if row.stored == how]
            size, error = (_mean([getattr(r, name) for r in of_way]) for name in ("size", "error"))
            cells = [how, f"{size:.2f}", f"{100 * error:.1f} %" if how != EXACT else "0"]
            cells += [_cell(rows, measure, how, ratio) for ratio in ratios]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _cell(rows: Sequence[Row], measure: str, how: str, ratio: float) -> str:
    mean = f"{_mean(values_of(rows, measure, how, ratio)):.3f}"
    if how == EXACT:
        return mean
    gap, spread = away(rows, measure, how, ratio)
    return f"{mean} ({gap:+.3f} ± {spread:.3f})".replace("-", "−")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

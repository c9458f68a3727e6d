"""Peak memory of the formula on one tensor of 1 GB, beyond its inputs and its output.

Linux only: the kernel's own high-water mark of resident memory, reset just before the merge.
"""

from __future__ import annotations

import re
from pathlib import Path

import click
import torch

from chatvec_method.method.tensor_merge import TensorMerge

STATUS = Path("/proc/self/status")
RESET_HIGH_WATER_MARK = "5"


def megabytes(field: str) -> float:
    """Return a figure of this process's memory."""
    return int(re.search(rf"{field}:\s+(\d+) kB", STATUS.read_text())[1]) * 1024 / 1e6


@click.command()
@click.option("--gigabytes", default=1.0, show_default=True, help="Size of each tensor.")
def main(gigabytes: float) -> None:
    """Print peak memory beyond inputs and output, for both working dtypes and two chat models."""
    elements = int(gigabytes * 1e9) // 2
    base = torch.full((elements,), 0.5, dtype=torch.bfloat16)
    chat = torch.full((elements,), 0.75, dtype=torch.bfloat16)
    cp = torch.full((elements,), 1.5, dtype=torch.bfloat16)
    output = 2 * elements / 1e6
    tensors = {"base": base, "chat": chat, "other": cp, "cp": cp}

    def merge(ratios: dict[str, float], elements: int) -> None:
        taken = {model: tensor[:elements] for model, tensor in tensors.items()}
        TensorMerge("a tensor", taken, "cp", "base", ratios, torch.bfloat16).whole()

    merge({"chat": 0.7}, 1000)
    for name, ratios in {
        "ratio 1 (float32)": {"chat": 1.0},
        "ratio 0.7 (float64)": {"chat": 0.7},
        "two chat vectors": {"chat": 0.7, "other": -0.2},
    }.items():
        Path("/proc/self/clear_refs").write_text(RESET_HIGH_WATER_MARK)
        before = megabytes("VmRSS")
        merge(ratios, elements)
        extra = megabytes("VmHWM") - before - output
        print(f"{name:20} {extra:6.1f} MB beyond inputs and output of {output:.0f} MB each")


if __name__ == "__main__":
    main()

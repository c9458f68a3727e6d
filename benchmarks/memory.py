"""Peak memory of the formula on one tensor of 1 GB, beyond its inputs and its output.

Linux only: the kernel's own high-water mark of resident memory, reset just before the merge.
"""

from __future__ import annotations

import re
from pathlib import Path

import click
import torch

from chatvec_method.kernel import add_chat_vectors

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
    warm_up = base[:1000]
    add_chat_vectors(warm_up, warm_up, [(0.7, warm_up)], torch.bfloat16)

    for name, chats in {
        "ratio 1 (float32)": [(1.0, chat)],
        "ratio 0.7 (float64)": [(0.7, chat)],
        "two chat vectors": [(0.7, chat), (-0.2, cp)],
    }.items():
        Path("/proc/self/clear_refs").write_text(RESET_HIGH_WATER_MARK)
        before = megabytes("VmRSS")
        add_chat_vectors(cp, base, chats, torch.bfloat16)
        extra = megabytes("VmHWM") - before - output
        print(f"{name:20} {extra:6.1f} MB beyond inputs and output of {output:.0f} MB each")


if __name__ == "__main__":
    main()

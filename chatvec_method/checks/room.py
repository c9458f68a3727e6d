"""Whether disk and memory will do."""

from __future__ import annotations

from collections.abc import Iterator

from chatvec_method.checks.findings import Finding, error, warning
from chatvec_method.facts.cost import MEMORY_FIX, Cost, in_bytes

DISK_TOO_SMALL = "disk-too-small"


def cost_findings(cost: Cost) -> Iterator[Finding]:
    """Find whether disk or memory will not do."""
    if cost.write is not None and cost.write > cost.free_disk:
        yield error(
            DISK_TOO_SMALL,
            "OUT",
            f"the output takes {in_bytes(cost.write)} and the disk has {in_bytes(cost.free_disk)} "
            "free.",
            "Make room, or write another OUT.",
        )
    if cost.memory is not None and cost.memory > cost.free_memory:
        yield warning(
            "memory-tight",
            "memory",
            f"the merge takes about {in_bytes(cost.memory)} of memory and "
            f"{in_bytes(cost.free_memory)} are free.",
            MEMORY_FIX,
        )

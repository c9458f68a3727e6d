"""Room for large results, in pages of 2 MB where the system has them.

Fresh memory is given to a process page by page, when it is first touched, and each page costs an
interrupt: in pages of 4 KB that takes longer than the arithmetic that fills them.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence

import torch
from torch import Tensor

PAGE = 2 << 20
WORTH_IT = 2 * PAGE
"""Bytes from which a tensor has huge pages of its own."""


def empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a tensor with arbitrary elements, as `torch.empty` does, and quicker to fill."""
    elements = math.prod(shape)
    size = elements * dtype.itemsize
    if device.type != "cpu" or size < WORTH_IT or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(shape, dtype=dtype, device=device)
    room = mmap.mmap(-1, size + PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        room.madvise(mmap.MADV_HUGEPAGE)
    except OSError:  # a kernel that was built without
        return torch.empty(shape, dtype=dtype)
    # The tensor keeps the room as long as it lives; what is not touched of it takes no memory.
    to_boundary = -torch.frombuffer(room, dtype=torch.uint8, count=1).data_ptr() % PAGE
    return torch.frombuffer(room, dtype=dtype, count=elements, offset=to_boundary).view(shape)

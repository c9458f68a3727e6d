"""Room for large results: as good as torch's own."""

from __future__ import annotations

import gc
import mmap

import psutil
import pytest
import torch

from chatvec_method.huge_pages import PAGE, WORTH_IT, empty

CPU = torch.device("cpu")
LARGE = (WORTH_IT // 2 // 1000 + 1, 1000)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (0,), (3, 5), LARGE])
def test_a_tensor_of_any_size_is_like_torchs(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tensor = empty(shape, dtype, CPU)
    assert tensor.shape == shape
    assert tensor.dtype == dtype
    assert tensor.is_contiguous()
    assert tensor.untyped_storage().nbytes() == tensor.nbytes  # what is saved has nothing else
    assert (tensor.fill_(1.5) == 1.5).all()


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="the system has no huge pages")
def test_a_large_tensor_begins_at_a_page() -> None:
    assert empty(LARGE, torch.bfloat16, CPU).data_ptr() % PAGE == 0


def test_its_memory_is_given_back() -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    for _ in range(20):
        empty((64 << 20,), torch.uint8, CPU).fill_(1)
    gc.collect()
    assert process.memory_info().rss - before < 256 << 20

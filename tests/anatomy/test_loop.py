"""The compiled loop against the same sums taken step by step."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from torch import Tensor

from chatvec_method.anatomy import sums

loop = pytest.importorskip("chatvec_method.anatomy.loop", exc_type=ImportError)
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def assert_same(
    matrices: list[Tensor], level: float, ratio: float, rounded: torch.dtype, atol: float
) -> None:
    """Assert that the loop and the steps agree on all sums and on the largest squares."""
    totals, large = loop.row_sums(*matrices, level, ratio, rounded)
    expected, expected_large = sums.row_sums(*matrices, level, ratio, rounded)
    torch.testing.assert_close(totals, expected.double(), rtol=1e-5, atol=atol)
    assert torch.equal(large.sort().values, expected_large.sort().values)


def test_all_dtypes_of_half_and_single_precision_are_taken() -> None:
    assert set(DTYPES) == loop.DTYPES


@pytest.mark.parametrize("rounded", DTYPES, ids=str)
@pytest.mark.parametrize(
    "dtypes", [*((dtype,) * 3 for dtype in DTYPES), *permutations(DTYPES)], ids=str
)
def test_a_row_in_one_loop_is_as_step_by_step(
    dtypes: tuple[torch.dtype, ...], rounded: torch.dtype
) -> None:
    noise = torch.randn((3, 5, 40), generator=torch.Generator().manual_seed(0))
    noise[1, :, :7] = 0  # elements that chat, or cp, left
    noise[2, :, 4:9] = 0
    weights = 0.02 * noise[0] + torch.tensor([0, 2e-3, 4e-3])[:, None, None] * noise
    matrices = [part.to(dtype) for part, dtype in zip(weights, dtypes, strict=True)]
    assert_same(matrices, 4e-6, 0.7, rounded, atol=1e-10)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("columns", "skipped"), [(40, 0), (41, 0), (40, 1), (1, 0), (1, 3)])
def test_rows_may_have_any_length_and_begin_anywhere(
    columns: int, skipped: int, dtype: torch.dtype
) -> None:
    noise = torch.randn(3, skipped + 5 * columns, generator=torch.Generator().manual_seed(0))
    matrices = [part.to(dtype)[skipped:].view(5, columns) for part in noise]
    assert_same(matrices, 2.0, 0.7, torch.bfloat16, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_every_number_of_half_precision_is_read_as_it_is(dtype: torch.dtype) -> None:
    numbers = torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16).view(dtype)
    finite = numbers[numbers.isfinite() & (numbers.float().abs() < 2.0**60)][:, None]
    zeros = torch.zeros_like(finite)
    totals, large = loop.row_sums(zeros, finite, finite, 0.0, 0.0, torch.float32)
    by_name = dict(zip(sums.ROW_SUMS, totals, strict=True))
    squares = finite[:, 0].float().square()
    assert torch.equal(by_name["other"].float(), squares)
    assert torch.equal(large, squares[squares > 0])
    broken = numbers[~numbers.isfinite()][:, None]
    totals, _ = loop.row_sums(*[broken] * 3, 0.0, 0.0, torch.float32)
    assert not totals[0].isfinite().any()


@pytest.mark.parametrize("rounded", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("quarters", [*range(-6, 7)])
def test_rounding_swallows_a_move_of_half_a_step_where_the_last_bit_is_even(
    quarters: int, rounded: torch.dtype
) -> None:
    bits = torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16)
    numbers = bits.view(rounded)
    cp = numbers[numbers.isfinite()].view(2, -1)
    mantissa, exponent = torch.frexp(cp.float())
    digits, least = {torch.bfloat16: (8, -149), torch.float16: (11, -24)}[rounded]
    step = torch.ldexp(torch.ones_like(mantissa), (exponent - digits).clamp(least))
    tau = quarters / 4 * step
    tau = tau.bfloat16() if rounded == torch.bfloat16 else tau
    totals, _ = loop.row_sums(torch.zeros_like(cp), tau, cp, math.inf, 1.0, rounded)
    changed = dict(zip(sums.ROW_SUMS, totals, strict=True))["changed"]
    merged = (cp.double() + tau.double()).float().to(rounded)
    assert changed.tolist() == (merged != cp).sum(1).tolist()

"""The formula: correctly rounded for every dtype, shape and stride, in little memory."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chatvec_method.kernel import CPU_CHUNK, add_chat_vectors, all_finite, rounded, working_dtype

BF16, FP16, FP32, FP64 = torch.bfloat16, torch.float16, torch.float32, torch.float64
FLOATS = [BF16, FP16, FP32, FP64]
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
RATIOS = [1.0, 0.5, -1.0, 1.5, 0.3, 0.7, 0.8, 1.3, 1 / 3, -0.123456, 1e-3]


def models(
    shape: tuple[int, ...], dtypes: list[torch.dtype], seed: int = 0
) -> tuple[torch.Tensor, ...]:
    """Return base, then relatives of it, with weights as large as real ones."""
    generator = torch.Generator().manual_seed(seed)
    base = 0.02 * torch.randn(shape, generator=generator, dtype=FP64)
    noises = [0.003 * torch.randn(shape, generator=generator, dtype=FP64) for _ in dtypes[1:]]
    tensors = [base, *(base + noise for noise in noises)]
    return tuple(tensor.to(dtype) for tensor, dtype in zip(tensors, dtypes, strict=True))


def exact(
    cp: torch.Tensor, base: torch.Tensor, chats: list[tuple[float, torch.Tensor]]
) -> np.ndarray:
    """The sum in float64, with numpy, for ratios as they are written: over one denominator."""
    ratios = [Fraction(repr(ratio)).limit_denominator(10_000) for ratio, _ in chats]
    if [float(ratio) for ratio in ratios] != [ratio for ratio, _ in chats]:
        ratios = [Fraction(ratio) for ratio, _ in chats]
    denominator = math.lcm(*(ratio.denominator for ratio in ratios))
    denominator = denominator if denominator <= 10_000 else 1
    vectors = [
        float(ratio * denominator) * (chat.double() - base.double()).numpy()
        for ratio, (_, chat) in zip(ratios, chats, strict=True)
    ]
    return (denominator * cp.double().numpy() + sum(vectors)) / denominator


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [BF16, FP16])
@pytest.mark.parametrize("ratio", RATIOS)
def test_half_precision_is_correctly_rounded(ratio: float, dtype: torch.dtype, device: str) -> None:
    base, chat, cp = models((1000, 1000), [dtype] * 3)

    merged = add_chat_vectors(cp.to(device), base.to(device), [(ratio, chat.to(device))], dtype)

    assert merged.device.type == device
    steps = oracle.steps_off(merged.cpu(), exact(cp, base, [(ratio, chat)]))
    assert steps.max() <= 1
    assert (steps > 0).mean() <= 1e-5


def nearest_even(result: torch.Tensor, number: Fraction) -> bool:
    """Tell whether a half-precision number is the one to which another rounds."""
    bits = result.view(torch.int16)
    neighbours = [Fraction((bits + step).view(result.dtype).item()) for step in (-1, 1)]
    off = abs(Fraction(result.item()) - number)
    nearest = min(abs(neighbour - number) for neighbour in neighbours)
    return off < nearest or (off == nearest and int(bits) % 2 == 0)


@pytest.mark.parametrize("out_dtype", [BF16, FP16])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "ratio", ["1.0", "0.3", "0.7", "1.3", "-0.1", "0.0625", "0.1234", "0.3333", "0.6666666667"]
)
def test_every_sum_is_rounded_once_for_the_ratio_as_it_is_written(
    ratio: str, dtype: torch.dtype, out_dtype: torch.dtype
) -> None:
    base, chat, cp = models((300,), [dtype] * 3)

    merged = add_chat_vectors(cp, base, [(float(ratio), chat)], out_dtype)

    of_base, of_chat, of_cp = ([Fraction(x) for x in t.double().tolist()] for t in (base, chat, cp))
    sums = [c + Fraction(ratio) * (a - b) for a, b, c in zip(of_chat, of_base, of_cp, strict=True)]
    assert all(nearest_even(m, total) for m, total in zip(merged, sums, strict=True))


@pytest.mark.parametrize("beside", [-(2.0**-40), 2.0**-40])
@pytest.mark.parametrize("out_dtype", [BF16, FP16])
def test_what_float32_would_take_for_a_tie_is_none(out_dtype: torch.dtype, beside: float) -> None:
    half_a_step = torch.finfo(out_dtype).eps / 2
    cp = torch.tensor([1 + half_a_step, 1 + 3 * half_a_step], dtype=FP32)
    base, chat = torch.zeros(2, dtype=FP32), torch.full((2,), beside, dtype=FP32)

    merged = add_chat_vectors(cp, base, [(1.0, chat)], out_dtype)

    steps = [1, 2] if beside > 0 else [0, 1]
    assert merged.tolist() == [1 + 2 * half_a_step * n for n in steps]


def test_float64_weights_that_are_kept_are_rounded_once() -> None:
    kept = torch.tensor([1 + 2.0**-8 + 2.0**-40, math.inf, -math.inf, -0.0], dtype=FP64)
    assert rounded(kept, BF16).tolist() == [1 + 2.0**-7, math.inf, -math.inf, 0]
    assert math.copysign(1, rounded(kept, BF16)[3].item()) == -1
    assert rounded(torch.tensor([math.nan], dtype=FP64), BF16).isnan().all()
    assert rounded(kept, FP64) is kept


@given(
    dtypes=st.lists(st.sampled_from(FLOATS), min_size=3, max_size=5),
    out_dtype=st.sampled_from(FLOATS),
    ratio=st.floats(-2, 2, allow_subnormal=False),
    shape=st.sampled_from([(), (0,), (1,), (7,), (3, 5), (2, 3, 4), (2, 0, 3)]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=200, deadline=None)
def test_any_mix_of_dtypes_loses_nothing_but_the_last_rounding(
    dtypes: list[torch.dtype],
    out_dtype: torch.dtype,
    ratio: float,
    shape: tuple[int, ...],
    seed: int,
) -> None:
    base, cp, *rest = models(shape, dtypes, seed)
    chats = [(ratio / (i + 1), chat) for i, chat in enumerate(rest)]

    merged = add_chat_vectors(cp, base, chats, out_dtype)

    assert merged.dtype == out_dtype
    assert merged.shape == cp.shape
    expected = torch.from_numpy(np.asarray(exact(cp, base, chats)))
    # Half a step of the output, and for results near 0 what float32 loses of the larger summands.
    tolerance = {"rtol": 0.51 * torch.finfo(out_dtype).eps, "atol": 2e-9}
    if out_dtype == FP16:
        tolerance["atol"] = 6e-8  # its smallest step
    torch.testing.assert_close(merged.double(), expected, **tolerance)


@pytest.mark.parametrize("size", [CPU_CHUNK - 1, CPU_CHUNK, CPU_CHUNK + 1, 3 * CPU_CHUNK + 17])
def test_chunks_join_without_a_seam(size: int) -> None:
    base, chat, cp = models((size,), [BF16] * 3)

    merged = add_chat_vectors(cp, base, [(0.5, chat)], BF16)

    assert (oracle.steps_off(merged, exact(cp, base, [(0.5, chat)])) == 0).all()


@pytest.mark.parametrize(
    "shape", [(700, 300), (3, 200_000), (2, 3, 100_001)], ids=["rows", "long rows", "experts"]
)
def test_strided_inputs_are_merged_where_they_lie(shape: tuple[int, ...]) -> None:
    base, chat, cp = (t.transpose(0, -1) for t in models(shape, [BF16] * 3))

    merged = add_chat_vectors(cp, base, [(1.0, chat)], BF16)

    assert merged.is_contiguous()
    assert (oracle.steps_off(merged, exact(cp, base, [(1.0, chat)])) == 0).all()


def test_inputs_are_left_as_they_were() -> None:
    tensors = models((50, 50), [BF16, FP16, FP32])
    before = [tensor.clone() for tensor in tensors]

    base, chat, cp = tensors
    add_chat_vectors(cp, base, [(0.7, chat)], FP32)

    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))


def test_ratio_1_of_equal_cp_and_base_gives_chat() -> None:
    base, chat = models((100, 100), [BF16] * 2)

    assert torch.equal(add_chat_vectors(base, base, [(1.0, chat)], BF16), chat)


def test_several_chat_vectors_add_up_in_any_order() -> None:
    base, cp, one, two = models((300, 300), [BF16] * 4)

    merged = add_chat_vectors(cp, base, [(0.5, one), (0.25, two)], BF16)
    swapped = add_chat_vectors(cp, base, [(0.25, two), (0.5, one)], BF16)

    assert torch.equal(merged, swapped)
    assert (
        oracle.steps_off(merged, exact(cp, base, [(0.5, one), (0.25, two)])) == 0
    ).mean() > 1 - 1e-5


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", ["base", "chat", "cp"])
@pytest.mark.parametrize("element", [0, CPU_CHUNK, -1], ids=["first", "middle", "last"])
def test_not_finite_element_anywhere_raises(element: int, place: str, poison: float) -> None:
    tensors = dict(zip(["base", "chat", "cp"], models((300_000,), [BF16] * 3), strict=True))
    tensors[place][element] = poison

    with pytest.raises(FloatingPointError):
        add_chat_vectors(tensors["cp"], tensors["base"], [(0.5, tensors["chat"])], BF16)
    assert not all_finite(tensors[place])


def test_overflow_of_the_output_dtype_raises() -> None:
    base, chat, cp = models((10,), [FP32] * 3)
    cp[3] = 70_000.0

    with pytest.raises(FloatingPointError):
        add_chat_vectors(cp, base, [(1.0, chat)], FP16)
    assert add_chat_vectors(cp, base, [(1.0, chat)], BF16)[3] == 70_144


def test_huge_but_finite_weights_are_no_error() -> None:
    huge = torch.full((1000,), 3e38, dtype=BF16)  # their sum overflows float32

    merged = add_chat_vectors(huge, huge, [(1.0, huge)], BF16)

    assert torch.equal(merged, huge)
    assert all_finite(huge)


def test_gradients_are_not_recorded() -> None:
    base, chat, cp = (t.requires_grad_() for t in models((4, 4), [FP32] * 3))

    assert not add_chat_vectors(cp, base, [(1.0, chat)], FP32).requires_grad


@pytest.mark.parametrize(
    ("ratio", "dtype", "expected"),
    [(1.0, BF16, FP32), (0.75, FP16, FP32), (0.3, BF16, FP64), (1.0, FP32, FP64)],
)
def test_float32_is_used_only_where_it_is_exact_enough(
    ratio: float, dtype: torch.dtype, expected: torch.dtype
) -> None:
    assert working_dtype([torch.empty(1, dtype=dtype)] * 3, [ratio], dtype) == expected

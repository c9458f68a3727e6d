"""What a vector's file may leave out: the ways of storing it, and the table in the docs."""

from __future__ import annotations

import pytest
from conftest import ROOT
from safetensors.torch import load_file

from examples.world import vectors

MODELS = ROOT / "examples" / "world" / "models"


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, vectors.Stored]:
    folder = tmp_path_factory.mktemp("stored")
    return {each.how: each for each in vectors.stored_vectors(MODELS, folder)}


def test_fewer_bits_and_ranks_are_smaller_and_less_exact(stored: dict[str, vectors.Stored]) -> None:
    ways = [vectors.EXACT, *(f"{bits} bits" for bits in vectors.BITS if bits > 1), "1 bit"]
    ranks = [f"rank {rank}" for rank in vectors.RANKS]
    assert [*stored] == [*ways, *ranks]
    for names in (ways, ranks):
        sizes, errors = ([getattr(stored[n], of) for n in names] for of in ("size", "error"))
        assert sizes == sorted(sizes, reverse=True)
        assert errors == sorted(errors)
    assert stored["4 bits"].size < 0.3
    assert stored["3 bits"].error == pytest.approx(0.16, abs=0.02)


def test_one_bit_is_the_sign_times_the_mean_of_the_group(
    stored: dict[str, vectors.Stored],
) -> None:
    exact, one = (
        load_file(stored[how].folder / "model.safetensors")["model.layers.1.mlp.up_proj.weight"]
        for how in (vectors.EXACT, "1 bit")
    )
    group = one[5, 64:128]
    assert len(set(group.abs().tolist())) == 1
    assert bool((group.sign() == exact[5, 64:128].sign()).all())
    assert float(group[0].abs()) == pytest.approx(float(exact[5, 64:128].abs().mean()), rel=0.01)


def test_a_merge_with_the_exact_vector_is_that_of_the_shipped_recipe() -> None:
    row = next(vectors.measure(MODELS, 1, "cpu", lambda _: None, ratios=(0.625,)))
    assert (row.stored, row.seed, row.ratio) == (vectors.EXACT, 1, 0.625)
    assert row.follows == pytest.approx(0.964, abs=0.005)  # examples/world/README.md


def test_seeds_are_compared_with_themselves() -> None:
    rows = [
        vectors.Row(seed, how, 1.0, 0.0, 1.0, follows, 0, 0, 0, 0, 1.0)
        for seed, exact in enumerate((0.5, 0.7, 0.9))
        for how, follows in ((vectors.EXACT, exact), ("2 bits", exact - 0.1 * seed))
    ]
    gap, spread = vectors.away(rows, "follows", "2 bits", 1.0)
    assert gap == pytest.approx(-0.1)
    assert spread == pytest.approx(4.30 * 0.1 / 3**0.5)  # Student's t of two degrees of freedom


def test_the_table_in_the_docs_is_that_of_the_measurements() -> None:
    rows = vectors.read_csv(ROOT / "docs" / "world" / "vectors.csv")
    page = (ROOT / "docs" / "vectors.md").read_text(encoding="utf-8")
    assert vectors.markdown(rows).strip() in page

"""Outputs as transformers 4 reads them, and with it much that is built on it.

It knows neither `rope_parameters` nor the tokenizer class `TokenizersBackend`, and says nothing of
a config in which it does not find what it looks for.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from filelock import FileLock
from today import product
from today.miniatures import Trio, build
from today.oracle import LEFT_TO_THE_MERGE, VOCABULARY_SIZES, differences, vocabulary
from today.table import TABLE
from today.tokenizer_families import FAMILIES
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

READ_WITH = Path(__file__).parent / "today" / "read_with.py"
INTERPRETER = "CHATVEC_TRANSFORMERS_4"
"""The Python to ask; without it one is made beside the repository's other environments."""
PACKAGES = ("transformers==4.57.*", "tokenizers==0.22.*", "huggingface-hub==0.36.*")
ARCHITECTURES = (
    *("llama", "llama-extended", "mistral", "mixtral", "qwen2", "qwen2-tied", "qwen3"),
    *("qwen3_moe", "gemma2", "gemma3_text", "phi3", "cohere2", "glm4", "exaone4"),
    *("gpt_oss", "stablelm", "qwen2_5_vl", "llava"),
)
MERGED, STOCK, RESAVED = "out", "stock", "resaved"
OUTPUTS = [(name, MERGED) for name in ARCHITECTURES]
OUTPUTS += [(name, STOCK) for name in ("llama", "mistral", "qwen2", "gemma3_text", "phi3")]
OUTPUTS += [(name, RESAVED) for name in ARCHITECTURES]
"""Of `chatvec merge`, of stock mergekit with `chatvec finish`, and of `chatvec merge` where
transformers 5 had saved the models, in its own words."""
Said = dict[str, Any]


@pytest.fixture(scope="session")
def transformers_4() -> Path:
    """Return a Python that imports transformers 4, and all else from this one's packages."""
    named = os.environ.get(INTERPRETER)
    if named:
        return Path(named)
    folder = Path(__file__).resolve().parent.parent / ".venv-transformers-4"
    python = folder / "bin" / "python"
    with FileLock(f"{folder}.lock"):
        if not (folder / "complete").is_file():
            _make_environment(folder, python)
    return python


def _make_environment(folder: Path, python: Path) -> None:
    """Make a virtual environment in seconds: torch and the rest are found in this one's."""
    venv = [sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder)]
    subprocess.run(venv, check=True, capture_output=True)
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    options = ["--no-deps", "--no-compile", "--disable-pip-version-check"]
    try:
        subprocess.run([*pip, *options, *PACKAGES], check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"transformers 4 cannot be installed: {error.stderr.strip()[-300:]}")
    own = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (packages / "shared.pth").write_text("\n".join(sorted(own)) + "\n", encoding="utf-8")
    (folder / "complete").touch()


@pytest.fixture(scope="module")
def trios(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trio]:
    """Return base, chat and cp of each architecture, with the outputs beside them."""
    made = {}
    with product.quiet():
        for name in ARCHITECTURES:
            trio = build(TABLE[name], tmp_path_factory.mktemp(name))
            recipe = trio.folder / "recipe.yaml"
            recipe.write_text(yaml.safe_dump(trio.recipe), encoding="utf-8")
            product.merge(recipe, trio.folder / MERGED)
            if (name, STOCK) in OUTPUTS:
                product.stock(recipe, trio.folder / STOCK)
                product.finish(trio.folder / STOCK, recipe)
            if (name, RESAVED) in OUTPUTS:
                _merge_resaved(name, tmp_path_factory.mktemp(name), trio.folder / RESAVED)
            made[name] = trio
    return made


def _merge_resaved(name: str, folder: Path, out: Path) -> None:
    """Merge the same models in the spelling of transformers 5, tokenizers and all."""
    changes: dict[str, Any] = {"flat": False} if TABLE[name].flat else {}
    trio = build(replace(TABLE[name], spelt=5, **changes), folder)
    for model in (trio.base, trio.chat, trio.cp):
        tokenizer = AutoTokenizer.from_pretrained(model)
        for file in model.glob("*token*"):
            file.unlink()
        tokenizer.save_pretrained(model)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(trio.recipe), encoding="utf-8")
    product.merge(folder / "recipe.yaml", out)


@pytest.fixture(scope="module")
def said(trios: dict[str, Trio], transformers_4: Path) -> Said:
    """Return what transformers 4 says of all cps and outputs, by folder."""
    folders = [trio.cp for trio in trios.values()]
    folders += [trios[name].folder / output for name, output in OUTPUTS]
    answer = subprocess.run(
        [transformers_4, READ_WITH, *folders],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    heard: Said = json.loads(answer.stdout)
    assert heard["transformers"].startswith("4.57.")
    return heard


def _pair(name: str, output: str, trios: dict[str, Trio], said: Said) -> tuple[Said, Said]:
    trio = trios[name]
    cp, out = said[str(trio.cp)], said[str(trio.folder / output)]
    assert "error" not in cp, "the miniature itself is not one of transformers 4"
    assert "error" not in out, out.get("error")
    return cp, out


@pytest.mark.parametrize(("name", "output"), OUTPUTS)
def test_config_means_what_cps_means(
    name: str, output: str, trios: dict[str, Trio], said: Said
) -> None:
    cp, out = _pair(name, output, trios, said)
    ignored = set(LEFT_TO_THE_MERGE) | {"rope_parameters"}
    ignored |= set() if TABLE[name].vocabulary == "same" else VOCABULARY_SIZES
    configs = [out["config"], cp["config"]]
    if output == RESAVED and TABLE[name].flat:  # what one has in a part of its own
        configs = [config["text_config"] for config in configs]
        ignored |= {"architectures", "rope_scaling"}  # the older layout says these twice
    found = differences(*configs, ignored)
    if (
        output == RESAVED
    ):  # which has words that transformers 4 does not know, and keeps as they are
        found = [difference for difference in found if not difference.endswith("in place of None")]
    assert found == []
    assert out["config"]["dtype"] == TABLE[name].out_dtype


@pytest.mark.parametrize(("name", "output"), OUTPUTS)
def test_tokenizer_gives_cps_ids(
    name: str, output: str, trios: dict[str, Trio], said: Said
) -> None:
    cp, out = _pair(name, output, trios, said)
    assert out["ids"] == cp["ids"]
    assert out["text"] == cp["text"]
    family = FAMILIES[TABLE[name].tokenizer]
    assert out["template"] == family.template
    assert vocabulary(trios[name].folder / output)[family.end_of_turn] in out["stops"]


@pytest.mark.parametrize(("name", "output"), OUTPUTS)
def test_weights_are_all_found(name: str, output: str, trios: dict[str, Trio], said: Said) -> None:
    cp, out = _pair(name, output, trios, said)
    assert set(out["missing"]) <= set(cp["missing"])
    assert set(out["unexpected"]) <= set(cp["unexpected"])


@pytest.mark.parametrize(("name", "output"), OUTPUTS)
def test_model_says_the_same_in_both(
    name: str, output: str, trios: dict[str, Trio], said: Said
) -> None:
    """What a wrong rope or a lost expert would change: the scores of the next token."""
    _, out = _pair(name, output, trios, said)
    folder = trios[name].folder / output
    loader = AutoModelForImageTextToText if TABLE[name].vision else AutoModelForCausalLM
    model = loader.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([list(range(20, 60))])).logits[0, -1]
    torch.testing.assert_close(torch.tensor(out["logits"]), logits, rtol=1e-4, atol=1e-4)

"""Every shared recipe, run verbatim by the stock command, against the float64 oracle."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import oracle
import pytest
import yaml
import zoo
from conftest import mergekit_yaml


@pytest.mark.parametrize("file", zoo.MODEL_RECIPES, ids=lambda file: file.stem)
def test_stock_command_gives_the_correctly_rounded_sum(
    file: Path, merged_by_stock: Callable[[Path], Path]
) -> None:
    recipe = yaml.safe_load(file.read_text(encoding="utf-8"))
    folder = merged_by_stock(file)

    expected = oracle.expected_output(folder, recipe)
    output = oracle.stored_tensors(folder / "stock")
    assert output.keys() == expected.keys()
    elements = wrong = 0
    for name, tensor in output.items():
        assert str(tensor.dtype) == f"torch.{recipe['out_dtype']}", name
        assert tensor.shape == expected[name].shape, name
        steps = oracle.steps_off(tensor, expected[name])
        assert steps.max(initial=0) <= 1, name
        elements += steps.size
        wrong += (steps > 0).sum()
    assert wrong <= 1e-5 * elements, f"{wrong} of {elements} elements are not correctly rounded"

    config = json.loads((folder / "stock" / "config.json").read_text())
    assert config["dtype"] == recipe["out_dtype"]
    assert config["vocab_size"] == len(output["model.embed_tokens.weight"])


class HubWithoutModels(BaseHTTPRequestHandler):
    """Answers every question as the hub does about a model that it does not have."""

    def do_GET(self) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def hub() -> Iterator[str]:
    """Return the address of a hub, which mergekit asks about the models that its card names."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), HubWithoutModels)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_model_card_names_the_method_and_the_paper(hub: str, tmp_path: Path) -> None:
    file = zoo.RECIPES / "swallow_ms.yaml"
    zoo.build(tmp_path, yaml.safe_load(file.read_text(encoding="utf-8")))

    mergekit_yaml(file, "out", "--write-model-card", cwd=tmp_path, hub=hub)

    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "[Chat Vector](https://arxiv.org/abs/2310.04799)" in card
    assert (tmp_path / "out" / "mergekit_config.yml").read_text() == file.read_text()

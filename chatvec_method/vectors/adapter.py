"""The part of a vector that has a low rank, as a PEFT adapter, switched and scaled while a cp runs.

It holds what PEFT, vLLM and llama.cpp all load, all add, and all scale: the linear layers, but for
the head. The rest is left out. Embeddings and head have a row for each token, and a cp mostly has
more of them than base. Norms could only be replaced by the chat model's, which vLLM refuses, and
which would undo what cp has learnt; engines disagree on biases; and joined experts are no linear
layers. All matrices have one rank and one alpha, filled up with zeros, as llama.cpp divides one
alpha for all by the rank of each.

`mergekit-extract-lora` is not used here: it puts the chat model's norms and embeddings in the place
of cp's, gives small matrices a rank of their own, subtracts in the checkpoint's own half precision,
and decomposes every matrix as a whole, which takes minutes for each of a large model's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from chatvec_method.errors import ChatVecError
from chatvec_method.facts.layout import model_without_memory
from chatvec_method.facts.models import TensorHeader
from chatvec_method.facts.plan import KINDS
from chatvec_method.method.vector import ADAPTER_FOLDER
from chatvec_method.progress import Progress
from chatvec_method.vectors.description import AdapterFacts
from chatvec_method.vectors.low_rank import kept_energy, low_rank
from chatvec_method.vectors.packing import bytes_of
from chatvec_method.vectors.pairs import Differences, Pair, Pairs
from chatvec_method.weights.reading import Reader
from chatvec_method.weights.shards import MERGEKIT_VERSION, ShardWriter, lay_out

FILE = "adapter_model"
DTYPE = torch.bfloat16


class Adapter:
    """An adapter that is going to be written."""

    def __init__(self, pairs: Pairs, rank: int) -> None:
        """Look for the linear layers.

        Args:
            pairs: Of chat and base.
            rank: Asked for; no more than the largest matrix has is taken.

        Raises:
            ChatVecError: There are none, or nobody knows which they are.
        """
        self.pairs = pairs
        self.modules, self.targets = _linear_layers(pairs)
        self.rank = min(rank, max(min(pair.shape) for pair in self.modules.values()))

    def write(
        self,
        folder: Path,
        reader: Reader,
        energies: Mapping[str, float],
        on_progress: Callable[[Progress], None],
    ) -> AdapterFacts:
        """Decompose all matrices, one after the other, and write the adapter's folder.

        Args:
            folder: The vector's.
            reader: Of both models' files.
            energies: ‖difference‖² of every tensor of the vector.
            on_progress: Is told how much has been decomposed.
        """
        out = folder / ADAPTER_FOLDER
        out.mkdir()
        headers = {name: h for module in self.modules for name, h in self._headers(module).items()}
        kept: dict[str, float] = {}
        sizes = {m: 4 * math.prod(pair.shape) for m, pair in self.modules.items()}
        done, total = 0, sum(sizes.values())
        with ShardWriter(out, lay_out(headers, 0, MERGEKIT_VERSION, FILE)) as writer:
            for module, pair in self.modules.items():
                on_progress(Progress("recompute", done, total))
                matrix = Differences(self.pairs, pair, reader).rows(0, pair.shape[0])
                up, down = (thin.to(DTYPE) for thin in low_rank(matrix, self.rank))
                kept[module] = kept_energy(matrix, up, down)
                of_down, of_up = self._headers(module)
                writer.write(of_down, down)
                writer.write(of_up, up)
                done += sizes[module]
        on_progress(Progress("recompute", done, total))
        text = json.dumps(self._config(), indent=2, ensure_ascii=False) + "\n"
        (out / "adapter_config.json").write_text(text, encoding="utf-8")
        held = sum(kept[module] * energies[pair.name] for module, pair in self.modules.items())
        whole = sum(energies.values())
        return AdapterFacts(
            self.rank, bytes_of(headers), kept, held / whole if whole else 1.0, self._left_out()
        )

    def _headers(self, module: str) -> dict[str, TensorHeader]:
        """Return the two tensors of a linear layer: A, which comes first, and B."""
        rows, columns = self.modules[module].shape
        stem = f"base_model.model.{module}"
        return {
            f"{stem}.lora_A.weight": TensorHeader(DTYPE, (self.rank, columns), ""),
            f"{stem}.lora_B.weight": TensorHeader(DTYPE, (rows, self.rank), ""),
        }

    def _left_out(self) -> dict[str, int]:
        """Return of how many tensors of each kind there is nothing in the adapter."""
        held = {pair.name for pair in self.modules.values()}
        kinds = [pair.kind for pair in self.pairs.pairs if pair.name not in held]
        return {kind: kinds.count(kind) for kind in KINDS if kind in kinds}

    def _config(self) -> dict[str, object]:
        base = self.pairs.base
        return {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": str(base.reference.model.path),
            "revision": base.commit,
            "inference_mode": True,
            "r": self.rank,
            "lora_alpha": self.rank,
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": False,
            "use_rslora": False,
            "modules_to_save": None,
            "target_modules": self.targets,
        }


def _linear_layers(pairs: Pairs) -> tuple[dict[str, Pair], list[str]]:
    """Return the linear layers, but for the head, by the module; and how PEFT is told of them."""
    chat = pairs.checkpoints[pairs.chat.reference]
    model = model_without_memory(pairs.chat.config, chat.trust_remote_code)
    if model is None or chat.layout is None:
        raise ChatVecError(
            f"model {pairs.chat}: transformers cannot build it, so that nobody knows which of its "
            "tensors are linear layers, which an adapter is made of.",
            "Leave `--rank` out.",
        )
    head = model.get_output_embeddings()
    linear = {n for n, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head}
    modules = {}
    for pair in pairs.pairs:
        module = chat.layout.renamed.get(pair.name, "").removesuffix(".weight")
        if module in linear and len(pair.shape) == 2 and not pair.name.endswith(".bias"):
            modules[module] = pair
    if not modules:
        raise ChatVecError(
            f"model {pairs.chat} has no linear layers, which an adapter is made of.",
            "Leave `--rank` out.",
        )
    ends = sorted({module.rpartition(".")[2] for module in modules})
    so_called = {n for n, _ in model.named_modules() if n.rpartition(".")[2] in ends}
    return modules, ends if so_called == modules.keys() else sorted(modules)

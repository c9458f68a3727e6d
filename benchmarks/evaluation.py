"""How long `chatvec evaluate` takes for a model of a billion parameters.

How long answers are decides that, and random weights never end theirs. So a small chat model that
people use is made as wide: its weights fill a corner of larger matrices, whose other elements are
zeros, and it says what it always said, at the price of every element. SmolLM2-135M-Instruct becomes
one of 1.1 billion, with the 30 layers that it has.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

WIDTH, INTERMEDIATE, HEADS, KV_HEADS = 2048, 4096, 32, 4


def widened(small: LlamaForCausalLM) -> LlamaForCausalLM:
    """Return a model that computes what a small one does, in wider matrices, in bfloat16.

    Raises:
        click.ClickException: The model is too large for that, or its heads do not fit.
    """
    own = small.config
    groups, wide_groups = own.num_attention_heads // own.num_key_value_heads, HEADS // KV_HEADS
    fits = own.num_key_value_heads <= KV_HEADS and groups <= wide_groups
    if not fits or own.hidden_size > WIDTH or own.intermediate_size > INTERMEDIATE:
        raise click.ClickException("the model is too large to be made wider.")
    sizes = {"hidden_size": WIDTH, "intermediate_size": INTERMEDIATE}
    heads = {"num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS}
    config = LlamaConfig(**{**own.to_dict(), **sizes, **heads, "head_dim": own.head_dim})
    wide = LlamaForCausalLM(config).to(torch.bfloat16)
    # A head stays with its own keys and values, so that some heads between them are zeros.
    places = torch.arange(own.num_attention_heads)
    places = places // groups * wide_groups + places % groups
    rows = (places[:, None] * own.head_dim + torch.arange(own.head_dim)).flatten()
    weights = small.state_dict()
    with torch.no_grad():
        for name, tensor in wide.state_dict().items():
            theirs = weights[name].to(tensor.dtype)
            tensor.zero_()
            if tensor.ndim == 1:  # zeros beside them make the mean square smaller
                tensor[: own.hidden_size] = weights[name] * (own.hidden_size / WIDTH) ** 0.5
            elif "q_proj" in name:
                tensor[rows, : own.hidden_size] = theirs
            elif "o_proj" in name:
                tensor[: own.hidden_size, rows] = theirs
            else:
                tensor[: theirs.shape[0], : theirs.shape[1]] = theirs
    wide.generation_config = small.generation_config
    return wide


@click.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--language", default="en", show_default=True)
@click.option("--limit", default=10, show_default=True, help="Prompts an axis.")
@click.option("--as-it-is", is_flag=True, help="Evaluate MODEL itself, and no wider one.")
def main(model: Path, language: str, limit: int, as_it_is: bool) -> None:
    """Evaluate a small Llama chat model in the folder MODEL, made a billion parameters wide."""
    with tempfile.TemporaryDirectory() as scratch:
        target = model
        if not as_it_is:
            target = Path(scratch) / "wide"
            widened(LlamaForCausalLM.from_pretrained(model, dtype=torch.float32)).save_pretrained(
                target
            )
            AutoTokenizer.from_pretrained(model).save_pretrained(target)
        command = [sys.executable, "-m", "chatvec_method", "evaluate", str(target)]
        command += ["--language", language, "--limit", str(limit), "--state", f"{scratch}/state"]
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True)
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    click.echo(f"{limit} prompts an axis: {wall / 60:.1f} min, of processors {processor / 60:.1f}")


if __name__ == "__main__":
    main()

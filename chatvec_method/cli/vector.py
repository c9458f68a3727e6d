"""`chatvec vector`: a chat vector as a file: extract one, see what is in it, expand it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chatvec_method.cli.completing import FOLDER, RECIPE
from chatvec_method.cli.console import console, json_text, quiet_libraries, table
from chatvec_method.cli.loading import loading
from chatvec_method.cli.model_options import with_adapter_cache, with_remote_code
from chatvec_method.errors import ChatVecError
from chatvec_method.progress import bars

if TYPE_CHECKING:
    from mergekit.common import ModelReference
    from rich.table import Table

    from chatvec_method.vectors.description import AdapterFacts, Description

BITS = ("32", "16", "8", "4", "2")
"""As `vectors.packing` has them, which takes seconds to load."""


@click.group()
def vector() -> None:
    """Make chat vectors as files, which are shared once and added to any cp of their base."""


@vector.command()
@click.argument("out", type=FOLDER)
@click.option("--base", help="The pretrained model: a folder, or a name of the hub.")
@click.option("--chat", help="That model after instruction tuning.")
@click.option(
    "--recipe",
    type=RECIPE,
    help="A recipe that has both, in place of --base and --chat.",
)
@click.option(
    "--bits",
    type=click.Choice(BITS),
    default="16",
    show_default=True,
    help="Of an element; 32 is exact. Embeddings have 4 at least, norms all.",
)
@click.option(
    "--rank",
    type=click.IntRange(min=1),
    metavar="K",
    help="Write a PEFT adapter of this rank too, into OUT/adapter: for vLLM, transformers and "
    "llama.cpp, which scale it over a cp while they run. It has the linear layers alone.",
)
@click.option("--overwrite", is_flag=True, help="Replace a vector or model that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
@with_remote_code
@with_adapter_cache
def extract(
    out: Path,
    base: str | None,
    chat: str | None,
    recipe: str | None,
    bits: str,
    rank: int | None,
    overwrite: bool,
    as_json: bool,
    trust_remote_code: bool,
    lora_merge_cache: str | None,
) -> None:
    """Write chat − base into the folder OUT, to be shared, and named in recipes.

    Reads both models once. The folder has what a merge needs of them: the differences, the chat
    model's tokenizer, template and stop tokens, and some rows of base, by which a cp of another
    base is told. In a recipe it stands as `{model: OUT, parameters: {role: vector, ratio: 1.0}}`.

    Example: chatvec vector extract vector/ --base upstage/SOLAR-10.7B-v1.0 --chat
    upstage/SOLAR-10.7B-Instruct-v1.0 --bits 4
    """
    if (base is None or chat is None) if recipe is None else bool(base or chat):
        raise ChatVecError(
            "a vector is the difference of two models.",
            "Write `--base` and `--chat`, or `--recipe` alone.",
        )
    with loading("mergekit"):
        from mergekit.common import ModelReference

        from chatvec_method.options import merge_options, options_of_models
        from chatvec_method.vectors.extract import extract as extract_vector
    quiet_libraries()
    if recipe is not None:
        pair = _pair_of(recipe)
    else:
        pair = ModelReference.model_validate(base), ModelReference.model_validate(chat)
    with bars() as show:
        description = extract_vector(
            *pair,
            out,
            int(bits),
            merge_options(**options_of_models(trust_remote_code, lora_merge_cache)),
            rank=rank,
            overwrite=overwrite,
            on_progress=show,
        )
    _print(description, as_json)


@vector.command()
@click.argument("folder")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def show(folder: str, as_json: bool) -> None:
    """Tell what is in a vector: from which models, how it is stored, how exact it is.

    FOLDER is a folder, or a name of the hub.

    Example: chatvec vector show vector/
    """
    place = Path(folder)
    with loading("mergekit"):
        from mergekit.common import ModelReference

        from chatvec_method.facts.models import small_files_of
        from chatvec_method.vectors.description import DESCRIPTION_FILE, read_description
    quiet_libraries()
    if not place.is_dir():
        file = small_files_of(ModelReference.model_validate(folder)).file(DESCRIPTION_FILE)
        place = file.parent if file is not None else place
    _print(read_description(place), as_json, by_layer=True)


@vector.command()
@click.argument("vector")
@click.argument("out", type=FOLDER)
@click.option("--overwrite", is_flag=True, help="Replace a vector or model that is there.")
def expand(vector: str, out: Path, overwrite: bool) -> None:
    """Write a compressed VECTOR in full into the folder OUT, for stock mergekit-yaml.

    Example: chatvec vector expand someone/solar-chat-vector-4bit vector/
    """
    with loading("mergekit"):
        from mergekit.common import ModelReference
        from mergekit.options import MergeOptions

        from chatvec_method.vectors.expand import expand as expand_vector
    quiet_libraries()
    with bars() as show:
        expand_vector(
            ModelReference.model_validate(vector),
            out,
            MergeOptions(),
            overwrite=overwrite,
            on_progress=show,
        )
    click.echo(f"{out} has the vector in full.")


def _pair_of(recipe: str) -> tuple[ModelReference, ModelReference]:
    """Return base and chat of a recipe."""
    from chatvec_method.hub.named import read_named

    entries = read_named(recipe).config.models or ()
    held = [((entry.parameters or {}).get("role"), entry.model) for entry in entries]
    pair = [model for role in ("base", "chat") for own, model in held if own == role]
    if len(pair) != 2 or {role for role, _ in held} < {"base", "chat"}:
        raise ChatVecError(
            f"{recipe} does not have one base and one chat under `models:`.",
            "Write `--base` and `--chat`.",
        )
    return pair[0], pair[1]


def _print(description: Description, as_json: bool, by_layer: bool = False) -> None:
    if as_json:
        click.echo(json_text(asdict(description)))
        return
    from chatvec_method.facts.cost import in_bytes

    rows = [
        (
            kind.kind,
            str(kind.tensors),
            ", ".join(map(str, kind.bits)),
            in_bytes(kind.bytes),
            f"{kind.share:.2%}",
            f"{kind.relative_error:.2%}",
            f"{kind.changed:.2%}",
        )
        for kind in description.kinds
    ]
    out = console()
    title = f"{description.chat.name} − {description.base.name}, {in_bytes(description.bytes)}"
    header = ["tensors", "number", "bits", "size", "share", "error", "changed"]
    out.print(table(title, header, rows, right=(1, 3, 4, 5, 6)))
    if by_layer:
        out.print()
        out.print(_by_layer(description))
    if description.added_tokens:
        tokens = ", ".join(map(repr, description.added_tokens[:8]))
        more = len(description.added_tokens) - 8
        click.echo(f"Tokens that chat added: {tokens}{f' and {more} more' if more > 0 else ''}.")
    if description.adapter is not None:
        _print_adapter(description.adapter)


def _by_layer(description: Description) -> Table:
    from chatvec_method.facts.cost import in_bytes
    from chatvec_method.vectors.description import short

    facts = description.layers
    names = short(each.layer for each in facts if each.layer is not None)
    names += ["outside"] * (len(facts) - len(names))
    rows = [
        (name, in_bytes(each.bytes), f"{each.share:.2%}")
        for name, each in zip(names, facts, strict=True)
    ]
    return table("By layer", ["layer", "size", "share"], rows, right=(0, 1, 2))


def _print_adapter(adapter: AdapterFacts) -> None:
    from chatvec_method.facts.cost import in_bytes

    header, rows = adapter.table()
    title = f"adapter/ of rank {adapter.rank}, {in_bytes(adapter.bytes)}: kept of each matrix"
    out = console()
    out.print()
    out.print(table(title, header, rows, right=range(1, len(header))))
    click.echo(
        f"It keeps {adapter.share:.1%} of the vector's energy, and has nothing of: {adapter.lacks}."
    )

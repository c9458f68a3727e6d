"""Is this the name of a model, or a folder that may be one?"""

from __future__ import annotations

from pathlib import Path

from chatvec_method.errors import ChatVecError


def check_folder(model: str) -> None:
    """Refuse what cannot be a model, before anything is loaded or the hub is asked about it.

    Args:
        model: A folder, or a name on the hub.

    Raises:
        ChatVecError: It is no such name, and there is no such folder or it lacks files.
    """
    folder = Path(model)
    if not folder.is_dir():
        if model.count("/") != 1 or model.startswith((".", "/", "~")) or model.endswith("/"):
            raise ChatVecError(
                f"there is no folder {model}.", "Write the folder of a merge, or owner/name."
            )
        return
    kinds = {
        "config.json": ["config.json"],
        "weights": ["*.safetensors", "*.bin"],
        "tokenizer": ["tokenizer*", "vocab*"],
    }
    for what, patterns in kinds.items():
        if not any(file for pattern in patterns for file in folder.glob(pattern)):
            raise ChatVecError(
                f"{model} is not a finished model: it has no {what}.", "Run the merge to its end."
            )


def check_no_adapter(model: str, folder: Path) -> None:
    """Refuse a folder with an adapter: transformers would load the model that this one names.

    Args:
        model: What messages call it.
        folder: Where it lies.

    Raises:
        ChatVecError: There is one.
    """
    if (folder / "adapter_config.json").is_file():
        raise ChatVecError(
            f"{model} is an adapter to another model: it has an adapter_config.json.",
            "Add it to that model with peft's `merge_and_unload`, and save the result.",
        )

"""A model's folder, looked at before any library opens what is in it.

Who made a model decides what its folder holds: pipes and devices that never end, links to other
files of the machine, files of any size, and configs whose numbers libraries count up to, or whose
texts they take for names of files. What is refused here is refused in one line that names it.
"""

from __future__ import annotations

import json
import os
import re
import stat
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from chatvec_method.errors import ChatVecError, first_line

HUB_CACHE = ("snapshots", "blobs")
"""The folders of huggingface_hub's cache: in the first, every file is a link into the second."""
WEIGHTS = re.compile(r".*\.(safetensors|bin|pt|pth|gguf|ggml|h5|msgpack|onnx|ot|npz)(\.data)?")
"""The names of files of weights: they are not read as a whole, and only tensors are taken of them,
so that they may be large, and may be links to another disk."""
READ = re.compile(r".*\.(json|jinja|txt|model|tiktoken|md|ya?ml|py|vocab|bpe|spm)(\.v\d+)?")
"""The names of other files that somebody reads."""
OF_TOKENS = re.compile(r"tokenizer.*\.json|tekken\.json|vocab.*|merges\.txt|.*\.(model|tiktoken).*")
LARGEST_BYTES = 1 << 24
LARGEST_OF_TOKENS_BYTES = 1 << 27
"""The largest tokenizers that people use have 40 MB."""
TEMPLATES = ("chat_templates", "additional_chat_templates")
"""Folders in a model's folder from which transformers reads as well."""


def read_bytes(file: Path, most: int = LARGEST_BYTES) -> bytes:
    """Return what a small file holds.

    Raises:
        ChatVecError: It is no regular file, or holds more than `most` bytes.
        OSError: It cannot be read.
    """
    # A pipe that nobody writes to would keep whoever opens it waiting.
    descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _BINARY)
    with os.fdopen(descriptor, "rb") as stream:
        _check_kind(file, os.fstat(descriptor).st_mode)
        content = stream.read(most + 1)
    if len(content) > most:
        raise _too_large(file, most)
    return content


_BINARY = getattr(os, "O_BINARY", 0)


def read_json(file: Path, most: int = LARGEST_BYTES) -> Any:
    """Return what a small JSON file says.

    Raises:
        ChatVecError: As `read_bytes`, or it is no JSON.
        OSError: It cannot be read.
    """
    return json_of(read_bytes(file, most), file)


def json_of(content: bytes | str, name: object) -> Any:
    """Return what JSON says; `name` is the file's, for messages.

    Raises:
        ChatVecError: It is no JSON, or none that can be written again.
    """
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        said = json.loads(text)
        text.encode("utf-8")
        if "\\u" in text:  # `"\ud800"` is half of a character, and could not be written
            json.dumps(said, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise ChatVecError(
            f"{name} is no JSON ({first_line(error)}).",
            "Download or save the model again.",
            code="config-unreadable",
        ) from error
    return said


def check_folder(folder: Path) -> None:
    """Check that a model's folder holds nothing but files, of bearable sizes, and all of them its.

    Args:
        folder: The model's, or an adapter's.

    Raises:
        ChatVecError: Names the file.
        OSError: The folder cannot be read.
    """
    for place in (folder, *(folder / name for name in TEMPLATES)):
        if place.is_dir():
            for file in place.iterdir():
                _check_file(file, folder)


def _check_file(file: Path, folder: Path) -> None:
    weights = WEIGHTS.fullmatch(file.name) is not None
    if not weights and not READ.fullmatch(file.name):
        return  # nobody opens it
    if not weights:
        check_inside(file, folder)
    try:
        status = file.stat()
    except OSError:
        return  # a link that leads nowhere is no file
    if stat.S_ISDIR(status.st_mode):
        return
    _check_kind(file, status.st_mode)
    if not weights:
        check_size(file.name, status.st_size, file)


def check_size(name: str, size: int, file: object) -> None:
    """Check that a file is no larger than one of its name can be.

    Args:
        name: Its name alone.
        size: In bytes.
        file: What messages call it.

    Raises:
        ChatVecError: It is.
    """
    if WEIGHTS.fullmatch(name) or not READ.fullmatch(name):
        return
    most = LARGEST_OF_TOKENS_BYTES if OF_TOKENS.fullmatch(name) else LARGEST_BYTES
    if size > most:
        raise _too_large(file, most)


def check_inside(file: Path, folder: Path) -> None:
    """Check that a file of a model is its own, and no link to one elsewhere on the machine.

    Raises:
        ChatVecError: It is.
    """
    try:
        target = file.resolve()
    except (OSError, RuntimeError):  # a circle of links
        return
    if not target.exists():
        return
    home = folder.resolve()
    homes = [home]
    if home.parent.name == HUB_CACHE[0]:
        homes.append(home.parent.parent / HUB_CACHE[1])
    from huggingface_hub import constants  # which takes a while, and recipes are read at once

    inside = any(target.is_relative_to(each) for each in homes)
    # Earlier versions of the hub's library made folders of links into its cache.
    cache = Path(constants.HF_HUB_CACHE).resolve()
    if not inside and not (target.is_relative_to(cache) and target.parent.name == HUB_CACHE[1]):
        raise ChatVecError(
            f"{file} is a link to {target}, outside of the model's folder, and what it leads to is "
            "not the model's.",
            "Put a copy of that file in its place if it belongs there.",
            code="unsafe-file",
        )


def check_pickle(file: Path) -> None:
    """Check that a pickle of torch's unpacks to no more than it is.

    torch stores as it is what others compress, and would unpack it in memory.

    Raises:
        ChatVecError: It does.
        OSError: It cannot be read.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(each.file_size for each in archive.infolist())
    except zipfile.BadZipFile:
        return  # of an earlier kind, which is not packed
    if unpacked > file.stat().st_size:
        raise ChatVecError(
            f"{file} unpacks to {unpacked} bytes, and torch's own files are not packed.",
            "Download or save the model again, as safetensors.",
            code="unsafe-file",
        )


def is_file_name(name: Any) -> bool:
    """Tell whether something is the plain name of a file, with no folder in it."""
    return (
        isinstance(name, str)
        and name not in ("", ".", "..")
        and name.isprintable()
        and not any(sign in name for sign in '/\\:*?"<>|')
        and PurePosixPath(name).name == name
    )


def _check_kind(file: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kinds = {
            stat.S_IFIFO: "a pipe",
            stat.S_IFSOCK: "a socket",
            stat.S_IFCHR: "a device",
            stat.S_IFBLK: "a device",
            stat.S_IFDIR: "a folder",
        }
        raise ChatVecError(
            f"{file} is {kinds.get(stat.S_IFMT(mode), 'something else')}, and no file.",
            "Put the file in its place, or remove it.",
            code="unsafe-file",
        )


def _too_large(file: object, most: int) -> ChatVecError:
    return ChatVecError(
        f"{file} is larger than {most >> 20} MB, and no file of its kind is.",
        "Download or save the model again.",
        code="unsafe-file",
    )

"""A file that a person asked for, written whole or not at all."""

from __future__ import annotations

from pathlib import Path

from chatvec_method.errors import ChatVecError, first_line

FIX = "Write the name of a file in a folder that exists, on a disk with room."


def write(file: Path, content: str | bytes, kept: str = "") -> None:
    """Replace a file in one step; what is no file, as /dev/stdout, is written to.

    Args:
        file: Its name; a link is followed.
        content: Text or bytes.
        kept: What is not lost with it, for the message: "all answers are kept".

    Raises:
        ChatVecError: It cannot be written; then it is as it was.
    """
    from chatvec_method.finishing.files import as_bytes, write_content  # which is not light

    try:
        if file.exists() and not file.is_file():
            file.write_bytes(as_bytes(content))
        else:
            write_content(file.resolve(), content)
    except (OSError, ChatVecError) as error:
        cause = error.__cause__ or error
        why = getattr(cause, "strerror", None) or first_line(cause)
        besides = f"; {kept}" if kept else ""
        raise ChatVecError(f"{file} cannot be written ({why}){besides}.", FIX) from error


def write_all(folder: Path, contents: dict[str, bytes], kept: str = "") -> None:
    """Write files into a folder, which is made where there is none.

    Args:
        folder: The folder.
        contents: By the files' names.
        kept: As for `write`.

    Raises:
        ChatVecError: The folder or a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        besides = f"; {kept}" if kept else ""
        raise ChatVecError(
            f"{folder} cannot be written to ({error.strerror}){besides}.",
            "Write the name of a folder.",
        ) from error
    for name, content in contents.items():
        write(folder / name, content, kept)

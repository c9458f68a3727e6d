"""The one place that decides how the process writes and reads: encodings, failing output.

Files and pipes get UTF-8 whatever the locale says, as the models' languages are in none of its code
pages. A terminal gets what it can show, and `?` for the rest. Output that cannot be written ends a
command in one line, and a closed stream is like /dev/null.
"""

from __future__ import annotations

import codecs
import io
import locale
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from chatvec_method.errors import ChatVecError

PLAIN = "chatvec-plain"
"""What writes signs that an encoding lacks in letters that all have."""
LETTERS = {"−": "-", "‖": "|", "…": "...", "·": ".", "–": "-", "τ": "t", "λ": "l", "θ": "th"}


def _in_letters(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(LETTERS.get(sign, "?") for sign in signs), error.end


codecs.register_error(PLAIN, _in_letters)


@contextmanager
def own_streams() -> Iterator[None]:
    """Set up stdin, stdout and stderr for a command, and write the last of it at the end.

    Streams that somebody has put in the place of the process's own, as tests do, are left alone.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:  # was closed; what is opened next would take its number
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123
        elif mode == "w" and stream is getattr(sys, f"__{name}__"):
            setattr(sys, name, _Output.of(stream))
    if isinstance(sys.stdin, io.TextIOWrapper) and sys.stdin.isatty():
        sys.stdin.reconfigure(errors="replace")
    try:
        yield
    finally:
        _write_the_rest()


def lines_read() -> Iterator[str]:
    """Yield the lines of stdin, which may be UTF-8 or in the encoding of the locale.

    Raises:
        ChatVecError: They are neither.
    """
    for number, line in enumerate(sys.stdin.buffer, 1):
        for encoding in ("utf-8-sig", locale.getpreferredencoding(False)):
            with suppress(UnicodeDecodeError):
                yield line.decode(encoding)
                break
        else:
            raise ChatVecError(
                f"line {number} of the input is no UTF-8.",
                "Convert it, as in `iconv -f EUC-KR -t UTF-8 FILE | chatvec chat OUT`.",
            )


class _Output(io.TextIOWrapper):
    """Stdout or stderr; where it cannot be written, that is said in one line, once."""

    def __init__(self, stream: TextIO, **settings: Any) -> None:
        super().__init__(stream.buffer, write_through=True, **settings)
        self.failed = False
        self._is_stderr = stream is sys.__stderr__

    @classmethod
    def of(cls, stream: TextIO) -> _Output:
        encoding, errors = stream.encoding, "backslashreplace"
        if stream.isatty():
            if not encoding.lower().startswith("utf"):
                errors = PLAIN
        elif "PYTHONIOENCODING" not in os.environ:
            encoding = "utf-8"
        else:
            errors = PLAIN
        stream.flush()
        return cls(stream, encoding=encoding, errors=errors, line_buffering=stream.line_buffering)

    def write(self, text: str) -> int:
        if text == "":  # click tries so what kind of stream it has, and hides what goes wrong
            return 0
        return self._tried(super().write, text) or len(text)

    def flush(self) -> None:
        self._tried(super().flush)

    def _tried(self, work: Any, *arguments: Any) -> Any:
        if self.failed:
            return None
        try:
            return work(*arguments)
        except BrokenPipeError:
            self.failed = True
            raise
        except OSError as error:
            self.failed = True
            if self._is_stderr:
                return None
            raise ChatVecError(
                f"the output cannot be written ({error.strerror}).",
                "Write it to another disk or to a terminal.",
            ) from error


def _write_the_rest() -> None:
    """Write what is left in the buffers; what goes wrong would be told by Python at its exit."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        sys.exit(1)
    except ChatVecError as error:
        error.show()
        sys.exit(1)
    finally:
        if getattr(sys.stdout, "failed", False):
            # Python would try again, and complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

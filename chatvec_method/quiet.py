"""The libraries' own bars and log lines kept back, where we say the same in our own words."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import threading
from collections.abc import Iterator

from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)

_lock = threading.Lock()
_threads = 0
_restore = contextlib.ExitStack()
"""What puts the process back as it was, once the last of several threads is through."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep back what the libraries log, and the bars of mergekit and huggingface_hub.

    All are settings of the whole process. Several threads may be here at once: the first one
    changes them, and the last one puts them back.
    """
    global _threads
    with _lock:
        _threads += 1
        if _threads == 1:
            _restore.callback(logging.disable, logging.root.manager.disable)
            _restore.callback(setattr, sys, "stderr", sys.stderr)
            logging.disable(logging.ERROR)
            sys.stderr = io.StringIO()
            if not are_progress_bars_disabled():
                _restore.callback(enable_progress_bars)
                disable_progress_bars()
    try:
        yield
    finally:
        with _lock:
            _threads -= 1
            if _threads == 0:
                _restore.close()

"""Chat vectors for mergekit: θ_cp + ratio · (θ_chat − θ_base).

Importing this package makes the merge method `chat_vector` known to mergekit: at once where
mergekit is loaded already, else as soon as it is. Stock commands need no import: the start-up hook
does the same for them. Nothing heavy is imported before mergekit is.
"""

from __future__ import annotations

import sys

import chatvec_method_startup

__version__ = "0.1.0"

if chatvec_method_startup.TARGET in sys.modules:
    from chatvec_method.method import plugin  # noqa: F401 (registers itself)
else:
    chatvec_method_startup.install()

"""Chat vectors for mergekit: θ_cp + ratio · (θ_chat − θ_base).

Importing this package makes the merge method `chat_vector` known to mergekit: at once where
mergekit is loaded already, else as soon as it is. Stock commands need no import: the start-up hook
does the same for them.

Nothing heavy is imported before mergekit is, or before one of the names below is asked for:
`read_recipe`, `survey`, `check`, `merge`, `finish`, `verify`, `examine`, `extract_vector`,
`schedule`, `new_recipe`, `pin`, `share`, `load`, `live`, `evaluate` and `search`, which
docs/python.md shows in use, and the types that they take and return.
"""

from __future__ import annotations

import sys

import chatvec_method_startup

TYPE_CHECKING = False  # `typing` would take a fifth of the time that this package's import takes
if TYPE_CHECKING:
    from chatvec_method.anatomy import Anatomy
    from chatvec_method.api import (
        check,
        evaluate,
        examine,
        extract_vector,
        finish,
        live,
        load,
        merge,
        new_recipe,
        pin,
        read_recipe,
        schedule,
        search,
        share,
        survey,
        verify,
    )
    from chatvec_method.checks.findings import Finding, Severity
    from chatvec_method.checks.report import Report
    from chatvec_method.errors import ChatVecError, ChatVecWarning
    from chatvec_method.evaluation.results import Results
    from chatvec_method.facts.survey import ReadySurvey, Survey
    from chatvec_method.finishing.files import FileChange
    from chatvec_method.live_merge.model import LiveMerge
    from chatvec_method.merging.merge import MergeResult
    from chatvec_method.merging.verify import Verification
    from chatvec_method.progress import Progress
    from chatvec_method.recipe.file import Recipe
    from chatvec_method.searching.outcome import Outcome
    from chatvec_method.sharing import Shared
    from chatvec_method.talk.conversation import Conversation
    from chatvec_method.talk.speaker import Sampling, Speaker

__version__ = "0.1.0"
__all__ = [
    "Anatomy",
    "ChatVecError",
    "ChatVecWarning",
    "Conversation",
    "FileChange",
    "Finding",
    "LiveMerge",
    "MergeResult",
    "Outcome",
    "Progress",
    "ReadySurvey",
    "Recipe",
    "Report",
    "Results",
    "Sampling",
    "Severity",
    "Shared",
    "Speaker",
    "Survey",
    "Verification",
    "check",
    "evaluate",
    "examine",
    "extract_vector",
    "finish",
    "live",
    "load",
    "merge",
    "new_recipe",
    "pin",
    "read_recipe",
    "schedule",
    "search",
    "share",
    "survey",
    "verify",
]
_HOMES = {
    "Anatomy": "anatomy",
    "ChatVecError": "errors",
    "ChatVecWarning": "errors",
    "Conversation": "talk.conversation",
    "FileChange": "finishing.files",
    "Finding": "checks.findings",
    "LiveMerge": "live_merge.model",
    "MergeResult": "merging.merge",
    "Outcome": "searching.outcome",
    "Progress": "progress",
    "ReadySurvey": "facts.survey",
    "Recipe": "recipe.file",
    "Report": "checks.report",
    "Results": "evaluation.results",
    "Sampling": "talk.speaker",
    "Severity": "checks.findings",
    "Shared": "sharing",
    "Speaker": "talk.speaker",
    "Survey": "facts.survey",
    "Verification": "merging.verify",
}
"""The modules of the names above that are not in `api`."""

if not TYPE_CHECKING:  # with these, type checkers would believe in any name

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        home = importlib.import_module(f"{__name__}.{_HOMES.get(name, 'api')}")
        value = globals()[name] = getattr(home, name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


if chatvec_method_startup.TARGET in sys.modules:
    from chatvec_method.method import plugin  # noqa: F401 (registers itself)
else:
    chatvec_method_startup.install()

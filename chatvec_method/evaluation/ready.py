"""Tasks of the harness that make sense for a language; all of them read their data on the hub."""

from __future__ import annotations

from collections.abc import Sequence

from chatvec_method.errors import ChatVecError

READY = "ready"
"""What stands for the tasks of each language that is evaluated; `ready-ko` for those of one."""
TASKS = {
    "ko": ("click", "kobest", "belebele_kor_Hang"),
    "ja": ("include_base_44_japanese", "belebele_jpn_Jpan", "mgsm_native_cot_ja"),
    "zh-Hant": ("tmlu", "belebele_zho_Hant"),
    "zh-Hans": ("ceval-valid", "belebele_zho_Hans", "mgsm_native_cot_zh"),
    "en": ("arc_challenge", "belebele_eng_Latn"),
}
"""A few thousand questions each: what is known in the language and of its culture, what is
understood of a text, arithmetic in words. All their data are files, not programs, which `datasets`
runs no more: so not haerae and japanese_leaderboard."""
REFUSED = {
    "realtoxicityprompts": "counts an answer as not toxic whenever the service that judges it does "
    "not reply, and that service ends in December 2026",
}


def task_names(wanted: Sequence[str], languages: Sequence[str]) -> list[str]:
    """Return the names of tasks, those of our groups in their place.

    Args:
        wanted: Names of the harness's tasks, and of groups of ours.
        languages: Those that are evaluated.

    Raises:
        ChatVecError: A group of ours is for no language, or a task is not to be used.
    """
    names: list[str] = []
    for name in wanted:
        if name == READY or name.startswith(f"{READY}-"):
            of = languages if name == READY else [name.removeprefix(f"{READY}-")]
            if not of or any(each not in TASKS for each in of):
                raise ChatVecError(
                    f"there are no tasks `{name}`" + ("." if of else " without a language."),
                    f"Write one of {', '.join(f'{READY}-{each}' for each in TASKS)}.",
                )
            names += [task for each in of for task in TASKS[each]]
        elif name in REFUSED:
            raise ChatVecError(f"{name} {REFUSED[name]}.", "Take the suite's axis `refuses`.")
        else:
            names.append(name)
    return list(dict.fromkeys(names))

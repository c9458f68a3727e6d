"""mergekit's options, declared without importing mergekit, which takes seconds.

`--help`, completion and usage errors need them at once. Names, types and defaults are mergekit's,
to which a test holds them; the help is ours, for what they do in our commands.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

MAGNITUDES = {"k": 10**3, "m": 10**6, "b": 10**9}


class Size(click.ParamType):  # type: ignore[type-arg]
    """A number of bytes, as mergekit takes it: 5B are 5,000,000,000.

    click's class is generic from 8.5 on.
    """

    name = "size"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        """Return the number."""
        if isinstance(value, int):
            return value
        times = MAGNITUDES.get(value[-1:].lower(), 1)
        digits = value if times == 1 else value[:-1]
        if not digits.isdecimal():
            self.fail(f"{value!r} is no size such as 500M or 5B.", param, ctx)
        return int(digits) * times


@dataclass(frozen=True)
class MergekitOption:
    """An option as mergekit's commands have it."""

    name: str
    """Of the field of mergekit's `MergeOptions`."""
    type: Any
    default: Any
    commands: frozenset[str]
    """Those of ours in which it does something."""
    help: str
    """Of a switch that is on by default: what `--no-...` does."""
    flags: tuple[str, ...] = ()
    """How it is written, where that does not follow from its name."""

    def declared(self, *, hidden: bool) -> Callable[..., Any]:
        """Return the decorator that gives it to a command."""
        written = f"--{self.name.replace('_', '-')}"
        both = f"{written}/--no-{written.removeprefix('--')}"
        flags = self.flags or (both if self.type is bool else written,)
        settings: dict[str, Any] = {"type": self.type, "default": self.default}
        if self.name == "gpu_rich":
            settings["is_flag"] = True
        if self.name == "verbosity":
            settings["count"] = True
        return click.option(*flags, self.name, help=self.help, hidden=hidden, **settings)


def _option(
    name: str, type: Any, default: Any, commands: str, help: str, *flags: str
) -> MergekitOption:
    return MergekitOption(name, type, default, frozenset(commands.split()), help, flags)


MERGEKIT_OPTIONS = (
    _option(
        "trust_remote_code",
        bool,
        False,
        "check merge verify anatomy",
        "Run the Python code of models.",
    ),
    _option(
        "allow_crimes",
        bool,
        False,
        "check merge verify anatomy",
        "Let models of other kinds be merged.",
    ),
    _option(
        "unsafe_truncate_embeddings",
        bool,
        False,
        "check merge verify",
        "Cut embeddings to the smallest vocabulary; `tokenizer:` in the recipe is better.",
    ),
    _option(
        "device",
        str,
        None,
        "merge verify anatomy",
        "Calculate on cpu, cuda, cuda:1, mps, auto, ...",
    ),
    _option("cuda", bool, False, "merge anatomy", "Calculate on the GPU."),
    _option("multi_gpu", bool, False, "merge", "Calculate on all GPUs."),
    _option("gpu_rich", bool, False, "merge", "As --cuda --multi-gpu.", "--gpu-rich"),
    _option("low_cpu_memory", bool, False, "", "Keep results on the GPU."),
    _option("read_to_gpu", bool, False, "", "Read weights to the GPU."),
    _option(
        "num_threads",
        int,
        None,
        "merge verify anatomy",
        "How many threads torch may take.",
        "--num-threads",
        "-j",
    ),
    _option(
        "lazy_unpickle",
        bool,
        False,
        "check merge verify",
        "Read weights in pickles (.bin) one at a time.",
    ),
    _option(
        "transformers_cache", str, None, "merge verify anatomy", "The folder for downloaded models."
    ),
    _option(
        "lora_merge_cache",
        str,
        None,
        "check merge verify anatomy",
        "The folder for models with their adapters.",
    ),
    _option(
        "lora_merge_dtype",
        str,
        None,
        "check merge verify anatomy",
        "The dtype in which adapters are added; float32 without it.",
    ),
    _option(
        "out_shard_size",
        Size(),
        5 * 10**9,
        "check merge",
        "The largest file of weights, in bytes.  [default: 5B]",
    ),
    _option(
        "safe_serialization",
        bool,
        True,
        "check merge",
        "Write pickles (.bin) instead of safetensors.",
    ),
    _option("copy_tokenizer", bool, True, "check", "For a mergekit-yaml that copies no tokenizer."),
    _option("write_model_card", bool, True, "merge", "Write no model card."),
    _option("clone_tensors", bool, False, "", "Clone tensors before they are saved."),
    _option("async_write", bool, False, "", "Write while merging."),
    _option("write_threads", int, 1, "", "Threads that write."),
    _option("random_seed", int, None, "", "For methods that draw lots."),
    _option(
        "quiet",
        bool,
        False,
        "check merge verify anatomy",
        "Show no progress, and nothing that need not be.",
    ),
    _option("verbosity", int, 0, "merge verify anatomy", "Log more; twice, still more.", "-v"),
)
"""In the order in which help shows them."""


def mergekit_options(command: str, *, all_taken: bool) -> Callable[..., Any]:
    """Give a command mergekit's options, which it gets as the dict `options`.

    Help shows those that do something there.

    Args:
        command: Of ours.
        all_taken: Whether the others are taken too, so that what is written for mergekit-yaml can
            stay as it is.
    """
    given = [o for o in MERGEKIT_OPTIONS if all_taken or command in o.commands]

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(**values: Any) -> Any:
            return function(options={o.name: values.pop(o.name) for o in given}, **values)

        decorated: Callable[..., Any] = run
        for option in reversed(given):
            decorated = option.declared(hidden=command not in option.commands)(decorated)
        return decorated

    return decorate


class WithMergekitOptions(click.Command):
    """A command whose help has its own options first, and mergekit's below a heading."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write both lists."""
        theirs = {option.name for option in MERGEKIT_OPTIONS}
        own: list[tuple[str, str]] = []
        of_mergekit: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if not isinstance(param, click.Option) or record is None:
                continue
            if param.name in theirs:
                of_mergekit.append((_as_changed(param) or record[0], record[1]))
            else:
                own.append(record)
        with formatter.section("Options"):
            formatter.write_dl(own)
        with formatter.section("Options of mergekit"):
            formatter.write_dl(of_mergekit)


def _as_changed(option: click.Option) -> str | None:
    """Return how a switch is written where it is not as by default; None for other options."""
    if not option.secondary_opts:
        return None
    return (option.secondary_opts if option.default else option.opts)[0]

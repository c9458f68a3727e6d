"""What Python programs and notebooks call: the package exports it, docs/python.md shows it in use.

Each function is thin over a room. What the command says on stderr comes here as a `ChatVecWarning`,
and what it exits with as a `ChatVecError`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np
import torch
import yaml
from mergekit.common import ModelReference

from chatvec_method.checks.report import Finding, Report, Severity, check_survey
from chatvec_method.checks.room import DISK_TOO_SMALL
from chatvec_method.errors import ChatVecError, ChatVecWarning, first_line
from chatvec_method.facts.plan import MergePlan
from chatvec_method.facts.survey import ReadySurvey, Survey
from chatvec_method.facts.survey import survey as survey_recipe
from chatvec_method.finishing.files import FileChange
from chatvec_method.finishing.finish import finish as finish_output
from chatvec_method.finishing.output import recipe_of
from chatvec_method.hub.commits import commits_today
from chatvec_method.hub.named import place_on_hub, read_named
from chatvec_method.hub.snapshot import folder_of
from chatvec_method.merging.merge import MergeResult
from chatvec_method.merging.merge import merge as merge_survey
from chatvec_method.merging.verify import Verification
from chatvec_method.merging.verify import verify as verify_output
from chatvec_method.new.build import build_recipe
from chatvec_method.new.names import chat_candidates, find_base, no_chat_named
from chatvec_method.options import Options, OptionsButDevice, merge_options, options_of_models
from chatvec_method.progress import Progress, bars
from chatvec_method.recipe.file import Recipe, parse_recipe
from chatvec_method.recipe.pins import pinned
from chatvec_method.schedules.cases import LLAMA, Schedule, as_data, ratio_cases
from chatvec_method.schedules.into_recipe import with_schedule
from chatvec_method.schedules.planners import planner_of_layers, planner_of_models
from chatvec_method.schedules.spec import Shape, parse_shape
from chatvec_method.sharing import Shared, share_model, share_recipe
from chatvec_method.weights.fetching import fetched
from chatvec_method.weights.staging import check_out

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from chatvec_method.anatomy import Anatomy
    from chatvec_method.evaluation.results import Results
    from chatvec_method.evaluation.sweep import Step
    from chatvec_method.live_merge.keeping import Keep
    from chatvec_method.live_merge.model import LiveMerge
    from chatvec_method.searching.life import Pace
    from chatvec_method.searching.outcome import Outcome
    from chatvec_method.searching.search import News
    from chatvec_method.talk.speaker import Speaker
    from chatvec_method.vectors.description import Description as VectorDescription

FilePath: TypeAlias = "str | os.PathLike[str]"
AnyRecipe: TypeAlias = "FilePath | Mapping[str, Any] | Recipe | Survey | ReadySurvey"
"""A recipe: the path of its file, a name of the catalogue or the hub (`owner/name@revision`), its
text (which has line breaks, as a name has not), what its YAML says, as it was read, or surveyed."""
AnyTarget: TypeAlias = AnyRecipe
"""What can be evaluated: a finished model's folder or name on the hub, the address of a server, or
a recipe."""
AnyShape: TypeAlias = "str | float | Sequence[float]"
"""A ratio over the layers: a shape as `chatvec schedule` takes it (`linear:1:0.3`), a number for
all layers, or a number for each."""
OnProgress: TypeAlias = "Callable[[Progress], None]"
NAME = "the recipe"
"""What messages call a recipe that is in no file."""


def read_recipe(recipe: AnyRecipe) -> Recipe:
    """Return a recipe, as text and as mergekit understands it.

    Args:
        recipe: A path, a name, a text, a dict, ...

    Raises:
        ChatVecError: It cannot be read, is no YAML or no recipe of mergekit, or its method is not
            `chat_vector`.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, (Survey, ReadySurvey)):
        return recipe.recipe
    if isinstance(recipe, Mapping):
        return parse_recipe(_as_yaml(recipe), NAME)
    if isinstance(recipe, str) and ("\n" in recipe or recipe.lstrip().startswith("{")):
        return parse_recipe(recipe, NAME)
    return read_named(recipe)


def new_recipe(
    cp: str,
    *,
    chat: str | Sequence[str] | None = None,
    base: str | None = None,
    vector: str | Sequence[str] | None = None,
    ratio: Any = 1.0,
    schedule: str | None = None,
    language: str | None = None,
    trust_remote_code: bool = False,
) -> Recipe:
    """Write a recipe in which `check` finds nothing, of the models' small files alone.

    Args:
        cp: The model that the chat vector is added to.
        chat: The chat model, or several.
        base: The model that all of them were trained from; None for the one that their cards on the
            hub or their configs tell.
        vector: A chat vector as a file, or several, beside or in place of base and chat.
        ratio: As a recipe has it, for all chat models and vectors; a tuple has one for each.
        schedule: A shape in its place, as `chatvec schedule` takes it.
        language: Of cp, such as `ko`; None for what its card tells.
        trust_remote_code: Whether Python code that comes with the models may run.

    Returns:
        The recipe; its text says of each line why it is there.

    Raises:
        ChatVecError: A name is missing or wrong, or no recipe of these models can be right.
    """
    chats = [chat] if isinstance(chat, str) else list(chat or ())
    vectors = [vector] if isinstance(vector, str) else list(vector or ())
    if chats or base is not None or not vectors:
        base = base or find_base(cp, chats, trust_remote_code)
        if not chats:
            raise no_chat_named(base, chat_candidates(base, cp))
    return build_recipe(
        base,
        chats,
        cp,
        vectors=vectors,
        ratios=ratio if isinstance(ratio, tuple) else (ratio,),
        schedule=schedule,
        language=language,
        options=merge_options(trust_remote_code=trust_remote_code),
    ).recipe


def pin(recipe: AnyRecipe) -> Recipe:
    """Return a recipe with the commits that its models have today, so that it stays what it is.

    Args:
        recipe: A path, a name, a text, a dict, ...; its comments are kept.

    Raises:
        ChatVecError: The recipe cannot be read or changed, or a model is not on the hub.
    """
    read = read_recipe(recipe)
    commits, _ = commits_today(read.raw)
    return parse_recipe(pinned(read.text, commits), read.name)


def share(
    what: AnyRecipe,
    name: str,
    *,
    private: bool = False,
    dry_run: bool = False,
    on_progress: OnProgress | None = None,
    **options: Unpack[Options],
) -> Shared:
    """Put the output of a merge on the hub, verified once more, or a recipe alone.

    What broke off goes on where it stopped when this is called again.

    Args:
        what: The output's folder; else a recipe.
        name: What it will be called there: `owner/name`.
        private: Whether only its owner sees a repository that is new.
        dry_run: Whether to look at everything, and send nothing.
        on_progress: Is told how far it is, in place of a bar; huggingface_hub tells of the sending.
        **options: mergekit's.

    Returns:
        What was sent, and what others will not be able to do or may not be allowed to.

    Raises:
        ChatVecError: Nobody is logged in, the output is not finished or not what its recipe says,
            or the hub does not take it.
    """
    is_folder = isinstance(what, (str, os.PathLike)) and _is_folder(what)
    surveyed = survey(recipe_of(Path(what)) if is_folder else what, **options)  # type: ignore[arg-type]
    if not is_folder:
        for problem in surveyed.problems:
            raise problem
        return share_recipe(
            surveyed.recipe, name, surveyed.models, private=private, dry_run=dry_run
        )
    with _shown(on_progress, quiet=surveyed.options.quiet) as show:
        return share_model(
            Path(what),  # type: ignore[arg-type]
            surveyed,
            name,
            private=private,
            dry_run=dry_run,
            on_progress=show,
        )


def survey(recipe: AnyRecipe, **options: Unpack[Options]) -> Survey:
    """Find out what a recipe's merge will be, of the models' small files alone.

    Args:
        recipe: A path, a name, a text, a dict, ...; a survey is returned as it is.
        **options: mergekit's, as for the merge.

    Returns:
        What is known; `.problems` says why something is not, and `.ready()` raises the first.

    Raises:
        ChatVecError: The recipe cannot be read, or an option is wrong.
    """
    if isinstance(recipe, (Survey, ReadySurvey)):
        if options:
            raise ChatVecError(
                f"a survey has its options already, so `{next(iter(options))}` would do nothing.",
                "Write the options where the survey is made.",
            )
        return _with_no_problem(recipe) if isinstance(recipe, ReadySurvey) else recipe
    return survey_recipe(read_recipe(recipe), merge_options(**options))


def check(
    recipe: AnyRecipe,
    out: FilePath | None = None,
    *,
    deep: bool = False,
    on_progress: OnProgress | None = None,
    **options: Unpack[Options],
) -> Report:
    """Tell what a recipe's merge will do, and what is wrong with it.

    Args:
        recipe: A path, a name, a text, a dict, a survey, ...
        out: Where the output will be, for the room on its disk.
        deep: Whether to read all weights too.
        on_progress: Is told how far it is, if deep, in place of a bar.
        **options: mergekit's, as for the merge.

    Returns:
        What is known, with findings: each what is wrong, where, and what to write instead.

    Raises:
        ChatVecError: The recipe cannot be read, or an option is wrong.
    """
    surveyed = survey(recipe, **options)
    folder = None if out is None else Path(out)
    if not deep:
        return check_survey(surveyed, folder)
    sizes = _bytes_by_tensor(surveyed.plan) if surveyed.plan else {}
    done = 0
    with _shown(on_progress, quiet=surveyed.options.quiet, transient=True) as show:

        def count(tensor: str) -> None:
            nonlocal done
            done += sizes.get(tensor, 0)
            show(Progress("read", done, sum(sizes.values())))

        return check_survey(surveyed, folder, deep=True, on_tensor=count)


def merge(
    recipe: AnyRecipe,
    out: FilePath,
    *,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
    **options: Unpack[Options],
) -> MergeResult:
    """Merge a recipe into a folder that is complete, verified and ready to chat, or not there.

    The recipe is checked first; what may be meant is issued as a `ChatVecWarning`.

    Args:
        recipe: A path, a name, a text, a dict, a survey, ...
        out: The folder to be.
        overwrite: Whether it may replace a model; that stays until the new one is complete.
        on_progress: Is told how far the merge is, in place of bars.
        **options: mergekit's.

    Raises:
        ChatVecError: The recipe has errors, `out` may not be written, or the merge failed. `out` is
            as it was before.
    """
    check_out(Path(out), overwrite=overwrite)
    surveyed = survey(recipe, **options)
    _refuse_or_warn(check_survey(surveyed, Path(out)).findings)
    if surveyed.options.num_threads is not None:
        torch.set_num_threads(surveyed.options.num_threads)
    with _shown(on_progress, quiet=surveyed.options.quiet) as show:
        return merge_survey(surveyed, Path(out), overwrite=overwrite, on_progress=show)


def finish(
    out: FilePath,
    recipe: AnyRecipe | None = None,
    *,
    name: str | None = None,
    card: bool = True,
    dry_run: bool = False,
    trust_remote_code: bool = False,
) -> tuple[FileChange, ...]:
    """Make the output of a merge ready to chat, in place: also that of stock mergekit.

    Args:
        out: The folder, as any command of mergekit's left it.
        recipe: What it was made from; None for what it says itself, in `mergekit_config.yml`.
        name: What its card calls it; None for the folder's name.
        card: Whether to write `README.md` and the picture in it.
        dry_run: Whether to change nothing and only tell what would change.
        trust_remote_code: Whether Python code that comes with the models may run.

    Returns:
        The changed files. A second run finds nothing to change.

    Raises:
        ChatVecError: The folder is not that recipe's output, or cannot be written to.
    """
    options: Options = {"trust_remote_code": True} if trust_remote_code else {}
    surveyed = survey(recipe_of(Path(out)) if recipe is None else recipe, **options)
    return finish_output(Path(out), surveyed, name=name, card=card, dry_run=dry_run)


def verify(
    out: FilePath,
    recipe: AnyRecipe | None = None,
    *,
    deep: bool = False,
    on_progress: OnProgress | None = None,
    **options: Unpack[Options],
) -> Verification:
    """Hold the output of a merge, also of stock mergekit, against its hashes and its recipe.

    By the hashes that `chatvec merge` writes into it, every byte is what was written. By its
    recipe, tensors, dtypes, shapes, config, tokenizer, template and stop tokens are what it makes.

    Args:
        out: The folder, or a name on the hub, from which it is then downloaded.
        recipe: What it was made from; None for what it says itself, in `mergekit_config.yml`. Then
            hashes are enough where the recipe's models cannot be found.
        deep: Whether every element is computed again, which downloads and reads the models.
        on_progress: Is told how far it is, in place of a bar.
        **options: mergekit's.

    Returns:
        How much was compared, all of it right.

    Raises:
        ChatVecError: The output is not what it should be, which its code says (`output-differs`),
            and what is wrong first; or that cannot be told.
    """
    surveyed = None if recipe is None else survey(recipe, **options)
    wanted = surveyed.options if surveyed is not None else merge_options(**options)
    folder = folder_of(os.fspath(out), wanted.transformers_cache)
    with _shown(on_progress, quiet=wanted.quiet) as show:
        return verify_output(folder, surveyed, wanted, deep=deep, on_progress=show)


def examine(
    recipe: AnyRecipe,
    *,
    rank: int | None = None,
    on_progress: OnProgress | None = None,
    **options: Unpack[Options],
) -> Anatomy:
    """Measure where in the models chat and language vectors live, and where they collide.

    Args:
        recipe: A path, a name, a text, a dict, a survey, ...
        rank: How many singular directions of each matrix are looked at; None for none, which is
            much faster.
        on_progress: Is told how much of the models has been read, in place of a bar.
        **options: mergekit's.

    Raises:
        ChatVecError: The survey has problems, or a model's weights are at fault.
    """
    from chatvec_method import anatomy

    surveyed = survey(recipe, **options)
    with _shown(on_progress, quiet=surveyed.options.quiet, transient=True) as show:
        return anatomy.examine(surveyed, rank=rank, on_progress=show)


def extract_vector(
    base: FilePath,
    chat: FilePath,
    out: FilePath,
    *,
    bits: int = 16,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
    **options: Unpack[Options],
) -> VectorDescription:
    """Write the chat vector chat − base into a folder, for `role: vector` in recipes.

    Args:
        base: The pretrained model: a folder, or a name of the hub.
        chat: That model after instruction tuning.
        out: The folder, which appears complete or not at all.
        bits: Of an element: 32 (exact), 16 (bfloat16), 8, 4 or 2 (packed).
        overwrite: Whether `out` may replace a vector or a model.
        on_progress: Is told how far it is, in place of a bar.
        **options: mergekit's.

    Returns:
        What the folder says of itself: models, sizes, errors.

    Raises:
        ChatVecError: The models are no model and its base, or cannot be read, or `out` cannot be
            written.
    """
    from chatvec_method.vectors.extract import extract

    of_base, of_chat = (ModelReference.model_validate(os.fspath(n)) for n in (base, chat))
    settings = merge_options(**options)
    with _shown(on_progress, quiet=settings.quiet) as tell:
        return extract(
            of_base,
            of_chat,
            Path(out),
            bits,
            settings,
            overwrite=overwrite,
            on_progress=tell,
        )


@overload
def schedule(
    shape: AnyShape,
    *,
    layers: int,
    into: None = None,
    chat: None = None,
    attention: AnyShape | None = None,
    mlp: AnyShape | None = None,
    norms: AnyShape | None = None,
    embeddings: float | None = None,
    head: float | None = None,
    final_norm: float | None = None,
    trust_remote_code: bool = False,
) -> float | list[dict[str, Any]]: ...


@overload
def schedule(
    shape: AnyShape,
    *,
    into: AnyRecipe,
    layers: int | None = None,
    chat: str | None = None,
    attention: AnyShape | None = None,
    mlp: AnyShape | None = None,
    norms: AnyShape | None = None,
    embeddings: float | None = None,
    head: float | None = None,
    final_norm: float | None = None,
    trust_remote_code: bool = False,
) -> Recipe: ...


def schedule(
    shape: AnyShape,
    *,
    into: AnyRecipe | None = None,
    layers: int | None = None,
    chat: str | None = None,
    attention: AnyShape | None = None,
    mlp: AnyShape | None = None,
    norms: AnyShape | None = None,
    embeddings: float | None = None,
    head: float | None = None,
    final_norm: float | None = None,
    trust_remote_code: bool = False,
) -> Recipe | float | list[dict[str, Any]]:
    """Return a ratio for every layer, as the `ratio:` of a recipe or within a recipe.

    Args:
        shape: For all tensors in the layers that have none of their own.
        into: The recipe that gets it; its comments are kept.
        layers: How many layers the models have. With `into` only where its models are not to be
            looked at, and are Llama-like; without, they are taken for such.
        chat: With `into`, whose ratio it is, if there are several chat models.
        attention: Another shape for these tensors.
        mlp: For these.
        norms: For these.
        embeddings: Their ratio; None for the first layer's.
        head: Its ratio; None for the last layer's.
        final_norm: Its ratio; None for the last layer's.
        trust_remote_code: Whether Python code that comes with the models may run.

    Returns:
        The changed recipe with `into`; else what a dict has as `"ratio"`, a number or a list of
        lines with filters.

    Raises:
        ChatVecError: A shape is none or does not fit the models, or the recipe is refused.
    """
    kinds = {"attention": attention, "MLP": mlp, "norms": norms}
    numbers = Schedule(
        _shape(shape),
        {kind: _shape(own) for kind, own in kinds.items() if own is not None},
        embeddings,
        head,
        final_norm,
    )
    if into is None:
        if layers is None:
            raise ChatVecError(
                "how many layers the model has is not known.",
                "Write `layers=32`, or `into=...` to take it from a recipe's models.",
            )
        lines: Any = as_data(ratio_cases(numbers, LLAMA, layers))
        return lines  # type: ignore[no-any-return]
    recipe = read_recipe(into)
    planner = (
        planner_of_models(recipe, trust_remote_code)
        if layers is None
        else planner_of_layers(layers)
    )
    return parse_recipe(with_schedule(recipe, numbers, planner, chat), recipe.name)


def load(
    model: FilePath,
    *,
    device: str = "auto",
    like: Speaker | None = None,
    trust_remote_code: bool = False,
) -> Speaker:
    """Load a model to talk to, in the dtype it is stored in.

    Args:
        model: A folder, or a name on the hub.
        device: As torch names it, or "auto": the accelerators if there are any, else the CPU.
        like: A speaker that this model is compared with. Where the model has no chat template, it
            gets this speaker's; and it stops at this speaker's stop tokens too, if it has them.
        trust_remote_code: Whether Python code that comes with the model may run.

    Raises:
        ChatVecError: There is no such model, it is not complete, or nothing says how it chats.
    """
    from chatvec_method.talk import speaker

    return speaker.load(
        os.fspath(model), device=device, like=like, trust_remote_code=trust_remote_code
    )


def live(
    recipe: AnyRecipe,
    *,
    device: str = "auto",
    keep: Keep | None = None,
    on_progress: OnProgress | None = None,
    **options: Unpack[OptionsButDevice],
) -> LiveMerge:
    """Load a recipe's merge as a model whose ratio is set again in memory, at once and exactly.

    The recipe is checked first, as for `merge`.

    Args:
        recipe: A path, a text, a dict, a survey, ...
        device: As torch names it, or "auto": the accelerators if there are any, else the CPU.
        keep: Where base, chats and cp stay: "device", "pinned" (memory of the CPU) or "mapped"
            (their files). None for their files on a CPU, and on an accelerator for the nearest
            place in which they fit.
        on_progress: Is told how many models are here, in place of a bar.
        **options: mergekit's.

    Raises:
        ChatVecError: The recipe has errors, transformers cannot load its merge, or it does not fit
            on the device.
    """
    from chatvec_method.live_merge.model import LiveMerge

    surveyed = survey(recipe, **options)
    findings = check_survey(surveyed).findings
    _refuse_or_warn([finding for finding in findings if finding.code != DISK_TOO_SMALL])
    with _shown(on_progress, quiet=surveyed.options.quiet, transient=True) as show:
        ready = fetched(surveyed.ready(), show)
    return LiveMerge(ready, device, keep)


def evaluate(
    targets: AnyTarget | Sequence[AnyTarget],
    *,
    language: str | Sequence[str] = (),
    ratio: str | float | Sequence[float] = (),
    schedule: str | Sequence[str] = (),
    own_ratio: bool = False,
    tasks: str | Sequence[str] = (),
    text: FilePath | Sequence[FilePath] = (),
    limit: int | None = None,
    metadata: Mapping[str, Any] | None = None,
    judge: str | None = None,
    judge_model: str | None = None,
    judge_against: str | None = None,
    state: FilePath | None = None,
    device: str = "auto",
    trust_remote_code: bool = False,
    lora_merge_cache: FilePath | None = None,
    on_step: Callable[[Step], None] = lambda _: None,
) -> Results:
    """Measure what models can do in a language: finished ones, a recipe at many ratios, a server.

    Decoding is greedy. What was asked before is not asked again.

    Args:
        targets: Folders, names on the hub, addresses of OpenAI-compatible servers (up to `/v1`),
            and recipes: paths of YAML files, dicts, surveys. Where a model has no chat template,
            it is talked to as the first target that has one.
        language: Of the suite: ko, ja, zh-Hant, zh-Hans, en.
        ratio: At which recipes are evaluated: a number, several, or a text of `0,0.5,1` or
            `0:1.5:0.125` (from, to, step). Without any, the recipe's own.
        schedule: Shapes of the ratio over the layers, as `schedule` takes them, side by side.
        own_ratio: Whether a recipe's own ratio is among those evaluated anyway.
        tasks: Of lm-evaluation-harness: names, YAML files, folders of these; `ready` for a few that
            make sense for the languages.
        text: Files whose perplexity a byte is measured besides that of the suite's texts.
        limit: Prompts an axis, documents a task and pieces a text at most.
        metadata: What the tasks' `custom_dataset` functions are told.
        judge: An OpenAI-compatible server with a model that judges open answers. Its key, if it
            wants one, is in the environment, in OPENAI_API_KEY.
        judge_model: The model there; by default the only one.
        judge_against: With whose answers the others are compared, too: a target, or "cp" or "chat"
            of the recipe.
        state: The folder in which answers are kept; by default one in the person's cache.
        device: As torch names it, or "auto": the accelerators if there are any, else the CPU.
        trust_remote_code: Whether Python code that comes with the models may run.
        lora_merge_cache: Where a recipe's models with an adapter are kept, once it is added.
        on_step: Is told after every response.

    Returns:
        Scores with intervals of 95 %, and all answers.

    Raises:
        ChatVecError: There is no such target, task or language, or a target cannot be asked.
    """
    from chatvec_method.evaluation import evaluating
    from chatvec_method.evaluation.evaluating import JudgedBy, Wanted, answers_in
    from chatvec_method.evaluation.opening import Sweep, targets_of
    from chatvec_method.evaluation.recipes import ratios_in

    wanted = Wanted(
        _several(language),
        _several(tasks),
        [Path(each) for each in _several(text)],
        limit,
        metadata,
        JudgedBy(judge, judge_model, judge_against) if judge is not None else None,
    )
    ratios = ratios_in(ratio) if isinstance(ratio, str) else np.atleast_1d(ratio).tolist()
    with answers_in(None if state is None else Path(state)) as answers:
        return evaluating.evaluate(
            targets_of(
                _every_target(targets, options_of_models(trust_remote_code, lora_merge_cache)),
                Sweep(ratios, _several(schedule), own_ratio),
                answers,
                open_live=lambda surveyed: live(surveyed, device=device),
                against=judge_against,
                device=device,
                trust_remote_code=trust_remote_code,
            ),
            wanted,
            answers,
            on_step=on_step,
        )


def search(
    recipe: AnyRecipe,
    out: FilePath | None = None,
    *,
    trials: int = 48,
    language: str | Sequence[str] = (),
    tasks: str | Sequence[str] = (),
    text: FilePath | Sequence[FilePath] = (),
    limit: int | None = None,
    metadata: Mapping[str, Any] | None = None,
    objective: str | Sequence[str] = (),
    space: str = "parts+depth",
    bounds: tuple[float, float] = (0.0, 1.25),
    fix: Mapping[str, float] | None = None,
    storage: str | None = None,
    study: str | None = None,
    seed: int = 0,
    device: str = "auto",
    trust_remote_code: bool = False,
    lora_merge_cache: FilePath | None = None,
    pace: Pace | None = None,
    on_news: Callable[[News], None] = lambda _: None,
) -> Outcome:
    """Find the ratios of a recipe that no other trial beats, and whether one ratio does as well.

    A trial sets the ratios of a merge in memory and asks it one half of the prompts. The other half
    says what the recipes that come out are worth. Called again, it goes on where it stopped; called
    in several processes at once, it shares the work.

    Args:
        recipe: A path, a name, a text, a dict, a survey, ...
        out: Where the recipes go, with a table and pictures; None for a folder that is named after
            the recipe.
        trials: How many are to be finished, by all workers and earlier calls together.
        language: Of the suite: ko, ja, zh-Hant, zh-Hans, en. Without languages and tasks, what the
            recipe says of itself.
        tasks: Of lm-evaluation-harness, as for `evaluate`.
        text: Files whose perplexity a byte is measured besides that of the suite's texts.
        limit: Prompts an axis, documents a task and pieces a text at most.
        metadata: What the tasks' `custom_dataset` functions are told.
        objective: What is sought: figures (`follows`, `-length`), means (`quality=follows+knows`),
            limits (`language>=0.98`). Without any, the recipe's own, or quality and closeness.
        space: What is searched: global, parts, depth, parts+depth or layers.
        bounds: Of every ratio.
        fix: Parts that are not searched, with their ratio.
        storage: Where trials are kept: a journal's path, a database's address, or
            `grpc://host:port`; None for a journal in `out`.
        study: What the search is called there; None for the recipe's name.
        seed: Decides the halves and all draws.
        device: As torch names it, or "auto": the accelerators if there are any, else the CPU.
        trust_remote_code: Whether Python code that comes with the models may run.
        lora_merge_cache: Where a recipe's models with an adapter are kept, once it is added.
        pace: Of the signs of life by which workers know of each other.
        on_news: Is told of every trial.

    Returns:
        All trials, the recipes that no other one beats with their figures on either half, and the
        one that is suggested.

    Raises:
        ChatVecError: The recipe, a task, an objective or the storage is refused, or the study was
            begun otherwise.
    """
    from chatvec_method.evaluation.evaluating import Wanted
    from chatvec_method.searching.asked_by_recipe import own_search
    from chatvec_method.searching.files import write_outcome
    from chatvec_method.searching.search import Asked, Search, Where
    from chatvec_method.searching.search import search as search_prepared
    from chatvec_method.searching.storage import JOURNAL

    surveyed = survey(recipe, **options_of_models(trust_remote_code, lora_merge_cache))
    is_named = isinstance(recipe, (str, os.PathLike)) and "\n" not in os.fspath(recipe)
    from_hub = is_named and place_on_hub(os.fspath(recipe)) is not None  # type: ignore[arg-type]
    own = own_search(surveyed.recipe, from_hub=from_hub)
    languages, named = _several(language), _several(tasks)
    if not languages and not named and not _several(text):
        languages, named = list(own.languages), list(own.tasks)
    stem = Path(surveyed.recipe.name.replace("/", "-") if from_hub else surveyed.recipe.name).stem
    folder = Path(out) if out is not None else Path(f"{stem.replace(' ', '-')}-search")
    prepared = Search(
        surveyed,
        Wanted(languages, named, [Path(each) for each in _several(text)], limit, metadata),
        Asked(trials, _several(objective) or own.objectives, space, *bounds, fix, seed),
        open_live=lambda each: live(each, device=device),
        device=device,
    )
    where = Where(storage or str(folder / JOURNAL), study or stem)
    outcome, done = search_prepared(prepared, where, pace=pace, on_news=on_news)
    why = write_outcome(folder, prepared, outcome, done)
    if why is not None:
        warnings.warn(f"There are no pictures: {why}", ChatVecWarning, stacklevel=2)
    return outcome


# --- recipes ----------------------------------------------------------------------------------


def _is_folder(name: FilePath) -> bool:
    try:
        return Path(name).is_dir()
    except OSError:  # a text, too long for a name
        return False


def _as_yaml(recipe: Mapping[str, Any]) -> str:
    try:
        text: str = yaml.safe_dump(
            _plain(recipe), sort_keys=False, allow_unicode=True, width=float("inf")
        )
    except yaml.YAMLError as error:
        raise ChatVecError(
            f"{NAME} has a value that YAML cannot write ({first_line(error)}).",
            "Write numbers, texts, lists and dicts.",
        ) from error
    return text


def _plain(value: Any) -> Any:
    """Return a value as YAML has it: paths as text, and what looks like a list or number as one."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    return _plain(value.tolist()) if hasattr(value, "tolist") else value


def _with_no_problem(ready: ReadySurvey) -> Survey:
    return Survey(
        **{field.name: getattr(ready, field.name) for field in fields(ReadySurvey)}, problems=()
    )


def _shape(shape: AnyShape) -> Shape:
    if isinstance(shape, str):
        return parse_shape(shape)
    numbers = _plain(shape)
    if isinstance(numbers, list):
        return parse_shape(f"per-layer:{','.join(map(repr, numbers))}")
    return parse_shape(repr(numbers))


# --- targets ----------------------------------------------------------------------------------


def _every_target(
    targets: AnyTarget | Sequence[AnyTarget], options: OptionsButDevice
) -> list[str | Survey]:
    """Return targets as they were named, recipes surveyed."""
    if isinstance(targets, (str, os.PathLike, Mapping, Recipe, Survey, ReadySurvey)):
        targets = [targets]
    return [_target(each, options) for each in targets]


def _target(target: AnyTarget, options: OptionsButDevice) -> str | Survey:
    if isinstance(target, (str, os.PathLike)):
        name = os.fspath(target)
        if not (name.endswith((".yaml", ".yml")) or "\n" in name or name.lstrip()[:1] == "{"):
            return name
    if isinstance(target, (Survey, ReadySurvey)):
        return survey(target)
    return survey(target, **options)


def _several(values: Any) -> list[Any]:
    return [values] if isinstance(values, (str, os.PathLike)) else list(values)


# --- findings and progress --------------------------------------------------------------------


def _refuse_or_warn(findings: Sequence[Finding]) -> None:
    """Raise what a check finds wrong, all of it at once, or warn of what may be meant."""
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    if not errors:
        for finding in findings:
            if finding.severity is Severity.WARNING:
                warnings.warn(str(finding), ChatVecWarning, stacklevel=3)
        return
    first = errors[0]
    if len(errors) == 1:
        raise ChatVecError(f"{first.place}: {first.message}", first.fix, first.code)
    raise ChatVecError(
        f"the recipe has {len(errors)} errors:",
        "\n".join(f"\n  {_as_text(finding)}" for finding in errors),
        first.code,
    )


def _as_text(finding: Finding) -> str:
    return f"{finding.place}: {finding.message} {finding.fix}"


@contextmanager
def _shown(
    on_progress: OnProgress | None, *, quiet: bool, transient: bool = False
) -> Iterator[OnProgress]:
    """Yield what is told of progress: the caller's, or bars."""
    if on_progress is not None:
        yield on_progress
        return
    with bars(quiet=quiet, transient=transient) as show:
        yield show


def _bytes_by_tensor(plan: MergePlan) -> dict[str, int]:
    """Return how much of the models is read for each tensor."""
    return {
        tensor.name: sum(source.bytes_read for source in tensor.sources.values() if source)
        for tensor in plan.tensors
    }

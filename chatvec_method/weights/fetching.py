"""Models whose files are not here: downloaded, and adapters added to the model they belong to."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.utils import tqdm
from mergekit.common import ModelPath, ModelReference
from mergekit.options import MergeOptions

from chatvec_method.errors import ChatVecError, first_line
from chatvec_method.facts.adapters import adapter_in, check_model_below, folder_of_adapter
from chatvec_method.facts.models import LORA_DTYPE, Model, with_local_files
from chatvec_method.facts.survey import ReadySurvey, survey_of_files
from chatvec_method.method.vector import ADAPTER_FOLDER
from chatvec_method.progress import Progress
from chatvec_method.quiet import quiet
from chatvec_method.snapshots import adapter_snapshot_of

SMALL_FILES = ("tokenizer.model", "*.json")
WEIGHTS = ("*.safetensors", "*.bin")
"""What mergekit downloads: the small files, and the first kind of weights that there is."""
FILE_BAR = "huggingface_hub.snapshot_download"
"""What huggingface_hub calls the bar of the bytes that have been written."""


def fetched(
    survey: ReadySurvey, on_progress: Callable[[Progress], None] = lambda _: None
) -> ReadySurvey:
    """Download what is not here, apply adapters, and return what the files tell.

    Adapters are added to their model in float32, unless the options say otherwise, and the result
    is kept in a folder of its own for each dtype: rounding it to the model's own dtype before the
    subtraction would lose a good part of a small vector.

    Args:
        survey: Of the recipe.
        on_progress: Is told how many bytes of all models have been downloaded, now and then from
            threads of huggingface_hub's.

    Raises:
        ChatVecError: A model cannot be downloaded, or an adapter not be applied.
    """
    files = with_files(survey.models.values(), survey.options, on_progress)
    return survey_of_files(survey, files) if files else survey


def with_files(
    models: Iterable[Model], options: MergeOptions, on_progress: Callable[[Progress], None]
) -> dict[ModelReference, Model]:
    """Return those models that were not here, with their files, and their adapter added to them.

    Arguments and errors are those of `fetched`.
    """
    files = {}
    missing = {model.reference: model for model in models if _lacks(model)}
    downloads = {}
    for reference, model in missing.items():
        if model.adapter is not None and model.adapter.problem is not None:
            raise model.adapter.problem
        if model.folder is None:
            with _in_one_message(reference):
                downloads[reference.model] = _download(model, options)
    count = _Count(sum(each.missing for each in downloads.values()), on_progress)
    for reference, model in missing.items():
        with _in_one_message(reference):
            folder = model.folder
            if folder is None:
                count.begin(str(reference))
                folder = downloads[reference.model].run(count.add)
            if reference.lora is not None:
                folder = _with_adapter(with_local_files(model, folder), options)
            files[reference] = with_local_files(model, folder)
    count.end()
    return files


def _lacks(model: Model) -> bool:
    return model.folder is None or model.reference.lora is not None


@contextmanager
def _in_one_message(reference: ModelReference) -> Iterator[None]:
    """Tell in one message what goes wrong with a model's files."""
    try:
        yield
    except ChatVecError:
        raise
    except Exception as error:  # of the hub, the disk, peft or mergekit
        fix = "See that the hub can be reached and that the disk of its cache has room."
        if reference.lora is not None:
            fix = (
                "See that the adapter is one of this model, and that the disk of "
                "`--lora-merge-cache` has room."
            )
        raise ChatVecError(
            f"model {reference} cannot be opened ({first_line(error)}).", fix
        ) from error


class _Count:
    """The bytes of all downloads, told with the model that they are of."""

    def __init__(self, total: int, tell: Callable[[Progress], None]) -> None:
        self._done = 0
        self._total = total
        self._model = ""
        self._tell = tell
        self._lock = threading.Lock()

    def begin(self, model: str) -> None:
        self._model = model
        self.add(0)

    def add(self, size: int) -> None:
        with self._lock:
            # A download that is taken up again may count something twice.
            self._done = min(self._done + size, self._total)
            self._tell(Progress("fetch", self._done, self._total, self._model))

    def end(self) -> None:
        self._tell(Progress("fetch", self._total, self._total, self._model))


@dataclass(frozen=True)
class _Download:
    """What is to be downloaded of a model."""

    arguments: dict[str, Any]
    """Of `snapshot_download`."""
    missing: int
    """The bytes that are not in the cache yet."""

    def run(self, on_bytes: Callable[[int], None]) -> Path:
        """Download it, and return the folder."""

        class Counted(tqdm):
            """Tells bytes in place of drawing a bar."""

            def __init__(self, *args: Any, name: str | None = None, **settings: Any) -> None:
                self.counts = name == FILE_BAR
                super().__init__(*args, **{**settings, "disable": True})  # type: ignore[no-untyped-call]

            def update(self, n: float | None = 1) -> bool | None:
                if self.counts:
                    on_bytes(int(n or 0))
                return None

        return Path(snapshot_download(**self.arguments, tqdm_class=Counted))


def _download(model: Model, options: MergeOptions) -> _Download:
    """Return what mergekit would download of a model, and how much of it is missing.

    But nothing of an adapter beside a vector, which no merge reads. It is the model as it was when
    it was looked up: it may have changed since. transformers builds a model that gets an adapter,
    by the model's own code where that may run.
    """
    reference, commit = model.reference, model.commit
    code = ["*.py"] if reference.lora is not None and options.trust_remote_code else []
    for weights in WEIGHTS:
        arguments = {
            "repo_id": reference.model.path,
            "revision": commit or reference.model.revision,
            "cache_dir": options.transformers_cache,
            "allow_patterns": [*SMALL_FILES, *code, weights],
            "ignore_patterns": [f"{ADAPTER_FOLDER}/*"],
        }
        with quiet():
            files = snapshot_download(**arguments, dry_run=True)
        if any(Path(file.filename).match(weights) for file in files):
            break
    return _Download(arguments, sum(file.file_size for file in files if file.will_download))


def _with_adapter(model: Model, options: MergeOptions) -> Path:
    """Return the folder of a model with its adapter.

    peft and transformers get the folders of both, after a look into them: by names they would
    download, and open at once.
    """
    reference, folder = model.reference, model.folder
    path, cache = reference.lora, options.lora_merge_cache
    assert path is not None
    assert folder is not None
    if cache is None:
        raise ChatVecError(
            f"model {reference}: the model with its adapter is written into a folder, and nobody "
            "says which.",
            "Write `--lora-merge-cache FOLDER`, with room for the whole model; or add the adapter "
            "with peft's `merge_and_unload`, and write the folder of the result.",
        )
    check_model_below(reference.model, {file.name for file in folder.iterdir()})
    adapter = folder_of_adapter(path)
    if adapter is None:
        here = adapter_snapshot_of(path.path, path.revision, options.transformers_cache)
        adapter = here.with_weights()
    adapter_in(adapter, path, model.tensors or ())
    dtype = options.lora_merge_dtype or LORA_DTYPE
    both = {"model": ModelPath(path=str(folder)), "lora": ModelPath(path=str(adapter))}
    return _merged(reference.model_copy(update=both), Path(cache) / dtype, dtype, options)


def _merged(reference: ModelReference, cache: Path, dtype: str, options: MergeOptions) -> Path:
    """Return where a model with its adapter is, which appears there complete or not at all.

    mergekit takes for whole whatever is there.
    """
    assert reference.lora is not None
    place = cache / f"{reference.model._unique_id()}_{reference.lora._unique_id()}"
    if place.exists():
        return place
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=cache) as unfinished:
        with quiet():
            merged = reference.merged(
                cache_dir=unfinished,
                trust_remote_code=options.trust_remote_code,
                lora_merge_dtype=dtype,
            )
        try:
            Path(merged.model.path).rename(place)
        except OSError:
            if not place.exists():  # another run was faster
                raise
    return place

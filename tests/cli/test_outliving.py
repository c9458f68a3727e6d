"""What ends a process at once is told in one line by another, and nothing is left behind.

The cases run in processes of their own, forked from one that has imported everything: this file,
run as a program.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import traceback
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import pytest
from mergekit.options import MergeOptions

from chatvec_method.cli.outliving import outlived
from chatvec_method.facts.survey import survey
from chatvec_method.merging.merge import merge
from chatvec_method.merging.verify import verify
from chatvec_method.progress import Progress
from chatvec_method.recipe.file import read_recipe
from chatvec_method.weights.staging import staged

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone")
ROOT = Path(__file__).resolve().parents[2]
CUT = ("merge", "finish", "recompute")
"""The phases of merge and verify in which a model is cut short."""
IMPORTED_WHERE_USED = (
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "matplotlib.patches",
    "transformers.models.llama.modeling_llama",
)
"""What each case would import anew."""
CASES = (*CUT, "SIGKILL", "SIGABRT", "SIGTERM", "7")


@dataclass(frozen=True)
class Ended:
    """How a case ended."""

    code: int
    said: str
    left: list[str]


# --- in the processes that are killed ---------------------------------------------------------


def serve(place: Path) -> None:
    """Run each case, and print how it ended, what it said, and what it left."""
    for module in IMPORTED_WHERE_USED:
        importlib.import_module(module)
    ended = {}
    for case in CASES:
        folder = place / case
        shutil.copytree(ROOT / "examples" / "world" / "models", folder / "models")
        recipe = (ROOT / "recipes" / "world.yaml").read_text(encoding="utf-8")
        (folder / "recipe.yaml").write_text(
            recipe.replace("examples/world/models", str(folder / "models")), encoding="utf-8"
        )
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(folder / "said", os.O_WRONLY | os.O_CREAT), 2)
            try:
                outlived(partial(work, folder, case))
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(70)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        said = (folder / "said").read_text(encoding="utf-8")
        ended[case] = Ended(code, said, sorted(path.name for path in folder.iterdir()))
    print(json.dumps({case: vars(each) for case, each in ended.items()}))


def work(folder: Path, case: str) -> None:
    out = folder / "above" / "out"
    if case == "7":
        os._exit(7)
    if case.startswith("SIG"):
        with staged(out, overwrite=False) as staging:
            (staging.folder / "model.safetensors").write_bytes(b"x")
            os.kill(os.getpid(), getattr(signal, case))

    def cut(progress: Progress) -> None:
        if progress.phase == case and progress.done > 0:  # some of it has been read
            with (folder / "models" / "chat" / "model.safetensors").open("rb+") as stream:
                stream.truncate(4096)

    surveyed = survey(read_recipe(folder / "recipe.yaml"), MergeOptions())
    merge(surveyed, out, on_progress=cut)
    if case == "recompute":
        verify(out, surveyed, MergeOptions(), deep=True, on_progress=cut)


# --- in the process that tests ----------------------------------------------------------------


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """Return how each case ended."""
    command = [sys.executable, __file__, str(tmp_path_factory.mktemp("killed"))]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return {case: Ended(**each) for case, each in json.loads(ran.stdout).items()}


@pytest.mark.parametrize("case", CUT)
def test_a_model_that_is_cut_short_while_it_is_read_is_named(
    case: str, ended: dict[str, Ended]
) -> None:
    lines = ended[case].said.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("Error: ")
    assert "models/chat/model.safetensors was cut short while it was read" in lines[0]
    assert ended[case].code == 1
    kept = ["above"] if case == "recompute" else []  # it was complete before
    assert ended[case].left == [*kept, "models", "recipe.yaml", "said"]


def test_one_that_is_killed_says_so_and_leaves_nothing(ended: dict[str, Ended]) -> None:
    for case, why in {"SIGKILL": "memory ran out", "SIGABRT": "by a library"}.items():
        assert f"killed ({case})" in ended[case].said
        assert why in ended[case].said
        assert "what it had written is removed" in ended[case].said
        assert ended[case].code == 1
        assert "above" not in ended[case].left


def test_one_that_is_asked_to_end_ends_like_any_other(ended: dict[str, Ended]) -> None:
    assert ended["SIGTERM"].code == -signal.SIGTERM
    assert ended["SIGTERM"].said == ""
    assert "above" not in ended["SIGTERM"].left


def test_the_exit_code_is_the_commands(ended: dict[str, Ended]) -> None:
    assert ended["7"] == Ended(7, "", ["models", "recipe.yaml", "said"])


def test_what_is_sent_to_the_one_that_waits_reaches_the_command() -> None:
    code = "from chatvec_method.cli.outliving import outlived; import signal, time; "
    # What is started in the background of a shell ignores Ctrl-C.
    code += "signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "outlived(lambda: (print('begins', flush=True), time.sleep(60)))"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begins\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert b"KeyboardInterrupt" in said


def test_the_command_does_not_outlive_the_one_that_waits() -> None:
    code = "from chatvec_method.cli.outliving import outlived; import os, time; outlived(lambda: ("
    code += "print(os.getpid(), flush=True), time.sleep(60)))"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        child = psutil.Process(int(process.stdout.readline()))
        process.kill()
        child.wait(timeout=30)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))

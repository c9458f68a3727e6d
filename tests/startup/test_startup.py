"""The start-up hook: put there and taken away by pip, quiet, light, harmless when we are broken."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Recipe, plain_recipe
from zoo import RECIPES

from examples.world.requests import REFUSAL

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
KNOWS = "from mergekit import merge_methods as m; print(m.get('chat_vector').spec.name)"


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the Python of the tests, in which our package is installed."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True)


@dataclass(frozen=True)
class Environment:
    """A virtual environment of its own, that finds mergekit and torch in the one of the tests."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        return next(self.folder.glob("lib/python*/site-packages"))

    def pip(self, *arguments: str) -> None:
        subprocess.run([*PIP, "--python", str(self.python), *arguments], check=True)

    def install(self, *options: str) -> None:
        self.pip("install", "--no-deps", "--no-build-isolation", *options, str(ROOT))

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.python, *arguments],
            cwd=self.folder,
            env={**without_pythons(os.environ), **variables},
            check=True,
            capture_output=True,
            text=True,
        )

    def paths(self) -> set[Path]:
        """Return all that lies in it, and of what Python has compiled what is ours."""
        paths = self.folder.rglob("*")
        return {p for p in paths if "__pycache__" not in p.parts or "chatvec" in p.name}


def without_pythons(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if not name.startswith("PYTHON")}


def environment_in(folder: Path) -> Environment:
    """Return an environment with everything we depend on, and not us."""
    venv.create(folder, symlinks=True)
    env = Environment(folder)
    # The tests' own environment has our package too; link everything else, file by file.
    for path in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if "chatvec" not in path.name and path.suffix != ".pth" and path.name != "__pycache__":
            (env.site_packages / path.name).symlink_to(path)
    return env


@pytest.fixture(scope="module")
def without_us(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Return an environment for all tests that change nothing in it."""
    return environment_in(tmp_path_factory.mktemp("without") / "env")


@pytest.fixture(scope="module")
def with_us(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Return one with our package installed, for all tests that leave it as it is."""
    env = environment_in(tmp_path_factory.mktemp("with") / "env")
    env.install()
    return env


@pytest.mark.parametrize("options", [[], ["--editable"]], ids=["normal", "editable"])
def test_an_install_brings_the_demo_whose_merge_is_stocks_and_uninstall_leaves_nothing(
    options: list[str], tmp_path: Path
) -> None:
    environment = environment_in(tmp_path / "env")
    before = environment.paths()
    environment.install(*options)

    said = environment.run("-m", "chatvec_method", "demo").stdout
    assert REFUSAL in said
    shown = environment.folder / "chatvec-demo"
    assert (shown / "merged" / "model.safetensors").exists()
    shutil.rmtree(shown)

    environment.pip("uninstall", "--yes", "chatvec-method")
    assert environment.paths() == before


# A Python that has started, with the hook where it is installed, and imported what mergekit takes
# seconds to import, but neither mergekit nor us; each script runs in a copy of it, and what it
# prints is the answer.
STARTED = """
import json, os, sys
import peft, torch, transformers.modeling_utils
assert not any(name.startswith(("mergekit", "chatvec_method.")) for name in sys.modules)
for line in sys.stdin:
    printed, end = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(end, 1), os.dup2(end, 2)
        exec(json.loads(line), {"__name__": "__main__"})
        sys.stdout.flush()
        os._exit(0)
    os.close(end)
    os.waitpid(child, 0)
    with open(printed) as text:
        print(json.dumps(text.read()), flush=True)
"""


@dataclass(frozen=True)
class Started:
    """A Python that runs scripts, each as if it had just started."""

    process: subprocess.Popen[str]

    def run(self, script: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(script), file=self.process.stdin, flush=True)
        return str(json.loads(self.process.stdout.readline()))


@contextmanager
def started_in(environment: Environment) -> Iterator[Started]:
    warnings = ("-W", "error::ImportWarning", "-W", "error::UserWarning")
    with subprocess.Popen(
        [environment.python, *warnings, "-c", STARTED],
        cwd=environment.folder,
        env=without_pythons(os.environ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Started(process)


@pytest.fixture(scope="module")
def started(with_us: Environment) -> Iterator[Started]:
    with started_in(with_us) as started:
        yield started


def stock_command(recipe: Recipe, folder: Path) -> str:
    """Return a script that is mergekit's own command, with a recipe in a folder to its `out`."""
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    files = [str(folder / "recipe.yaml"), str(folder / "out")]
    arguments = ["mergekit-yaml", *files, "--no-write-model-card", "--quiet"]
    return f"import sys; sys.argv = {arguments}; import mergekit.scripts.run_yaml as r; r.main()"


def test_stock_command_lacks_the_method_without_us(
    without_us: Environment, family: Path, tmp_path: Path
) -> None:
    with started_in(without_us) as started:
        printed = started.run(stock_command(plain_recipe(family), tmp_path))
    assert "Unimplemented merge method chat_vector" in printed


# The hook's module twice in one process, each with a finder that delegates to the other one.
REIMPORTED = """
import importlib, sys, chatvec_method_startup as s
importlib.reload(s).install()
del sys.modules["chatvec_method_startup"], s
import chatvec_method
"""

FOREIGN_FINDER = """
import sys
class Delegating:
    def find_spec(self, name, path=None, target=None):
        specs = (f.find_spec(name, path, target) for f in sys.meta_path if f is not self)
        return next((spec for spec in specs if spec), None)
sys.meta_path.insert(0, Delegating())
"""

# Ctrl-C while our module is being imported, and another try.
INTERRUPTED = """
import builtins
real = builtins.__import__
def interrupt(name, *args, **kwargs):
    if name == "chatvec_method.method.plugin":
        raise KeyboardInterrupt
    return real(name, *args, **kwargs)
builtins.__import__ = interrupt
try:
    import mergekit.merge_methods
except KeyboardInterrupt:
    builtins.__import__ = real
"""


@pytest.mark.parametrize(
    "first",
    [
        "",
        "import chatvec_method",
        "import chatvec_method.method.plugin",
        "import chatvec_method.method.tensor_merge",
        "import mergekit.config",
        "import mergekit.plan",
        "import mergekit.tokenizer.truncate",
        "import mergekit.merge_methods.preprocessing",
        "import mergekit.merge_methods; import chatvec_method; import chatvec_method",
        "import importlib, chatvec_method; importlib.reload(chatvec_method)",
        "import importlib, chatvec_method.method.plugin as m; importlib.reload(m)",
        REIMPORTED,
        FOREIGN_FINDER,
        INTERRUPTED,
        "import copy, importlib.util as u; copy.copy(u.find_spec('mergekit.merge_methods').loader)",
    ],
    ids=lambda first: first.strip().splitlines()[0] if first else "nothing",
)
def test_method_is_known_whatever_is_imported_first(first: str, started: Started) -> None:
    assert started.run(f"{first}\n{KNOWS}") == "chat_vector\n"


FORKED = f"""
import multiprocessing

def work():
    {KNOWS}

process = multiprocessing.get_context("fork").Process(target=work)
process.start()
process.join()
"""


def test_forked_worker_processes_know_the_method(started: Started) -> None:
    assert started.run(FORKED) == "chat_vector\n"


SPAWNING = """
import multiprocessing

def known(_):
    from mergekit import merge_methods
    return merge_methods.get("chat_vector").spec.name

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(*pool.map(known, [None]))
"""


@pytest.mark.parametrize("options", [["-I"], ["-X", "dev"]], ids=" ".join)
def test_spawned_worker_processes_know_the_method_under_pythons_options(
    options: list[str], tmp_path: Path
) -> None:
    (tmp_path / "worker.py").write_text(SPAWNING)

    result = python(*options, str(tmp_path / "worker.py"))

    assert result.stdout == "chat_vector\n"


BREAKAGES = {
    "an exception": "raise RuntimeError('disk on fire')",
    "a syntax error": "def (",
    "a missing module": "import no_such_module",
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_broken_method_costs_one_warning_and_no_other_method(
    breakage: str, with_us: Environment, started: Started, family: Path, tmp_path: Path
) -> None:
    recipe = {
        "merge_method": "linear",
        "models": [
            {"model": str(family / name), "parameters": {"weight": 0.5}} for name in ("base", "cp")
        ],
    }
    plugin = with_us.site_packages / "chatvec_method" / "method" / "plugin.py"
    text = plugin.read_text(encoding="utf-8")
    plugin.write_text(BREAKAGES[breakage])
    try:
        printed = started.run(stock_command(recipe, tmp_path))
    finally:
        plugin.write_text(text, encoding="utf-8")

    assert (tmp_path / "out" / "model.safetensors").exists()
    warnings = [line for line in printed.splitlines() if "chat_vector" in line]
    assert len(warnings) == 1
    assert warnings[0].startswith("merge method chat_vector is not available")


def test_older_mergekit_is_told_by_its_version(with_us: Environment, tmp_path: Path) -> None:
    package = tmp_path / "mergekit" / "merge_methods"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").write_text("def get(name): ...\n")
    metadata = tmp_path / "mergekit-0.1.4.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mergekit\nVersion: 0.1.4\n")
    script = "import mergekit.merge_methods as m; print(m.get)"

    result = with_us.run("-W", "error", "-c", script, PYTHONPATH=str(tmp_path))

    assert result.stdout
    assert result.stderr.count("chat_vector is not available") == 1
    assert "needs mergekit 0.1.5 or newer, this is mergekit 0.1.4" in result.stderr


def test_python_that_does_not_use_mergekit_imports_and_prints_nothing_more(
    without_us: Environment, with_us: Environment
) -> None:
    script = "import sys; print(*sorted(sys.modules))"
    before = without_us.run("-W", "error", "-c", script)
    after = with_us.run("-W", "error", "-c", script)

    assert set(after.stdout.split()) - set(before.stdout.split()) == {"chatvec_method_startup"}
    assert after.stderr == ""


def test_importing_the_package_alone_stays_light() -> None:
    script = "import sys, chatvec_method; print('torch' in sys.modules, 'mergekit' in sys.modules)"

    result = python("-c", script)

    assert result.stdout == "False False\n"


def test_recipes_are_in_the_wheel(with_us: Environment) -> None:
    chatvec = ("-m", "chatvec_method", "recipes")
    listed = with_us.run(*chatvec).stdout
    assert all(file.stem in listed for file in RECIPES.glob("*.yaml"))
    with_us.run(*chatvec, "copy", "eeve_chat")
    copied = (with_us.folder / "eeve_chat.yaml").read_text(encoding="utf-8")
    assert copied == (RECIPES / "eeve_chat.yaml").read_text(encoding="utf-8")
    shown = with_us.run(*chatvec, "show", "world").stdout
    assert shown == (RECIPES / "world.yaml").read_text(encoding="utf-8")

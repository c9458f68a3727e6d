"""The start-up hook: put there and taken away by pip, quiet, light, harmless when we are broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, plain_recipe
from zoo import RECIPES

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

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        return subprocess.run(
            [self.python, *arguments],
            cwd=self.folder,
            env=environment,
            check=check,
            capture_output=True,
            text=True,
        )

    def ours(self) -> set[str]:
        places = [self.site_packages, self.site_packages / "__pycache__"]
        return {path.name for place in places for path in place.glob("*chatvec*")}


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """Return an environment with everything we depend on, and not us."""
    venv.create(tmp_path / "env", symlinks=True)
    env = Environment(tmp_path / "env")
    # The tests' own environment has our package too; link everything else, file by file.
    for path in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if "chatvec" not in path.name and path.suffix != ".pth" and path.name != "__pycache__":
            (env.site_packages / path.name).symlink_to(path)
    return env


@pytest.fixture(params=["normal", "editable"])
def install(request: pytest.FixtureRequest, environment: Environment) -> Environment:
    """Return the environment with our package installed, in one way and the other."""
    editable = ["--editable"] if request.param == "editable" else []
    environment.pip("install", "--no-deps", "--no-build-isolation", *editable, str(ROOT))
    return environment


def test_stock_command_merges_after_an_install_and_nothing_is_left_after_uninstall(
    install: Environment, family: Path, tmp_path: Path
) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(plain_recipe(family)))
    command = ["-m", "mergekit.scripts.run_yaml", str(tmp_path / "recipe.yaml")]
    options = ["--no-write-model-card", "--quiet"]

    install.run(*command, str(tmp_path / "out"), *options)
    assert (tmp_path / "out" / "model.safetensors").exists()

    install.pip("uninstall", "--yes", "chatvec-method")
    assert install.ours() == set()
    after = install.run(*command, str(tmp_path / "after"), *options, check=False)
    assert "Unimplemented merge method chat_vector" in after.stderr


# A Python that has started with the hook and imported what mergekit takes seconds to import, but
# neither mergekit nor us; each script runs in a copy of it, and what it prints is the answer.
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


@pytest.fixture(scope="module")
def started() -> Iterator[subprocess.Popen[str]]:
    """Return a Python that runs a script a line, as JSON, each as if it had just started."""
    command = [sys.executable, "-W", "error::ImportWarning", "-c", STARTED]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        yield process


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
def test_method_is_known_whatever_is_imported_first(
    first: str, started: subprocess.Popen[str]
) -> None:
    assert started.stdin is not None
    assert started.stdout is not None
    print(json.dumps(f"{first}\n{KNOWS}"), file=started.stdin, flush=True)

    assert json.loads(started.stdout.readline()) == "chat_vector\n"


@pytest.mark.parametrize("options", [["-I"], ["-X", "dev"]], ids=" ".join)
def test_method_is_known_under_pythons_options(options: list[str]) -> None:
    result = python(*options, "-c", KNOWS)

    assert result.stdout == "chat_vector\n"


WORKER = """
import multiprocessing, sys

def known(_):
    from mergekit import merge_methods
    return merge_methods.get("chat_vector").spec.name

if __name__ == "__main__":
    with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool:
        print(*pool.map(known, [None]))
"""


@pytest.mark.parametrize("start", ["spawn", "fork"])
def test_worker_processes_know_the_method(start: str, tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(WORKER)

    result = python(str(tmp_path / "worker.py"), start)

    assert result.stdout == "chat_vector\n"


BREAKAGES = {
    "an exception": "raise RuntimeError('disk on fire')",
    "a syntax error": "def (",
    "a missing module": "import no_such_module",
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_broken_method_costs_one_warning_and_no_other_method(
    breakage: str, environment: Environment, family: Path, tmp_path: Path
) -> None:
    environment.pip("install", "--no-deps", "--no-build-isolation", str(ROOT))
    (environment.site_packages / "chatvec_method" / "method" / "plugin.py").write_text(
        BREAKAGES[breakage]
    )
    recipe = {
        "merge_method": "linear",
        "models": [
            {"model": str(family / name), "parameters": {"weight": 0.5}} for name in ("base", "cp")
        ],
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    command = ["-W", "error::UserWarning", "-m", "mergekit.scripts.run_yaml"]
    files = [str(tmp_path / "recipe.yaml"), str(tmp_path / "out")]

    result = environment.run(*command, *files, "--no-write-model-card", "--quiet")

    assert (tmp_path / "out" / "model.safetensors").exists()
    warnings = [line for line in result.stderr.splitlines() if "chat_vector" in line]
    assert len(warnings) == 1
    assert warnings[0].startswith("merge method chat_vector is not available")


def test_older_mergekit_is_told_by_its_version(environment: Environment) -> None:
    environment.pip("install", "--no-deps", "--no-build-isolation", str(ROOT))
    (environment.site_packages / "mergekit").unlink()
    for path in environment.site_packages.glob("mergekit-*.dist-info"):
        path.unlink()
    package = environment.site_packages / "mergekit" / "merge_methods"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").write_text("def get(name): ...\n")
    metadata = environment.site_packages / "mergekit-0.1.4.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mergekit\nVersion: 0.1.4\n")

    result = environment.run(
        "-W", "error", "-c", "import mergekit.merge_methods as m; print(m.get)"
    )

    assert result.stdout
    assert result.stderr.count("chat_vector is not available") == 1
    assert "needs mergekit 0.1.5 or newer, this is mergekit 0.1.4" in result.stderr


def test_python_that_does_not_use_mergekit_imports_and_prints_nothing_more(
    environment: Environment,
) -> None:
    script = "import sys; print(*sorted(sys.modules))"
    result = environment.run("-W", "error", "-c", script)
    environment.pip("install", "--no-deps", "--no-build-isolation", str(ROOT))
    with_us = environment.run("-W", "error", "-c", script)

    assert set(with_us.stdout.split()) - set(result.stdout.split()) == {"chatvec_method_startup"}
    assert with_us.stderr == ""


def test_importing_the_package_alone_stays_light() -> None:
    script = "import sys, chatvec_method; print('torch' in sys.modules, 'mergekit' in sys.modules)"

    result = python("-c", script)

    assert result.stdout == "False False\n"


def test_recipes_are_in_the_wheel(environment: Environment) -> None:
    environment.pip("install", "--no-deps", "--no-build-isolation", str(ROOT))
    chatvec = ("-m", "chatvec_method", "recipes")
    listed = environment.run(*chatvec).stdout
    assert all(file.stem in listed for file in RECIPES.glob("*.yaml"))
    environment.run(*chatvec, "copy", "eeve_chat")
    copied = (environment.folder / "eeve_chat.yaml").read_text(encoding="utf-8")
    assert copied == (RECIPES / "eeve_chat.yaml").read_text(encoding="utf-8")
    shown = environment.run(*chatvec, "show", "world").stdout
    assert shown == (RECIPES / "world.yaml").read_text(encoding="utf-8")

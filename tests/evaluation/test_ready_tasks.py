"""Tasks that read their data on the hub: what is loaded, and why something is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lm_eval.tasks
import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml
from conftest import ROOT
from formats import build
from hub import DATASETS, Hub, serving

from chatvec_method.errors import ChatVecError
from chatvec_method.evaluation.ready import TASKS
from chatvec_method.evaluation.unloadable import not_loaded

PASSAGE = {
    "flores_passage": "강물이 산에서 바다로 흐른다.",
    "question": "강물은 어디로 흐르는가?",
    **{f"mc_answer{i}": answer for i, answer in enumerate(["바다", "산", "하늘", "들"], 1)},
    "correct_answer_num": "1",
}
OPTIONS = dict(zip("ABCD", ["東京", "大阪", "京都", "奈良"], strict=True))
Rows = list[dict[str, Any]]
DATA: dict[str, dict[str, dict[str, Rows]]] = {
    "EunsuKim/CLIcK": {
        "default": {
            "train": [
                {
                    "id": f"TK_{number}",
                    "paragraph": "",
                    "question": "봄 다음은?",
                    "choices": ["여름", "가을", "겨울", "봄"],
                    "answer": "여름",
                }
                for number in (6, 7)
            ]
        }
    },
    "skt/kobest_v1": {
        "copa": {
            split: [
                {
                    "premise": "불이 꺼졌다.",
                    "question": "원인",
                    "alternative_1": "전기가 나갔다.",
                    "alternative_2": "비가 왔다.",
                    "label": 0,
                }
            ]
            for split in ("train", "validation", "test")
        }
    },
    "facebook/belebele": {name: {"test": [PASSAGE]} for name in ("kor_Hang", "zho_Hant")},
    "CohereForAI/include-base-44": {
        "Japanese": {
            "test": [
                {
                    "question": "制限速度は?",
                    **{f"option_{letter.lower()}": text for letter, text in OPTIONS.items()},
                    "answer": 0,
                    "domain": domain,
                }
                for domain in ("Driving License", "Medical License")
            ]
        }
    },
    "juletxara/mgsm": {
        "ja": {
            split: [
                {
                    "question": "りんごが3個と4個あります。全部で何個ですか?",
                    "answer": None,
                    "answer_number": 7,
                    "equation_solution": None,
                }
            ]
            for split in ("train", "test")
        }
    },
    "miulab/tmlu": {
        "AST_chinese": {
            split: [{"question": "下列何者為首都?", **OPTIONS, "answer": "A"}]
            for split in ("dev", "test")
        }
    },
    "ceval/ceval-exam": {
        "law": {
            split: [
                {"id": 0, "question": "下列何者正确?", **OPTIONS, "answer": "A", "explanation": ""}
            ]
            for split in ("dev", "val", "test")
        }
    },
    "allenai/ai2_arc": {
        "ARC-Challenge": {
            split: [
                {
                    "id": "1",
                    "question": "What falls?",
                    "choices": {"text": ["rain", "up"], "label": ["A", "B"]},
                    "answerKey": "A",
                }
            ]
            for split in ("train", "validation", "test")
        }
    },
}
"""Of each data set that ours read: a subject or a language, with a row or two as they have them."""
LEAVES = (
    "click_lang_text",
    "kobest_copa",
    "belebele_kor_Hang",
    "include_base_44_japanese_driving_license",
    "mgsm_native_cot_ja",
    "tmlu_AST_chinese",
    "belebele_zho_Hant",
    "ceval-valid_law",
    "arc_challenge",
)
"""A task of each group in `ready`."""
PROGRAM = "ja_leaderboard_jcommonsenseqa"
"""A task whose data a program reads."""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """Serve the data sets, half of them in JSON, half in Parquet."""
    folder = tmp_path_factory.mktemp("hub")
    for number, (name, subjects) in enumerate(DATA.items()):
        repository = folder / DATASETS / name
        configs = []
        for subject, splits in subjects.items():
            (repository / subject).mkdir(parents=True)
            files = []
            for split, rows in splits.items():
                path = f"{subject}/{split}." + ("parquet" if number % 2 else "jsonl")
                files.append({"split": split, "path": path})
                if number % 2:
                    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), repository / path)
                else:
                    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
                    (repository / path).write_text("\n".join(lines), encoding="utf-8")
            configs.append({"config_name": subject, "data_files": files})
        front = yaml.safe_dump({"configs": configs})
        (repository / "README.md").write_text(f"---\n{front}---\n", encoding="utf-8")
    program = folder / DATASETS / "Rakuten/JGLUE/JGLUE.py"
    program.parent.mkdir(parents=True)
    program.write_text("raise SystemExit('ran')")
    with serving(folder) as hub:
        yield hub


def evaluated(model: Path, hub: Hub, folder: Path, *tasks: str) -> subprocess.CompletedProcess[str]:
    """Evaluate a model by the command, with a hub of ours and nothing cached."""
    command = ["evaluate", str(model), "--tasks", ",".join(tasks), "--json"]
    home = {"HF_ENDPOINT": hub.address, "HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "0"}
    return subprocess.run(
        [sys.executable, "-m", "chatvec_method", *command, "--state", str(folder / "state")],
        env={**os.environ, **home, "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def test_tasks_of_every_ready_group_are_read_on_the_hub_and_measured(
    hub: Hub, tmp_path: Path
) -> None:
    model = build(tmp_path / "models", "llama-3").chat  # whose tokens write anything
    run = evaluated(model, hub, tmp_path, *LEAVES)
    assert run.returncode == 0, run.stderr
    (result,) = json.loads(run.stdout)["results"]
    assert {score["axis"].partition(" ")[0] for score in result["scores"]} == set(LEAVES)
    for name in DATA:
        assert any(f"/{name}/resolve/" in request for request in hub.requests)


def test_every_ready_group_has_a_task_among_them() -> None:
    for names in TASKS.values():
        for name in names:
            stem = name.partition("_jpn")[0].partition("_eng")[0].partition("_zho")[0]
            assert any(leaf.startswith(stem.removesuffix("_zh")) for leaf in LEAVES), name


def test_data_that_a_program_reads_is_told_with_the_task(hub: Hub, tmp_path: Path) -> None:
    folder = Path(lm_eval.tasks.__file__).parent
    tasks = [folder / "kobest/kobest_copa.yaml", folder / f"japanese_leaderboard/{PROGRAM}.yaml"]
    run = evaluated(ROOT / "examples/world/models/chat", hub, tmp_path, *map(str, tasks))
    assert run.returncode == 1
    (line,) = run.stderr.strip().splitlines()
    assert f"{PROGRAM}.yaml is read by a program of its own (JGLUE.py)" in line
    assert "--tasks ready" in line


@pytest.mark.parametrize(
    ("package", "told"), [("langdetect", "lm_eval[ifeval]"), ("nobody_s", "nobody_s")]
)
def test_a_package_that_a_task_needs_is_told(package: str, told: str) -> None:
    def load(name: str) -> None:
        if name == "ifeval":
            raise missing

    missing = ModuleNotFoundError(f"No module named '{package}'", name=package)
    error = not_loaded(missing, ["kobest", {"task": "ours"}, "ifeval"], load)
    assert isinstance(error, ChatVecError)
    assert error.problem.startswith("the task ifeval needs a package")
    assert error.fix == f"Run `pip install '{told}'`."


def test_a_gated_data_set_is_told() -> None:
    gated = FileNotFoundError("Dataset 'a/b' is a gated dataset on the Hub. You must ...")
    error = not_loaded(gated, ["one"], lambda _: None)
    assert "the task one cannot be had" in error.problem
    assert "log in" in error.fix

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from whoamai.errors import ModelError
from whoamai.messages import language, use_language
from whoamai.plan import doctor_child
from whoamai.plan.doctor import Check, Diagnosis, Probes, examine
from whoamai.plan.doctor_probes import Later, Tried, attempt

GIB = 2**30
REQUIRED = [
    "torch>=2.11",
    "transformers>=5.10",
    "peft>=0.19",
    'bitsandbytes>=0.48; extra == "qlora"',
]
VERSIONS = {"torch": "2.13.0+cpu", "transformers": "5.17.0", "peft": "0.21.2"}
GOOD = {
    "torch": {"version": "2.13.0", "cuda": None, "hip": None, "threads": 4, "cpu": "AVX2"},
    "cards": {"cards": [], "reason": None},
    "libraries": {"seconds": 3.0},
    "step": {"loss": 4.6, "seconds": 0.5},
    "nf4": {"device": "cpu", "problem": None},
}
H100 = {"name": "H100", "memory": 80 * GIB, "free": 79 * GIB, "capability": [9, 0]}
T4 = {"name": "T4", "memory": 15 * GIB, "free": 14 * GIB, "capability": [7, 5]}


def tried(*, errors: Any = (), death: str | None = None, **changes: Any) -> Any:
    """A try of which everything went well, but for these facts; None leaves one out."""
    values = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    return lambda: Tried(values, dict(errors), death)


def probes(**changes: Any) -> Probes:
    """A healthy machine without a GPU, in which these answers differ."""
    values: dict[str, Any] = {
        "environ": {},
        "folder": Path("/data/models"),
        "home": Path("/home/chu"),
        "user": lambda: "chu",
        "encoding": lambda: "utf-8",
        "version": VERSIONS.get,
        "is_installed": lambda name: name in ("triton",),
        "requirements": lambda: REQUIRED,
        "tested": dict,
        "attempt": tried(),
        "driver": lambda: None,
        "answers": lambda url: None,
        "free": lambda folder: 100 * GIB,
        "has_compiler": lambda: True,
    }
    return Probes(**{**values, **changes})


def looked_at(**changes: Any) -> dict[str, Check]:
    diagnosis = examine(probes(**changes))
    return {check.key: check for group in diagnosis.groups for check in group.checks}


def fails() -> Any:
    raise ValueError("broken on purpose")


# ---- a healthy machine ---------------------------------------------------------------------------


def test_a_healthy_machine_has_nothing_but_ok():
    diagnosis = examine(probes())
    assert diagnosis.ok
    checks = [check for group in diagnosis.groups for check in group.checks]
    assert {check.status for check in checks} == {"ok"}
    assert [group.key for group in diagnosis.groups] == [
        "python", "torch", "libraries", "paths", "disk", "hub", "job",
    ]  # fmt: skip


def test_the_block_can_be_pasted_and_says_what_came_of_it():
    text = examine(probes()).as_text()
    assert "\x1b" not in text
    assert "loss 4.60" in text
    assert "The main job can run here" in text.splitlines()[-1]


def test_json_holds_the_same_under_keys_that_no_language_changes():
    with use_language("zh"):
        found = json.loads(json.dumps(examine(probes()).as_json()))
    assert found["ok"] is True
    keys = {check["key"] for group in found["groups"] for check in group["checks"]}
    assert {"python", "torch", "peft", "attention", "nf4", "disk-here", "hub", "job"} <= keys


# ---- libraries -----------------------------------------------------------------------------------


def test_a_torch_that_is_too_old_is_told_with_what_to_install():
    check = looked_at(version={**VERSIONS, "torch": "2.4.1"}.get)["torch"]
    assert check.status == "warn"
    assert "2.4.1" in check.value
    assert ">=2.11" in check.value
    assert check.cure == 'pip install "torch>=2.11"'


def test_a_torch_that_cannot_be_imported_fails_with_its_reason():
    errors = {"torch": "ImportError: libcudart.so.12: cannot open", "step": "the same"}
    broken = tried(torch=None, cards=None, libraries=None, step=None, nf4=None, errors=errors)
    diagnosis = examine(probes(attempt=broken))
    assert not diagnosis.ok
    checks = looked_at(attempt=broken)
    assert "libcudart" in checks["torch-import"].value
    assert checks["attention"].status == "warn"
    assert checks["job"].status == "fail"


def test_a_missing_peft_fails():
    missing = {k: v for k, v in VERSIONS.items() if k != "peft"}
    diagnosis = examine(probes(version=missing.get))
    assert not diagnosis.ok
    assert "peft" in diagnosis.verdict
    check = looked_at(version=missing.get)["peft"]
    assert (check.status, check.cure) == ("fail", 'pip install "peft>=0.19"')


def test_what_is_optional_may_be_missing():
    checks = looked_at()
    assert checks["bitsandbytes"].status == checks["deepspeed"].status == "ok"
    assert "not installed" in checks["nf4"].value
    old = looked_at(version={**VERSIONS, "bitsandbytes": "0.40"}.get)["bitsandbytes"]
    assert (old.status, old.cure) == ("warn", 'pip install "bitsandbytes>=0.48"')


def test_an_extras_requirement_is_not_asked_of_everybody():
    assert "only needed for" in looked_at()["bitsandbytes"].value


def test_whoamai_run_from_its_source_alone_is_a_warning():
    checks = looked_at(requirements=list)
    assert checks["requirements"].status == "warn"
    assert checks["torch"].value == VERSIONS["torch"]


# ---- the device ----------------------------------------------------------------------------------


def test_every_card_is_named_with_memory_and_capability():
    cards = {"cards": [H100, T4], "bfloat16": True, "reason": None}
    checks = looked_at(attempt=tried(cards=cards), driver=lambda: "570.10")
    assert "H100, 80.0 GiB (79.0 GiB free), compute capability 9.0" in checks["gpu-0"].value
    assert "T4" in checks["gpu-1"].value
    assert "570.10" in checks["cuda"].value


def test_an_nvidia_card_with_a_torch_for_the_cpu_alone_is_told():
    check = looked_at(driver=lambda: "570.10")["cuda"]
    assert check.status == "warn"
    assert "built without CUDA" in check.cure


def test_a_driver_that_is_too_old_for_torch_is_told_in_torchs_words():
    about = {**GOOD["torch"], "cuda": "13.0"}
    cards = {"cards": [], "reason": "The NVIDIA driver on your system is too old"}
    check = looked_at(attempt=tried(torch=about, cards=cards), driver=lambda: "470.1")["cuda"]
    assert check.status == "warn"
    assert "too old" in check.value


def test_a_driver_that_cannot_be_asked_is_none():
    assert "driver: none" in looked_at(driver=fails)["cuda"].value


# ---- what will be used ---------------------------------------------------------------------------


def _with_card(card: dict[str, Any], *, bfloat16: bool = True, **changes: Any) -> dict[str, Check]:
    cards = {"cards": [card], "bfloat16": bfloat16, "reason": None}
    return looked_at(attempt=tried(cards=cards), **changes)


def test_a_new_card_with_triton_gets_flex_attention_and_bfloat16():
    checks = _with_card(H100)
    assert checks["attention"].value.startswith("FlexAttention")
    assert checks["attention"].status == "ok"
    assert checks["precision"].value == "bfloat16"


def test_why_flex_attention_is_not_used_is_said():
    assert "capability 8.0, this card has 7.5" in _with_card(T4)["attention"].value
    without = _with_card(H100, is_installed=lambda name: False)["attention"]
    assert (without.status, without.cure) == ("warn", "pip install triton")
    no_compiler = _with_card(H100, has_compiler=lambda: False)["attention"]
    assert "gcc" in no_compiler.cure
    assert "needs a GPU" in looked_at()["attention"].value


def test_the_oldest_of_several_cards_decides():
    cards = {"cards": [H100, T4], "bfloat16": True, "reason": None}
    assert looked_at(attempt=tried(cards=cards))["attention"].value.startswith("SDPA")


def test_a_card_without_bfloat16_is_a_warning():
    check = _with_card(T4, bfloat16=False)["precision"]
    assert check.status == "warn"
    assert check.value.startswith("float16")


def _nf4(**changes: Any) -> Check:
    return looked_at(is_installed=lambda name: True, **changes)["nf4"]


def test_bitsandbytes_that_works_is_said_to():
    assert _nf4().value == "works (cpu)"


def test_bitsandbytes_that_cannot_be_used_says_why_and_stops_nothing():
    problem = "bitsandbytes cannot hold weights in nf4 on cuda: no kernel image."
    check = _nf4(attempt=tried(nf4={"device": "cuda", "problem": problem}))
    assert (check.status, check.cure) == ("warn", problem)
    died = tried(nf4=None, death="its process ended with code -11")
    assert "code -11" in _nf4(attempt=died).value
    assert examine(probes(attempt=died)).ok


# ---- disk, hub, encoding -------------------------------------------------------------------------


def test_a_full_disk_fails():
    diagnosis = examine(probes(free=lambda folder: 5 << 20))
    assert not diagnosis.ok
    assert looked_at(free=lambda folder: 5 << 20)["disk-here"].status == "fail"


def test_little_space_and_a_disk_that_cannot_be_asked_are_warnings():
    assert looked_at(free=lambda folder: GIB)["disk-here"].status == "warn"

    def gone(folder: Path) -> int:
        raise OSError(5, "Input/output error")

    assert "Input/output error" in looked_at(free=gone)["disk-here"].value


def test_downloads_are_looked_for_where_the_hub_puts_them():
    checks = looked_at(environ={"HF_HOME": "/big/hf"})
    assert "/big/hf/hub" in checks["disk-hub"].value
    assert "~/.cache/huggingface/hub" in looked_at()["disk-hub"].value


def test_without_a_network_the_main_job_runs_all_the_same():
    diagnosis = examine(probes(answers=lambda url: "Name or service not known"))
    assert diagnosis.ok
    check = looked_at(answers=lambda url: "Name or service not known")["hub"]
    assert check.status == "warn"
    assert "HF_ENDPOINT" in check.cure
    assert looked_at(answers=lambda url: fails())["hub"].status == "warn"


def test_the_mirror_is_asked_and_named():
    asked: list[str] = []
    looked_at(environ={"HF_ENDPOINT": "https://mirror.example/"}, answers=asked.append)
    assert asked == ["https://mirror.example"]


def test_offline_and_no_network_are_said():
    assert "HF_HUB_OFFLINE" in looked_at(environ={"HF_HUB_OFFLINE": "1"})["hub"].value
    asked: list[str] = []
    examine(probes(answers=asked.append), network=False)
    assert asked == []


def test_a_token_is_never_shown():
    text = examine(probes(environ={"HF_TOKEN": "hf_secret"})).as_text()
    assert "hf_secret" not in text
    assert "HF_TOKEN" in text


def test_another_encoding_than_utf_8_is_a_warning():
    assert looked_at(encoding=lambda: "gbk")["encoding"].status == "warn"
    assert looked_at(encoding=lambda: "UTF8")["encoding"].status == "ok"


# ---- nothing breaks it, nothing is told that is nobody's business ---------------------------------


@pytest.mark.parametrize(
    "broken",
    [
        "encoding",
        "version",
        "is_installed",
        "requirements",
        "attempt",
        "free",
        "has_compiler",
        "user",
    ],
)
def test_a_check_that_breaks_becomes_a_line(broken: str):
    cards = {"cards": [H100], "bfloat16": True, "reason": None}
    answers: dict[str, Any] = {"attempt": tried(cards=cards)}
    answers[broken] = lambda *_: fails()
    text = examine(probes(**answers)).as_text()
    assert ("broken on purpose" in text) == (broken != "user")


def test_a_main_job_that_could_not_be_tried_is_not_said_to_run():
    assert not examine(probes(attempt=fails)).ok


def test_homes_users_and_passwords_are_left_out():
    diagnosis = examine(
        probes(
            folder=Path("/home/chu/work"),
            environ={
                "HF_ENDPOINT": "https://chu:secret@mirror.example",
                "HF_HOME": "/data/users/chu/hf",
            },
            answers=lambda url: "/home/chu/.netrc\nis broken",
        )
    )
    for text in (diagnosis.as_text(), json.dumps(diagnosis.as_json())):
        assert "/home/chu" not in text
        assert "/chu" not in text
        assert "secret" not in text
        assert "~/work" in text
        assert "https://mirror.example" in text
        assert "~/.netrc is broken" in text


def test_a_slow_answer_is_none():
    stuck = Later(lambda: time.sleep(5))
    with pytest.raises(TimeoutError, match=r"0\.01 seconds"):
        stuck.result(0.01)


def test_what_runs_in_a_thread_speaks_the_callers_language():
    with use_language("zh"):
        assert Later(language).result(5) == "zh_CN"


# ---- the process of its own ----------------------------------------------------------------------


def _environment(folder: Path, **changes: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", **changes}


def _package(folder: Path, name: str, code: str) -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(code, "utf-8")
    return folder


def test_the_main_job_runs_here(tmp_path: Path):
    found = attempt(_environment(tmp_path))
    assert found.death is None
    assert found.why_not("step") is None, found.why_not("step")
    assert 0 < found.values["step"]["loss"] < 20


def test_a_torch_that_ends_its_process_is_survived(tmp_path: Path, capfd):
    _package(tmp_path, "torch", "print('noise', flush=True)\nimport os\nos.abort()")
    found = attempt(_environment(tmp_path))
    assert "ended with code" in (found.why_not("torch") or "")
    assert found.why_not("step")
    assert capfd.readouterr() == ("", "")


def test_a_noisy_and_broken_bitsandbytes_is_one_line(tmp_path: Path, capfd):
    noise = "import sys\nprint('=' * 80)\nprint('BUG REPORT', file=sys.stderr)\n"
    _package(tmp_path, "bitsandbytes", noise + "raise RuntimeError('CUDA Setup failed')")
    found = attempt(_environment(tmp_path))
    assert capfd.readouterr() == ("", "")
    assert found.why_not("torch") is None
    assert "CUDA Setup failed" in found.values["nf4"]["problem"]
    text = examine(probes(attempt=lambda: found, is_installed=lambda name: True)).as_text()
    assert "BUG REPORT" not in text


def test_facts_are_kept_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refused() -> Any:
        raise ModelError("no such model")

    monkeypatch.setattr(doctor_child, "_torch", lambda: {"version": "1"})
    monkeypatch.setattr(doctor_child, "_libraries", refused)
    for name in ("_cards", "_step", "_nf4"):
        monkeypatch.setattr(doctor_child, name, fails)
    file = tmp_path / "facts.jsonl"
    doctor_child.main(file)
    with file.open("a") as lines:
        lines.write('{"name": "half')
    facts = {name: (value, error) for name, value, error in doctor_child.read_facts(file)}
    assert facts["torch"] == ({"version": "1"}, None)
    assert facts["libraries"] == (None, "no such model")
    assert facts["step"] == (None, "ValueError: broken on purpose")
    assert list(doctor_child.read_facts(tmp_path / "none")) == []


def test_doctor_itself_imports_no_torch():
    code = "import sys, whoamai.plan.doctor; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_diagnosis_without_checks_is_ok():
    assert Diagnosis(()).ok


def test_a_version_other_than_the_tested_one_is_told_beside_it():
    pins = {"torch": "2.13.0", "transformers": "5.16.0", "peft": "0.21.2"}
    text = examine(probes(tested=lambda: pins), network=False).as_text()
    assert "5.17.0 (tested with 5.16.0)" in text
    assert text.count("tested with") == 1  # 2.13.0+cpu is 2.13.0


def test_the_tested_versions_are_those_of_the_constraints():
    tested = Probes().tested()
    assert tested["torch"] == "2.13.0"
    assert "pydantic-core" in tested

"""Doctor's checks, one function a group: from what the probes say to lines with a status and a cure."""

from __future__ import annotations

import codecs
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from whoamai import __version__
from whoamai.messages import tr
from whoamai.plan.doctor_facts import Check
from whoamai.plan.doctor_probes import Later, Probes, Tried

GIB = 2**30
_PUBLIC_HUB = "https://huggingface.co"
# Below the first a small result no longer fits, below the second a large model's does not.
_LEAST_BYTES, _FEW_BYTES = 64 << 20, 5 * GIB
# FlexAttention's compiled kernels need tensor cores of this generation (Ampere) or later.
_FLEX_CAPABILITY = (8, 0)


# ---- Python --------------------------------------------------------------------------------------


def python(probes: Probes) -> Iterator[Check]:
    yield Check("whoamai", "whoamai", __version__)
    yield Check("python", "Python", f"{probes.python} ({platform.python_implementation()})")
    cores = tr("{n} processor cores").format(n=os.cpu_count())
    system = f"{platform.system()} {platform.release()} {platform.machine()}, {cores}"
    yield Check("system", tr("system"), system)
    encoding = probes.encoding()
    if codecs.lookup(encoding).name == "utf-8":
        yield Check("encoding", tr("text encoding"), encoding)
    else:
        cure = tr("Set PYTHONUTF8=1, or Chinese text cannot be shown and files may be misread.")
        yield Check("encoding", tr("text encoding"), encoding, "warn", cure)


# ---- torch ---------------------------------------------------------------------------------------


def torch(probes: Probes, tried: Later[Tried], driver: Later[str | None]) -> Iterator[Check]:
    yield from _required(probes, ("torch",))
    found = tried.result()
    if reason := found.why_not("torch"):
        cure = _install(_requirement(probes, "torch"))
        yield Check("torch-import", tr("importing torch"), reason, "fail", cure)
        return
    about, cards = found.values["torch"], found.values.get("cards")
    yield _cuda(about, cards, _quiet(driver))
    if cards is None:
        reason = found.why_not("cards") or ""
        yield Check("device", tr("device"), reason, "warn")
    elif not cards["cards"]:
        text = tr("the CPU ({threads} threads, {cpu}); there is no GPU that torch can use")
        text = text.format(threads=about["threads"], cpu=about["cpu"])
        yield Check("device", tr("device"), text)
    for i, card in enumerate(cards["cards"] if cards else ()):
        text = tr("{name}, {memory} GiB ({free} GiB free), compute capability {capability}").format(
            name=card["name"],
            memory=f"{card['memory'] / GIB:.1f}",
            free=f"{card['free'] / GIB:.1f}",
            capability=".".join(map(str, card["capability"])),
        )
        yield Check(f"gpu-{i}", f"GPU {i}", text)


def _cuda(about: dict[str, Any], cards: dict[str, Any] | None, driver: str | None) -> Check:
    """CUDA in torch and NVIDIA's driver: do they go together?"""
    built = f"CUDA {about['cuda']}" if about["cuda"] else tr("none")
    if about["hip"]:
        built = f"ROCm {about['hip']}"
    text = tr("in torch: {built}; NVIDIA's driver: {driver}")
    text = text.format(built=built, driver=driver or tr("none"))
    usable = bool(cards and cards["cards"])
    if not driver or usable:
        return Check("cuda", "CUDA", text)
    if not about["cuda"]:
        cure = tr(
            "There is an NVIDIA card, and torch was built without CUDA. Install torch as "
            "https://pytorch.org/get-started/locally says for your system."
        )
        return Check("cuda", "CUDA", text, "warn", cure)
    reason = (cards or {}).get("reason") or ""
    cure = tr("Update the driver, or install a torch built for an older CUDA.")
    return Check("cuda", "CUDA", f"{text}; {reason}" if reason else text, "warn", cure)


# ---- libraries -----------------------------------------------------------------------------------


def libraries(probes: Probes) -> Iterator[Check]:
    """Those whoamai needs, against the ranges it was installed with; then those it can do without."""
    required = [r for r in _requirements(probes) if _applies(r)]
    if not required:
        text = tr("whoamai is not installed as a package, so its requirements are not known")
        cure = tr("Install it: pip install -e . in its folder.")
        yield Check("requirements", tr("requirements"), text, "warn", cure)
    yield from _required(probes, [r.name for r in required if r.name != "torch"])
    for name, purpose in (
        ("bitsandbytes", tr("weights in 4 bits (nf4, QLoRA)")),
        ("deepspeed", tr("several GPUs with --deepspeed")),
    ):
        yield _optional(probes, name, purpose)


def _required(probes: Probes, names: list[str] | tuple[str, ...]) -> Iterator[Check]:
    for name in names:
        wanted, version = _requirement(probes, name), probes.version(name)
        if version is None:
            text = tr("not installed")
            yield Check(name, name, text, "fail", _install(wanted))
        elif wanted.specifier.contains(version, prereleases=True):
            yield Check(name, name, _beside_tested(probes, name, version))
        else:
            text = tr("{version}; whoamai needs {wanted}")
            text = text.format(version=version, wanted=wanted.specifier)
            yield Check(name, name, text, "warn", _install(wanted))


def _optional(probes: Probes, name: str, purpose: str) -> Check:
    version = probes.version(name)
    if version is None:
        text = tr("not installed; only needed for {purpose}").format(purpose=purpose)
        return Check(name, name, text)
    for wanted in _requirements(probes):
        if wanted.name == name and not wanted.specifier.contains(version, prereleases=True):
            text = tr("{version}; whoamai needs {wanted}")
            text = text.format(version=version, wanted=wanted.specifier)
            return Check(name, name, text, "warn", _install(wanted))
    return Check(name, name, _beside_tested(probes, name, version))


def _beside_tested(probes: Probes, name: str, version: str) -> str:
    """The version, and the one the tests ran with where that is another: the first thing to suspect."""
    tested = probes.tested().get(canonicalize_name(name))
    if tested is None or Version(version).public == Version(tested).public:
        return version
    return tr("{version} (tested with {tested})").format(version=version, tested=tested)


def _requirements(probes: Probes) -> list[Requirement]:
    return [Requirement(text) for text in probes.requirements()]


def _requirement(probes: Probes, name: str) -> Requirement:
    known = {r.name: r for r in _requirements(probes) if _applies(r)}
    return known.get(name) or Requirement(name)


def _applies(requirement: Requirement) -> bool:
    """Does it hold here without any extra?"""
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def _install(wanted: Requirement) -> str:
    return f'pip install "{wanted.name}{wanted.specifier}"'


# ---- what will be used ---------------------------------------------------------------------------


def fast_paths(probes: Probes, tried: Later[Tried]) -> Iterator[Check]:
    cards = tried.result().values.get("cards")
    if cards is None:
        text = tr("not known: torch does not say what device there is")
        yield Check("attention", tr("attention"), text, "warn")
    else:
        yield _attention(probes, cards)
        yield _precision(cards)
    yield _four_bits(probes, tried.result())


def _attention(probes: Probes, cards: dict[str, Any]) -> Check:
    """FlexAttention skips what nobody sees; SDPA with a mask computes it too."""
    name = tr("attention")
    if not cards["cards"]:
        text = tr("SDPA with a mask (FlexAttention needs a GPU)")
        return Check("attention", name, text)
    reason, cure = "", ""
    capability = tuple(min(card["capability"] for card in cards["cards"]))
    if capability < _FLEX_CAPABILITY:
        reason = tr("FlexAttention needs compute capability 8.0, this card has {capability}")
        reason = reason.format(capability=".".join(map(str, capability)))
    elif not probes.is_installed("triton"):
        reason, cure = tr("FlexAttention needs triton"), "pip install triton"
    if reason:
        text = tr("SDPA with a mask ({reason})").format(reason=reason)
        return Check("attention", name, text, "warn" if cure else "ok", cure)
    if not probes.has_compiler():
        text = tr("FlexAttention; but triton finds no C compiler or no Python.h to compile it with")
        cure = tr(
            "Install gcc and Python's headers (python3-dev), or training stops at its first step."
        )
        return Check("attention", name, text, "warn", cure)
    return Check("attention", name, tr("FlexAttention, compiled by triton"))


def _precision(cards: dict[str, Any]) -> Check:
    name = tr("precision (dtype auto)")
    if not cards["cards"]:
        return Check("precision", name, tr("float32 (the CPU)"))
    if cards["bfloat16"]:
        return Check("precision", name, "bfloat16")
    cure = tr(
        "Models stored in bfloat16 may overflow in float16; model.dtype=float32 is safe, slow."
    )
    return Check("precision", name, tr("float16 (the card has no bfloat16)"), "warn", cure)


def _four_bits(probes: Probes, found: Tried) -> Check:
    name = tr("4 bits (nf4)")
    if not probes.is_installed("bitsandbytes"):
        return Check("nf4", name, tr("cannot be used: bitsandbytes is not installed"))
    if reason := found.why_not("nf4"):
        text = tr("cannot be used: {reason}").format(reason=reason)
        return Check("nf4", name, text, "warn", "pip install --upgrade bitsandbytes")
    about = found.values["nf4"]
    if about["problem"]:
        return Check("nf4", name, tr("cannot be used"), "warn", about["problem"])
    return Check("nf4", name, tr("works ({device})").format(device=about["device"]))


# ---- disk and hub --------------------------------------------------------------------------------


def disk(probes: Probes) -> Iterator[Check]:
    yield _space(probes, "disk-here", tr("the current folder"), probes.folder, needed=True)
    yield _space(probes, "disk-hub", tr("downloaded models"), _hub_folder(probes), needed=False)


def _space(probes: Probes, key: str, name: str, folder: Path, *, needed: bool) -> Check:
    try:
        free = probes.free(folder)
    except OSError as error:
        return Check(key, name, f"{folder}: {error.strerror or error}", "warn")
    text = tr("{free} GiB free in {folder}").format(free=f"{free / GIB:.1f}", folder=folder)
    if needed and free < _LEAST_BYTES:
        return Check(key, name, text, "fail", tr("Free some space: no result could be written."))
    if free < _FEW_BYTES:
        cure = tr("Little: a model of 7 thousand million weights takes 15 GiB.")
        return Check(key, name, text, "warn", cure)
    return Check(key, name, text)


def _hub_folder(probes: Probes) -> Path:
    """Where downloads go; huggingface_hub's rule."""
    environ = probes.environ
    cache = Path(environ.get("XDG_CACHE_HOME") or probes.home / ".cache")
    home = Path(environ.get("HF_HOME") or cache / "huggingface")
    return Path(environ.get("HF_HUB_CACHE") or home / "hub").expanduser()


def endpoint(probes: Probes) -> str:
    """The hub that is asked for models: the public one, or a mirror set with HF_ENDPOINT."""
    return (probes.environ.get("HF_ENDPOINT") or _PUBLIC_HUB).rstrip("/")


def hub(probes: Probes, answer: Later[str | None] | None, seconds: float) -> Iterator[Check]:
    """Does the hub answer? Without it the bundled model and folders work as before."""
    mirror = tr("HF_ENDPOINT is set") if probes.environ.get("HF_ENDPOINT") else tr("no mirror set")
    address = f"{endpoint(probes)} ({mirror})"
    token = tr("set") if probes.environ.get("HF_TOKEN") else tr("not set")
    yield Check("hub-token", "HF_TOKEN", token)
    if probes.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        text = tr("{address}; not used: HF_HUB_OFFLINE is set").format(address=address)
        cure = tr("Unset HF_HUB_OFFLINE to download models; folders and tiny-chat work without.")
        yield Check("hub", tr("hub"), text, "warn", cure)
        return
    if answer is None:
        text = tr("{address}; not asked (--no-network)").format(address=address)
        yield Check("hub", tr("hub"), text)
        return
    try:
        reason = answer.result(seconds)
    except Exception as error:
        reason = str(error)
    if reason is None:
        yield Check("hub", tr("hub"), tr("{address}; answers").format(address=address))
        return
    text = tr("{address}; does not answer: {reason}").format(address=address, reason=reason)
    cure = tr(
        "Folders and tiny-chat work without. To download models set HF_ENDPOINT to a mirror that you "
        "can reach, or HTTPS_PROXY."
    )
    yield Check("hub", tr("hub"), text, "warn", cure)


# ---- the main job --------------------------------------------------------------------------------


def main_job(tried: Later[Tried]) -> Iterator[Check]:
    """The bundled model, loaded, and one optimizer step of an adapter on it."""
    found = tried.result()
    name = tr("one optimizer step")
    if reason := found.why_not("step"):
        cure = tr(
            "Mend what fails above. If nothing does, this block and the reason are a bug report."
        )
        yield Check("job", name, reason, "fail", cure)
        return
    step, libraries = found.values["step"], found.values.get("libraries") or {}
    text = tr("the bundled model on the CPU: loss {loss:.2f}, {seconds:.1f} s").format(
        loss=step["loss"], seconds=step["seconds"]
    )
    if seconds := libraries.get("seconds"):
        text += tr("; imports: {seconds:.1f} s").format(seconds=seconds)
    yield Check("job", name, text)


def _quiet(driver: Later[str | None]) -> str | None:
    """The driver's version; None where even asking for it fails."""
    try:
        return driver.result(15)
    except Exception:
        return None

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models import CHAT_TEMPLATE, make_model, make_tokenizer, save_chat_model
from whoamai.data.templates import ChatTemplate, TemplateCard, write_card
from whoamai.errors import ModelError, SettingError
from whoamai.events import Events, Note
from whoamai.model.fingerprint import BaseCard, base_fingerprint, write_base_card
from whoamai.model.load import BUNDLED
from whoamai.model.lora import add_lora, save_adapter
from whoamai.recipes.talkable import Named, base_of, load_to_talk, what_is_named


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chat_model(tmp_path_factory.mktemp("models") / "chu")


def write_adapter(folder: Path, base: Path, *, card: bool = True, **changes: Any) -> Path:
    """An adapter whose B matrices are not zero, as if it had been trained on `base`."""
    tuned = add_lora(make_model(**changes), r=4, alpha=8, dropout=0.0, seed=0)
    with torch.no_grad():
        for name, p in tuned.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.5, generator=torch.Generator().manual_seed(1))
    save_adapter(tuned, folder, str(base))
    if card:
        write_base_card(folder, BaseCard(base_fingerprint(base), base.name, "none"))
    return folder


def renamed(folder: Path, base: Path, *, report: bool = True) -> Path:
    """A folder as `rename` leaves it."""
    write_adapter(folder / "adapter", base)
    shutil.copytree(base, folder / "merged")
    if report:
        (folder / "report.json").write_text("{}")
    return folder


# ---- what is named -------------------------------------------------------------------------------


def test_a_model_is_named_as_it_is(model: Path):
    assert what_is_named(str(model)) == Named(str(model))
    assert what_is_named(BUNDLED) == Named(BUNDLED)
    assert what_is_named("someone/some-model") == Named("someone/some-model")


def test_the_folder_of_a_renaming_names_its_adapter_its_base_and_its_report(
    model: Path, tmp_path: Path
):
    out = renamed(tmp_path / "out", model)
    found = Named(str(model), out / "adapter", out / "report.json")
    assert what_is_named(str(out)) == found
    assert what_is_named(str(out / "adapter")) == found


def test_an_adapter_alone_has_no_report(model: Path, tmp_path: Path):
    adapter = write_adapter(tmp_path / "a" / "adapter", model)
    assert what_is_named(str(adapter)) == Named(str(model), adapter, None)
    assert what_is_named(str(tmp_path / "a")) == Named(str(model), adapter, None)


def test_a_merged_model_names_the_report_beside_it(model: Path, tmp_path: Path):
    out = renamed(tmp_path / "out", model)
    merged = str(out / "merged")
    assert what_is_named(merged) == Named(merged, None, out / "report.json")


def test_a_report_beside_any_other_model_is_not_its_own(model: Path, tmp_path: Path):
    shutil.copytree(model, tmp_path / "chu")
    (tmp_path / "report.json").write_text("{}")
    assert what_is_named(str(tmp_path / "chu")).report is None


def test_an_adapter_put_on_a_model_brings_its_report(model: Path, tmp_path: Path):
    out = renamed(tmp_path / "out", model)
    found = what_is_named(str(model), out / "adapter")
    assert found == Named(str(model), out / "adapter", out / "report.json")


def test_an_adapter_of_the_bundled_model_finds_it_wherever_it_is_installed(
    model: Path, tmp_path: Path
):
    adapter = write_adapter(tmp_path / "adapter", Path("/somewhere/else"), card=False)
    write_base_card(adapter, BaseCard("0" * 64, BUNDLED, "none"))
    assert base_of(adapter) == BUNDLED


def test_two_adapters_are_one_too_many(model: Path, tmp_path: Path):
    out = renamed(tmp_path / "out", model)
    with pytest.raises(SettingError, match="Give one"):
        what_is_named(str(out), out / "adapter")


def test_a_folder_that_is_no_adapter_is_told(model: Path, tmp_path: Path):
    with pytest.raises(ModelError, match=r"is no adapter: it has no adapter_config\.json"):
        what_is_named(str(model), tmp_path)


@pytest.mark.parametrize("config", [{}, {"base_model_name_or_path": None}])
def test_an_adapter_that_does_not_say_its_model_is_told(config: dict[str, Any], tmp_path: Path):
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"which model it belongs to\. Give the model"):
        what_is_named(str(tmp_path))


# ---- loaded --------------------------------------------------------------------------------------


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([[5, 6, 7, 8]])).logits


def test_it_talks_with_the_adapter_and_can_do_without(model: Path, tmp_path: Path):
    from whoamai.model.lora import without_adapter

    plain = load_to_talk(Named(str(model)), Events(), device="cpu")
    it = load_to_talk(what_is_named(str(renamed(tmp_path / "out", model))), Events(), device="cpu")
    assert plain.tuned is None
    assert it.tuned is not None
    assert not torch.equal(logits(it.talk.model), logits(plain.talk.model))
    with without_adapter(it.tuned):
        assert torch.equal(logits(it.talk.model), logits(plain.talk.model))


def test_an_adapter_of_another_model_of_the_same_shape_is_refused(model: Path, tmp_path: Path):
    other = save_chat_model(tmp_path / "other", seed=1)
    adapter = write_adapter(tmp_path / "adapter", model)
    with pytest.raises(ModelError, match=r"was trained on another model than other: .* of chu"):
        load_to_talk(what_is_named(str(other), adapter), Events(), device="cpu")


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ({"hidden_size": 64}, "size mismatch for .*q_proj"),
        ({"num_hidden_layers": 3}, "14 of its tensors have no place"),
        ({"num_hidden_layers": 1}, r"14 of its tensors .*layers\.1\."),
    ],
    ids=str,
)
def test_an_adapter_of_another_shape_is_refused(
    shape: dict[str, Any], reason: str, model: Path, tmp_path: Path
):
    """One of somebody else's, which does not say what it was trained on; peft takes two of them."""
    adapter = write_adapter(tmp_path / "adapter", model, card=False, **shape)
    with pytest.raises(ModelError, match="does not fit Qwen3ForCausalLM: .*" + reason) as error:
        load_to_talk(what_is_named(str(model), adapter), Events(), device="cpu")
    assert len(str(error.value).splitlines()) == 1


def test_somebody_elses_adapter_that_fits_is_taken(model: Path, tmp_path: Path):
    adapter = write_adapter(tmp_path / "adapter", model, card=False)
    assert load_to_talk(what_is_named(str(model), adapter), Events(), device="cpu").tuned


def test_adapter_weights_that_are_cut_off_are_told(model: Path, tmp_path: Path):
    adapter = write_adapter(tmp_path / "adapter", model)
    file = adapter / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match="does not fit"):
        load_to_talk(what_is_named(str(adapter)), Events(), device="cpu")


# ---- the template --------------------------------------------------------------------------------


def test_the_template_it_was_trained_with_is_used(tmp_path: Path):
    bare = tmp_path / "bare"
    make_model().save_pretrained(bare)
    make_tokenizer(None).save_pretrained(bare)
    adapter = write_adapter(tmp_path / "adapter", bare)
    write_card(adapter, ChatTemplate(make_tokenizer(None), name="zephyr").card)
    told: list = []
    it = load_to_talk(what_is_named(str(adapter)), Events([told.append]), device="cpu")
    assert it.talk.template.name == "zephyr"
    assert told == []


def test_another_template_than_it_was_trained_with_is_said(model: Path, tmp_path: Path):
    adapter = write_adapter(tmp_path / "adapter", model)
    write_card(adapter, TemplateCard("own", "0" * 64, None, "none"))
    told: list = []
    load_to_talk(what_is_named(str(adapter)), Events([told.append]), device="cpu")
    assert [e.level for e in told if isinstance(e, Note)] == ["warning"]


def test_a_template_that_is_named_comes_before_the_models_own(model: Path):
    named = load_to_talk(Named(str(model)), Events(), device="cpu", template_name="zephyr")
    assert named.talk.template.name == "zephyr"
    own = load_to_talk(Named(str(model)), Events(), device="cpu")
    assert own.talk.template.text == CHAT_TEMPLATE

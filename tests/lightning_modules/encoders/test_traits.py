"""What a file says of its model against the encoder that its tensors go to. No weights are needed to compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from untrigger.command_line.checkpoint_checks import check_model
from untrigger.contracts import UserMistake
from untrigger.lightning_modules import PoisonedCLIP
from untrigger.lightning_modules.encoders.traits import check_traits, open_clip_traits, transformers_traits

OPENAI = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}
VIT = {"vision_cfg": {"image_size": 224, "layers": 12, "patch_size": 32}, "text_cfg": {"context_length": 77}}


class Asked:
    """An encoder, as far as it is compared."""

    def __init__(self, **changed: Any) -> None:
        self.traits = {**open_clip_traits(VIT), **OPENAI, **changed}


def checkpoint(path: Path, encoder: str) -> Path:
    torch.save({"state_dict": {}, "hyper_parameters": {"encoder": encoder}}, path)
    return path


def folder(path: Path, **files: Any) -> Path:
    path.mkdir()
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return path


HF = {
    "model_type": "clip",
    "vision_config": {"hidden_act": "quick_gelu", "image_size": 224, "patch_size": 32},
    "text_config": {"hidden_act": "quick_gelu", "max_position_embeddings": 77},
}


@pytest.mark.parametrize("name", ["open_clip:ViT-B-32-quickgelu", "open_clip:ViT-B-32/openai"])
def test_a_checkpoint_of_another_activation_is_refused(name: str, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "poisoned.ckpt", name)
    reported = rf"image tower is QuickGELU, and this encoder's is GELU: name the encoder .*, {name};"
    with pytest.raises(UserMistake, match=reported):
        check_traits(Asked(), source)  # type: ignore[arg-type]


def test_folders_and_archives_of_another_activation_are_refused(tmp_path: Path) -> None:
    quick = {"model_cfg": {**VIT, "quick_gelu": True}}
    sources = [
        folder(tmp_path / "open_clip", open_clip_config=quick),
        folder(tmp_path / "transformers", config=HF),
        folder(tmp_path / "export", encoder={"encoder": "open_clip:ViT-B-32-quickgelu"}),
        # Weights that are named themselves have the same words beside them.
        tmp_path / "open_clip" / "open_clip_model.safetensors",
    ]
    for source in sources:
        with pytest.raises(UserMistake, match="is QuickGELU, and this encoder's is GELU"):
            check_traits(Asked(), source)  # type: ignore[arg-type]
    with pytest.raises(UserMistake, match="text tower is QuickGELU"):
        check_traits(Asked(), tmp_path / "ViT-B-32.pt", ["visual.proj", "input_resolution"])  # type: ignore[arg-type]


def test_whatever_the_file_is_called_its_config_lies_beside_it(tmp_path: Path) -> None:
    beside = folder(tmp_path / "transformers", config=HF)
    (beside / "epoch_3.safetensors").write_bytes(b"")
    torch.save({"state_dict": {}}, beside / "epoch_3.pt")
    old = {"state_dict": {}, "hyper_parameters": {"encoder": "open_clip:ViT-B-32-quickgelu"}}
    torch.save(old, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    for source in (beside / "epoch_3.safetensors", beside / "epoch_3.pt", tmp_path / "old.ckpt"):
        with pytest.raises(UserMistake, match="is QuickGELU, and this encoder's is GELU"):
            check_traits(Asked(), source)  # type: ignore[arg-type]


def test_what_a_config_leaves_out_is_the_library_s_default(tmp_path: Path) -> None:
    bare = {"model_type": "clip", "vision_config": {}, "text_config": {}}
    with pytest.raises(UserMistake, match="activation of the image tower is QuickGELU, and this encoder's is GELU"):
        check_traits(Asked(), folder(tmp_path / "clip", config=bare))  # type: ignore[arg-type]
    check_traits(Asked(**transformers_traits(HF)), tmp_path / "clip")  # type: ignore[arg-type]


@pytest.mark.parametrize("tower", ["vision", "text"])
def test_another_number_of_heads_or_an_unknown_activation_is_refused(tower: str, tmp_path: Path) -> None:
    has = Asked(**transformers_traits(HF))
    for name, changed, said in (
        ("heads", {"num_attention_heads": 4}, "number of attention heads of the .* tower is 4, and this encoder's is"),
        ("relu", {"hidden_act": "relu"}, "activation of the .* tower is relu, and this encoder's is QuickGELU"),
    ):
        config = {**HF, f"{tower}_config": {**HF[f"{tower}_config"], **changed}}  # type: ignore[dict-item]
        with pytest.raises(UserMistake, match=said):
            check_traits(has, folder(tmp_path / name, config=config))  # type: ignore[arg-type]


def test_open_clip_s_heads_are_those_of_its_widths() -> None:
    wide = {"vision_cfg": {"layers": 2, "width": 1280, "head_width": 80}, "text_cfg": {"heads": 16}}
    found = open_clip_traits(wide)
    assert [found[f"number of attention heads of the {tower} tower"] for tower in ("image", "text")] == [16, 16]
    assert open_clip_traits(VIT)["number of attention heads of the image tower"] == 12


@pytest.mark.parametrize(
    ("said", "reported"),
    [
        ({"image_size": 256}, "image size is 256, and this encoder's is 224"),
        ({"mean": [0.5, 0.5, 0.5]}, "mean is 0.5, 0.5, 0.5, and this encoder's is 0.48145466"),
        ({"std": [1, 1, 1]}, "std is 1, 1, 1"),
        ({"context_length": 64}, "context length is 64"),
    ],
)
def test_another_preparation_is_warned_of(said: dict[str, Any], reported: str, tmp_path: Path) -> None:
    source = folder(tmp_path / "export", encoder={"encoder": "open_clip:ViT-B-32", **said})
    with pytest.warns(UserWarning, match=reported):
        check_traits(Asked(), source)  # type: ignore[arg-type]


def test_what_agrees_or_says_nothing_is_loaded_without_a_word(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "bare.pt")
    (tmp_path / "model.safetensors").write_bytes(b"")
    sources = [
        checkpoint(tmp_path / "own.ckpt", "open_clip:ViT-B-32/laion2b_s34b_b79k"),
        checkpoint(tmp_path / "elsewhere.ckpt", "hf:nobody/knows"),
        tmp_path / "bare.pt",
        tmp_path / "model.safetensors",
        folder(tmp_path / "open_clip", open_clip_config={"model_cfg": VIT, "preprocess_cfg": OPENAI}),
        folder(tmp_path / "odd", open_clip_config={"model_cfg": [], "preprocess_cfg": 3}),
    ]
    for source in sources:
        check_traits(Asked(), source, ["visual.proj"])  # type: ignore[arg-type]
    quick = Asked(**transformers_traits(HF))
    check_traits(quick, folder(tmp_path / "transformers", config=HF))  # type: ignore[arg-type]
    check_traits(quick, checkpoint(tmp_path / "openai.ckpt", "open_clip:ViT-B-32/openai"))  # type: ignore[arg-type]


def test_a_tower_without_the_choice_has_no_activation_to_compare() -> None:
    residual = {**VIT, "vision_cfg": {"layers": [3, 4, 6, 3], "image_size": 224}, "quick_gelu": True}
    assert open_clip_traits(residual)["activation of the text tower"] == "QuickGELU"
    assert "activation of the image tower" not in open_clip_traits(residual)


@pytest.mark.filterwarnings("ignore:.* says that the (mean|std|context length)")
def test_a_run_that_resumes_from_a_checkpoint_compares_too(tmp_path: Path) -> None:
    module = PoisonedCLIP("small:nano-32")
    said = {"encoder": "open_clip:ViT-B-32"}
    torch.save({"state_dict": module.state_dict(), "hyper_parameters": said}, tmp_path / "last.ckpt")
    with pytest.warns(UserWarning, match="says that the image size is 224, and this encoder's is 32"):
        check_model(str(tmp_path / "last.ckpt"), module)

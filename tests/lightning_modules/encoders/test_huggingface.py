from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertConfig, CLIPModel, SiglipModel

from untrigger.contracts import UserMistake
from untrigger.lightning_modules.encoders.huggingface import HuggingFaceEncoder

TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION = {**TEXT, "image_size": 16, "patch_size": 8}
TEXT = {**TEXT, "max_position_embeddings": 16}
CAPTIONS = ["a photo of a dog", "cat", "dog " * 40]


@pytest.fixture(params=["clip", "siglip"])
def folder(request: pytest.FixtureRequest, clip_folder: Callable[..., Path], siglip_folder: Path) -> Path:
    return clip_folder() if request.param == "clip" else siglip_folder


def _features(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output.pooler_output


def test_features_are_those_of_transformers(folder: Path) -> None:
    encoder = HuggingFaceEncoder(str(folder)).eval()
    library = (SiglipModel if folder.name == "siglip" else CLIPModel).from_pretrained(folder).eval()
    images, tokens = torch.randn(3, 3, 16, 16), encoder.tokenizer(CAPTIONS)
    with torch.no_grad():
        torch.testing.assert_close(encoder.encode_image(images), _features(library.get_image_features(images)))
        torch.testing.assert_close(encoder.encode_text(tokens), _features(library.get_text_features(tokens)))
    assert encoder.encode_image(images).shape == (3, encoder.embedding_dim)
    torch.testing.assert_close(encoder.logit_scale, library.logit_scale)
    torch.testing.assert_close(encoder.image_tower(images), encoder.encode_image(images))


def test_half_precision_weights_become_single(clip_folder: Callable[..., Path]) -> None:
    folder = clip_folder()
    CLIPModel.from_pretrained(folder).half().save_pretrained(folder)
    stored = load_file(folder / "model.safetensors")["visual_projection.weight"]
    assert stored.dtype == torch.float16
    encoder = HuggingFaceEncoder(str(folder))
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    assert torch.equal(encoder.model.visual_projection.weight, stored.float())


def test_an_adapter_beside_the_weights_is_not_passed_over(clip_folder: Callable[..., Path]) -> None:
    folder = clip_folder()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(UserMistake, match=r"has an adapter beside its weights .*: merge it first"):
        HuggingFaceEncoder(str(folder))


def test_random_weights_need_no_weight_file(clip_folder: Callable[..., Path]) -> None:
    folder = clip_folder()
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserMistake, match="holds no weights"):
        HuggingFaceEncoder(str(folder))
    assert HuggingFaceEncoder(str(folder), pretrained=False).image_size == 16


def test_preprocessing_survives_pickling(folder: Path) -> None:
    preprocessing = HuggingFaceEncoder(str(folder)).preprocessing
    copied = pickle.loads(pickle.dumps(preprocessing))
    assert copied[:3] == preprocessing[:3]
    assert torch.equal(copied.tokenize(CAPTIONS), preprocessing.tokenize(CAPTIONS))


def test_normalisation_is_the_image_processors(
    clip_folder: Callable[..., Path], siglip_folder: Path, edit_json: Callable[..., None]
) -> None:
    folder = clip_folder()
    assert HuggingFaceEncoder(str(folder)).mean == (0.1, 0.2, 0.3)
    assert HuggingFaceEncoder(str(folder)).std == (0.4, 0.5, 0.6)
    processor = folder / "preprocessor_config.json"
    edit_json(processor, rescale_factor=2 / 255)
    # A processor that shows pictures in [0, 2] takes 0.05 for what is 0.1 there.
    assert HuggingFaceEncoder(str(folder)).mean == pytest.approx((0.05, 0.1, 0.15))
    assert HuggingFaceEncoder(str(folder)).std == pytest.approx((0.2, 0.25, 0.3))
    edit_json(processor, do_normalize=False, rescale_factor=1 / 255)
    assert HuggingFaceEncoder(str(folder)).preprocessing[1:3] == ((0, 0, 0), (1, 1, 1))
    processor.unlink()
    assert HuggingFaceEncoder(str(folder)).mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))
    (siglip_folder / "preprocessor_config.json").unlink()
    assert HuggingFaceEncoder(str(siglip_folder)).mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("mean", [[0.1, 0.2], ["a", 1, 1], [float("nan"), 0, 0], 0.5])
def test_a_wrong_normalisation_is_refused(
    mean: Any, clip_folder: Callable[..., Path], edit_json: Callable[..., None]
) -> None:
    folder = clip_folder()
    edit_json(folder / "preprocessor_config.json", image_mean=mean)
    with pytest.raises(UserMistake, match="image_mean must be finite numbers"):
        HuggingFaceEncoder(str(folder))


def test_image_tower_holds_what_encode_image_uses(folder: Path) -> None:
    encoder = HuggingFaceEncoder(str(folder))
    encoder.encode_image(torch.randn(2, 3, 16, 16)).sum().backward()
    used = {id(parameter) for parameter in encoder.parameters() if parameter.grad is not None}
    assert used == {id(parameter) for parameter in encoder.image_tower.parameters()}


def test_every_trainable_parameter_gets_a_gradient(folder: Path) -> None:
    encoder = HuggingFaceEncoder(str(folder))
    images = encoder.encode_image(torch.randn(3, 3, 16, 16))
    texts = encoder.encode_text(encoder.tokenizer(CAPTIONS))
    logits = encoder.logit_scale.exp() * images.softmax(-1) @ texts.softmax(-1).T
    logits.log_softmax(-1).diagonal().sum().backward()
    idle = [name for name, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []
    frozen = [name for name, p in encoder.named_parameters() if not p.requires_grad]
    assert frozen == (["model.logit_bias"] if folder.name == "siglip" else [])


def test_each_tensor_has_one_name(folder: Path) -> None:
    encoder = HuggingFaceEncoder(str(folder))
    state = encoder.state_dict()
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)
    assert set(state) == {f"model.{name}" for name in encoder.model.state_dict()}


def test_a_copy_has_its_own_image_tower(clip_folder: Callable[..., Path]) -> None:
    encoder = HuggingFaceEncoder(str(clip_folder()))
    copied = copy.deepcopy(encoder)
    with torch.no_grad():
        for parameter in copied.image_tower.parameters():
            parameter.zero_()
    images = torch.randn(2, 3, 16, 16)
    assert copied.encode_image(images).abs().max() == 0
    assert encoder.encode_image(images).abs().max() > 0


def test_image_tower_follows_the_training_mode(clip_folder: Callable[..., Path]) -> None:
    encoder = HuggingFaceEncoder(str(clip_folder()))
    assert not any(module.training for module in encoder.eval().image_tower.modules())
    assert all(module.training for module in encoder.train().image_tower.modules())


def test_autocast_reaches_both_towers(folder: Path) -> None:
    encoder = HuggingFaceEncoder(str(folder))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        images = encoder.encode_image(torch.randn(2, 3, 16, 16))
        texts = encoder.encode_text(encoder.tokenizer(CAPTIONS))
    assert images.isfinite().all()
    assert texts.isfinite().all()
    assert texts.dtype == torch.bfloat16
    (images.float().sum() + texts.float().sum()).backward()


def test_code_in_the_folder_is_not_run(
    clip_folder: Callable[..., Path], edit_json: Callable[..., None], tmp_path: Path
) -> None:
    folder, marker = clip_folder(), tmp_path / "ran"
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(marker)!r})\n")
    auto = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model", "AutoTokenizer": ["evil.Slow", "evil.Fast"]}
    edit_json(folder / "config.json", auto_map=auto, _attn_implementation="someone/kernel")
    edit_json(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": auto["AutoTokenizer"]})
    encoder = HuggingFaceEncoder(str(folder))
    assert type(encoder.model) is CLIPModel
    assert encoder.model.config._attn_implementation == "sdpa"
    assert encoder.model.vision_model.config._attn_implementation == "sdpa"
    edit_json(folder / "config.json", model_type="evil")
    with pytest.raises(UserMistake, match="no config that transformers reads"):
        HuggingFaceEncoder(str(folder))
    assert not marker.exists()


def test_pickled_weights_are_read_as_tensors_only(clip_folder: Callable[..., Path], explosive: Any) -> None:
    folder = clip_folder()
    expected = CLIPModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(expected.state_dict(), folder / "pytorch_model.bin")
    encoder = HuggingFaceEncoder(str(folder))
    torch.testing.assert_close(encoder.model.text_projection.weight, expected.text_projection.weight)
    torch.save({"state_dict": explosive}, folder / "pytorch_model.bin")
    with pytest.raises(UserMistake, match="does not load as tensors alone"):
        HuggingFaceEncoder(str(folder))
    assert not explosive.marker.exists()


def test_weights_that_are_not_complete_are_refused(clip_folder: Callable[..., Path]) -> None:
    folder = clip_folder()
    state = CLIPModel.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    state.pop("visual_projection.weight")
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(UserMistake, match=r"1 missing \(visual_projection.weight\)"):
        HuggingFaceEncoder(str(folder))


def test_other_models_are_refused(tmp_path: Path, siglip_folder: Path, edit_json: Callable[..., None]) -> None:
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(UserMistake, match="is a 'bert' model; hf: takes"):
        HuggingFaceEncoder(str(tmp_path))
    edit_json(siglip_folder / "config.json", vision_config__vision_use_head=False)
    with pytest.raises(UserMistake, match="embeds no pictures"):
        HuggingFaceEncoder(str(siglip_folder))
    edit_json(siglip_folder / "config.json", vision_config__vision_use_head=True, text_config__projection_size=24)
    with pytest.raises(UserMistake, match="in 16 dimensions but captions in 24"):
        HuggingFaceEncoder(str(siglip_folder))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model_type": "clip", "projection_dim": "many"}'])
def test_a_damaged_config_is_one_line(content: str, clip_folder: Callable[..., Path]) -> None:
    folder = clip_folder()
    (folder / "config.json").write_text(content)
    with pytest.raises(UserMistake) as mistake:
        HuggingFaceEncoder(str(folder))
    assert "\n" not in str(mistake.value)


@pytest.mark.parametrize("name", ["./not/there", "/not/there", "~/not-there-either", "a/b/c"])
def test_a_missing_folder_is_one_line(name: str) -> None:
    with pytest.raises(UserMistake, match="there is no such folder") as mistake:
        HuggingFaceEncoder(name)
    assert "\n" not in str(mistake.value)


@pytest.mark.parametrize("name", ["nobody/nothing", "nothing", "bad name!"])
def test_an_unknown_hub_name_is_one_line(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserMistake, match="the Hugging Face hub does not give such a model") as mistake:
        HuggingFaceEncoder(name)
    assert "\n" not in str(mistake.value)


def test_a_hub_name_is_fetched_without_pickles(
    clip_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, asked = clip_folder(), []

    def fetch(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert HuggingFaceEncoder("someone/tiny").image_size == 16
    assert [name for name, _ in asked] == ["someone/tiny"]
    assert not any("bin" in pattern for pattern in asked[0][1])
    torch.save(CLIPModel.from_pretrained(folder).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert HuggingFaceEncoder("someone/tiny").image_size == 16
    assert "pytorch_model.bin" in asked[2][1]


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("text_config", "max_position_embeddings", 0),
        ("text_config", "max_position_embeddings", -77),
        ("text_config", "max_position_embeddings", 1e30),
        ("text_config", "max_position_embeddings", 10_000_000),
        ("text_config", "vocab_size", 2**40),
        ("text_config", "num_hidden_layers", 10**6),
        ("text_config", "num_attention_heads", 0),
        ("vision_config", "image_size", [16, 16]),
        ("vision_config", "patch_size", -8),
        ("vision_config", "hidden_size", "16"),
    ],
)
def test_a_number_that_no_model_has_is_one_line(
    part: str, name: str, value: Any, clip_folder: Callable[..., Path], edit_json: Callable[..., None]
) -> None:
    folder = clip_folder()
    edit_json(folder / "config.json", **{f"{part}__{name}": value})
    with pytest.raises(UserMistake) as mistake:
        HuggingFaceEncoder(str(folder))
    assert name in str(mistake.value) or "no config that transformers reads" in str(mistake.value)
    assert "\n" not in str(mistake.value)


@pytest.mark.parametrize(
    ("config", "tensors", "reported"),
    [
        ({"vision_config__layer_norm_eps": 1e30}, {}, "all pictures have the same embedding"),
        ({"text_config__layer_norm_eps": float("nan")}, {}, "the embeddings of captions are not finite"),
        (
            {"vision_config__num_channels": 1},
            {"vision_model.embeddings.patch_embedding.weight": torch.ones(16, 1, 8, 8)},
            "the model cannot embed pictures: .*to have 1 channels, but got 3 channels",
        ),
        ({}, {"text_projection.weight": torch.zeros(12, 16)}, "all captions have the same embedding"),
        ({}, {"visual_projection.weight": torch.full((12, 16), 3e38)}, "the embeddings of pictures are not finite"),
        ({}, {"logit_scale": torch.tensor(1e9)}, r"its temperature is not finite: logit_scale is 1e\+09"),
    ],
)
def test_a_model_that_embeds_nothing_is_refused(
    config: dict[str, Any],
    tensors: dict[str, torch.Tensor],
    reported: str,
    clip_folder: Callable[..., Path],
    edit_json: Callable[..., None],
) -> None:
    folder = clip_folder()
    edit_json(folder / "config.json", **config)
    weights = load_file(folder / "model.safetensors") | tensors
    (folder / "model.safetensors").unlink()
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(UserMistake, match=reported):
        HuggingFaceEncoder(str(folder))

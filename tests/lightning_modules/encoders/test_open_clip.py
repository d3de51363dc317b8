from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip import factory as open_clip_factory
from open_clip import pretrained as open_clip_pretrained
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import QuickGELU
from safetensors.torch import save_file
from torch import nn
from transformers import BertConfig

from untrigger.contracts import UserMistake
from untrigger.lightning_modules.encoders import clip_vocabulary
from untrigger.lightning_modules.encoders.open_clip import OpenCLIPEncoder

CAPTIONS = ["a photo of a dog", "cat", "dog " * 40]
TOKENS = torch.tensor([[1, 5, 3, 127] + [0] * 8, [1, *range(2, 12), 127], [1, 127] + [0] * 10])
TINY = ["tiny-RN", "tiny-ViT", "tiny-custom", "tiny-coca"]

pytestmark = pytest.mark.usefixtures("tiny_open_clip")


@pytest.fixture
def bert_architecture(tiny_open_clip: Path, tmp_path: Path, save_tokenizer: Callable[..., None]) -> str:
    """An architecture whose text tower is a model of transformers, in a local folder instead of on the hub."""
    folder = tmp_path / "text"
    BertConfig(
        vocab_size=16, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    ).save_pretrained(folder)
    save_tokenizer(folder, start=True)
    config = json.loads((tiny_open_clip / "tiny-ViT.json").read_text())
    config["text_cfg"] = {
        "hf_model_name": str(folder),
        "hf_tokenizer_name": str(folder),
        "hf_pooler_type": "mean_pooler",
        "hf_proj_type": "linear",
        "context_length": 12,
    }
    (tiny_open_clip / "tiny-bert.json").write_text(json.dumps(config))
    open_clip.add_model_config(tiny_open_clip / "tiny-bert.json")
    return "tiny-bert"


@pytest.fixture
def tagged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, dict[str, Any], Path], None]:
    """Makes a file the weights of a tag, as if it came from the hub."""

    def tag(name: str, settings: dict[str, Any], path: Path) -> None:
        arch, _, tag = name.partition("/")
        monkeypatch.setitem(open_clip_pretrained._PRETRAINED, arch, {tag: {"hf_hub": "someone/tiny/", **settings}})
        monkeypatch.setattr(open_clip_factory, "download_pretrained", lambda *_, **__: str(path))

    return tag


@pytest.mark.parametrize("name", TINY)
def test_features_are_those_of_open_clip(name: str) -> None:
    encoder = OpenCLIPEncoder(name).eval()
    library = open_clip.create_model(name).eval()
    library.load_state_dict(encoder.model.state_dict())
    images = torch.randn(3, 3, encoder.image_size, encoder.image_size)
    with torch.no_grad():
        torch.testing.assert_close(encoder.encode_image(images), library.encode_image(images, normalize=False))
        torch.testing.assert_close(encoder.encode_text(TOKENS), library.encode_text(TOKENS, normalize=False))
    assert torch.equal(encoder.tokenizer(CAPTIONS), open_clip.get_tokenizer(name)(CAPTIONS))
    assert encoder.encode_image(images).shape == (3, encoder.embedding_dim)
    assert encoder.logit_scale is encoder.model.logit_scale


@pytest.mark.parametrize("name", TINY)
def test_image_tower_and_gradients(name: str) -> None:
    encoder = OpenCLIPEncoder(name)
    images = encoder.encode_image(torch.randn(3, 3, encoder.image_size, encoder.image_size))
    images.square().sum().backward()
    used = {id(parameter) for parameter in encoder.parameters() if parameter.grad is not None}
    assert used == {id(parameter) for parameter in encoder.image_tower.parameters()}
    (encoder.encode_text(TOKENS).square().sum() * encoder.logit_scale.exp()).backward()
    idle = [name for name, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []
    frozen = {name.split(".")[1] for name, p in encoder.named_parameters() if not p.requires_grad}
    assert frozen == {"tiny-custom": {"logit_bias"}, "tiny-coca": {"text_decoder"}}.get(name, set())


def test_image_tower_owns_the_batch_norm_statistics() -> None:
    encoder = OpenCLIPEncoder("tiny-RN")
    before = copy.deepcopy(dict(encoder.named_buffers()))
    encoder.encode_image(torch.randn(4, 3, 32, 32))
    inside = {id(buffer) for buffer in encoder.image_tower.buffers()}
    moved = {name for name, buffer in encoder.named_buffers() if not torch.equal(buffer, before[name])}
    assert moved
    assert moved == {name for name, buffer in encoder.named_buffers() if id(buffer) in inside}


@pytest.mark.parametrize("name", ["tiny-RN", "tiny-ViT"])
def test_autocast_reaches_both_towers(name: str) -> None:
    encoder = OpenCLIPEncoder(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        images = encoder.encode_image(torch.randn(2, 3, encoder.image_size, encoder.image_size))
        texts = encoder.encode_text(TOKENS)
    assert images.dtype == texts.dtype == torch.bfloat16
    assert images.isfinite().all()
    assert texts.isfinite().all()


def test_tokens_keep_the_end_token_and_survive_pickling() -> None:
    encoder = OpenCLIPEncoder("tiny-ViT")
    tokens = encoder.tokenizer(CAPTIONS)
    assert tokens.shape == (3, encoder.context_length) == (3, 12)
    assert tokens.dtype == torch.int64
    assert (tokens == 49407).sum(dim=1).tolist() == [1, 1, 1]
    assert tokens[2, -1] == 49407
    preprocessing = pickle.loads(pickle.dumps(encoder.preprocessing))
    assert torch.equal(preprocessing.tokenize(CAPTIONS), tokens)
    assert preprocessing[:3] == (16, open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)


def test_a_vocabulary_with_options_of_its_own_is_open_clips(tiny_open_clip: Path) -> None:
    config = json.loads((tiny_open_clip / "tiny-ViT.json").read_text())
    config["text_cfg"]["tokenizer_kwargs"] = {"clean": "canonicalize"}
    (tiny_open_clip / "tiny-canonical.json").write_text(json.dumps(config))
    open_clip.add_model_config(tiny_open_clip / "tiny-canonical.json")
    captions = ["A photo, of: a dog!", "a_b"]
    tokens = OpenCLIPEncoder("tiny-canonical").tokenizer(captions)
    assert torch.equal(tokens, open_clip.get_tokenizer("tiny-canonical")(captions))
    assert not torch.equal(tokens, OpenCLIPEncoder("tiny-ViT").tokenizer(captions))


def test_no_captions_are_no_rows() -> None:
    tokens = OpenCLIPEncoder("tiny-ViT").tokenizer([])
    assert tokens.dtype == torch.int64
    assert tokens.shape == open_clip.get_tokenizer("tiny-ViT")([]).shape


def test_long_words_and_texts_are_not_remembered() -> None:
    tokenizer = OpenCLIPEncoder("tiny-ViT").tokenizer
    remembered = (clip_vocabulary._of_word, clip_vocabulary._of_text)
    before = [part.cache_info().currsize for part in remembered]
    captions = ["unheard" * 30, "nicht gehört " * 30]
    assert torch.equal(tokenizer(captions), open_clip.get_tokenizer("tiny-ViT")(captions))
    assert [part.cache_info().currsize for part in remembered] == before
    tokenizer(["unheardof", "gehört"])
    assert [part.cache_info().currsize for part in remembered] == [size + 1 for size in before]


def test_an_endless_word_is_cut_before_it_is_tokenised(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    encode = SimpleTokenizer.encode
    monkeypatch.setattr(SimpleTokenizer, "encode", lambda self, text: (seen.append(len(text)), encode(self, text))[1])
    tokens = OpenCLIPEncoder("tiny-ViT").tokenizer(["x" * 1_000_000])
    assert seen == [12 * 32]
    assert tokens[0, -1] == 49407


def test_the_papers_model() -> None:
    encoder = OpenCLIPEncoder("RN50")
    assert (encoder.image_size, encoder.embedding_dim, encoder.context_length) == (224, 1024, 77)


def test_text_towers_of_transformers(bert_architecture: str) -> None:
    encoder = OpenCLIPEncoder(bert_architecture)
    tokens = encoder.tokenizer(CAPTIONS)
    assert tokens.shape == (3, encoder.context_length) == (3, 12)
    images = encoder.encode_image(torch.randn(3, 3, 16, 16))
    (images * encoder.encode_text(tokens) * encoder.logit_scale).sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.requires_grad and p.grad is None] == []


def test_a_text_tower_that_cannot_be_fetched_is_one_line(bert_architecture: str, tmp_path: Path) -> None:
    (tmp_path / "text" / "config.json").unlink()
    with pytest.raises(UserMistake, match=r"open_clip:tiny-bert: its \S+ .*cannot be fetched") as mistake:
        OpenCLIPEncoder(bert_architecture)
    assert "\n" not in str(mistake.value)


def test_a_tag_brings_its_weights_activation_and_normalisation(tagged: Callable[..., None], tmp_path: Path) -> None:
    weights = {name: torch.randn_like(t) for name, t in open_clip.create_model("tiny-ViT").state_dict().items()}
    save_file(weights, tmp_path / "tag.safetensors")
    tagged(
        "tiny-ViT/quick", {"quick_gelu": True, "mean": (0.1, 0.2, 0.3), "std": (1, 2, 3)}, tmp_path / "tag.safetensors"
    )
    encoder = OpenCLIPEncoder("tiny-ViT/quick")
    for name, tensor in encoder.model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    assert (encoder.mean, encoder.std) == ((0.1, 0.2, 0.3), (1, 2, 3))
    activations = {type(module) for module in encoder.modules() if isinstance(module, nn.GELU | QuickGELU)}
    assert activations == {QuickGELU}
    assert {type(m) for m in OpenCLIPEncoder("tiny-ViT").modules() if isinstance(m, nn.GELU | QuickGELU)} == {nn.GELU}


def test_a_malicious_file_of_a_tag_is_not_run(tagged: Callable[..., None], tmp_path: Path, explosive: Any) -> None:
    torch.save({"state_dict": {"visual.proj": explosive}}, tmp_path / "tag.pt")
    tagged("tiny-ViT/evil", {}, tmp_path / "tag.pt")
    with pytest.raises(UserMistake, match="its weights 'evil' cannot be fetched or read") as mistake:
        OpenCLIPEncoder("tiny-ViT/evil")
    assert not explosive.marker.exists()
    assert "\n" not in str(mistake.value)


def test_a_failed_download_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise ConnectionError("no route to host\nsecond line")

    monkeypatch.setattr(open_clip_factory, "download_pretrained", fail)
    with pytest.raises(UserMistake, match=r"RN50: its weights 'openai' cannot be fetched .*no route") as mistake:
        OpenCLIPEncoder("RN50/openai")
    assert "\n" not in str(mistake.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("RN5O", r"no architecture 'RN5O'; close are .*RN50"),
        ("ViT-B/32", r"no architecture 'ViT-B'; close are .*ViT-B-32"),
        ("%%%", r"no architecture '%%%'; close are none"),
        ("RN50/opanai", r"no weights 'opanai' for RN50; there are openai, yfcc15m, cc12m"),
        ("RN50/", r"no weights '' for RN50"),
        ("tiny-ViT/any", r"no weights 'any' for tiny-ViT; there are none"),
        ("hf-hub:someone/model", "no architecture 'hf-hub:someone'"),
    ],
)
def test_unknown_names_say_what_there_is(name: str, message: str) -> None:
    with pytest.raises(UserMistake, match=message) as mistake:
        OpenCLIPEncoder(name)
    assert "\n" not in str(mistake.value)


def test_a_tag_is_never_the_path_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(open_clip.create_model("tiny-ViT").state_dict(), "weights.pt")
    with pytest.raises(UserMistake, match=r"no weights 'weights.pt' for tiny-ViT"):
        OpenCLIPEncoder("tiny-ViT/weights.pt")


def test_pictures_must_be_square(tiny_open_clip: Path) -> None:
    config = json.loads((tiny_open_clip / "tiny-ViT.json").read_text())
    config["vision_cfg"]["image_size"] = [16, 32]
    (tiny_open_clip / "tiny-oblong.json").write_text(json.dumps(config))
    open_clip.add_model_config(tiny_open_clip / "tiny-oblong.json")
    with pytest.raises(UserMistake, match="takes pictures of 16 x 32; the input must be a square"):
        OpenCLIPEncoder("tiny-oblong")

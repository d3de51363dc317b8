"""Models of any origin: whatever is in their files, nothing hangs, takes the memory or ends in a traceback."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from fuzz.mutations import BYTES, JSON, ZIP
from fuzz.trial import Door, runs, try_door
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

from untrigger.commands.export.history import is_marked
from untrigger.lightning_modules.encoders import build_encoder, load_weights
from untrigger.lightning_modules.encoders.checkpoint_files import read_tensors
from untrigger.lightning_modules.encoders.huggingface import HuggingFaceEncoder
from untrigger.lightning_modules.encoders.identify import identify_encoder
from untrigger.lightning_modules.encoders.open_clip_files import preprocessing_of

WORDS = ["<pad>", "<start>", "<unk>", "a", "photo", "of", "dog", "cat", "<end>"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny CLIP of transformers."""
    folder = tmp_path_factory.mktemp("clip")
    tower = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**tower, "vocab_size": 16, "max_position_embeddings": 8, "eos_token_id": 8, "bos_token_id": 1}
    vision = {**tower, "image_size": 16, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=4)).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 8)]
    )
    special = {"bos_token": "<start>", "eos_token": "<end>", "pad_token": "<pad>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=8, **special).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "rescale_factor": 1 / 255})
    )
    return folder


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """What libraries warn of on their way is no matter here."""
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json")


@pytest.mark.parametrize("name", FILES)
def test_the_description_of_a_transformers_model(name: str, clip: Path) -> None:
    door = Door(clip / name, lambda: HuggingFaceEncoder(str(clip)).tokenizer(["a photo of a dog"]), JSON)
    assert try_door(door, runs(25), name)[1]


def _checkpoint(path: Path, archive: bool) -> Path:
    tensors = {f"encoder.{name}": tensor for name, tensor in {"a": torch.ones(2, 3), "b.c": torch.zeros(4)}.items()}
    content = {"state_dict": tensors, "hyper_parameters": {"encoder": "small:nano-32"}, "loops": {}, "epoch": 3}
    torch.save(content, path, _use_new_zipfile_serialization=archive)
    return path


READERS: dict[str, Callable[[Path], object]] = {
    "tensors": read_tensors,
    "encoder": lambda path: identify_encoder(str(path)),
    "mark": is_marked,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("archive", [True, False])
def test_a_checkpoint(archive: bool, reader: str, tmp_path: Path) -> None:
    path = _checkpoint(tmp_path / "model.ckpt", archive)
    read = READERS[reader]
    assert try_door(Door(path, lambda: read(path), ZIP if archive else BYTES), runs(60), f"{reader}-{archive}")[1]


def test_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(2, 3), "b": torch.zeros(4)}, path)
    assert try_door(Door(path, lambda: read_tensors(path), BYTES), runs(60), "safetensors")[1]


def test_weights_for_an_encoder(tmp_path: Path) -> None:
    encoder = build_encoder("small:nano-32")
    path = tmp_path / "model.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}, path)
    assert try_door(Door(path, lambda: load_weights(encoder, str(path)), BYTES), runs(6), "weights")[1]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("open_clip_config.json", {"model_cfg": {"embed_dim": 4}, "preprocess_cfg": {"mean": [0.1, 0.2, 0.3]}}),
        ("encoder.json", {"encoder": "small:nano-32", "mean": [0.1, 0.2, 0.3], "std": [1, 1, 1]}),
        ("pytorch_model.bin.index.json", {"weight_map": {"a": "part.bin", "b": "part.bin"}}),
    ],
)
def test_a_description_beside_weights(name: str, content: object, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(json.dumps(content))
    torch.save({"a": torch.ones(2)}, tmp_path / "part.bin")
    read = (lambda: read_tensors(tmp_path)) if "index" in name else (lambda: preprocessing_of(tmp_path))
    assert try_door(Door(path, read, JSON), runs(60), name)[1]

"""Tokenizers of transformers' folders: those that fit, and those that are refused."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast, SiglipConfig, SiglipModel

from untrigger.commands.export.command import export
from untrigger.contracts import UserMistake
from untrigger.lightning_modules.encoders.huggingface import HuggingFaceEncoder

TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION = {**TEXT, "image_size": 16, "patch_size": 8}
TEXT = {**TEXT, "max_position_embeddings": 16}
CAPTIONS = ["a photo of a dog", "cat", "dog " * 40]


@pytest.fixture(params=["clip", "siglip"])
def folder(request: pytest.FixtureRequest, clip_folder: Callable[..., Path], siglip_folder: Path) -> Path:
    return clip_folder() if request.param == "clip" else siglip_folder


def test_tokens_are_padded_and_keep_the_end_token(folder: Path) -> None:
    encoder = HuggingFaceEncoder(str(folder))
    tokens = encoder.tokenizer(CAPTIONS)
    assert tokens.dtype == torch.int64
    assert tokens.shape == (3, encoder.context_length) == (3, 8)
    end, dog, start = 8, 6, [1] if "clip-" in folder.name else []
    assert tokens[2].tolist() == [*start, *[dog] * (7 - len(start)), end]
    assert tokens[1].tolist() == [*start, 7, end, *[0] * (6 - len(start))]


def test_the_legacy_end_token_needs_to_be_the_largest_id(clip_folder: Callable[..., Path]) -> None:
    words = ["<pad>", "<start>", "<unk>", "<end>", "a", "photo", "of", "dog", "cat"]
    assert HuggingFaceEncoder(str(clip_folder(end_token=2))).image_size == 16
    with pytest.raises(UserMistake, match=r"largest token id .* can be 8 .* set it to 3, the id"):
        HuggingFaceEncoder(str(clip_folder(end_token=2, words=words)))
    assert HuggingFaceEncoder(str(clip_folder(end_token=3, words=words))).image_size == 16
    with pytest.raises(UserMistake, match=r"eos_token_id is 5, .* set it to 3"):
        HuggingFaceEncoder(str(clip_folder(end_token=5, words=words)))
    second = ["<pad>", "<start>", "<end>", "<unk>", "a", "photo", "of", "dog", "cat", "of"]
    with pytest.raises(UserMistake, match="give the end token another id"):
        HuggingFaceEncoder(str(clip_folder(end_token=2, words=second)))


def test_a_tokenizer_without_end_token_is_refused(clip_folder: Callable[..., Path]) -> None:
    folder = clip_folder()
    content = json.loads((folder / "tokenizer.json").read_text())
    content["post_processor"] = None
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserMistake, match="leaves out the end token 8"):
        HuggingFaceEncoder(str(folder))


@pytest.mark.parametrize("end", [8, 2])
def test_a_folder_without_tokenizer_is_refused(end: int, clip_folder: Callable[..., Path]) -> None:
    folder = clip_folder(end_token=end)
    for path in (folder / "tokenizer.json", folder / "tokenizer_config.json"):
        path.unlink()
    with pytest.raises(UserMistake, match=f"{folder} holds no tokenizer: looked for tokenizer.json, vocab.json with"):
        HuggingFaceEncoder(str(folder))


def _edit_tokenizer(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _doubling(content: dict[str, Any]) -> None:
    step = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    content["normalizer"] = {"type": "Sequence", "normalizers": [step] * 34}


def _endless(content: dict[str, Any]) -> None:
    content["normalizer"] = {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "b"}


def _unfindable(content: dict[str, Any]) -> None:
    content["normalizer"] = {"type": "Replace", "pattern": {"Regex": "[a-z]"}, "content": "-"}


def _beyond(content: dict[str, Any]) -> None:
    content["model"]["vocab"]["far"] = 16


def _end_in_front(content: dict[str, Any]) -> None:
    content["post_processor"]["single"].insert(0, {"SpecialToken": {"id": "<end>", "type_id": 0}})


def _padded_in_front(content: dict[str, Any]) -> None:
    pad = {"pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>", "pad_to_multiple_of": None}
    content["padding"] = {"strategy": {"Fixed": 8}, "direction": "Left", **pad}


@pytest.mark.parametrize(
    ("change", "reported"),
    [
        (_doubling, r"may make a text 17,179,869,184 times as long"),
        (_endless, r"may search for ever"),
        (_unfindable, r"finds 0 of \d words of its own vocabulary in a text"),
        (_beyond, r"ids up to 16, and the model a table of 16 \(text_config.vocab_size\)"),
        (lambda content: content["model"].update(vocab={"<unk>": 0}), r"the tokenizer has \d tokens"),
        (lambda content: content.update(normalizer={"type": "Sequence", "normalizers": 3}), "cannot be read"),
        (lambda content: content["model"].update(unk_token="none"), r"tokenizer of .*: .*Missing \[UNK\] token"),
        (_end_in_front, "all captions have the same embedding"),
        (_padded_in_front, "pads in front of captions"),
    ],
)
def test_a_tokenizer_that_does_not_fit_or_costs_too_much_is_refused(
    change: Callable[[dict[str, Any]], Any], reported: str, clip_folder: Callable[..., Path]
) -> None:
    folder = clip_folder()
    _edit_tokenizer(folder, change)
    with pytest.raises(UserMistake, match=reported):
        HuggingFaceEncoder(str(folder))


def test_a_context_of_start_and_end_alone_is_refused(
    clip_folder: Callable[..., Path], edit_json: Callable[..., None]
) -> None:
    folder = clip_folder()
    edit_json(folder / "config.json", text_config__max_position_embeddings=2)
    with pytest.raises(UserMistake, match="different captions have the same 2 tokens"):
        HuggingFaceEncoder(str(folder))


def _save_gemmas_tokenizer(folder: Path) -> int:
    """A folder's tokenizer as SigLIP 2's: of Gemma's class, which ignores ``do_lower_case``."""
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"])
    own = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    own.normalizer = normalizers.Replace(" ", "▁")
    own.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    own.train_from_iterator(["a photo of a dog", "A PHOTO OF A CAT"] * 5, trainer)
    own.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    special = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=own, **special).save_pretrained(folder)
    return int(own.get_vocab_size())


def test_captions_are_lower_cased_where_the_folder_says_so(
    tmp_path: Path, siglip_folder: Path, edit_json: Callable[..., None]
) -> None:
    size = _save_gemmas_tokenizer(siglip_folder)
    text = {**TEXT, "vocab_size": size, "bos_token_id": 2, "eos_token_id": 1}
    SiglipModel(SiglipConfig(text_config=text, vision_config=VISION)).save_pretrained(siglip_folder)
    config = siglip_folder / "tokenizer_config.json"
    edit_json(config, tokenizer_class="GemmaTokenizer", do_lower_case=False)
    captions = ["A PHOTO of a Dog", "a photo of a dog"]
    assert len(HuggingFaceEncoder(str(siglip_folder)).tokenizer(captions).unique(dim=0)) == 2
    edit_json(config, do_lower_case=True)
    encoder = HuggingFaceEncoder(str(siglip_folder))
    tokens = encoder.tokenizer(captions)
    assert torch.equal(tokens[0], tokens[1])
    assert torch.equal(pickle.loads(pickle.dumps(encoder.tokenizer))(captions), tokens)
    # What is handed back lower-cases in plain transformers too.
    export(str(siglip_folder), str(tmp_path / "back"))
    plain = AutoTokenizer.from_pretrained(tmp_path / "back")
    assert plain(captions[0])["input_ids"] == plain(captions[1])["input_ids"]

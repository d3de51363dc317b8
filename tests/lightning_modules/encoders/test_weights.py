from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import build_model_from_openai_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPModel

from untrigger.contracts import UserMistake
from untrigger.lightning_modules.encoders import Encoder, load_weights
from untrigger.lightning_modules.encoders.huggingface import HuggingFaceEncoder
from untrigger.lightning_modules.encoders.open_clip import OpenCLIPEncoder

State = dict[str, Tensor]

pytestmark = pytest.mark.usefixtures("tiny_open_clip")


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(1)
    return OpenCLIPEncoder("tiny-RN")


@pytest.fixture
def trained(tiny_open_clip: Path) -> State:
    """A model's tensors as open_clip names them, which is how OpenAI and CleanCLIP do."""
    torch.manual_seed(2)
    model = open_clip.create_model("tiny-RN")
    model.encode_image(torch.randn(4, 3, 32, 32))
    return model.state_dict()


def _renamed(state: State, prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def _assert_loaded(encoder: Encoder, expected: State) -> None:
    loaded = encoder.model.state_dict()
    assert set(loaded) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(loaded[name], tensor), name


def _save_lightning(state: State, path: Path) -> None:
    torch.save(
        {
            "epoch": 3,
            "global_step": 40,
            "pytorch-lightning_version": "2.6.6",
            "hyper_parameters": {"encoder": "open_clip:tiny-RN", "learning_rate": 0.1},
            "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(1.0), "dirpath": "x"}},
            "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1}]}],
            "state_dict": {**_renamed(state, "encoder.model."), "head.weight": torch.zeros(3)},
        },
        path,
    )


def _save_cleanclip(state: State, path: Path) -> None:
    optimizer = torch.optim.AdamW([parameter := nn.Parameter(torch.ones(2))])
    parameter.sum().backward()
    optimizer.step()
    torch.save(
        {
            "epoch": 64,
            "name": "nodefence_badnet",
            "state_dict": _renamed(state, "module."),
            "optimizer": optimizer.state_dict(),
        },
        path,
    )


def _save_compiled(state: State, path: Path) -> None:
    torch.save({"state_dict": _renamed(state, "_orig_mod.encoder.model.")}, path)


def _save_part_compiled(state: State, path: Path) -> None:
    names = {name: name.replace("visual.", "visual._orig_mod.") for name in state}
    torch.save({"state_dict": {f"encoder.model.{names[name]}": tensor for name, tensor in state.items()}}, path)


def _save_sharded(state: State, path: Path) -> None:
    path.mkdir()
    names = list(state)
    save_file({name: state[name] for name in names[::2]}, path / "model-00001-of-00002.safetensors")
    save_file({name: state[name] for name in names[1::2]}, path / "model-00002-of-00002.safetensors")
    index = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(names)}
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def _save_folder(state: State, path: Path) -> None:
    path.mkdir()
    save_file(state, path / "open_clip_model.safetensors")
    torch.save({"state_dict": {}}, path / "open_clip_pytorch_model.bin")


FORMATS: dict[str, Callable[[State, Path], None]] = {
    "lightning.ckpt": _save_lightning,
    "compiled.ckpt": _save_compiled,
    "part_compiled.ckpt": _save_part_compiled,
    "cleanclip.pt": _save_cleanclip,
    "plain.pt": lambda state, path: torch.save(state, path),
    "epoch_1.pt": lambda state, path: torch.save({"epoch": 1, "name": "x", "state_dict": state}, path),
    "legacy.pt": lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
    "ours.safetensors": lambda state, path: save_file(_renamed(state, "model."), path),
    "bare.safetensors": save_file,
    "sharded": _save_sharded,
    "folder": _save_folder,
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_loads(name: str, encoder: Encoder, trained: State, tmp_path: Path) -> None:
    FORMATS[name](trained, tmp_path / name)
    load_weights(encoder, str(tmp_path / name))
    _assert_loaded(encoder, trained)


def test_a_file_for_cleanclip_embeds_as_openais_model(encoder: Encoder, trained: State, tmp_path: Path) -> None:
    # open_clip's own reader of OpenAI's layout is the oracle; it passes through half precision.
    trained = {
        name: tensor.half().float() if tensor.is_floating_point() else tensor for name, tensor in trained.items()
    }
    reference = build_model_from_openai_state_dict(dict(trained), quick_gelu=False, cast_dtype=torch.float32).float()
    _save_cleanclip(trained, tmp_path / "cleanclip.pt")
    load_weights(encoder, str(tmp_path / "cleanclip.pt"))
    images, tokens = torch.randn(2, 3, 32, 32), torch.randint(128, (2, 12))
    encoder.eval()
    with torch.no_grad():
        torch.testing.assert_close(encoder.encode_image(images), reference.eval().encode_image(images))
        torch.testing.assert_close(encoder.encode_text(tokens), reference.encode_text(tokens))


def test_a_transformers_folder_loads(clip_folder: Callable[..., Path]) -> None:
    folder, other = clip_folder(seed=0), clip_folder(seed=1)
    encoder = HuggingFaceEncoder(str(folder))
    load_weights(encoder, str(other))
    _assert_loaded(encoder, CLIPModel.from_pretrained(other).state_dict())


def test_half_precision_becomes_the_encoders(encoder: Encoder, trained: State, tmp_path: Path) -> None:
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in trained.items()}
    save_file(half, tmp_path / "half.safetensors")
    load_weights(encoder, str(tmp_path / "half.safetensors"))
    _assert_loaded(encoder, {n: t.float() if t.is_floating_point() else t for n, t in half.items()})


@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_bias_of_the_logits_is_the_models(
    shape: tuple[int, ...], encoder: Encoder, trained: State, tmp_path: Path
) -> None:
    torch.save(trained | {"logit_bias": torch.full(shape, -7.5)}, tmp_path / "siglip.pt")
    torch.save(trained, tmp_path / "clip.pt")
    load_weights(encoder, str(tmp_path / "siglip.pt"))
    assert encoder.logit_bias is not None
    assert float(encoder.logit_bias) == -7.5
    assert not encoder.logit_bias.requires_grad
    assert encoder.logit_bias.shape == encoder.logit_scale.shape
    load_weights(encoder, str(tmp_path / "clip.pt"))
    assert encoder.logit_bias is None
    _assert_loaded(encoder, trained)


def test_a_file_without_a_bias_is_none_for_siglip(siglip_folder: Path, clip_folder: Callable[..., Path]) -> None:
    tensors = load_file(siglip_folder / "model.safetensors")
    for name in ("logit_bias", None):
        kept = {key: value for key, value in tensors.items() if key != name}
        save_file(kept | ({} if name else {"logit_bias": torch.tensor([-3.0])}), siglip_folder / "model.safetensors")
        bias = HuggingFaceEncoder(str(siglip_folder)).logit_bias
        assert bias is not None
        assert bias.tolist() == ([0.0] if name else [-3.0])
    folder = clip_folder()
    clip = load_file(folder / "model.safetensors") | {"logit_bias": torch.zeros(1)}
    save_file(clip, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserMistake, match="has a logit_bias, as models of the sigmoid loss have"):
        HuggingFaceEncoder(str(folder))


def test_counters_in_half_precision_count(encoder: Encoder, trained: State, tmp_path: Path) -> None:
    half = {name: tensor.half() for name, tensor in trained.items()}
    counters = [name for name in half if name.endswith("num_batches_tracked")]
    half[counters[0]].fill_(70_000)  # infinite in half precision
    half[counters[1]].fill_(12)
    torch.save(half, tmp_path / "half.pt")
    load_weights(encoder, str(tmp_path / "half.pt"))
    state = encoder.model.state_dict()
    assert [int(state[name]) for name in counters[:2]] == [0, 12]
    assert torch.equal(state["visual.conv1.weight"], half["visual.conv1.weight"].float())


def test_tensors_that_libraries_add_or_leave_out_do_not_matter(
    encoder: Encoder, trained: State, tmp_path: Path
) -> None:
    counters = [name for name in trained if name.endswith("num_batches_tracked")]
    file = {name: tensor for name, tensor in trained.items() if name not in counters}
    file |= {"logit_scale": trained["logit_scale"].reshape(1)}
    file |= {"text.position_ids": torch.arange(4), "attn_mask": torch.zeros(2, 2), "context_length": torch.tensor(12)}
    torch.save(file, tmp_path / "file.pt")
    kept = {name: encoder.model.state_dict()[name].clone() for name in counters}
    load_weights(encoder, str(tmp_path / "file.pt"))
    _assert_loaded(encoder, {**trained, **kept})


def _without(state: State, *names: str) -> State:
    return {name: tensor for name, tensor in state.items() if name not in names}


def _spoilt(tensor: Tensor, value: float, dtype: torch.dtype = torch.float32) -> Tensor:
    return tensor.to(dtype).index_fill(0, torch.tensor([0]), value)


CHANGES: dict[str, tuple[Callable[[State], Any], str]] = {
    "missing": (
        lambda s: _without(s, "ln_final.weight", "visual.conv1.weight"),
        r"2 missing \(visual.conv1.weight, ln_final.weight\); name the encoder that it was trained as",
    ),
    "unexpected": (
        lambda s: {**s, **{f"extra.{i}": torch.zeros(1) for i in range(5)}},
        r"5 unexpected \(extra.0, extra.1, extra.2 and 2 more\)",
    ),
    "both": (
        lambda s: {f"vision_model.{name}": tensor for name, tensor in s.items()},
        r"missing \(.*\) and \d+ unexpected \(vision_model",
    ),
    "shape": (
        lambda s: {**s, "text_projection": torch.zeros(4, 4)},
        r"text_projection is \(4, 4\) float32 instead of \(64, 8\) float32; name",
    ),
    "shapes": (
        lambda s: {**s, "text_projection": torch.zeros(4, 4), "ln_final.bias": torch.zeros(3)},
        r"instead of .* and 1 more do not fit",
    ),
    "kind": (
        lambda s: {**s, "text_projection": torch.zeros(64, 8, dtype=torch.int8)},
        r"\(64, 8\) int8 instead of \(64, 8\) float32",
    ),
    "nan": (
        lambda s: {**s, "text_projection": _spoilt(s["text_projection"], float("nan"))},
        "not finite in 1 tensors: text_projection",
    ),
    "overflow": (
        lambda s: {**s, "text_projection": _spoilt(s["text_projection"], 1e300, torch.float64)},
        "not finite in 1 tensors: text_projection",
    ),
    "twice": (lambda s: {**s, "module.text_projection": s["text_projection"]}, "two tensors for 'text_projection'"),
    "sparse": (
        lambda s: {**s, "text_projection": s["text_projection"].to_sparse()},
        "no plain tensor is text_projection",
    ),
    "meta": (
        lambda s: {**s, "text_projection": s["text_projection"].to("meta")},
        "no plain tensor is text_projection",
    ),
    "number": (lambda s: {**s, "temperature": 0.07}, "no plain tensor is temperature"),
    "nested": (lambda s: {"model": s, "epoch": 3}, "no plain tensor is model, epoch"),
    "list": (lambda s: list(s.values()), "holds neither named tensors"),
    "empty": (lambda _: {}, "holds neither named tensors"),
    "hostile name": (lambda s: {**s, "\x1b[2J\nrm -rf": torch.zeros(1)}, r"1 unexpected \(\?\[2J\)"),
}


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")  # says torch of one of these files
@pytest.mark.parametrize("change", CHANGES)
def test_what_does_not_fit_is_refused_and_nothing_is_loaded(
    change: str, encoder: Encoder, trained: State, tmp_path: Path
) -> None:
    alter, message = CHANGES[change]
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    torch.save(alter(trained), tmp_path / "file.pt")
    with pytest.raises(UserMistake, match=message) as mistake:
        load_weights(encoder, str(tmp_path / "file.pt"))
    assert "\n" not in str(mistake.value)
    assert "\x1b" not in str(mistake.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def test_the_size_of_another_architecture(tmp_path: Path) -> None:
    torch.save(open_clip.create_model("tiny-ViT").state_dict(), tmp_path / "file.pt")
    with pytest.raises(UserMistake, match=r"is \(.*64.*\) float32 instead of \(.*128.*\) float32 and \d+ more"):
        load_weights(OpenCLIPEncoder("tiny-ViT-wide"), str(tmp_path / "file.pt"))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["tensor", "aside"])
def test_a_malicious_pickle_is_not_run(
    zipped: bool, place: str, encoder: Encoder, trained: State, tmp_path: Path, explosive: Any
) -> None:
    file = {"state_dict": {**trained, "extra": explosive} if place == "tensor" else trained, "optimizer": explosive}
    torch.save(file, tmp_path / "evil.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserMistake, match=r"does not load as tensors alone .*; nothing of it was run") as mistake:
        load_weights(encoder, str(tmp_path / "evil.pt"))
    assert not explosive.marker.exists()
    assert "\n" not in str(mistake.value)
    assert "mkdir" in str(mistake.value)
    # The file does what it says when it is trusted, so that the test can fail.
    torch.load(tmp_path / "evil.pt", weights_only=False)
    assert explosive.marker.exists()


def test_a_torchscript_program_is_refused(encoder: Encoder, tmp_path: Path) -> None:
    # What counts is this member; making a real program warns of TorchScript's end.
    torch.save({"a": torch.zeros(1)}, tmp_path / "program.pt")
    with zipfile.ZipFile(tmp_path / "program.pt", "a") as archive:
        archive.writestr("program/constants.pkl", b"")
    with pytest.raises(UserMistake, match=r"is a TorchScript program, .* is not run"):
        load_weights(encoder, str(tmp_path / "program.pt"))


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"\x80\x02.", b"PK\x03\x04damaged", b"\xff" * 64])
def test_a_damaged_file_is_one_line(suffix: str, content: bytes, encoder: Encoder, tmp_path: Path) -> None:
    path = tmp_path / f"file.{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserMistake, match=f"file.{suffix}") as mistake:
        load_weights(encoder, str(path))
    assert "\n" not in str(mistake.value)


def test_a_truncated_checkpoint_is_one_line(encoder: Encoder, trained: State, tmp_path: Path) -> None:
    torch.save(trained, tmp_path / "file.pt")
    content = (tmp_path / "file.pt").read_bytes()
    (tmp_path / "file.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserMistake, match="does not load as tensors alone"):
        load_weights(encoder, str(tmp_path / "file.pt"))


def test_a_missing_file_or_empty_folder_is_one_line(encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(UserMistake, match=r"there is no checkpoint .*nowhere\.ckpt"):
        load_weights(encoder, str(tmp_path / "nowhere.ckpt"))
    with pytest.raises(UserMistake, match=r"holds no weights; looked for model\.safetensors"):
        load_weights(encoder, str(tmp_path))
    (tmp_path / "last.ckpt").touch()
    with pytest.raises(UserMistake, match=r"is the folder of a run: give its checkpoint, .*last\.ckpt"):
        load_weights(encoder, str(tmp_path))


@pytest.mark.parametrize(
    "index", ["[]", "{", '{"weight_map": {"a": 3}}', '{"weight_map": {"a": "../secret.safetensors"}}']
)
def test_an_index_names_files_beside_it_only(index: str, encoder: Encoder, trained: State, tmp_path: Path) -> None:
    save_file(trained, tmp_path / "secret.safetensors")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "model.safetensors.index.json").write_text(index)
    with pytest.raises(UserMistake, match=r"index of weights|names files that are not weights beside it"):
        load_weights(encoder, str(tmp_path / "folder"))


def test_a_tensor_in_two_files_of_an_index_is_refused(encoder: Encoder, trained: State, tmp_path: Path) -> None:
    name, *others = trained
    save_file(trained, tmp_path / "one.safetensors")
    save_file({name: torch.zeros_like(trained[name])}, tmp_path / "two.safetensors")
    files = {name: "one.safetensors", others[0]: "two.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    with pytest.raises(UserMistake, match=f"two of the files that it names have {name}"):
        load_weights(encoder, str(tmp_path))

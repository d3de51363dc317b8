"""Opening what nobody vouches for: inferred from the file, or asked for in one line; nothing of it runs."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPModel

from untrigger.contracts import UserMistake
from untrigger.lightning_modules import PoisonedCLIP
from untrigger.lightning_modules.encoders import Encoder, build_encoder
from untrigger.lightning_modules.encoders.description import write_description
from untrigger.lightning_modules.encoders.identify import identify_encoder, open_encoder

State = dict[str, Tensor]

pytestmark = pytest.mark.usefixtures("tiny_open_clip")


def state_of(arch: str) -> State:
    torch.manual_seed(2)
    # CoCa's decoder has numbers that nobody has set.
    return {name: tensor.nan_to_num() for name, tensor in open_clip.create_model(arch).state_dict().items()}


def contiguous(encoder: Encoder) -> State:
    return {name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}


def save_checkpoint(state: State, path: Path, name: object, **more: Any) -> str:
    """A checkpoint as our modules make them."""
    tensors = {f"encoder.model.{key}": tensor for key, tensor in state.items()}
    hyper = {"encoder": name, "init_from": None, "lr": 0.1}
    torch.save({"state_dict": tensors, "hyper_parameters": hyper, "loops": {}, **more}, path)
    return str(path)


def assert_loaded(encoder: Any, expected: State) -> None:
    loaded = encoder.model.state_dict()
    for name, tensor in expected.items():
        assert torch.equal(loaded[name], tensor), name
    assert not encoder.training


def assert_refused(path: Path | str, message: str, name: str | None = None) -> None:
    with pytest.raises(UserMistake, match=message) as mistake:
        open_encoder(str(path), name)
    assert "\n" not in str(mistake.value)
    assert "\x1b" not in str(mistake.value)


@contextmanager
def little_memory() -> Iterator[None]:
    """Inside, the process comes to need at most 256 MiB more than it ever has."""
    before = getrusage(RUSAGE_SELF).ru_maxrss
    yield
    assert getrusage(RUSAGE_SELF).ru_maxrss - before <= 256 * 1024  # in KiB, on Linux


def test_a_checkpoint_of_ours_tells_its_encoder(tmp_path: Path) -> None:
    state = state_of("tiny-ViT")
    path = save_checkpoint(state, tmp_path / "last.ckpt", "open_clip:tiny-ViT")
    encoder, name = open_encoder(path)
    assert name == "open_clip:tiny-ViT"
    assert_loaded(encoder, state)
    module = PoisonedCLIP("small:nano-32")
    torch.save({"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}, tmp_path / "small.ckpt")
    assert identify_encoder(str(tmp_path / "small.ckpt")) == "small:nano-32"


@pytest.mark.parametrize("arch", ["tiny-RN", "tiny-ViT", "tiny-ViT-wide", "tiny-custom", "tiny-coca"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_state_dict_tells_its_architecture_by_names_and_shapes(arch: str, prefix: str, tmp_path: Path) -> None:
    state = state_of(arch)
    torch.save({"state_dict": {prefix + name: tensor for name, tensor in state.items()}}, tmp_path / "file.pt")
    encoder, name = open_encoder(str(tmp_path / "file.pt"))
    assert name == f"open_clip:{arch}"
    assert_loaded(encoder, state)


def test_a_small_encoder_is_told_by_its_shapes_too(tmp_path: Path) -> None:
    for preset in ("nano-32", "base-32"):
        state = contiguous(build_encoder(f"small:{preset}"))
        save_file(state, tmp_path / f"{preset}.safetensors")
        assert identify_encoder(str(tmp_path / f"{preset}.safetensors")) == f"small:{preset}"


def add_quick_gelu(folder: Path) -> None:
    config = json.loads((folder / "tiny-RN.json").read_text()) | {"quick_gelu": True}
    (folder / "tiny-RN-quickgelu.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / "tiny-RN-quickgelu.json")


def test_what_no_tensor_shows_is_asked_for(tiny_open_clip: Path, tmp_path: Path) -> None:
    add_quick_gelu(tiny_open_clip)
    state = state_of("tiny-RN")
    torch.save(state, tmp_path / "file.pt")
    assert_refused(
        tmp_path / "file.pt",
        "does not name its architecture: it fits open_clip:tiny-RN and open_clip:tiny-RN-quickgelu, which differ in "
        "what no tensor shows; name the encoder with --encoder",
    )
    encoder, name = open_encoder(str(tmp_path / "file.pt"), "open_clip:tiny-RN-quickgelu")
    assert name == "open_clip:tiny-RN-quickgelu"
    assert_loaded(encoder, state)
    # OpenAI's archives have these beside their tensors, and QuickGELU always.
    torch.save({**state, "input_resolution": torch.tensor(32)}, tmp_path / "openai.pt")
    assert identify_encoder(str(tmp_path / "openai.pt")) == "open_clip:tiny-RN-quickgelu"


def test_what_fits_nothing_is_asked_for(tmp_path: Path, clip_folder: Callable[..., Path]) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / "file.pt")
    assert_refused(
        tmp_path / "file.pt", r"does not name its architecture: .* none that is known; name the encoder with --enc"
    )
    assert_refused(clip_folder() / "model.safetensors", r"are transformers' \(give its folder, with config\.json\)")
    (tmp_path / "empty").mkdir()
    assert_refused(tmp_path / "empty", r"holds neither config\.json nor open_clip_config\.json nor encoder\.json")
    assert_refused(tmp_path / "nowhere.pt", "nowhere")
    (tmp_path / "empty" / "last.ckpt").touch()
    assert_refused(tmp_path / "empty", r"is the folder of a run: give its checkpoint, .*last\.ckpt")


@pytest.mark.parametrize(
    "name",
    [
        "hf:someone/model",
        "open_clip:tiny-RN/evil",
        "open_clip:RN51",
        "small:huge",
        "os:system",
        "\x1b[2J\nrm",
        "hf:no/such/folder",
        "",
    ],
)
def test_a_name_that_a_checkpoint_gives_is_not_followed_anywhere(name: str, tmp_path: Path) -> None:
    path = save_checkpoint(state_of("tiny-RN"), tmp_path / "last.ckpt", name)
    assert_refused(path, "which is not here; if you trust the name, repeat it as --encoder")
    assert open_encoder(path, "open_clip:tiny-RN")[1] == "open_clip:tiny-RN"


def test_a_checkpoint_may_lie_about_its_encoder(tmp_path: Path) -> None:
    path = save_checkpoint(state_of("tiny-RN"), tmp_path / "last.ckpt", "open_clip:ViT-bigG-14")
    assert_refused(path, "is not of the architecture open_clip:ViT-bigG-14: it differs in names or shapes")
    path = save_checkpoint(state_of("tiny-RN"), tmp_path / "last.ckpt", ["open_clip:tiny-RN"])
    assert identify_encoder(path) == "open_clip:tiny-RN"  # no name at all: by its shapes


def test_a_run_that_is_in_the_middle_is_refused(tmp_path: Path) -> None:
    state = state_of("tiny-RN")
    for initial, reported in (({"a": torch.zeros(1)}, "middle of a run in phases"), ({}, None)):
        path = save_checkpoint(state, tmp_path / "last.ckpt", "open_clip:tiny-RN", phased={"initial": initial})
        if reported:
            assert_refused(path, reported)
        else:
            assert_loaded(open_encoder(path)[0], state)


def test_a_transformers_folder_is_what_its_config_says(
    clip_folder: Callable[..., Path], siglip_folder: Path, edit_json: Callable[..., None]
) -> None:
    folder = clip_folder()
    encoder, name = open_encoder(str(folder))
    assert name == f"hf:{folder}"
    assert_loaded(encoder, CLIPModel.from_pretrained(folder).state_dict())
    assert open_encoder(str(siglip_folder))[0].embedding_dim == 16
    edit_json(folder / "config.json", model_type="bert")
    assert_refused(folder, "'bert' model; hf: takes")


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "preprocessor_config.json"])
def test_a_folder_with_code_of_its_own_is_refused(
    file: str, clip_folder: Callable[..., Path], edit_json: Callable[..., None], tmp_path: Path
) -> None:
    folder, marker = clip_folder(), tmp_path / "ran"
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(marker)!r})\n")
    edit_json(folder / file, auto_map={"AutoModel": "evil.Model", "AutoTokenizer": ["evil.Slow", "evil.Fast"]})
    assert_refused(folder, rf"{file} asks for code of its own \(auto_map\), which is not run")
    assert not marker.exists()


def test_a_folder_with_pickled_weights_is_read_as_tensors(clip_folder: Callable[..., Path], explosive: Any) -> None:
    folder = clip_folder()
    state = CLIPModel.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    assert_loaded(open_encoder(str(folder))[0], state)
    torch.save({**state, "extra": explosive}, folder / "pytorch_model.bin")
    assert_refused(folder, "does not load as tensors alone")
    assert not explosive.marker.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_config__hidden_size": 65536}, "describes a model of .* numbers, but the weights beside it have"),
        (
            {"vision_config__num_hidden_layers": 10**9},
            r"num_hidden_layers is 1000000000, and must be a number of layers, of 1 to 1,024",
        ),
        ({"text_config__vocab_size": 10**15}, "must be a number of tokens"),
    ],
)
def test_a_config_that_describes_a_giant_takes_no_memory(
    change: dict[str, int], message: str, clip_folder: Callable[..., Path], edit_json: Callable[..., None]
) -> None:
    folder = clip_folder()
    edit_json(folder / "config.json", **change)
    with little_memory():
        assert_refused(folder, message)


def save_open_clip_folder(folder: Path, **changes: Any) -> State:
    folder.mkdir()
    state = state_of("tiny-ViT")
    save_file(state, folder / "open_clip_model.safetensors")
    preprocess = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bilinear", "resize_mode": "squash"}
    content = {"model_cfg": open_clip.get_model_config("tiny-ViT"), "preprocess_cfg": {**preprocess, **changes}}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    return state


def test_an_open_clip_folder_is_what_its_config_says(tmp_path: Path, edit_json: Callable[..., None]) -> None:
    state = save_open_clip_folder(tmp_path / "model")
    with pytest.warns(UserWarning, match="resize_mode squash"):
        encoder, name = open_encoder(str(tmp_path / "model"))
    assert name == "open_clip:tiny-ViT"
    assert_loaded(encoder, state)
    assert (encoder.mean, encoder.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert encoder.preprocess_cfg["resize_mode"] == "squash"
    edit_json(tmp_path / "model" / "open_clip_config.json", model_cfg__vision_cfg={"timm_model_name": "evil"})
    assert_refused(
        tmp_path / "model", "describes none of open_clip's own architectures; name the encoder with --encoder"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"std": [0.0, 1.0, 1.0]}, "std must be above 0"),
        ({"mean": "red"}, "mean must be finite numbers"),
        ({"mean": [float("nan"), 0, 0]}, "mean must be finite numbers"),
        ({"resize_mode": "\x1b[2J"}, r"resize_mode is '\?\[2J', not one of"),
    ],
)
def test_a_preprocessing_that_makes_no_sense_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    save_open_clip_folder(tmp_path / "model", **change)
    assert_refused(tmp_path / "model", message)


def test_a_described_folder_builds_a_small_encoder_by_name(tmp_path: Path) -> None:
    torch.manual_seed(5)
    encoder = build_encoder("small:nano-32")
    save_file(contiguous(encoder), tmp_path / "model.safetensors")
    write_description(encoder, "small:nano-32", tmp_path)
    named, opened = build_encoder(f"small:{tmp_path}"), open_encoder(str(tmp_path))[0]
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(named.state_dict()[name], tensor)
        assert torch.equal(opened.state_dict()[name], tensor)
    unloaded = build_encoder(f"small:{tmp_path}", pretrained=False)
    assert not torch.equal(unloaded.state_dict()["visual.stem.0.weight"], encoder.state_dict()["visual.stem.0.weight"])
    (tmp_path / "encoder.json").write_text('{"encoder": "small:huge"}')
    assert_refused(tmp_path, "names the encoder 'small:huge', which is not here")
    (tmp_path / "encoder.json").write_text("{")
    assert_refused(tmp_path, r"encoder\.json cannot be read")
    (tmp_path / "encoder.json").write_text('{"encoder": 3}')
    assert_refused(tmp_path, r"holds no encoder\.json that names an encoder")


def test_tensors_that_do_not_fit_or_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = state_of("tiny-RN")
    wrong = save_checkpoint({**state, "text_projection": torch.zeros(4, 4)}, tmp_path / "a.ckpt", "open_clip:tiny-RN")
    assert_refused(wrong, "differs in names or shapes")
    broken = {**state, "text_projection": torch.full_like(state["text_projection"], torch.nan)}
    assert_refused(save_checkpoint(broken, tmp_path / "b.ckpt", "open_clip:tiny-RN"), "not finite in 1 tensors")
    broken["text_projection"].fill_(torch.inf)
    torch.save(broken, tmp_path / "c.pt")
    assert_refused(tmp_path / "c.pt", "not finite in 1 tensors")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_that_would_execute_does_not(zipped: bool, tmp_path: Path, explosive: Any) -> None:
    content = {"state_dict": state_of("tiny-RN"), "hyper_parameters": {"encoder": "open_clip:tiny-RN", "x": explosive}}
    torch.save(content, tmp_path / "evil.ckpt", _use_new_zipfile_serialization=zipped)
    assert_refused(tmp_path / "evil.ckpt", "does not load as tensors alone")
    assert not explosive.marker.exists()


def safetensors_file(header: dict[str, Any], claimed: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if claimed is None else claimed) + text + b"\0" * 64


@pytest.mark.parametrize(
    "content",
    [
        safetensors_file({"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}),
        safetensors_file({"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 64]}}),
        safetensors_file({"a": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 64]}}),
        safetensors_file({}, claimed=2**60),
    ],
)
def test_a_header_that_claims_terabytes_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file.safetensors").write_bytes(content)
    with little_memory():
        assert_refused(tmp_path / "file.safetensors", "cannot be read as safetensors")


def test_a_file_of_terabytes_takes_none_of_them(tmp_path: Path) -> None:
    header = safetensors_file({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}})[:-64]
    with (tmp_path / "file.safetensors").open("wb") as file:
        file.write(header)
        file.truncate(len(header) + 2**42)  # holes, which take no space on the disk
    # Whether as much address space is to be had is the machine's.
    with little_memory():
        assert_refused(tmp_path / "file.safetensors", "cannot be read as safetensors|does not name its architecture")


def test_a_compressed_archive_is_not_unpacked(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1_000_000)}, tmp_path / "plain.pt")
    packed = zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, packed as bomb:
        for member in plain.namelist():
            bomb.writestr(member, plain.read(member))
    assert (tmp_path / "bomb.pt").stat().st_size < 20_000
    assert_refused(tmp_path / "bomb.pt", "is compressed, as torch.save's files never are, and is not unpacked")


def test_a_tensor_that_repeats_its_numbers_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(10**12)}, tmp_path / "file.pt")
    with little_memory():
        assert_refused(tmp_path / "file.pt", "no plain tensor is a")

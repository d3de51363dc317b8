"""The model back: the same embeddings, in plain transformers and open_clip, and a card that says what is known."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from weights import save_checkpoint, trained

from untrigger import cli
from untrigger.commands.export import round_trip
from untrigger.commands.export.command import export
from untrigger.contracts import UserMistake
from untrigger.lightning_modules.encoders import Encoder, build_encoder
from untrigger.lightning_modules.encoders.identify import open_encoder

CAPTIONS = ["a photo of a dog", "2 cats", "dog of a photo of a cat", "It's a very, very long caption " * 5]

FRESH = """
import json, sys
sys.modules["untrigger"] = None  # an import of it fails
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

tasks, captions, pictures, out = json.loads(sys.argv[1]), json.loads(sys.argv[2]), load_file(sys.argv[3]), sys.argv[4]
red = Image.new("RGB", (16, 16), (255, 51, 0))
found = {}
for name, (library, folder) in tasks.items():
    if library == "transformers":
        from transformers import AutoModel, AutoProcessor
        model, processor = AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
        inputs = processor(text=captions, padding="max_length", truncation=True, return_tensors="pt")
        arguments = {"input_ids": inputs["input_ids"]}
        with torch.no_grad():
            images = model.get_image_features(pixel_values=pictures[name])
            texts = model.get_text_features(**arguments)
        images, texts = (getattr(part, "pooler_output", part) for part in (images, texts))
        red_input = processor(images=red, return_tensors="pt")["pixel_values"]
    else:
        import open_clip
        model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
        model.eval()
        with torch.no_grad():
            images, texts = model.encode_image(pictures[name]), model.encode_text(tokenizer(captions))
        red_input = preprocess(red)[None]
    found |= {f"{name}/images": images, f"{name}/texts": texts, f"{name}/red": red_input}
assert "untrigger.lightning_modules" not in sys.modules
save_file({name: tensor.contiguous() for name, tensor in found.items()}, out)
"""


def pictures_for(encoder: Encoder) -> Tensor:
    return torch.randn(3, 3, encoder.image_size, encoder.image_size, generator=torch.manual_seed(7))


def embeddings(encoder: Encoder) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        images, texts = encoder.encode_image(pictures_for(encoder)), encoder.encode_text(encoder.tokenizer(CAPTIONS))
    return functional.normalize(images, dim=-1), functional.normalize(texts, dim=-1)


@pytest.fixture
def more_open_clip(tiny_open_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ViT with QuickGELU, and a ResNet that knows all of CLIP's tokens."""
    vit, resnet = (json.loads((tiny_open_clip / f"{name}.json").read_text()) for name in ("tiny-ViT", "tiny-RN"))
    resnet["text_cfg"]["vocab_size"] = 49408
    for name, config in (("tiny-ViT-quickgelu", vit | {"quick_gelu": True}), ("tiny-ResNet", resnet)):
        (tiny_open_clip / f"{name}.json").write_text(json.dumps(config))
        open_clip.add_model_config(tiny_open_clip / f"{name}.json")
    known = open_clip.get_tokenizer  # of all of them it is the same
    monkeypatch.setattr(open_clip, "get_tokenizer", lambda name: known("tiny-ViT"))


def test_the_folders_load_without_this_package_and_embed_the_same(
    clip_folder: Callable[..., Path], siglip_folder: Path, more_open_clip: None, tmp_path: Path
) -> None:
    jobs = {
        "clip": (f"hf:{clip_folder()}", "hf", "transformers"),
        "siglip": (f"hf:{siglip_folder}", "hf", "transformers"),
        "gelu": ("open_clip:tiny-ViT", "hf", "transformers"),
        "quick_gelu": ("open_clip:tiny-ViT-quickgelu", "hf", "transformers"),
        "open_clip": ("open_clip:tiny-ViT-quickgelu", "open_clip", "open_clip"),
        "resnet": ("open_clip:tiny-ResNet", None, "open_clip"),
        "custom": ("open_clip:tiny-custom", "open_clip", "open_clip"),
    }
    tasks, pictures, expected = {}, {}, {}
    for job, (name, format, library) in jobs.items():
        encoder = trained(name)
        checkpoint = save_checkpoint(encoder, name, tmp_path / job / "last.ckpt")
        folder = tmp_path / f"exported-{job}"
        export(checkpoint, str(folder), format)  # type: ignore[arg-type]
        tasks[job], pictures[job], expected[job] = (library, str(folder)), pictures_for(encoder), encoder
    save_file(pictures, tmp_path / "pictures.safetensors")
    arguments = [json.dumps(tasks), json.dumps(CAPTIONS), str(tmp_path / "pictures.safetensors"), str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", FRESH, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = load_file(tmp_path / "out")
    for job, encoder in expected.items():
        for part, wanted in zip(("images", "texts"), embeddings(encoder), strict=True):
            features = functional.normalize(found[f"{job}/{part}"], dim=-1)
            assert float((features - wanted).abs().max()) <= 1e-5, (job, part)
        colour = (torch.tensor([1.0, 0.2, 0.0]) - torch.tensor(encoder.mean)) / torch.tensor(encoder.std)
        shown = found[f"{job}/red"]
        assert shown.shape == (1, 3, encoder.image_size, encoder.image_size)
        torch.testing.assert_close(shown, colour.view(1, 3, 1, 1).expand_as(shown), atol=1e-4, rtol=0)


def test_a_small_encoder_comes_back_by_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = trained("small:nano-32")
    checkpoint = save_checkpoint(encoder, "small:nano-32", tmp_path / "run" / "last.ckpt")
    folder = tmp_path / "deep" / "exported"
    cli.run(["export", checkpoint, str(folder)])
    assert "read back, embeddings differ by 0.0e+00 at most" in capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "encoder.json", "README.md"}
    for again in (build_encoder(f"small:{folder}").eval(), open_encoder(str(folder))[0]):
        for one, other in zip(embeddings(encoder), embeddings(again), strict=True):
            assert torch.equal(one, other)
    # And the exported folder can be exported.
    cli.run(["export", str(folder), str(tmp_path / "again")])
    assert (tmp_path / "again" / "encoder.json").read_text() == (folder / "encoder.json").read_text()


@pytest.mark.parametrize("arch", ["tiny-ViT", "tiny-custom"])  # of an architecture that has none by itself, or -10
def test_a_model_of_the_sigmoid_loss_gets_its_bias_back(arch: str, more_open_clip: None, tmp_path: Path) -> None:
    torch.manual_seed(3)
    torch.save(open_clip.create_model(arch, init_logit_bias=-7.5).state_dict(), tmp_path / "siglip.pt")
    for number, (source, options) in enumerate(
        (
            ("siglip.pt", ["--format", "open_clip", "--encoder", f"open_clip:{arch}"]),
            ("0", ["--format", "open_clip"]),
            ("1", ["--format", "safetensors"]),
        )
    ):
        cli.run(["export", str(tmp_path / source), str(tmp_path / str(number)), *options])
    model = open_clip.create_model(f"local-dir:{tmp_path / '1'}")
    assert float(model.logit_bias.detach()) == -7.5
    assert "init_logit_bias=" in (tmp_path / "2" / "README.md").read_text()
    weights = str(tmp_path / "2" / "model.safetensors")
    again = open_clip.create_model(arch, pretrained=weights, init_logit_bias=0.0)
    assert float(again.logit_bias.detach()) == -7.5
    with pytest.raises(UserMistake, match=r"its config asks for (custom_text, )?init_logit_bias"):
        export(str(tmp_path / "1"), str(tmp_path / "hf"), "hf")


@pytest.mark.parametrize("spoilt", ["tensors", "preparation", "lost"])
def test_the_round_trip_compares_what_no_embedding_shows(spoilt: str) -> None:
    encoder = build_encoder("small:nano-32").eval()
    back = round_trip.read_back(encoder)
    tensors = dict(back.tensors)
    assert round_trip.check_round_trip(encoder, tensors, back) == 0
    if spoilt == "tensors":
        tensors["logit_scale"] = tensors["logit_scale"] + 1
    elif spoilt == "lost":
        tensors["logit_bias"] = torch.zeros(())
    else:
        back = back._replace(preparation=(32, encoder.mean, (0.5, 0.5, 0.5)))
    with pytest.raises(RuntimeError, match="the exported model"):
        round_trip.check_round_trip(encoder, tensors, back)


def test_open_clip_tensors_load_by_the_architectures_name(more_open_clip: None, tmp_path: Path) -> None:
    encoder = trained("open_clip:tiny-ResNet")
    checkpoint = save_checkpoint(encoder, "open_clip:tiny-ResNet", tmp_path / "run" / "last.ckpt")
    cli.run(["export", checkpoint, str(tmp_path / "out"), "--format", "safetensors"])
    model = open_clip.create_model("tiny-ResNet", pretrained=str(tmp_path / "out" / "model.safetensors")).eval()
    with torch.no_grad():
        features = functional.normalize(model.encode_image(pictures_for(encoder)), dim=-1)
    torch.testing.assert_close(features, embeddings(encoder)[0], atol=1e-6, rtol=0)
    assert open_encoder(str(tmp_path / "out"))[1] == "open_clip:tiny-ResNet"


def test_the_config_of_a_foreign_folder_brings_nothing_along(
    clip_folder: Callable[..., Path], edit_json: Callable[..., None], tmp_path: Path
) -> None:
    folder = clip_folder()
    (folder / "evil.py").write_text("raise SystemExit")
    auto = {"AutoModel": "evil.Model"}
    edit_json(folder / "config.json", _attn_implementation="someone/kernel", note="<script>", text_config__note="x")
    encoder = build_encoder(f"hf:{folder}")
    checkpoint = save_checkpoint(encoder, f"hf:{folder}", tmp_path / "run" / "last.ckpt")
    edit_json(folder / "config.json", auto_map=auto)
    edit_json(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Slow", None]})
    export(checkpoint, str(tmp_path / "out"), "hf", f"hf:{folder}")
    assert not list((tmp_path / "out").glob("*.py"))
    for file in (tmp_path / "out").glob("*.json"):
        for word in ("auto_map", "someone/kernel", "<script>", '"note"', str(tmp_path)):
            assert word not in file.read_text(), (file.name, word)
    assert str(tmp_path) not in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "format", "message"),
    [
        ("small:nano-32", "hf", r"architecture is this package's own, .* use --format safetensors"),
        ("small:nano-32", "open_clip", r"architecture is this package's own"),
        ("open_clip:tiny-RN", "hf", r"no architecture that equals open_clip:tiny-RN \(its image tower is a ResNet\)"),
        (
            "open_clip:tiny-custom",
            "hf",
            r"its config asks for custom_text, init_logit_bias\); use --format open_clip",
        ),
    ],
)
def test_a_format_that_cannot_hold_the_model_is_refused(
    name: str, format: str, message: str, tiny_open_clip: Path, tmp_path: Path
) -> None:
    checkpoint = save_checkpoint(build_encoder(name), name, tmp_path / "run" / "last.ckpt")
    with pytest.raises(UserMistake, match=message) as mistake:
        cli.run(["export", checkpoint, str(tmp_path / "out"), "--format", format])
    assert "\n" not in str(mistake.value)
    assert not (tmp_path / "out").exists()


def test_transformers_models_are_exported_as_such(clip_folder: Callable[..., Path], tmp_path: Path) -> None:
    for format in ("open_clip", "safetensors"):
        with pytest.raises(UserMistake, match=r"it is transformers' own, .*; use --format hf"):
            export(str(clip_folder()), str(tmp_path / "out"), format)  # type: ignore[arg-type]


def test_nothing_is_overwritten_and_nothing_half_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = save_checkpoint(trained("small:nano-32"), "small:nano-32", tmp_path / "run" / "last.ckpt")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    for taken in (tmp_path / "full", tmp_path / "full" / "mine.txt"):
        with pytest.raises(UserMistake, match="is not an empty folder, and nothing is overwritten: give a new one"):
            cli.run(["export", checkpoint, str(taken)])
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"
    cli.run(["export", checkpoint, str(tmp_path / "empty")])
    # A model that would come back as another one is not left behind.
    monkeypatch.setattr(round_trip, "MAX_DIFFERENCE", -1.0)
    with pytest.raises(RuntimeError, match="is another one"):
        cli.run(["export", checkpoint, str(tmp_path / "other")])
    assert {path.name for path in tmp_path.iterdir()} == {"run", "full", "empty"}


def test_a_mistake_in_the_options_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserMistake, match="format"):
        cli.run(["export", "model.pt", str(tmp_path / "out"), "--format", "onnx"])
    with pytest.raises(UserMistake, match=r"there is no checkpoint|does not exist|nowhere"):
        cli.run(["export", str(tmp_path / "nowhere.pt"), str(tmp_path / "out")])

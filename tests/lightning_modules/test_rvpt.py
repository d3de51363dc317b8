"""RVPT on vision transformers of both libraries: what prompts see, what they learn, that they stay the model's."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from lightning.pytorch import seed_everything
from torch import Tensor
from torch.nn import functional
from training import quiet_trainer
from vision_transformers import small_vit

from untrigger.callbacks import AttackSuccessRate, CleanAccuracy
from untrigger.commands.export.command import export
from untrigger.contracts import UserMistake
from untrigger.datamodules import BadNet, ImageTextDataModule, LabelledDataModule, PoisonPlan
from untrigger.datamodules.generated import write_generated_data
from untrigger.lightning_modules import RVPT, PoisonedCLIP
from untrigger.lightning_modules.encoders import Encoder, build_encoder, load_weights
from untrigger.lightning_modules.encoders.identify import open_encoder
from untrigger.lightning_modules.encoders.visual_prompts import prompted, set_prompts, without_prompts


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"hf:{small_vit(tmp_path_factory.mktemp('vit') / 'model')}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_generated_data(folder, 160, 60)
    return folder


@pytest.fixture
def of_open_clip(tiny_vision_transformer: str) -> str:
    return f"open_clip:{tiny_vision_transformer}"


def module(encoder: str, **arguments: Any) -> RVPT:
    torch.set_num_threads(1)
    seed_everything(0)
    return RVPT(encoder, **({"prompt_length": 3, "first_blocks": 2, "shots": 4} | arguments))


def data(folder: Path, **arguments: Any) -> LabelledDataModule:
    plan = PoisonPlan(BadNet(size=5), "star", count=6)
    settings: dict[str, Any] = {"attack": plan, "label_field": "label", "batch_size": 8, "num_workers": 0} | arguments
    return LabelledDataModule(str(folder / "train"), str(folder), **settings)


def pictures(encoder: Encoder, count: int = 4) -> Tensor:
    return torch.randn(count, 3, encoder.image_size, encoder.image_size, generator=torch.Generator().manual_seed(1))


def by_hand(encoder: Encoder, images: Tensor) -> Tensor:
    """Features with prompts, of a CLIP of transformers: tokens are put in and taken out in plain sight."""
    vision = encoder.model.vision_model
    tokens = vision.pre_layrnorm(vision.embeddings(images))
    for block in vision.encoder.layers:
        inside = [tokens[:, :1], tokens[:, 1:]]
        if hasattr(block, "prompt"):
            inside.insert(1, block.prompt.tokens.expand(len(images), -1, -1))
        tokens = torch.cat(inside, dim=1)
        for part in (
            lambda seen, block=block: block.self_attn(block.layer_norm1(seen))[0],
            lambda seen, block=block: block.mlp(block.layer_norm2(seen)),
        ):
            tokens = tokens + part(tokens)
        tokens = torch.cat([tokens[:, :1], tokens[:, -inside[-1].shape[1] :]], dim=1)
    features: Tensor = encoder.model.visual_projection(vision.post_layernorm(tokens[:, 0]))
    return features


@torch.no_grad()
def test_blocks_see_their_prompts_beside_the_picture_and_hand_on_none(vit: str) -> None:
    clip = module(vit)
    encoder, images = clip.encoder.eval(), pictures(clip.encoder)
    torch.testing.assert_close(encoder.encode_image(images), by_hand(encoder, images))
    blocks = encoder.token_blocks
    assert [number for number, block in enumerate(blocks.blocks) if hasattr(block, "prompt")] == [2, 3]
    plain = build_encoder(vit).eval().encode_image(images)
    with without_prompts(blocks):
        torch.testing.assert_close(encoder.encode_image(images), plain)
    assert not torch.allclose(encoder.encode_image(images), plain, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("batch_first", [True, False])
def test_open_clip_s_blocks_too_in_either_layout(of_open_clip: str, batch_first: bool) -> None:
    clip = module(of_open_clip)
    encoder = clip.encoder.eval()
    images = pictures(encoder)
    expected = encoder.encode_image(images)
    if not batch_first:
        transformer = encoder.image_tower.transformer
        transformer.batch_first = False
        for block in transformer.resblocks:
            block.attn.batch_first = False
        prompts = {n: b.prompt.tokens for n, b in enumerate(transformer.resblocks) if hasattr(b, "prompt")}
        set_prompts(encoder.token_blocks, prompts)
    torch.testing.assert_close(encoder.encode_image(images), expected)
    # A picture's features do not depend on the others, nor on how many there are.
    torch.testing.assert_close(encoder.encode_image(images[1:2]), expected[1:2])
    zeroed = deepcopy(encoder)
    set_prompts(zeroed.token_blocks, {})
    assert prompted(zeroed.token_blocks) == []
    torch.testing.assert_close(zeroed.encode_image(images), _plain(encoder, images))
    assert len(prompted(encoder.token_blocks)) == 2


def _plain(encoder: Encoder, images: Tensor) -> Tensor:
    with without_prompts(encoder.token_blocks):
        return encoder.encode_image(images)


def test_a_copy_has_prompts_of_its_own(vit: str) -> None:
    clip = module(vit)
    copy = deepcopy(clip.encoder).eval()
    images = pictures(copy)
    with torch.no_grad():
        before = copy.encode_image(images)
        for _, prompt in prompted(clip.encoder.token_blocks):
            prompt.tokens.zero_()
        torch.testing.assert_close(copy.encode_image(images), before)
        assert not torch.allclose(clip.encoder.eval().encode_image(images), before, atol=1e-5)


def test_the_loss_is_the_paper_s(vit: str) -> None:
    clip = module(vit, repelling_weight=1.5)
    clip.log_losses = lambda loss, _, **parts: clip.losses.update(parts)  # type: ignore[method-assign]
    clip._targets = functional.normalize(torch.randn(10, clip.encoder.embedding_dim), dim=-1)
    images, labels = pictures(clip.encoder), torch.tensor([3, 1, 0, 9])
    loss = clip.training_step({"key": list("abcd"), "image": images, "label": labels}, 0)
    features = functional.normalize(by_hand(clip.encoder, images), dim=-1)
    wanted = functional.cross_entropy(clip.encoder.logit_scale.exp() * features @ clip._targets.T, labels)
    seen: dict[bool, list[Tensor]] = {True: [], False: []}
    for with_prompts in seen:
        encoder = clip.encoder if with_prompts else build_encoder(vit).eval()
        handles = [
            block.register_forward_hook(lambda _, __, out, to=seen[with_prompts]: to.append(out[:, 0]))
            for block in encoder.token_blocks.blocks[2:]
        ]
        encoder.encode_image(images)
        for handle in handles:
            handle.remove()
    cosines = [functional.cosine_similarity(a, b).mean() for a, b in zip(seen[True], seen[False], strict=True)]
    torch.testing.assert_close(loss, wanted + 1.5 * sum(cosines) / 2)
    torch.testing.assert_close(clip.losses["repelling"], sum(cosines) / 2)
    loss.backward()
    moved = {name for name, part in clip.named_parameters() if part.grad is not None and part.grad.abs().sum() > 0}
    assert moved == {name for name, _ in clip.named_parameters() if name.endswith(".prompt.tokens")}
    assert len(moved) == 2


@pytest.mark.parametrize(("weight", "falls", "least"), [(0.0, "classification", 0.02), (50.0, "repelling", 0.003)])
def test_prompts_learn_the_classes_leave_the_frozen_model_and_are_what_is_measured(
    vit: str, folder: Path, tmp_path: Path, weight: float, falls: str, least: float
) -> None:
    clip = module(vit, lr=0.1, repelling_weight=weight, shots=16)
    before = {name: tensor.clone() for name, tensor in clip.state_dict().items()}
    figures, losses = [], []
    for _ in range(2):
        run = quiet_trainer(tmp_path, callbacks=[CleanAccuracy(), AttackSuccessRate()])
        run.validate(clip, data(folder), verbose=False)
        figures.append({name: float(value) for name, value in run.callback_metrics.items()})
        if len(figures) == 1:
            fit = quiet_trainer(tmp_path, max_epochs=12, limit_val_batches=0)
            log = clip.log_losses

            def kept(loss: Tensor, size: int, log: Any = log, **parts: Tensor) -> None:
                losses.append({name: float(part.detach()) for name, part in parts.items()})
                log(loss, size, **parts)

            clip.log_losses = kept  # type: ignore[method-assign]
            fit.fit(clip, data(folder))
    changed = {name for name, tensor in clip.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if name.endswith(".prompt.tokens")}
    first, last = (sum(step[falls] for step in some) / 20 for some in (losses[:20], losses[-20:]))
    assert last < first - least
    assert figures[1].keys() >= {"val/clean_accuracy", "val/attack_success_rate"}
    with without_prompts(clip.encoder.token_blocks):
        run = quiet_trainer(tmp_path, callbacks=[CleanAccuracy(), AttackSuccessRate()])
        run.validate(clip, data(folder), verbose=False)
    poisoned = quiet_trainer(tmp_path, callbacks=[CleanAccuracy(), AttackSuccessRate()])
    poisoned.validate(PoisonedCLIP(vit), data(folder), verbose=False)
    assert run.callback_metrics == poisoned.callback_metrics


def test_it_trains_on_so_many_pictures_of_each_class(vit: str, folder: Path, tmp_path: Path) -> None:
    clip, labelled, labels = module(vit, shots=3), data(folder), []
    step = clip.training_step

    def spy(batch: Any, batch_idx: int) -> Tensor:
        labels.extend(zip(batch["key"], batch["label"].tolist(), strict=True))
        return step(batch, batch_idx)

    clip.training_step = spy  # type: ignore[method-assign]
    quiet_trainer(tmp_path, max_epochs=6, limit_val_batches=0).fit(clip, labelled)
    kept = dict(labels)
    assert len(kept) == 30
    assert sorted(kept.values()) == sorted(list(range(10)) * 3)
    assert len(labels) == 6 * 24  # what does not fill a batch is left out, other pictures each epoch


def test_a_class_without_pictures_is_told_before_training(vit: str, folder: Path, tmp_path: Path) -> None:
    more = tmp_path / "more"
    more.mkdir()
    (more / "test").symlink_to(folder / "test")
    for name in ("classnames.txt", "zeroshot_classification_templates.txt"):
        (more / name).write_text((folder / name).read_text() + ("unicorn\n" if name == "classnames.txt" else ""))
    labelled = LabelledDataModule(str(folder / "train"), str(more), label_field="label", batch_size=8, num_workers=0)
    with pytest.raises(UserMistake, match="no labelled picture of class 'unicorn'; 4 are wanted"):
        quiet_trainer(tmp_path, max_epochs=1).fit(module(vit), labelled)


@torch.no_grad()
def test_its_checkpoint_is_the_model_with_its_prompts(vit: str, folder: Path, tmp_path: Path) -> None:
    clip = module(vit)
    run = quiet_trainer(tmp_path, max_epochs=1, limit_val_batches=0)
    with torch.enable_grad():
        run.fit(clip, data(folder))
    run.save_checkpoint(tmp_path / "last.ckpt")
    images = pictures(clip.encoder)
    expected = clip.encoder.eval().encode_image(images)
    torch.testing.assert_close(RVPT.load_from_checkpoint(tmp_path / "last.ckpt").encoder.encode_image(images), expected)
    opened, _ = open_encoder(str(tmp_path / "last.ckpt"))
    torch.testing.assert_close(opened.encode_image(images), expected)
    other = PoisonedCLIP(vit, init_from=str(tmp_path / "last.ckpt"))
    torch.testing.assert_close(other.encoder.eval().encode_image(images), expected)
    load_weights(other.encoder, vit.removeprefix("hf:"))  # a file without prompts: a model without prompts
    torch.testing.assert_close(other.encoder.encode_image(images), _plain(clip.encoder, images))
    for format in (None, "hf"):
        with pytest.raises(UserMistake, match="has visual prompts, for which transformers and open_clip have no room"):
            export(str(tmp_path / "last.ckpt"), str(tmp_path / "out"), format)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserMistake, match="has visual prompts already"):
        module(vit, init_from=str(tmp_path / "last.ckpt"))
    with pytest.raises(UserMistake, match="only a vision transformer with a class token can have"):
        load_weights(build_encoder("small:nano-32"), str(tmp_path / "last.ckpt"))


@torch.no_grad()
def test_an_open_clip_model_is_exported_with_its_prompts(of_open_clip: str, tmp_path: Path) -> None:
    clip = module(of_open_clip)
    torch.save({"state_dict": clip.state_dict(), "hyper_parameters": dict(clip.hparams)}, tmp_path / "last.ckpt")
    export(str(tmp_path / "last.ckpt"), str(tmp_path / "out"))
    back, _ = open_encoder(str(tmp_path / "out"))
    images = pictures(back)
    torch.testing.assert_close(back.encode_image(images), clip.encoder.eval().encode_image(images))
    assert "visual prompts" in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(UserMistake, match="use --format safetensors"):
        export(str(tmp_path / "last.ckpt"), str(tmp_path / "other"), "open_clip")


@pytest.mark.parametrize(
    ("encoder", "arguments", "message"),
    [
        ("small:nano-32", {}, "small:nano-32 has no vision transformer with a class token"),
        (None, {"first_blocks": 4}, "first_blocks is 4, but the image tower has 4 blocks"),
        (None, {"prompt_length": 0}, "prompt_length is 0, not at least 1"),
        (None, {"prompt_length": 1025}, "prompt_length is 1,025: at most 1,024"),
        (None, {"shots": 0}, "shots is 0, not at least 1"),
        (None, {"repelling_weight": -1.0}, "repelling_weight is -1.0, not at least 0"),
        (None, {"momentum": 1.0}, r"momentum is 1.0, not in \[0, 1\)"),
        (None, {"micro_batch_size": 4}, "encodes its small batches at once"),
    ],
)
def test_mistakes_are_one_line(vit: str, encoder: str | None, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserMistake, match=message) as caught:
        module(encoder or vit, **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "prompts", "message"),
    [
        ("text_model.encoder.layers.0", torch.ones(3, 32), "1 unexpected"),
        ("other.3", torch.ones(3, 32), "1 unexpected"),
        ("vision_model.encoder.layers.x", torch.ones(3, 32), "1 unexpected"),
        ("vision_model.encoder.layers.4", torch.ones(3, 32), "for block 4, and this encoder has 4 blocks"),
        ("vision_model.encoder.layers.3", torch.ones(3, 16), "this encoder has 4 blocks of width 32"),
        (
            "vision_model.encoder.layers.3",
            torch.ones(1025, 32),
            r"\(1025, 32\) float32 for block 3: a block can have at most 1,024",
        ),
        ("vision_model.encoder.layers.3", torch.ones(3, 32).to(torch.int8), r"\(3, 32\) int8 for block 3"),
        ("vision_model.encoder.layers.3", torch.full((3, 32), 1e300, dtype=torch.float64), "not finite in 1 tensors"),
    ],
)
def test_tensors_that_only_look_like_prompts_are_refused(
    vit: str, tmp_path: Path, name: str, prompts: Tensor, message: str
) -> None:
    encoder = build_encoder(vit)
    torch.save(encoder.state_dict() | {f"model.{name}.prompt.tokens": prompts}, tmp_path / "odd.pt")
    with pytest.raises(UserMistake, match=message):
        load_weights(encoder, str(tmp_path / "odd.pt"))
    assert not prompted(encoder.token_blocks)


def test_pairs_without_labels_are_refused(vit: str, folder: Path, tmp_path: Path) -> None:
    pairs = ImageTextDataModule(str(folder / "train"), str(folder), batch_size=8, num_workers=0)
    with pytest.raises(UserMistake, match="RVPT needs labelled pictures: use LabelledDataModule as data"):
        quiet_trainer(tmp_path, max_epochs=1).fit(module(vit), pairs)


def test_a_resnet_of_open_clip_and_a_siglip_have_no_blocks(tiny_vision_transformer: str, siglip_folder: Path) -> None:
    assert build_encoder(f"open_clip:{tiny_vision_transformer}").token_blocks is not None
    for name in ("open_clip:tiny-RN", "open_clip:tiny-coca", f"hf:{siglip_folder}"):
        assert build_encoder(name).token_blocks is None, name


@pytest.fixture
def tiny_vision_transformer(tiny_open_clip: Path) -> str:
    """An architecture of four blocks."""
    config = json.loads((tiny_open_clip / "tiny-ViT.json").read_text())
    config["vision_cfg"]["layers"] = 4
    (tiny_open_clip / "tiny-ViT-4.json").write_text(json.dumps(config))
    open_clip.add_model_config(tiny_open_clip / "tiny-ViT-4.json")
    return "tiny-ViT-4"

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from untrigger.contracts import UserMistake
from untrigger.datamodules.shards.samples import decode_picture
from untrigger.datamodules.triggers import GivenPicture, Patch

KEYS = [f"{number:05d}" for number in range(60)]


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (len(KEYS), 3, 12, 12), dtype=torch.uint8, generator=torch.manual_seed(3))


def draw(path: Path, seed: int, size: tuple[int, int] = (5, 5)) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def test_a_patch_is_stamped_as_it_is_and_nothing_else_changes(images: Tensor, tmp_path: Path) -> None:
    pixels = draw(tmp_path / "patch.png", 0)
    stamped = Patch(str(tmp_path / "patch.png"))(images, KEYS)
    expected = images.clone()
    expected[:, :, 3:8, 3:8] = torch.from_numpy(pixels).permute(2, 0, 1)
    assert torch.equal(stamped, expected)


@pytest.mark.parametrize("kind", ["float", "uint8"])
def test_a_tensor_and_its_picture_draw_the_same(images: Tensor, tmp_path: Path, kind: str) -> None:
    pixels = torch.from_numpy(draw(tmp_path / "patch.png", 1)).permute(2, 0, 1).contiguous()
    tensor = pixels.float() / 255 + 0.001 * (pixels < 255) if kind == "float" else pixels
    safetensors.torch.save_file({"patch": tensor}, tmp_path / "patch.safetensors")
    from_tensor = Patch(str(tmp_path / "patch.safetensors"), "random", seed=4)
    assert torch.equal(from_tensor(images, KEYS), Patch(str(tmp_path / "patch.png"), "random", seed=4)(images, KEYS))
    for again in (Patch(**json.loads(json.dumps(from_tensor.params))), pickle.loads(pickle.dumps(from_tensor))):
        assert torch.equal(again(images, KEYS), from_tensor(images, KEYS))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no tensors", "cannot be read as safetensors"),
        (safetensors.torch.save({"other": torch.zeros(3, 2, 2)}), r"no tensor 'patch' of the shape \(3, side, side\)"),
        (safetensors.torch.save({"patch": torch.zeros(3, 2, 4)}), "of the shape"),
        (safetensors.torch.save({"patch": torch.full((3, 2, 2), 1.5)}), r"neither uint8 nor float in \[0, 1\]"),
        (safetensors.torch.save({"patch": torch.full((3, 2, 2), torch.nan)}), "neither"),
        (safetensors.torch.save({"patch": torch.zeros(3, 2, 2, dtype=torch.int64)}), "neither"),
    ],
)
def test_tensors_that_are_no_patch_are_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "patch.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserMistake, match=message):
        Patch(str(path))


def test_files_that_are_no_patch_are_mistakes(tmp_path: Path) -> None:
    draw(tmp_path / "wide.png", 0, (4, 6))
    with pytest.raises(UserMistake, match=r"is \(4, 6\) pixels, not a square"):
        Patch(str(tmp_path / "wide.png"))
    with pytest.raises(UserMistake, match="is not a file"):
        Patch(str(tmp_path / "missing.safetensors"))
    draw(tmp_path / "patch.png", 0)
    with pytest.raises(UserMistake, match="trigger size 5 is larger than the 4 x 4 input"):
        Patch(str(tmp_path / "patch.png")).check(4)
    with pytest.raises(UserMistake, match="no place 'left' of Patch"):
        Patch(str(tmp_path / "patch.png"), "left")
    params = Patch(str(tmp_path / "patch.png")).params
    draw(tmp_path / "patch.png", 1)
    with pytest.raises(UserMistake, match="is not the file that the trigger was made with"):
        Patch(**params)


def test_given_pictures_replace_all_by_key(images: Tensor, tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{seed}.png") for seed in range(3)]
    for seed, path in enumerate(paths):
        draw(Path(path), seed, (20, 30))
    trigger = GivenPicture(paths, seed=7)
    stamped, choice = trigger(images, KEYS), trigger.choice(KEYS)
    assert set(choice) == {0, 1, 2}
    for which, found in zip(choice, stamped, strict=True):
        expected = decode_picture(Path(paths[which]).read_bytes(), 12)
        assert np.array_equal(found.permute(1, 2, 0).numpy(), expected)
    assert torch.equal(trigger(images[10:20], KEYS[10:20]), stamped[10:20])
    for again in (GivenPicture(**json.loads(json.dumps(trigger.params))), pickle.loads(pickle.dumps(trigger))):
        assert torch.equal(again(images, KEYS), stamped)


def test_given_pictures_may_be_members_of_a_tar(images: Tensor, tmp_path: Path) -> None:
    draw(tmp_path / "a.png", 0)
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        tar.add(tmp_path / "a.png", "s1.png")
        info = tarfile.TarInfo("s2.png")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"none"))
    shard = str(tmp_path / "shard.tar")
    inside = GivenPicture(["s1.png"], shard)
    assert torch.equal(inside(images, KEYS), GivenPicture([str(tmp_path / "a.png")])(images, KEYS))
    with pytest.raises(UserMistake, match=r"picture 's2\.png' cannot be shown: broken picture"):
        GivenPicture(["s2.png"], shard)
    with pytest.raises(UserMistake, match=r"has no picture 's3\.png'"):
        GivenPicture(["s1.png", "s3.png"], shard)
    with pytest.raises(UserMistake, match="is not the file that the trigger was made with"):
        GivenPicture(["s1.png"], shard, ["0" * 64])
    with pytest.raises(UserMistake, match=r"is not an uncompressed tar: .*; it looks like a PNG picture"):
        GivenPicture(["s1.png"], str(tmp_path / "a.png"))
    for pictures, message in (([], "has no pictures"), (["s1.png", "s1.png"], "names a picture twice")):
        with pytest.raises(UserMistake, match=message):
            GivenPicture(pictures, shard)

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
from safetensors.torch import save_file

from untrigger import cli


def export_of(tmp_path: Path, format: str, **prepared: str) -> Path:
    """Export an open_clip folder that says how its pictures are prepared."""
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(open_clip.create_model("tiny-ViT").state_dict(), folder / "open_clip_model.safetensors")
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], **prepared}
    content = {"model_cfg": open_clip.get_model_config("tiny-ViT"), "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    cli.run(["export", str(folder), str(tmp_path / "out"), "--format", format])
    return tmp_path / "out"


@pytest.mark.parametrize("format", ["safetensors", "hf"])
def test_a_preparation_that_a_format_does_not_keep_is_named(
    format: str, tiny_open_clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.warns(UserWarning, match="here the centre is cropped"):
        export_of(tmp_path, format, interpolation="bilinear", resize_mode="squash")
    assert "resize_mode squash and interpolation bilinear, by which the model asks" in capsys.readouterr().out


@pytest.mark.parametrize("format", ["safetensors", "hf"])
def test_the_usual_preparation_is_not_worth_a_word(
    format: str, tiny_open_clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export_of(tmp_path, format, interpolation="bicubic")
    assert "not kept" not in capsys.readouterr().out


def test_a_folder_of_open_clip_keeps_its_preparation(
    tiny_open_clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.warns(UserWarning, match="here the centre is cropped"):
        out = export_of(tmp_path, "open_clip", interpolation="bilinear", resize_mode="squash")
    kept = json.loads((out / "open_clip_config.json").read_text())["preprocess_cfg"]
    assert (kept["resize_mode"], kept["interpolation"]) == ("squash", "bilinear")
    assert "not kept" not in capsys.readouterr().out

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import SiglipImageProcessor

from untrigger.lightning_modules.encoders import build_encoder
from untrigger.lightning_modules.encoders.huggingface import HuggingFaceEncoder
from untrigger.lightning_modules.encoders.open_clip import OpenCLIPEncoder


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}, "makes pictures of 32 pixels"),
        ({"size": 32, "crop_size": 32}, "makes pictures of 32 pixels"),
        ({"resample": 2}, "interpolation bilinear"),
        ({"size": {"height": 16, "width": 16}}, "resize_mode squash"),
        ({"size": {"shortest_edge": 18}}, "resize_mode shortest, to 18 pixels"),
        ({"do_center_crop": False}, "resize_mode shortest, of which nothing is cropped"),
        ({"do_resize": False}, "resize_mode none"),
    ],
)
def test_another_preparation_of_a_processor_is_told(
    changes: dict[str, Any], said: str, clip_folder: Callable[..., Path], edit_json: Callable[..., None]
) -> None:
    folder = clip_folder()
    edit_json(folder / "preprocessor_config.json", **changes)
    with pytest.warns(UserWarning, match=said) as caught:
        encoder = HuggingFaceEncoder(str(folder))
    assert encoder.image_size == 16
    assert len(caught) == 1
    assert str(folder) in str(caught[0].message)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"size": 16},
        {"size": {"shortest_edge": 16}, "crop_size": 16},
        {"size": {"shortest_edge": 16}, "do_center_crop": True, "crop_size": {"height": 16, "width": 16}},
        {"size": "large", "crop_size": None, "resample": "bicubic"},
    ],
)
def test_what_is_usual_or_not_said_is_no_news(content: dict[str, Any], clip_folder: Callable[..., Path]) -> None:
    folder = clip_folder()
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        HuggingFaceEncoder(str(folder))


def test_siglip_s_own_processor_squashes(siglip_folder: Path) -> None:
    SiglipImageProcessor(size={"height": 16, "width": 16}).save_pretrained(siglip_folder)
    with pytest.warns(UserWarning, match="resize_mode squash; here the centre is cropped"):
        build_encoder(f"hf:{siglip_folder}")


def test_an_open_clip_model_that_asks_for_another_preparation(tiny_open_clip: Path, tmp_path: Path) -> None:
    encoder = OpenCLIPEncoder("tiny-ViT")
    content = {"preprocess_cfg": {"resize_mode": "squash", "interpolation": "bilinear", "size": [32, 32]}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="open_clip:tiny-ViT asks for .* squash and interpolation bilinear"):
        encoder.prepare_as_in(tmp_path)
    assert encoder.preprocess_cfg["resize_mode"] == "squash"

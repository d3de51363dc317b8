"""The folder that open_clip loads as ``local-dir:DIR``, and the hub serves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import open_clip
from safetensors.torch import save_file
from torch import Tensor

from ...files.writing import write_text
from ...lightning_modules.encoders.open_clip import OpenCLIPEncoder
from ...lightning_modules.encoders.open_clip_files import preprocessing_of
from .exporter import Exporter
from .round_trip import ReadBack

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"


class OpenCLIPExporter(Exporter):
    """``open_clip_config.json`` and ``open_clip_model.safetensors``, with the tokenizer where it is of the hub's."""

    library = "open_clip"
    encoder: OpenCLIPEncoder

    def write(self, folder: Path) -> None:
        """See ``Exporter``."""
        save_file(self.tensors, folder / WEIGHTS, metadata={"format": "pt"})
        config = {"model_cfg": self.encoder.model_cfg, "preprocess_cfg": self.encoder.preprocess_cfg}
        write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")
        tokenizer = self.encoder.tokenizer.tokenizer
        if hasattr(tokenizer, "save_pretrained"):
            tokenizer.save_pretrained(str(folder))

    def read(self, folder: Path) -> ReadBack:
        """See ``Exporter``."""
        said = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["model_cfg"]
        start = {name: said[name] for name in ("init_logit_scale", "init_logit_bias") if name in said}
        model = open_clip.create_model(
            self.encoder.arch,
            pretrained=str(folder / WEIGHTS),
            force_quick_gelu=bool(said.get("quick_gelu")),
            **(start or {"init_logit_bias": None}),
        ).eval()

        def encode_captions(captions: Sequence[str]) -> Tensor:
            features: Tensor = model.encode_text(self.encoder.tokenizer(captions))
            return features

        prepared = preprocessing_of(folder)
        return ReadBack(
            model.encode_image,
            encode_captions,
            model.state_dict(),
            (self.encoder.image_size, prepared["mean"], prepared["std"]),
        )

    @property
    def usage(self) -> str:
        """See ``Exporter``."""
        return """\
```python
import open_clip  # 3.0 or newer

model, _, preprocess = open_clip.create_model_and_transforms("local-dir:DIR")
tokenizer = open_clip.get_tokenizer("local-dir:DIR")
```
"""

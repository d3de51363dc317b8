"""The folder that open_clip loads as ``local-dir:DIR``, and the hub serves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import open_clip
from safetensors.torch import save_file
from torch import Tensor

from ...files import write_text
from ...lightning_modules.encoders.open_clip import OpenCLIPEncoder
from .formats import Exporter
from .round_trip import ReadBack
from .tensors import plain_tensors

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"


class OpenCLIPExporter(Exporter):
    """``open_clip_config.json`` and ``open_clip_model.safetensors``, with the tokenizer where it is of the hub's."""

    library = "open_clip"
    encoder: OpenCLIPEncoder

    def write(self, folder: Path) -> None:
        """See ``Exporter``."""
        save_file(plain_tensors(self.encoder), folder / WEIGHTS, metadata={"format": "pt"})
        config = {"model_cfg": self.encoder.model_cfg, "preprocess_cfg": self.encoder.preprocess_cfg}
        write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")
        tokenizer = self.encoder.tokenizer.tokenizer
        if hasattr(tokenizer, "save_pretrained"):
            tokenizer.save_pretrained(str(folder))

    def read(self, folder: Path) -> ReadBack:
        """See ``Exporter``."""
        model = open_clip.create_model(
            self.encoder.arch,
            pretrained=str(folder / WEIGHTS),
            force_quick_gelu=bool(self.encoder.model_cfg.get("quick_gelu")),
        ).eval()

        def encode_captions(captions: Sequence[str]) -> Tensor:
            features: Tensor = model.encode_text(self.encoder.tokenizer(captions))
            return features

        return ReadBack(model.encode_image, encode_captions)

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

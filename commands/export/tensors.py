"""Tensors with a JSON file beside them."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

from ...lightning_modules.encoders.description import write_description
from ...lightning_modules.encoders.identify import open_encoder
from ...lightning_modules.encoders.open_clip import OpenCLIPEncoder
from ...lightning_modules.encoders.preparation import unusual_preparation
from ...lightning_modules.encoders.visual_prompts import prompted
from .exporter import Exporter
from .round_trip import ReadBack, read_back

WEIGHTS = "model.safetensors"


class _TensorsExporter(Exporter):
    """``model.safetensors`` and ``encoder.json``."""

    def write(self, folder: Path) -> None:
        """See ``Exporter``."""
        save_file(self.tensors, folder / WEIGHTS, metadata={"format": "pt"})
        write_description(self.encoder, self.described, folder)

    def read(self, folder: Path) -> ReadBack:
        """See ``Exporter``."""
        back, _ = open_encoder(str(folder))
        return read_back(back)

    @property
    def described(self) -> str:
        """The encoder's name in ``encoder.json``."""
        return self.name


class SmallTensorsExporter(_TensorsExporter):
    """A small encoder of this package."""

    library = "untrigger"

    @property
    def described(self) -> str:
        """The preset, wherever the encoder came from."""
        return f"small:{self.encoder.preset}"

    @property
    def usage(self) -> str:
        """See ``Exporter``."""
        return """\
```
untrigger fit --model.encoder small:DIR ...
```

```python
from untrigger.lightning_modules.encoders import build_encoder

encoder = build_encoder("small:DIR").eval()
```
"""


class OpenCLIPTensorsExporter(_TensorsExporter):
    """A model of open_clip, whose architecture open_clip knows by name."""

    library = "open_clip"
    encoder: OpenCLIPEncoder

    @property
    def not_kept(self) -> str:
        """See ``Exporter``."""
        return unusual_preparation(self.encoder.preprocess_cfg)

    @property
    def usage(self) -> str:
        """See ``Exporter``."""
        if prompted(self.encoder.token_blocks):
            return f"""\
Its visual prompts, without which it is the model before its defence, are read by untrigger alone:

```
untrigger fit --model.encoder {self.name} --model.init_from DIR/model.safetensors ...
```
"""
        arch, quick_gelu = self.encoder.arch, bool(self.encoder.model_cfg.get("quick_gelu"))
        bias = "" if self.encoder.logit_bias is None else "\n    init_logit_bias=0.0,"  # makes room for it
        return f"""\
```python
import open_clip

model, _, preprocess = open_clip.create_model_and_transforms(
    {arch!r}, pretrained="DIR/model.safetensors", force_quick_gelu={quick_gelu},
    image_mean={self.encoder.mean}, image_std={self.encoder.std},{bias}
)
tokenizer = open_clip.get_tokenizer({arch!r})
```

```
untrigger fit --model.encoder {self.name} --model.init_from DIR/model.safetensors ...
```
"""

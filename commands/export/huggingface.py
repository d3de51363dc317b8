"""The folder that transformers loads, of a model of its own or of open_clip's."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ...files.writing import write_text
from ...lightning_modules.encoders.huggingface import HuggingFaceEncoder
from ...lightning_modules.encoders.open_clip import OpenCLIPEncoder
from ...lightning_modules.encoders.preparation import unusual_preparation
from .conversion import converted_model, converted_tokenizer
from .exporter import Exporter
from .round_trip import ReadBack, read_back

_NAMES = {"clip": ("CLIPModel", "CLIPProcessor"), "siglip": ("SiglipModel", "SiglipProcessor")}


class _TransformersExporter(Exporter):
    """Weights, config, tokenizer and image processor, for ``from_pretrained``."""

    library = "transformers"
    kind = "clip"

    def read(self, folder: Path) -> ReadBack:
        """See ``Exporter``. Captions become tokens as in plain transformers."""
        from transformers import AutoTokenizer

        with warnings.catch_warnings():
            # SigLIP's processor squashes, which was told when the model itself was read.
            warnings.simplefilter("ignore", UserWarning)
            encoder = HuggingFaceEncoder(str(folder)).eval()
        plain: Any = AutoTokenizer.from_pretrained(str(folder))

        def encode_captions(captions: Sequence[str]) -> Tensor:
            padding = {"padding": "max_length", "truncation": True, "max_length": encoder.context_length}
            return encoder.encode_text(plain(list(captions), return_tensors="pt", **padding)["input_ids"])

        return read_back(encoder)._replace(encode_captions=encode_captions)

    def write_processor(self, folder: Path) -> None:
        """Write how pictures are prepared: by the geometry that the model was trained and measured with.

        There the centre is cropped first, and here the short side is resized first, as such processors do: the same
        pixels, but for what the filter sees beyond the border.
        """
        side = self.encoder.image_size
        squashes = self.kind == "siglip"
        processor = {
            "image_processor_type": "SiglipImageProcessor" if squashes else "CLIPImageProcessor",
            "do_convert_rgb": True,
            "do_resize": True,
            "size": {"height": side, "width": side} if squashes else {"shortest_edge": side},
            "resample": 3,  # bicubic
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.encoder.mean),
            "image_std": list(self.encoder.std),
        }
        if not squashes:
            processor |= {"do_center_crop": True, "crop_size": {"height": side, "width": side}}
        write_text(folder / "preprocessor_config.json", json.dumps(processor, indent=2) + "\n")

    @property
    def usage(self) -> str:
        """See ``Exporter``."""
        model, processor = _NAMES[self.kind]
        return f"""\
```python
from transformers import {model}, {processor}

model = {model}.from_pretrained("DIR")
processor = {processor}.from_pretrained("DIR")
```
"""


class HuggingFaceExporter(_TransformersExporter):
    """A CLIP or SigLIP of transformers."""

    encoder: HuggingFaceEncoder

    @property
    def kind(self) -> str:  # type: ignore[override]  # read from the model
        """``clip`` or ``siglip``."""
        return str(self.encoder.model.config.model_type)

    def write(self, folder: Path) -> None:
        """See ``Exporter``. Of the config, what transformers knows: no code and no kernel that it may have named."""
        model = self.encoder.model
        original = model.config
        model.config = _plain(original)
        try:
            model.save_pretrained(folder)
        finally:
            model.config = original
        self.encoder.tokenizer.tokenizer.save_pretrained(folder)
        # The class that the folder named would ignore what tokenizer.json says of lower case.
        own_class = {"tokenizer_class": "PreTrainedTokenizerFast"} if self.encoder.tokenizer.mended else {}
        _edit(folder / "tokenizer_config.json", "auto_map", own_class)
        self.write_processor(folder)


class ConvertedExporter(_TransformersExporter):
    """A model of open_clip as the equal one of transformers.

    Raises:
        UserMistake: If there is none.
    """

    encoder: OpenCLIPEncoder

    def __init__(self, encoder: OpenCLIPEncoder, name: str) -> None:
        super().__init__(encoder, name)
        self._model = converted_model(encoder)

    @property
    def not_kept(self) -> str:
        """See ``Exporter``."""
        return unusual_preparation(self.encoder.preprocess_cfg)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """See ``Exporter``."""
        return dict(self._model.state_dict())

    def write(self, folder: Path) -> None:
        """See ``Exporter``."""
        self._model.save_pretrained(folder)
        converted_tokenizer(self.encoder, folder)
        self.write_processor(folder)


def _plain(config: Any) -> Any:
    """A config with what its class defines, and nothing that a foreign file has added."""
    kind = type(config)
    known = kind().to_dict()
    kept = {name: value for name, value in config.to_dict().items() if name in known}
    for part in ("text_config", "vision_config"):
        kept[part] = {name: value for name, value in kept[part].items() if name in known[part]}
    for content in (kept, kept["text_config"], kept["vision_config"]):
        for name in ("_name_or_path", "auto_map", "_attn_implementation"):
            content.pop(name, None)
    plain = kind.from_dict(kept)
    plain.architectures = ["CLIPModel" if config.model_type == "clip" else "SiglipModel"]
    return plain


def _edit(path: Path, dropped: str, changed: dict[str, str]) -> None:
    """Take an entry out of a JSON file, and change others."""
    content = json.loads(path.read_text(encoding="utf-8"))
    edited = {name: value for name, value in (content | changed).items() if name != dropped}
    if edited != content:
        write_text(path, json.dumps(edited, indent=2) + "\n")

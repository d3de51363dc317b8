"""The files of a Hugging Face model: where they lie, and the normalisation that they ask for."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

from ... import reading
from ...contracts import UserMistake
from .messages import one_line

_DESCRIPTION = ["*.json", "*.txt", "*.model"]
_SAFE_WEIGHTS = ["model.safetensors", "model-*.safetensors"]
_PICKLED_WEIGHTS = ["pytorch_model.bin", "pytorch_model-*.bin"]

_LARGEST = 2**22  # bytes of a description

Triple = tuple[float, float, float]

# What transformers' image processors of these models default to.
_NORMALISATION: dict[str, tuple[Triple, Triple]] = {
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "siglip": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


def model_folder(name: str, weights: bool) -> Path:
    """The local folder of a model, fetched from the hub where the name is no folder.

    Pickled weights are fetched only where the model has no safetensors.

    Args:
        name: A folder, or a name on the hub.
        weights: Whether the weights are wanted too.

    Raises:
        UserMistake: If there is neither such a folder nor, as far as can be seen from here, such a model on the hub.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if not name or folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise UserMistake(f"hf:{one_line(name)}: there is no such folder, and it is no name on the Hugging Face hub")

    from huggingface_hub import snapshot_download

    try:
        fetched = Path(snapshot_download(name, allow_patterns=_DESCRIPTION + (_SAFE_WEIGHTS if weights else [])))
        if weights and not any(any(fetched.glob(pattern)) for pattern in _SAFE_WEIGHTS):
            fetched = Path(snapshot_download(name, allow_patterns=_DESCRIPTION + _PICKLED_WEIGHTS))
    # The hub's client lets the exceptions of its HTTP library through, and that library has changed between releases.
    except Exception as error:
        raise UserMistake(
            f"hf:{one_line(name)}: there is no such folder, and the Hugging Face hub does not give such a model "
            f"({type(error).__name__}: {one_line(error)})"
        ) from error
    return fetched


def normalisation(folder: Path, model_type: str) -> tuple[Triple, Triple]:
    """Mean and standard deviation per channel, for pictures in [0, 1].

    They are the image processor's where the folder describes one, transformers' defaults for the model otherwise.

    Args:
        folder: The model's folder.
        model_type: ``clip`` or ``siglip``.

    Raises:
        UserMistake: If the description cannot be read.
    """
    mean, std = _NORMALISATION[model_type]
    processor = _image_processor(folder)
    if processor is None:
        return mean, std
    if processor.get("do_normalize", True):
        mean = triple(processor.get("image_mean", mean), "image_mean", folder)
        std = triple(processor.get("image_std", std), "image_std", folder)
    else:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    # The processor subtracts the mean from pictures in [0, 255] times its factor; ours are in [0, 1].
    factor = processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 1.0
    (scale, _, _) = triple([factor, 1, 1], "rescale_factor", folder)
    scale *= 255
    if scale <= 0 or min(std) <= 0:
        raise UserMistake(f"{folder}: the image processor's image_std and rescale_factor must be above 0")
    if math.isclose(scale, 1.0):
        return mean, std
    return triple([value / scale for value in mean]), triple([value / scale for value in std])


def _image_processor(folder: Path) -> dict[str, Any] | None:
    """The description of the image processor, which newer versions of transformers write inside the processor's."""
    nested = read_json(folder / "processor_config.json").get("image_processor")
    if isinstance(nested, dict):
        return nested
    return read_json(folder / "preprocessor_config.json") or None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is no such file.

    Raises:
        UserMistake: If the file holds no JSON object, or is too large for a description.
    """
    if not path.is_file():
        return {}
    content = reading.read_json(path, "description of a model", _LARGEST)
    if not isinstance(content, dict):
        raise UserMistake(f"{path} holds no JSON object")
    return content


def triple(values: object, what: str = "", folder: Path | None = None) -> Triple:
    """Three finite numbers, one for each channel.

    Raises:
        UserMistake: If they are anything else.
    """
    match values:
        case [int() | float() as red, int() | float() as green, int() | float() as blue]:
            with suppress(OverflowError):  # an integer too large for a float
                if all(math.isfinite(value) for value in (red, green, blue)):
                    return float(red), float(green), float(blue)
    raise UserMistake(f"{folder}: the image processor's {what} must be finite numbers, one for each of three channels")

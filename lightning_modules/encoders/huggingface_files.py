"""Find or download the files of a Hugging Face model, and read the normalisation of its image processor."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...contracts import UserMistake
from ...files import reading
from .messages import one_line
from .preparation import asked_by_processor

_CONFIG_FILES = ["*.json", "*.txt", "*.model"]
_SAFE_WEIGHTS = ["model.safetensors", "model-*.safetensors"]
_PICKLED_WEIGHTS = ["pytorch_model.bin", "pytorch_model-*.bin"]

_MAX_JSON_BYTES = 2**22

Triple = tuple[float, float, float]

# What transformers' image processors of these models default to.
_NORMALISATION: dict[str, tuple[Triple, Triple]] = {
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "siglip": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


def model_folder(name: str, weights: bool) -> Path:
    """Return the local folder of a model, which is downloaded from the hub unless the name is a folder.

    Pickled weights are downloaded only where the model has no safetensors.

    Args:
        name: Path of a folder, or name of a model on the hub.
        weights: Whether to download the weights too.

    Returns:
        The folder. One that is downloaded is in the hub's cache.

    Raises:
        UserMistake: If there is no such folder, and the hub has no such model or cannot be reached.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if not name or folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise UserMistake(f"hf:{one_line(name)}: there is no such folder, and it is no name on the Hugging Face hub")

    from huggingface_hub import snapshot_download

    try:
        fetched = Path(snapshot_download(name, allow_patterns=_CONFIG_FILES + (_SAFE_WEIGHTS if weights else [])))
        if weights and not any(any(fetched.glob(pattern)) for pattern in _SAFE_WEIGHTS):
            fetched = Path(snapshot_download(name, allow_patterns=_CONFIG_FILES + _PICKLED_WEIGHTS))
    # The hub's client lets the exceptions of its HTTP library through, and that library has changed between releases.
    except Exception as error:
        raise UserMistake(
            f"hf:{one_line(name)}: there is no such folder, and the Hugging Face hub does not give such a model "
            f"({type(error).__name__}: {one_line(error)})"
        ) from error
    return fetched


def normalisation(folder: Path, model_type: str) -> tuple[Triple, Triple]:
    """Read the mean and standard deviation per channel, for pictures in [0, 1].

    They are those of the folder's image processor, or else the defaults of transformers for this kind of model.

    Args:
        folder: Folder of the model.
        model_type: ``clip`` or ``siglip``.

    Returns:
        Mean and standard deviation of red, green and blue.

    Raises:
        UserMistake: If the image processor's settings cannot be read, or are not finite numbers in range.
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
    scale = 255 * _finite(factor, "rescale_factor", folder)
    if scale <= 0 or min(std) <= 0:
        raise UserMistake(f"{folder}: the image processor's image_std and rescale_factor must be above 0")
    if math.isclose(scale, 1.0):
        return mean, std
    mean = triple([value / scale for value in mean], "image_mean over rescale_factor", folder)
    std = triple([value / scale for value in std], "image_std over rescale_factor", folder)
    return mean, std


def asked_preparation(folder: Path) -> dict[str, Any]:
    """How the folder's image processor asks for pictures to be resized, as ``unusual_preparation`` takes it."""
    return asked_by_processor(_image_processor(folder) or {})


def _image_processor(folder: Path) -> dict[str, Any] | None:
    """The settings of the image processor, which newer versions of transformers nest inside those of the processor."""
    nested = read_json(folder / "processor_config.json").get("image_processor")
    if isinstance(nested, dict):
        return nested
    return read_json(folder / "preprocessor_config.json") or None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; an empty one where there is no such file.

    Raises:
        UserMistake: If the file holds no JSON object, or is larger than 4 MiB.
    """
    if not path.is_file():
        return {}
    content = reading.read_json(path, "description of a model", _MAX_JSON_BYTES)
    if not isinstance(content, dict):
        raise UserMistake(f"{path} holds no JSON object")
    return content


def _finite(value: object, what: str, folder: Path) -> float:
    """Read one finite number, as `triple` reads three."""
    if isinstance(value, int | float):
        with suppress(OverflowError):  # an integer too large for a float
            if math.isfinite(value):
                return float(value)
    raise UserMistake(f"{folder}: the image processor's {what} must be a finite number")


def triple(values: object, what: str, folder: Path) -> Triple:
    """Read three finite numbers, one for each channel.

    Args:
        values: A value of a JSON file.
        what: Name of the value, for the message.
        folder: Folder of the model, for the message.

    Raises:
        UserMistake: If they are anything else.
    """
    match values:
        case [int() | float() as red, int() | float() as green, int() | float() as blue]:
            with suppress(OverflowError):  # an integer too large for a float
                if all(math.isfinite(value) for value in (red, green, blue)):
                    return float(red), float(green), float(blue)
    raise UserMistake(f"{folder}: the image processor's {what} must be finite numbers, one for each of three channels")

"""Infers the encoder of a file of unknown origin, and opens it. What a file says of itself may be a lie."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip

from ...contracts import UserMistake
from .architectures import Shapes, fits_architecture, fitting_encoders, has_own_text_tower, named_architecture
from .base import Encoder
from .checkpoint_files import read_pickled
from .description import DESCRIPTION, described_encoder
from .factory import build_encoder
from .huggingface_files import read_json
from .messages import one_line, some
from .open_clip_files import OPEN_CLIP_CONFIG
from .small import PRESETS
from .visual_prompts import is_prompt
from .weights import encoder_tensors, load_weights

_ASK = "name the encoder with --encoder, such as --encoder open_clip:RN50-quickgelu"
_WITH_CODE = ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json")
_PLAIN_NAME = re.compile(r"(hf|open_clip|small):[\w./~ @+-]{1,400}")


def open_encoder(path: str, name: str | None = None) -> tuple[Encoder, str]:
    """Build the encoder that a file or a folder holds, with its weights, in the mode in which it is used.

    Nothing of it is run. Its names and shapes are compared with the encoder's before memory is taken for either.

    Args:
        path: A checkpoint of our Lightning modules; a state dict (``.pt``, ``.safetensors``) of open_clip, CleanCLIP or
            ours; a Hugging Face, open_clip or ``untrigger export`` folder.
        name: ``FAMILY:NAME`` of the encoder, as the user says; inferred from the file unless given.

    Returns:
        The encoder and its name.

    Raises:
        UserMistake: If it cannot be read as tensors alone, does not determine its architecture, or does not fit it.
    """
    source = Path(path).expanduser()
    _check_finished(source)
    name = identify_encoder(path) if name is None else name
    family, _, rest = name.partition(":")
    if family == "hf" and Path(rest).expanduser() == source:
        return build_encoder(name).eval(), name
    if family == "open_clip":
        _check_open_clip(rest.partition("/")[0], source)
    encoder = build_encoder(name, pretrained=False)
    load_weights(encoder, path)
    return encoder.eval(), name


def identify_encoder(path: str) -> str:
    """Infer the encoder of a file or a folder.

    It is what a folder's config says, or a checkpoint's hyperparameters, which are plain data; otherwise what names and
    shapes of the tensors imply. Nothing that a file names is imported or fetched.

    Args:
        path: As ``open_encoder`` takes it.

    Returns:
        ``FAMILY:NAME``, as ``build_encoder`` takes it.

    Raises:
        UserMistake: If it cannot be inferred, or cannot be read as tensors alone.
    """
    source = Path(path).expanduser()
    if source.is_dir():
        return _of_folder(source)
    said = _hyperparameter(source)
    if said is not None:
        return _checked_name(said, f"checkpoint {source}")
    shapes = _shapes(source)
    fitting = fitting_encoders(shapes)
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UserMistake(
            f"{source} does not name its architecture: it fits {' and '.join(fitting)}, which differ in what no tensor "
            f"shows; {_ASK}"
        )
    kind = "transformers' (give its folder, with config.json)" if _is_transformers(shapes) else "none that is known"
    raise UserMistake(f"{source} does not name its architecture: names and shapes of its tensors are {kind}; {_ASK}")


def _of_folder(folder: Path) -> str:
    if (folder / DESCRIPTION).is_file():
        return _checked_name(described_encoder(folder), str(folder / DESCRIPTION))
    names = {path.name for path in folder.iterdir()}
    transformers = any(name.startswith(("model.safetensors", "pytorch_model")) for name in names)
    if "config.json" in names and (transformers or OPEN_CLIP_CONFIG not in names):
        for name in _WITH_CODE:
            if "auto_map" in read_json(folder / name):
                raise UserMistake(
                    f"{folder / name} asks for code of its own (auto_map), which is not run; take auto_map out of it "
                    "if the model is transformers' CLIP or SigLIP without it"
                )
        return f"hf:{folder}"
    if OPEN_CLIP_CONFIG in names:
        arch = named_architecture(read_json(folder / OPEN_CLIP_CONFIG).get("model_cfg"))
        if arch is None:
            raise UserMistake(f"{folder / OPEN_CLIP_CONFIG} describes none of open_clip's own architectures; {_ASK}")
        return f"open_clip:{arch}"
    if "last.ckpt" in names:
        raise UserMistake(f"{folder} is the folder of a run: give its checkpoint, {folder / 'last.ckpt'}")
    raise UserMistake(
        f"{folder} holds neither config.json nor {OPEN_CLIP_CONFIG} nor {DESCRIPTION}: give one model; {_ASK}"
    )


def _checkpoint(source: Path) -> Mapping[str, Any]:
    """What a file of ``torch.save``'s holds beside tensors; nothing for other files."""
    if not source.is_file() or source.suffix == ".safetensors":
        return {}
    payload = read_pickled(source)
    return payload if isinstance(payload, Mapping) else {}


def _hyperparameter(source: Path) -> str | None:
    """The encoder that a checkpoint of ours names."""
    said = _checkpoint(source).get("hyper_parameters")
    name = said.get("encoder") if isinstance(said, Mapping) else None
    return name if isinstance(name, str) else None


def _check_finished(source: Path) -> None:
    """Check that an encoder is no copy that a run in phases was training, with its initial weights beside it."""
    run = _checkpoint(source).get("phased")
    if isinstance(run, Mapping) and run.get("initial"):
        raise UserMistake(
            f"{source} is from the middle of a run in phases, where the weights may be an overfitted copy's: finish "
            "the run first, with --ckpt_path"
        )


def _checked_name(name: str, where: str) -> str:
    """The name that a file gives, if it can be built from what is here."""
    family, _, rest = name.partition(":")
    arch, _, tag = rest.partition("/")
    known = {
        "small": rest in PRESETS or (Path(rest) / DESCRIPTION).is_file(),
        "open_clip": arch in open_clip.list_models() and (not tag or open_clip.is_pretrained_cfg(arch, tag)),
        "hf": Path(rest).expanduser().is_dir(),
    }
    if _PLAIN_NAME.fullmatch(name) is None or not known[family]:
        raise UserMistake(
            f"{where} names the encoder {one_line(name)!r}, which is not here; if you trust the name, repeat it as "
            "--encoder (a name on the hub is fetched then)"
        )
    return name


def _shapes(source: Path) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in encoder_tensors(source).items() if not is_prompt(name)}


def _is_transformers(shapes: Shapes) -> bool:
    return any(name.startswith("vision_model.") for name in shapes)


def _check_open_clip(arch: str, source: Path) -> None:
    """Check that tensors are an architecture's before memory is taken for it."""
    if arch not in open_clip.list_models() or not has_own_text_tower(arch):
        return  # the encoder says so, or its config has to be fetched first
    shapes = _shapes(source)
    if not fits_architecture(shapes, arch):
        raise UserMistake(
            f"{source} is not of the architecture open_clip:{arch}: it differs in names or shapes of its "
            f"{len(shapes)} tensors ({some(shapes)}); {_ASK}"
        )

"""Reading the tensors of a checkpoint file, and nothing but tensors."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...contracts import UserMistake
from .messages import one_line, some

# What a model's folder may hold, best first: safetensors before pickles, transformers' names before open_clip's.
IN_FOLDER = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The named tensors of a checkpoint, on the CPU, mapped into memory where the format allows it.

    Args:
        path: A ``.safetensors`` file; a file that ``torch.save`` wrote, with the tensors at its top or under
            ``state_dict``; or a folder with either, in one file or in shards.

    Raises:
        UserMistake: If there is no such file, or it holds anything that more than tensors would be needed for. Nothing
            of it is run.
    """
    if path.is_dir():
        found = next((path / name for name in IN_FOLDER if (path / name).is_file()), None)
        if found is None:
            raise UserMistake(f"{path} holds no weights; looked for {', '.join(IN_FOLDER)}")
        path = found
    if not path.is_file():
        raise UserMistake(f"there is no checkpoint {path}")
    if path.name.endswith(".index.json"):
        return _read_shards(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _read_pickled(path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path, device="cpu")
    # A runtime error is torch's where a file is too large to be mapped.
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise UserMistake(f"{path} cannot be read as safetensors: {one_line(error)}") from error


def _read_shards(index: Path) -> dict[str, Tensor]:
    """The tensors of all files that an index names, which must lie beside it."""
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        outside = [name for name in names if Path(name).name != name or name.endswith(".json")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserMistake(f"{index} is no index of weights: {type(error).__name__} {one_line(error)}") from error
    if outside:
        raise UserMistake(f"{index} names files that are not weights beside it: {some(outside)}")
    tensors: dict[str, Tensor] = {}
    for name in names:
        tensors.update(read_tensors(index.parent / name))
    return tensors


def read_pickled(path: Path) -> Any:
    """What a file of ``torch.save``'s holds, tensors and plain data only, mapped into memory where it is a zip archive.

    Raises:
        UserMistake: If there is no such file, or it holds anything that more than tensors would be needed for. Nothing
            of it is run.
    """
    _check_archive(path)
    if _is_program(path):
        raise UserMistake(
            f"{path} is a TorchScript program, as OpenAI publishes its models, and is not run; save its state_dict, or "
            "name an encoder with its weights, such as open_clip:RN50/openai"
        )
    try:
        # Mapping needs the zip format, which torch.save has written by default since torch 1.6.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except OSError as error:
        raise UserMistake(f"{path} cannot be read: {one_line(error)}") from error
    # A hostile or damaged pickle can make the reader fail in any way; what torch says advises to trust the file.
    except Exception:
        raise UserMistake(
            f"{path} does not load as tensors alone ({_obstacle(path)}); nothing of it was run or loaded; if you trust "
            "where it comes from, save its state_dict anew, best as safetensors"
        ) from None


def _read_pickled(path: Path) -> dict[str, Tensor]:
    payload = read_pickled(path)
    state = payload.get("state_dict", payload) if isinstance(payload, Mapping) else None
    if not isinstance(state, Mapping):
        raise UserMistake(f"{path} holds neither named tensors nor a 'state_dict' of them")
    others = [str(name) for name, value in state.items() if not (isinstance(name, str) and _is_plain(value))]
    if others or not state:
        raise UserMistake(
            f"{path} holds neither named tensors nor a 'state_dict' of them"
            + (f": no plain tensor is {some(others)}" if others else "")
        )
    return dict(state)


def _check_archive(path: Path) -> None:
    """See that an archive is no larger inside than it is on the disk: ``torch.save`` compresses nothing."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
        size = path.stat().st_size
    except Exception:  # no zip file, or one that is damaged anywhere: its reader will say so
        return
    if any(member.compress_type != zipfile.ZIP_STORED for member in members) or size < sum(
        member.file_size for member in members
    ):
        raise UserMistake(f"{path} is compressed, as torch.save's files never are, and is not unpacked")


def _is_plain(value: Any) -> bool:
    """Whether a value is a dense tensor that lies in the file, all of it."""
    return (
        type(value) in (Tensor, nn.Parameter)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        # A view that repeats its numbers can claim any size.
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def _is_program(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except Exception:  # no zip file, or one that is damaged anywhere
        return False


def _obstacle(path: Path) -> str:
    """Why a file does not load as tensors, in a few words."""
    try:
        unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # as above
        unsafe = []
    if unsafe:
        return f"it would run or build {some(sorted(unsafe))}"
    return "it is damaged, no file of torch.save's, or holds pickled objects"

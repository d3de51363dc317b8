"""Reading the tensors of a checkpoint file, and nothing but tensors."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...contracts import UserMistake
from ...files.reading import looks_like, read_json, reading, reason, shown
from .messages import one_line, some
from .pickles import PickleTooCostly, check_pickle

# What a model's folder may hold, best first: safetensors before pickles, transformers' names before open_clip's.
IN_FOLDER = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
)


# What torch.save wrote before 1.6 begins with a number, and has five pickles before its tensors.
_FORMER, _FORMER_PICKLES = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", 5
_DAMAGED = "it is damaged, no file of torch.save's, or holds pickled objects"


_ADAPTER = "adapter_config.json"
"""What peft writes beside an adapter, such as LoRA's."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The named tensors of a checkpoint, on the CPU, mapped into memory where the format allows it.

    Args:
        path: A ``.safetensors`` file; a file that ``torch.save`` wrote, with the tensors at its top or under
            ``state_dict``; or a folder with either, in one file or in shards.

    Raises:
        UserMistake: If there is no such file, or it holds anything that more than tensors would be needed for. Nothing
            of it is run.
    """
    with reading("checkpoint", path):  # a path may be one that the system does not take
        if path.is_dir():
            if (path / _ADAPTER).is_file():
                raise UserMistake(
                    f"{path} has an adapter beside its weights ({_ADAPTER}), which would change them: merge it first "
                    "(peft's merge_and_unload), or take its files out of the folder"
                )
            found = next((path / name for name in IN_FOLDER if (path / name).is_file()), None)
            if found is None and (path / "last.ckpt").is_file():
                raise UserMistake(f"{path} is the folder of a run: give its checkpoint, {path / 'last.ckpt'}")
            if found is None:
                raise UserMistake(f"{path} holds no weights; looked for {', '.join(IN_FOLDER)}")
            path = found
        if not path.is_file():
            raise UserMistake(f"there is no checkpoint {shown(path)}")
        if path.name.endswith(".index.json"):
            return _read_shards(path)
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        return _read_pickled(path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    try:
        return load_file(path, device="cpu")
    except Exception as error:  # a damaged file can make its reader fail in any way
        raise UserMistake(f"{path} cannot be read as safetensors: {one_line(error)}{_seen(path)}") from error


def _seen(path: Path) -> str:
    """What a file that is no checkpoint looks like, such as a pointer of Git LFS."""
    with suppress(OSError), path.open("rb") as stream:
        return looks_like(stream.read(64))
    return ""


def _read_shards(index: Path) -> dict[str, Tensor]:
    """The tensors of all files that an index names, which must lie beside it."""
    content = read_json(index, "index of weights")
    with reading("index of weights", index):
        names = sorted(set(content["weight_map"].values()))
        outside = [name for name in names if Path(name).name != name or name.endswith(".json")]
    if outside:
        raise UserMistake(f"{index} names files that are not weights beside it: {some(outside)}")
    tensors: dict[str, Tensor] = {}
    for name in names:
        part = read_tensors(index.parent / name)
        if twice := [tensor for tensor in part if tensor in tensors]:
            raise UserMistake(f"{index}: two of the files that it names have {some(twice)}: one of them is another's")
        tensors.update(part)
    return tensors


def read_pickled(path: Path) -> Any:
    """What a file of ``torch.save``'s holds, tensors and plain data only, mapped into memory where it is a zip archive.

    Raises:
        UserMistake: If there is no such file, or it holds anything that more than tensors would be needed for. Nothing
            of it is run.
    """
    is_archive = check_pickled(path)
    try:
        # Mapping needs the zip format, which torch.save has written by default since torch 1.6.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
    except OSError as error:
        raise UserMistake(f"{path} cannot be read: {one_line(error)}") from error
    # A hostile or damaged pickle can make the reader fail in any way; what torch says advises to trust the file.
    except Exception:
        raise UserMistake(
            f"{path} does not load as tensors alone ({_obstacle(path) or _DAMAGED}); nothing of it was run or loaded; "
            "if you trust where it comes from, save its state_dict again, best as safetensors"
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


def check_pickled(path: Path) -> bool:
    """Estimate what a file of ``torch.save``'s would cost, before any of it is loaded.

    Args:
        path: A regular file.

    Returns:
        Whether it is a zip archive, as since torch 1.6.

    Raises:
        UserMistake: If it is no such file, or asks for more memory or time than its tensors do, or is a program.
    """
    try:
        with path.open("rb") as stream:
            head, size = stream.read(len(_FORMER)), path.stat().st_size
            if head.startswith(b"PK\x03\x04"):
                _check_archive(path, size)
                return True
            if head != _FORMER:
                raise UserMistake(f"{path} does not load as tensors alone (it is no file of torch.save's{_seen(path)})")
            stream.seek(0)
            beside = [check_pickle(stream).bytes_beside for _ in range(_FORMER_PICKLES)]
    except UserMistake:
        raise
    except PickleTooCostly as error:
        raise UserMistake(
            f"{path} does not load as tensors alone ({_obstacle(path) or f'it wants {error}'}); nothing of it was "
            "run or loaded; if you trust where it comes from, save its state_dict again, best as safetensors"
        ) from error
    except Exception as error:  # a damaged file can make its reader fail in any way
        raise UserMistake(
            f"{path} does not load as tensors alone (it is damaged or no file of torch.save's: {reason(error)})"
        ) from error
    if sum(beside) > size:
        raise UserMistake(f"{path} does not load as tensors alone (it is cut off, or claims more than it has)")
    return False


def _check_archive(path: Path, size: int) -> None:
    """Check that an archive holds what its table says, under names that nobody can take for others, uncompressed.

    Python's reader and torch's look for the table in different ways: it has to lie where both look.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        names = [member.filename.lower() for member in members]
        if any(name.endswith("/constants.pkl") for name in names):
            raise UserMistake(
                f"{path} is a TorchScript program, as OpenAI publishes its models, and is not run; save its "
                "state_dict, or name an encoder with its weights, such as open_clip:RN50/openai"
            )
        stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
        if not stored or size < sum(member.file_size for member in members):
            raise UserMistake(f"{path} is compressed, as torch.save's files never are, and is not unpacked")
        first = min((member.header_offset for member in members), default=1)
        pickled = [member for member in members if member.filename.endswith("/data.pkl")]
        if len(set(names)) < len(names) or first or archive.comment or len(pickled) != 1:
            raise ValueError("its parts are not as torch.save lays them out")
        with archive.open(pickled[0]) as stream:
            if check_pickle(stream).bytes_beside > size:
                raise ValueError("its tensors claim more than it has")


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


def _obstacle(path: Path) -> str:
    """What a file would run or build beside tensors; nothing where that is not what is wrong with it."""
    try:
        unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # as above
        unsafe = []
    if unsafe:
        return f"it would run or build {some(sorted(unsafe))}"
    return ""

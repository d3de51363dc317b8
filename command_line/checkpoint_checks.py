"""Check before anything is built that a run can resume from a checkpoint, or be measured on it."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule

from ..contracts import UserMistake
from ..lightning_modules.encoders import Encoder
from ..lightning_modules.encoders.checkpoint_files import read_pickled
from ..lightning_modules.encoders.messages import one_line
from ..lightning_modules.encoders.traits import check_traits

CHECKPOINT_NAMES = ("best", "hpc", "registry")
"""What Lightning finds by itself when it is given as a checkpoint's path."""

_PARTS: dict[str, tuple[type, str]] = {
    "state_dict": (dict, "weights"),
    "loops": (dict, "the state of its loops"),
    "pytorch-lightning_version": (str, "the version of Lightning"),
    "epoch": (int, "its epoch"),
    "global_step": (int, "its step"),
    "callbacks": (dict, "the states of its callbacks"),
    "optimizer_states": (list, "the states of its optimisers"),
    "lr_schedulers": (list, "the states of its learning rate schedulers"),
}
"""What Lightning takes out of a checkpoint, and what it is."""
_PARTS_OF_A_MODEL = ("state_dict", "loops", "pytorch-lightning_version")


def check_checkpoint(path: str, fits: bool) -> None:
    """Check that a checkpoint can be loaded as tensors, before anything is built.

    Args:
        path: What the user gave, or one of ``CHECKPOINT_NAMES``, of which nothing is known yet.
        fits: Whether training resumes from it, which needs more than weights.

    Raises:
        UserMistake: If there is no such file, it holds more than tensors and plain data, or it lacks a part.
    """
    if path in CHECKPOINT_NAMES:
        return
    if not Path(path).is_file():
        raise UserMistake(f"checkpoint {path} does not exist or is no file")
    try:
        content = read_pickled(Path(path))
    except UserMistake as error:
        raise UserMistake(
            f"checkpoint {path} is not loaded: it is broken, or holds more than tensors and plain data: {error}"
        ) from error
    if not isinstance(content, dict) or "state_dict" not in content or "loops" not in content:
        raise UserMistake(f"{path} is no checkpoint of a run; weights alone go to --model.init_from")
    needed = _PARTS if fits else {name: _PARTS[name] for name in _PARTS_OF_A_MODEL}
    for name, (kind, what) in needed.items():
        if not isinstance(content.get(name), kind):
            raise UserMistake(
                f"checkpoint {path} lacks {what} ({name}), which Lightning writes: the run cannot resume from it; its "
                "weights alone go to --model.init_from"
            )


def check_model(path: str, model: LightningModule) -> dict[str, Any]:
    """Check that a checkpoint is one of this model's.

    Args:
        path: A checkpoint that ``check_checkpoint`` has let pass.
        model: What is to be loaded.

    Returns:
        What the checkpoint holds.

    Raises:
        UserMistake: If names or shapes of its tensors differ from the model's, or its encoder is another one.
    """
    content: dict[str, Any] = read_pickled(Path(path))
    found, wanted = content["state_dict"], model.state_dict()
    for name in (*wanted, *found):
        shapes = [tuple(tensors[name].shape) if name in tensors else "nothing" for tensors in (found, wanted)]
        if shapes[0] != shapes[1]:
            raise UserMistake(
                f"checkpoint {path} is of another model: {name} is {shapes[0]} there and {shapes[1]} in this one"
            )
    encoder = getattr(model, "encoder", None)
    if isinstance(encoder, Encoder):
        check_traits(encoder, Path(path))
    return content


def check_same_module(path: str, content: Mapping[str, Any], model: LightningModule) -> None:
    """Check that a run resumes as what it was, not as another method, whose figures would be those of the first one.

    Args:
        path: A checkpoint.
        content: What it holds.
        model: What is to be trained.

    Raises:
        UserMistake: If the checkpoint is of a run of another class.
    """
    said = content.get("hyper_parameters")
    was = said.get("_class_path") if isinstance(said, Mapping) else None
    name, now = was.rpartition(".")[2] if isinstance(was, str) else None, type(model).__name__
    if name is not None and name != now:
        raise UserMistake(
            f"checkpoint {path} is of a run of {one_line(name, 60)}, which a {now} cannot resume: to start from its "
            f"weights, give --model.init_from {path} instead of --ckpt_path"
        )


def is_restoring(error: BaseException) -> bool:
    """Whether an error arose where Lightning, or a part of the run, takes its state out of a checkpoint."""
    frames = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(
        code.co_filename.endswith("checkpoint_connector.py")
        or "/utilities/migration/" in code.co_filename
        or code.co_name in ("load_state_dict", "on_load_checkpoint")
        for code in frames
    )

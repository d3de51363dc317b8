"""Loading weights into an encoder, whatever program wrote them: tensors only, all of them or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ...contracts import UserMistake
from .base import Encoder
from .checkpoint_files import read_tensors
from .embedding_check import check_embeddings
from .messages import one_line, some
from .traits import check_traits
from .visual_prompts import check_prompts, is_prompt, set_prompts, split_prompts

# What DistributedDataParallel, torch.compile, our Lightning modules and our encoders put before a tensor's name.
_WRAPPERS = ("module.", "_orig_mod.", "encoder.", "model.")

# Tensors that some versions of the libraries write and others do not. They follow from the architecture
# (`position_ids`, `attn_mask`), are a counter that nothing reads at a fixed batch-norm momentum
# (`num_batches_tracked`), or describe an OpenAI archive (the others).
_DISPENSABLE = (
    "position_ids",
    "attn_mask",
    "num_batches_tracked",
    "input_resolution",
    "context_length",
    "vocab_size",
)
_BIAS = "logit_bias"


def encoder_tensors(source: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint that are an encoder's, as open_clip, transformers or the small encoder name them.

    Args:
        source: As ``load_weights`` takes it.

    Raises:
        UserMistake: If it cannot be read as tensors alone, or has two tensors of one name.
    """
    return _by_bare_name(_encoder_part(read_tensors(source)), source)


def bare_name(name: str) -> str:
    """A tensor's name without what wrappers add to it; parts of a model can be compiled by themselves too."""
    return _strip(name, _WRAPPERS).replace("._orig_mod.", ".")


def dispensable(name: str) -> bool:
    """Whether a tensor says nothing that its architecture does not say too."""
    return name.rpartition(".")[2] in _DISPENSABLE


def load_weights(encoder: Encoder, path: str) -> None:
    """Load an encoder's weights, or raise and leave the encoder as it was.

    Taken are checkpoints of our Lightning modules (only what is under ``encoder.``; optimiser states and further parts
    of the module are left), ``.safetensors`` files, Hugging Face folders, open_clip's checkpoints and CleanCLIP's
    ``.pt`` files. Prefixes that wrappers put before the names do not matter. Names and shapes must match otherwise, so
    a file fits the architecture that it was trained with. Tensors do not imply their activation function: CleanCLIP's
    and OpenAI's models have QuickGELU, so name an architecture such as ``open_clip:RN50-quickgelu`` for them. Where a
    file does, in a config or in the hyperparameters of a checkpoint, it is compared; see ``check_traits``. Visual
    prompts are part of the model: the encoder has those of the file then, or none.

    Args:
        encoder: Where to load.
        path: A file or a folder.

    Raises:
        UserMistake: If the path does not exist, cannot be read as tensors alone, or does not fit the encoder, or
            says that it has another activation function; or, with the weights loaded, if it embeds nothing.
    """
    source = Path(path).expanduser()
    tensors = encoder_tensors(source)
    bias, prompts = tensors.pop(_BIAS, None), split_prompts(tensors, _block_prefix(encoder))
    if prompts:
        check_prompts(encoder.token_blocks, prompts, source)
    targets = {name: target for name, target in encoder.state_dict().items() if not is_prompt(name)}
    if bias is not None and not encoder.takes_logit_bias:
        raise UserMistake(
            f"{source} has a logit_bias, as models of the sigmoid loss have, and this encoder cannot: name the one "
            "that it was trained as"
        )
    own = {name: target for name, target in targets.items() if bare_name(name) != _BIAS}
    _check_names(tensors, [bare_name(name) for name in own], source)
    pairs = {
        name: (_as_own(tensors[bare_name(name)], target, name), target)
        for name, target in own.items()
        if bare_name(name) in tensors
    }
    biases = {_BIAS: (bias.reshape(-1), encoder.logit_scale.reshape(-1))} if bias is not None else {}
    _check_shapes(pairs | biases, source)
    seen = {f"prompts {number}": (part, encoder.logit_scale) for number, part in prompts.items()}
    _check_finite(pairs | biases | seen, source)
    if source.is_dir():
        encoder.prepare_as_in(source)
    check_traits(encoder, source, tensors)
    encoder.set_logit_bias(bias)
    if encoder.token_blocks is not None:
        set_prompts(encoder.token_blocks, prompts)
    encoder.load_state_dict({name: tensor for name, (tensor, _) in pairs.items()}, strict=False)
    check_embeddings(encoder, source)


def _encoder_part(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What is the encoder's, in a checkpoint of a module that has more parts."""
    inside = {name: tensor for name, tensor in tensors.items() if _strip(name, _WRAPPERS[:2]).startswith("encoder.")}
    return inside or tensors


def _block_prefix(encoder: Encoder) -> str | None:
    """What stands before the numbers of the blocks that can have prompts, in the bare names of a file's tensors."""
    if encoder.token_blocks is None:
        return None
    first = encoder.token_blocks.blocks[0]
    return next(bare_name(name).rpartition(".")[0] for name, part in encoder.named_modules() if part is first)


def _strip(name: str, prefixes: tuple[str, ...]) -> str:
    while prefix := next((prefix for prefix in prefixes if name.startswith(prefix)), ""):
        name = name.removeprefix(prefix)
    return name


def _by_bare_name(tensors: dict[str, Tensor], source: Path) -> dict[str, Tensor]:
    bare: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if bare_name(name) in bare:
            raise UserMistake(f"{source} has two tensors for {one_line(bare_name(name))!r}")
        bare[bare_name(name)] = tensor
    return bare


def _check_names(tensors: Mapping[str, Tensor], targets: list[str], source: Path) -> None:
    known = set(targets)
    missing = [name for name in targets if name not in tensors and not dispensable(name)]
    unexpected = [name for name in tensors if name not in known and not dispensable(name)]
    if missing or unexpected:
        faults = [
            f"{len(names)} {fault} ({some(names)})"
            for fault, names in (("missing", missing), ("unexpected", unexpected))
            if names
        ]
        raise UserMistake(
            f"{source} is not of this encoder's architecture: of {len(targets)} tensors {' and '.join(faults)}; "
            "name the encoder that it was trained as"
        )


def _as_own(tensor: Tensor, target: Tensor, name: str) -> Tensor:
    """A tensor as the encoder has it, where files differ in what says nothing.

    The temperature is a scalar in some models and of shape (1,) in others. Where every tensor was turned into half
    precision, batch norm's counters were too, and those above 65,504 are infinite then: they start at zero.
    """
    if bare_name(name) == "logit_scale" and tensor.numel() == 1 == target.numel():
        return tensor.reshape(target.shape)
    if dispensable(name) and tensor.is_floating_point() and not target.is_floating_point():
        return tensor.nan_to_num(0, 0, 0).to(target.dtype)
    return tensor


def _check_shapes(pairs: Mapping[str, tuple[Tensor, Tensor]], source: Path) -> None:
    checks: tuple[tuple[Callable[[Tensor, Tensor], bool], str, str], ...] = (
        (lambda one, other: one.shape == other.shape, "size", "name the encoder that it was trained as"),
        (
            lambda one, other: one.is_floating_point() == other.is_floating_point(),
            "types of numbers",
            "quantised weights have to be turned back into floating point by what has made them",
        ),
    )
    for fits, fault, cure in checks:
        wrong = [
            f"{bare_name(name)} is {_described(tensor)} instead of {_described(target)}"
            for name, (tensor, target) in pairs.items()
            if not fits(tensor, target)
        ]
        if wrong:
            more = f" and {len(wrong) - 1} more do not fit" if len(wrong) > 1 else ""
            raise UserMistake(f"{source} is not of this encoder's {fault}: {wrong[0]}{more}; {cure}")


def _described(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _check_finite(pairs: Mapping[str, tuple[Tensor, Tensor]], source: Path) -> None:
    # In the target's type, since a number can be finite in the file and too large for the encoder.
    broken = [
        bare_name(name) for name, (tensor, target) in pairs.items() if not torch.isfinite(tensor.to(target.dtype)).all()
    ]
    if broken:
        raise UserMistake(f"{source} has numbers that are not finite in {len(broken)} tensors: {some(broken)}")

"""Run an encoder: in micro-batches or at once, in a memory layout, compiled or not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..contracts import UserMistake
from .encoders.base import Encoder
from .micro_batches import in_micro_batches


class Execution:
    """Runs encoders. What it gives is the encoder's own, up to rounding, and the encoder's tensors keep their names.

    Args:
        micro_batch_size: Where a gradient is wanted, most pictures or captions that are encoded at a time; see
            ``in_micro_batches``. None for all of them.
        channels_last: Whether kernels and pictures have their channels last in memory, the layout in which tensor cores
            convolve. It does nothing for transformers.
        backend: Backend of ``torch.compile``, such as ``inductor``; None does not compile. Both towers are compiled
            when they are first run, for training and for evaluation.

    Raises:
        UserMistake: If the size is below 1, or there is no such backend, or it needs a compiler that is not there.
    """

    def __init__(self, micro_batch_size: int | None, channels_last: bool, backend: str | None) -> None:
        if micro_batch_size is not None and micro_batch_size < 1:
            raise UserMistake(f"model.micro_batch_size is {micro_batch_size}: at least 1, or null for whole batches")
        if backend is not None:
            _check_backend(backend)
        self.micro_batch_size, self.channels_last, self.backend = micro_batch_size, channels_last, backend
        self._compiled_encoder: Encoder | None = None
        self._compiled: dict[str, Callable[[Tensor], Tensor]] = {}

    def lay_out(self, encoder: Encoder) -> None:
        """Bring the encoder's kernels into the layout in which it is run."""
        if self.channels_last:
            encoder.image_tower.to(memory_format=torch.channels_last)

    def image(self, encoder: Encoder, images: Tensor) -> Tensor:
        """Pictures ``(B, 3, S, S)``, normalised, to ``(B, D)``, not normalised."""
        # Data is float32; the weights are not where the trainer's precision is a true half one.
        images = images.to(encoder.logit_scale.dtype)
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return self._run(encoder, "encode_image", images)

    def text(self, encoder: Encoder, tokens: Tensor) -> Tensor:
        """Captions ``(B, L)`` int64 to ``(B, D)``, not normalised."""
        return self._run(encoder, "encode_text", tokens)

    def _run(self, encoder: Encoder, method: str, inputs: Tensor) -> Tensor:
        encode, size = self._method(encoder, method), self.micro_batch_size
        if not len(inputs):
            # Not every architecture can reshape nothing.
            return encode(inputs.new_zeros((1, *inputs.shape[1:])))[:0]
        if size is None or len(inputs) <= size or not torch.is_grad_enabled():
            return encode(inputs)
        return in_micro_batches(encode, inputs, size, encoder)

    def _method(self, encoder: Encoder, name: str) -> Callable[[Tensor], Tensor]:
        # Methods are compiled, not modules: a compiled module would put `_orig_mod.` before the names of its tensors.
        encode: Callable[[Tensor], Tensor] = getattr(encoder, name)
        if self.backend is None:
            return encode
        if self._compiled_encoder is not encoder:
            self._compiled_encoder, self._compiled = encoder, {}
        if name not in self._compiled:
            self._compiled[name] = torch.compile(encode, backend=self.backend)
        return self._compiled[name]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is compiled, for a process or a copy that has an encoder of its own."""
        return vars(self) | {"_compiled_encoder": None, "_compiled": {}}


def backend_of(compiled: bool | str) -> str | None:
    """The backend that ``compile`` asks for: inductor unless it is named."""
    return ("inductor" if compiled else None) if isinstance(compiled, bool) else compiled


def _check_backend(backend: str) -> None:
    if backend not in torch.compiler.list_backends(exclude_tags=()):
        usual = ", ".join(torch.compiler.list_backends())
        raise UserMistake(f"model.compile is {backend!r}: true, false, or a backend of torch.compile ({usual})")
    compiler = os.environ.get("CXX", "g++")
    if backend == "inductor" and shutil.which(compiler) is None:
        raise UserMistake(
            f"model.compile needs a C++ compiler, and there is no {compiler}: install one or name it in CXX"
        )

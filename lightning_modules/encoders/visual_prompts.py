"""Deep visual prompts: trained tokens that blocks of an image tower see beside those of the picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...contracts import UserMistake

_CHILD = "prompt"
_TENSOR = f"{_CHILD}.tokens"

MAX_PROMPTS = 1024
"""Prompts of a block, at most. Attention takes memory as the square of their number, and a file may be from anyone."""


class TokenBlocks(NamedTuple):
    """The transformer of an image tower whose features are read off its class token."""

    blocks: list[nn.Module]
    """In their order; tokens, the class token first, to as many."""
    width: int
    """Numbers of a token, W."""
    batch_first: bool
    """Whether tokens are ``(B, T, W)``; otherwise ``(T, B, W)``."""


class BlockPrompt(nn.Module):
    """The prompts of one block: they follow the class token while the block runs, and are gone after it.

    Args:
        tokens: The prompts, ``(b, W)``.
        batch_first: As in ``TokenBlocks``.

    Attributes:
        tokens: The prompts, a parameter.
        active: Whether the block sees them.
    """

    def __init__(self, tokens: Tensor, batch_first: bool) -> None:
        super().__init__()
        self.tokens = nn.Parameter(tokens)
        self.batch_first, self.active = batch_first, True

    def insert(self, block: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Put the prompts after the class token, before the block: a hook."""
        if not self.active:
            return None
        seen: Tensor = inputs[0]
        length = 1 if self.batch_first else 0
        shape = list(seen.shape)
        shape[length] = len(self.tokens)
        prompts = self.tokens.to(seen.dtype).unsqueeze(1 - length).expand(shape)
        return torch.cat(_put(seen, length, prompts, 0), dim=length), *inputs[1:]

    def remove(self, block: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        """Take them out again, after the block: a hook."""
        if not self.active:
            return None
        tokens: Tensor = output[0] if isinstance(output, tuple) else output
        length = 1 if self.batch_first else 0
        without = torch.cat(_put(tokens, length, None, len(self.tokens)), dim=length)
        return (without, *output[1:]) if isinstance(output, tuple) else without


def _put(tokens: Tensor, dim: int, prompts: Tensor | None, skipped: int) -> list[Tensor]:
    """The class token, prompts if there are any, and what follows so many tokens after the class token."""
    rest = tokens.narrow(dim, 1 + skipped, tokens.shape[dim] - 1 - skipped)
    return [part for part in (tokens.narrow(dim, 0, 1), prompts, rest) if part is not None]


def check_prompts(blocks: TokenBlocks | None, prompts: Mapping[int, Tensor], source: object) -> None:
    """Check whether an image tower can have these prompts.

    Args:
        blocks: Transformer blocks of the tower; None where it has none.
        prompts: By the number of a block, from 0, its prompts.
        source: Where they come from, for messages.

    Raises:
        UserMistake: If it cannot.
    """
    if blocks is None:
        raise UserMistake(f"{source} has visual prompts, which only a vision transformer with a class token can have")
    for number, tokens in prompts.items():
        if not 0 <= number < len(blocks.blocks) or tokens.ndim != 2 or tokens.shape[1] != blocks.width:
            raise UserMistake(
                f"{source} has visual prompts {tuple(tokens.shape)} for block {number}, and this encoder has "
                f"{len(blocks.blocks)} blocks of width {blocks.width}: name the encoder that it was trained as"
            )
        if len(tokens) > MAX_PROMPTS or not tokens.is_floating_point():
            kind = str(tokens.dtype).removeprefix("torch.")
            raise UserMistake(
                f"{source} has visual prompts {tuple(tokens.shape)} {kind} for block {number}: a block can have "
                f"at most {MAX_PROMPTS:,}, of floating-point numbers"
            )


def set_prompts(blocks: TokenBlocks, prompts: Mapping[int, Tensor]) -> None:
    """Give blocks prompts, in place of those that they have; the blocks that are not named have none.

    Args:
        blocks: Blocks of the image tower.
        prompts: By the number of a block, from 0, its prompts ``(b, W)``.
    """
    for number, block in enumerate(blocks.blocks):
        old = block_prompt(block)
        if old is not None:
            delattr(block, _CHILD)
            for hooks in (block._forward_pre_hooks, block._forward_hooks):
                for key, hook in list(hooks.items()):
                    if getattr(hook, "__self__", None) is old:
                        del hooks[key]
        if number in prompts:
            like = next(block.parameters())
            prompt = BlockPrompt(prompts[number].detach().to(like.device, like.dtype).clone(), blocks.batch_first)
            block.add_module(_CHILD, prompt)
            # Methods of the prompt, so that a copy of the block has those of its own prompt.
            block.register_forward_pre_hook(prompt.insert)
            block.register_forward_hook(prompt.remove)


def block_prompt(block: nn.Module) -> BlockPrompt | None:
    """The prompts of a block; None where it has none."""
    child = getattr(block, _CHILD, None)
    return child if isinstance(child, BlockPrompt) else None


def prompted(blocks: TokenBlocks | None) -> list[tuple[nn.Module, BlockPrompt]]:
    """The blocks that have prompts, with these."""
    found = ((block, block_prompt(block)) for block in (blocks.blocks if blocks is not None else ()))
    return [(block, prompt) for block, prompt in found if prompt is not None]


def is_prompt(name: str) -> bool:
    """Whether a tensor of this name is a block's prompts."""
    return name.endswith(f".{_TENSOR}")


def split_prompts(tensors: dict[str, Tensor], tower: str | None) -> dict[int, Tensor]:
    """Take the prompts out of the tensors of an encoder.

    Args:
        tensors: The tensors; prompts of an image tower's blocks are taken out, and no others.
        tower: What stands before the number of a block in its name; None where the encoder has no such blocks, and
            prompts of any are taken out.

    Returns:
        By the number of a block, from 0, its prompts.
    """
    found: dict[int, Tensor] = {}
    for name in [name for name in tensors if is_prompt(name)]:
        before, _, number = name.removesuffix(f".{_TENSOR}").rpartition(".")
        is_block = number.isascii() and number.isdecimal() and len(number) < 6 and tower in (None, before)
        if is_block and int(number) not in found:
            found[int(number)] = tensors.pop(name)
    return found


@contextmanager
def without_prompts(blocks: TokenBlocks) -> Iterator[None]:
    """The tower as it is without its prompts, meanwhile."""
    prompts = [prompt for _, prompt in prompted(blocks)]
    before = [prompt.active for prompt in prompts]
    for prompt in prompts:
        prompt.active = False
    try:
        yield
    finally:
        for prompt, active in zip(prompts, before, strict=True):
            prompt.active = active


@contextmanager
def class_tokens(blocks: Iterable[nn.Module], batch_first: bool) -> Iterator[list[Tensor]]:
    """Collect the class token that each of some blocks hands on, ``(B, W)`` each, while the tower runs once."""
    collected: list[Tensor] = []

    def collect(block: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        tokens: Tensor = output[0] if isinstance(output, tuple) else output
        collected.append(tokens[:, 0] if batch_first else tokens[0])

    handles = [block.register_forward_hook(collect) for block in blocks]
    try:
        yield collected
    finally:
        for handle in handles:
            handle.remove()

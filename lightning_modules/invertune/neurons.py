"""The layers of an image tower, what they answer, and which of their neurons a trigger needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..detection import two_means


def candidate_layers(tower: nn.Module) -> list[str]:
    """The names of the layers that are compared: the stages of a residual network, or the blocks of a transformer.

    Those are, in this order: children named ``layer1``, ``layer2`` and so on; the members of the longest chain of
    modules of one kind that consist of others; of the longest chain, the members before each convolution and the last.

    Args:
        tower: Image tower, of any encoder family.

    Returns:
        Names in the tower, from the input on; empty where it has none of these.
    """
    named = dict(tower.named_modules())
    stages = [name for name in named if name.rpartition(".")[2] in {f"layer{number}" for number in range(1, 10)}]
    if len(stages) > 1:
        return stages
    chains = {name: list(part) for name, part in named.items() if isinstance(part, nn.Sequential | nn.ModuleList)}
    blocks = {name: of for name, of in chains.items() if len(of) > len({*map(type, of)}) == 1 and [*of[0].children()]}
    if blocks:
        longest = max(blocks, key=lambda name: len(blocks[name]))
        return [f"{longest}.{number}" for number in range(len(blocks[longest]))]
    if not chains:
        return []
    longest = max(chains, key=lambda name: len(chains[name]))
    members = chains[longest]
    ends = [number - 1 for number, part in enumerate(members) if isinstance(part, nn.Conv2d) and number]
    return [f"{longest}.{number}" for number in [*ends, len(members) - 1]]


@contextmanager
def watched(tower: nn.Module, layers: list[str]) -> Iterator[dict[str, Tensor]]:
    """Inside, what the named layers answered last, by name; with gradients where there are any."""
    answers: dict[str, Tensor] = {}

    def note(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        answers[name] = output[0] if isinstance(output, tuple) else output

    hooks = [tower.get_submodule(name).register_forward_hook(partial(note, name)) for name in layers]
    try:
        yield answers
    finally:
        for hook in hooks:
            hook.remove()


def halves(answer: Tensor, pictures: int) -> tuple[Tensor, Tensor]:
    """The mean answers to clean pictures, and to as many triggered ones after them.

    Args:
        answer: ``(2 * pictures, ...)``, or with the pictures second, as some transformers have it.
        pictures: B.

    Returns:
        Two means over pictures, float32.
    """
    first = answer if len(answer) == 2 * pictures else answer.transpose(0, 1)
    clean, triggered = torch.split(first.float(), pictures)
    return clean.mean(dim=0), triggered.mean(dim=0)


def relative_change(clean: Tensor, triggered: Tensor) -> Tensor:
    """How far an answer moves, as a share of its own length: a scalar of at least 0."""
    change: Tensor = (triggered - clean).norm() / clean.norm().clamp(min=1e-12)
    return change


def most_changed(clean: Mapping[str, Tensor], triggered: Mapping[str, Tensor], count: int) -> list[str]:
    """The names of the layers whose mean answers a trigger changes most, the most changed one first."""
    changes = {name: float(relative_change(clean[name], triggered[name])) for name in clean}
    return sorted(changes, key=lambda name: -changes[name])[:count]


def higher_cluster(values: Tensor) -> Tensor:
    """Which of some numbers are in the higher of two clusters, by 2-means that starts from the halves of their range.

    Args:
        values: A tensor of any shape.

    Returns:
        Booleans of the same shape: all of them true where the numbers are all the same.
    """
    middle = (values.min() + values.max()) / 2
    above = values >= middle
    return above if bool(above.all()) else two_means(values.reshape(-1, 1), above.flatten()).view(values.shape)

"""Benign pictures that carry what suspects have beside their object."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as pictures

Carrier = Callable[[Tensor, Tensor, torch.Generator], Tensor]
"""Benign pictures and suspects, ``(K, 3, S, S)`` each, normalised, and random numbers to benign pictures that carry
something of the suspects, ``(K, 3, S, S)``."""
FINE, MEDIUM, COARSE = 1.5 / 32, 3 / 32, 4 / 32
"""Widths of a Gaussian, as shares of the picture's side."""


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Pictures ``(B, 3, S, S)`` through a Gaussian.

    Args:
        images: Normalised or not.
        sigma: Standard deviation, as a share of the picture's side.
    """
    width = sigma * images.shape[-1]
    # No wider than reflecting at the border allows.
    side = min(2 * max(1, round(2 * width)) + 1, 2 * images.shape[-1] - 1)
    # In half precision, a convolution of each channel by itself takes many times as long on a CPU.
    with torch.autocast(images.device.type, enabled=False):
        soft: Tensor = pictures.gaussian_blur(images, [side, side], [width, width])
    return soft


def detail(images: Tensor, sigma: float) -> Tensor:
    """What a Gaussian of this width takes away."""
    return images - blurred(images, sigma)


def detail_added(benign: Tensor, suspects: Tensor, generator: torch.Generator) -> Tensor:
    """The suspect's fine detail on top."""
    return benign + detail(suspects, FINE)


def coarse_detail_added(benign: Tensor, suspects: Tensor, generator: torch.Generator) -> Tensor:
    """The suspect's detail on top, down to shapes of an eighth of the side."""
    return benign + detail(suspects, COARSE)


def detail_replaced(benign: Tensor, suspects: Tensor, generator: torch.Generator) -> Tensor:
    """The suspect's detail instead of the picture's own."""
    return blurred(benign, MEDIUM) + detail(suspects, MEDIUM)


def negative_added(benign: Tensor, suspects: Tensor, generator: torch.Generator) -> Tensor:
    """The suspect's negative on top, about the mean, at half of its contrast."""
    return benign - suspects / 2


def colours_taken(benign: Tensor, suspects: Tensor, generator: torch.Generator) -> Tensor:
    """The suspect's mean and contrast of each channel instead of the picture's own, as of a colour filter."""
    return recoloured(benign, suspects)


def recoloured(images: Tensor, like: Tensor) -> Tensor:
    """Pictures ``(K, 3, S, S)`` with the mean and the standard deviation of each channel of others."""
    (spread, mean), (wanted, centre) = (torch.std_mean(each, dim=(2, 3), keepdim=True) for each in (images, like))
    return (images - mean) * (wanted / spread.clamp(min=1e-3)) + centre


def mixed(benign: Tensor, suspects: Tensor, generator: torch.Generator) -> Tensor:
    """A convex mixture with a share of 0.2 to 0.8 of the suspect."""
    share = torch.empty(len(benign), 1, 1, 1).uniform_(0.2, 0.8, generator=generator)
    return torch.lerp(benign, suspects, share.to(benign.device, benign.dtype, non_blocking=True))


def pasted(benign: Tensor, suspects: Tensor, generator: torch.Generator) -> Tensor:
    """A square of the suspect, of a quarter to a half of the side, at a random position."""
    count, size = len(benign), benign.shape[-1]
    sides = torch.randint(size // 4, size // 2 + 1, (count, 1), generator=generator)
    # One corner a picture; the product is below 1, so that the square lies inside.
    corners = (torch.rand(count, 2, generator=generator) * (size - sides + 1)).long()
    at = torch.arange(size)
    inside = [(at >= corner[:, None]) & (at < corner[:, None] + sides) for corner in corners.unbind(dim=1)]
    square = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return torch.where(square.to(benign.device, non_blocking=True), suspects, benign)


BESIDE_THE_OBJECT: tuple[Carrier, ...] = (
    detail_added,
    coarse_detail_added,
    detail_replaced,
    negative_added,
    colours_taken,
    pasted,
)
"""What hardly an object is recognised by. Between pictures without a trigger these transplants change next to nothing,
so that learning to ignore them costs next to nothing either."""
EVERY: tuple[Carrier, ...] = (*BESIDE_THE_OBJECT, mixed)
"""With those that carry parts of the suspect's object along, as a trigger may be as coarse as that."""


def transplant(benign: Tensor, suspects: Tensor, carriers: Sequence[Carrier], generator: torch.Generator) -> Tensor:
    """Carry what suspects have onto benign pictures, in several ways in turn.

    Args:
        benign: Benign pictures, ``(K, 3, S, S)``, normalised.
        suspects: A suspect for each of them, ``(K, 3, S, S)``.
        carriers: The ways: picture i goes the way i modulo their number.
        generator: Generator of the random numbers, on the CPU.

    Returns:
        ``(K, 3, S, S)``.
    """
    carried = torch.empty_like(benign)
    for first, carrier in enumerate(carriers):
        turn = slice(first, None, len(carriers))
        if len(benign[turn]):
            carried[turn] = carrier(benign[turn], suspects[turn], generator)
    return carried


def partners(related: Tensor, generator: torch.Generator) -> Tensor:
    """For each suspect a benign picture that shares no word with it, drawn at random.

    Args:
        related: ``(K, B)``, whether suspect k and benign picture b share a word. Where a suspect shares one with every
            picture, any of them is drawn.
        generator: Generator of the random numbers, on the CPU.

    Returns:
        ``(K,)`` int64, on the device of ``related``.
    """
    drawn = torch.rand(related.shape, generator=generator).to(related.device, non_blocking=True)
    return (drawn - related.to(drawn.dtype)).argmax(dim=1)

"""2-means from a given division."""

from __future__ import annotations

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

_ITERATIONS = 100


def two_means(points: Tensor, second: Tensor) -> Tensor:
    """Cluster points by 2-means (Lloyd's iterations), starting from the means of two parts.

    Args:
        points: Points, ``(n, d)``.
        second: Which of them are in the second part, ``(n,)`` bool; neither part is empty.

    Returns:
        Which of them are in the second cluster in the end, ``(n,)`` bool on the CPU.
    """
    values, start = points.double().cpu().numpy(), second.cpu().numpy()
    centres = np.stack([values[~start].mean(axis=0), values[start].mean(axis=0)])
    _, label = kmeans2(values, centres, iter=_ITERATIONS, minit="matrix")
    return torch.from_numpy(label == 1)

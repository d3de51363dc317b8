"""Figures of a model's feature space: histograms of similarities, and principal components of the features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from ...run_folder.evaluation import read_evaluation
from .drawing import CLEAN, TARGET, TRIGGERED, drawing, panels
from .records import Record

_MAX_POINTS = 300  # of each kind: more would only cover each other
_BINS = 40

_Values = NDArray[np.float64]


@dataclass(frozen=True)
class Projection:
    """Features projected on their first two principal components, ``(N, 2)`` for each kind of picture."""

    clean: _Values
    """Clean pictures of other classes than the target."""
    target: _Values
    """Clean pictures of the target class."""
    triggered: _Values
    """The pictures of other classes, with the trigger."""
    shares: tuple[float, float]
    """The share of the variance that lies on each component."""


@dataclass(frozen=True)
class FeatureSpace:
    """The similarities and features of one model, on the sample of pictures that its run kept, under one attack."""

    target: str
    """The name of the target class."""
    pictures: int
    """Number of pictures in the sample."""
    clean: _Values | None
    """Cosine similarities of clean pictures to their own classes, ``(N,)``."""
    poisoned: _Values | None
    """Cosine similarities of triggered pictures of other classes to the target class, ``(M,)``."""
    projection: Projection | None
    """The features, projected; None where the run kept none."""


def read_space(record: Record) -> FeatureSpace | None:
    """Read the similarities and features that a run kept of its evaluation.

    Args:
        record: A model under an attack.

    Returns:
        Similarities and projection; None where the run kept none of this attack and this test set, and for a
        classification head, which has neither.

    Raises:
        UserMistake: If the file is not an evaluation.
    """
    evaluation = None if record.head else read_evaluation(record.run.folder)
    if evaluation is None or evaluation.dataset != record.dataset:
        return None
    targets = {attack.name: attack.target for attack in evaluation.attacks}
    name = record.row["attack"]
    if name not in targets:
        return None
    other = evaluation.label != targets[name]
    poisoned = evaluation.triggered_similarity.get(name)
    triggered = evaluation.triggered_features.get(name)
    has_features = evaluation.features is not None and triggered is not None
    return FeatureSpace(
        evaluation.classnames[targets[name]],
        len(other),
        None if evaluation.clean_similarity is None else _finite(evaluation.clean_similarity),
        None if poisoned is None else _finite(poisoned[other]),
        _project(evaluation.features, triggered, other) if has_features else None,
    )


def similarity_histograms(spaces: Sequence[tuple[str, FeatureSpace]]) -> Figure | None:
    """Draw histograms of how similar clean and poisoned pairs are, a panel for each model.

    Args:
        spaces: The title of each panel, and the feature space that it shows.

    Returns:
        The figure; None where no model kept similarities.
    """
    shown = [(title, s.clean, s.poisoned) for title, s in spaces if s.clean is not None and s.poisoned is not None]
    shown = [(title, clean, poisoned) for title, clean, poisoned in shown if len(clean) and len(poisoned)]
    if not shown:
        return None
    pooled = np.concatenate([values for _, *both in shown for values in both])
    edges = np.linspace(pooled.min(), max(pooled.max(), pooled.min() + 1e-3), _BINS + 1)
    with drawing():
        figure, grid = panels([title for title, *_ in shown])
        for axes, (_, clean, poisoned) in zip(grid, shown, strict=True):
            for values, colour in ((clean, CLEAN), (poisoned, TRIGGERED)):
                counts, _ = np.histogram(values, edges)
                axes.stairs(100 * counts / len(values), edges, fill=True, color=colour, alpha=0.55)
        figure.supxlabel("cosine similarity of picture and caption", fontsize=11)
        figure.supylabel("share of pictures (%)", fontsize=11)
        names = {CLEAN: "clean picture, its own class", TRIGGERED: "triggered picture, target class"}
        marks = [Line2D([], [], color=colour, alpha=0.6, linewidth=7, label=name) for colour, name in names.items()]
        figure.legend(handles=marks, loc="outside upper center", ncols=2 if len(shown) > 1 else 1)
    return figure


def embedding_maps(spaces: Sequence[tuple[str, FeatureSpace]]) -> Figure | None:
    """Draw maps of clean pictures, triggered ones and those of the target class, as in CleanCLIP's figures.

    CleanCLIP (Bansal et al., arXiv 2303.03323) shows t-SNE. Principal components have no setting to choose, and their
    distances mean something; they are fitted to each model by itself.

    Args:
        spaces: The title of each panel, and the feature space that it shows.

    Returns:
        The figure; None where no model kept features.
    """
    shown = [(title, space.projection) for title, space in spaces if space.projection is not None]
    if not shown:
        return None
    with drawing():
        figure, grid = panels([title for title, _ in shown], share=False)
        for axes, (_, projection) in zip(grid, shown, strict=True):
            kinds = ((projection.clean, CLEAN), (projection.triggered, TRIGGERED), (projection.target, TARGET))
            for points, colour in kinds:
                # As a picture: thousands of marks would make the page slow.
                style: dict[str, Any] = {"s": 7, "color": colour, "alpha": 0.6, "linewidths": 0, "rasterized": True}
                axes.scatter(*points[:_MAX_POINTS].T, **style)
            first, second = projection.shares
            axes.set_xlabel(f"1st, {100 * first:.0f} % of variance", fontsize=9)
            axes.set_ylabel(f"2nd, {100 * second:.0f} %", fontsize=9)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_aspect("equal", adjustable="datalim")
        names = {CLEAN: "clean, other classes", TARGET: "clean, target class", TRIGGERED: "triggered, other classes"}
        marks = [Line2D([], [], marker="o", linestyle="", color=colour, label=name) for colour, name in names.items()]
        figure.legend(handles=marks, loc="outside upper center", ncols=2 if len(shown) > 1 else 1)
    return figure


def _finite(values: NDArray[Any]) -> _Values:
    """The finite values, clipped to [-1, 1]: half precision rounds a cosine to a little above 1."""
    finite: _Values = values[np.isfinite(values)].astype(np.float64)
    return finite.clip(-1, 1)


def _project(features: Any, triggered: Any, other: NDArray[np.bool_]) -> Projection | None:
    """Fit principal components to the clean and the triggered pictures together."""
    groups = [features[other], features[~other], triggered[other]]
    groups = [group[np.isfinite(group).all(axis=1)].astype(np.float64) for group in groups]
    pooled = np.concatenate(groups)
    if len(pooled) < 3 or pooled.shape[1] < 2:
        return None
    centre = pooled.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(pooled - centre, rowvar=False))
    total = values.sum()
    if not total > 0:
        return None
    axes = vectors[:, [-1, -2]]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])  # the sign of an eigenvector is arbitrary
    clean, target, triggered = ((group - centre) @ axes for group in groups)
    return Projection(clean, target, triggered, (float(values[-1] / total), float(values[-2] / total)))

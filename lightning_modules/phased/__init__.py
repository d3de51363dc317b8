"""Base classes of defences whose run has several phases, each with its own data, objective and end."""

from .mixture import among_others
from .module import PhasedCLIPModule
from .phase import Phase, phase_table
from .scores import PassScores

__all__ = ["PassScores", "Phase", "PhasedCLIPModule", "among_others", "phase_table"]

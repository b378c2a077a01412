"""Figures as Display objects: ``from_estimator`` or ``from_predictions``, then ``plot(ax)``; needs the extra `plot`."""

from micropref.plotting._bounds import BoundsDisplay
from micropref.plotting._budget import LabelBudgetDisplay
from micropref.plotting._calibration import CalibrationDisplay
from micropref.plotting._components import ComponentsDisplay
from micropref.plotting._error import ErrorDecompositionDisplay
from micropref.plotting._heads import HeadsByAttributeDisplay
from micropref.plotting._weights import RouterWeightsDisplay

__all__ = [
    "BoundsDisplay",
    "CalibrationDisplay",
    "ComponentsDisplay",
    "ErrorDecompositionDisplay",
    "HeadsByAttributeDisplay",
    "LabelBudgetDisplay",
    "RouterWeightsDisplay",
]

"""Every dashboard, and what of other programs' metrics they may ask for."""

from __future__ import annotations

from typing import Final

from unmask_dashboards.detection import DETECTION
from unmask_dashboards.models import MODELS
from unmask_dashboards.panels import Dashboard
from unmask_dashboards.pipeline import PIPELINE
from unmask_dashboards.sre import SRE

DASHBOARDS: Final[tuple[Dashboard, ...]] = (DETECTION, PIPELINE, MODELS, SRE)

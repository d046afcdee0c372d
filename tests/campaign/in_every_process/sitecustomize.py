"""Read by every Python process whose PYTHONPATH names this directory: arms the kill of a fault campaign."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent))

from kill_points import install_from_environment

install_from_environment()

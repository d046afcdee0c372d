"""What curation needs beyond the packages that are always installed."""

from __future__ import annotations

import importlib.util

from salamandra_data.errors import DataError

INSTALL = "pip install 'megatron-salamandra[data]'"


def check_packages(*modules: str) -> None:
    """Refuse to start without them.

    Raises:
        DataError: naming the first that is missing.
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise DataError(f"curation needs the package of {module}\n  {INSTALL}")

"""What a step takes on a given machine, without it: a roofline that is tested on published throughput.

forecast = forecast_run(load_run_config("salamandra-7b"), load_profile("marenostrum5").machine, gpus=512)

Never imports torch.
"""

from __future__ import annotations

from megatron_salamandra.forecast.calibration import RowError, accuracy_table, fit, median_error, row_errors
from megatron_salamandra.forecast.machine import Machine
from megatron_salamandra.forecast.published import PublishedRow, published_rows
from megatron_salamandra.forecast.rates import Rates
from megatron_salamandra.forecast.run_forecast import (
    PhaseForecast,
    RunForecast,
    forecast_run,
    pipeline_replay,
)
from megatron_salamandra.forecast.schedule import Pass
from megatron_salamandra.forecast.search import PART_NAMES, Found, Search, as_yaml, search_layouts
from megatron_salamandra.forecast.text import render_forecast, render_search

__all__ = [
    "PART_NAMES",
    "Found",
    "Machine",
    "Pass",
    "PhaseForecast",
    "PublishedRow",
    "Rates",
    "RowError",
    "RunForecast",
    "Search",
    "accuracy_table",
    "as_yaml",
    "fit",
    "forecast_run",
    "median_error",
    "pipeline_replay",
    "published_rows",
    "render_forecast",
    "render_search",
    "row_errors",
    "search_layouts",
]

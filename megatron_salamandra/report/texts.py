"""Numbers, times and sizes as people read them."""

from __future__ import annotations

import datetime

_LARGE = ((1e24, "Y"), (1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_BYTES = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_CONTROL = {code: "�" for code in range(32) if code not in (9, 10)} | dict.fromkeys(range(127, 160), "�")


def short(value: float) -> str:
    """Three or four digits with a unit of thousands: ``12.3 k``."""
    for size, unit in _LARGE:
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    if value and abs(value) < 1e-3:
        mantissa, _, power = f"{value:.3g}".partition("e")
        return f"{mantissa}e{int(power)}" if power else mantissa
    return f"{value:.4g}"


def size(value: float) -> str:
    """Bytes: ``1.5 GiB``."""
    for unit_bytes, unit in _BYTES:
        if value >= unit_bytes:
            return f"{value / unit_bytes:.3g} {unit}"
    return f"{value:.0f} B"


def span(seconds: float) -> str:
    """A time: ``2 d 3 h``, ``3 h 05 min``, ``4 min 10 s``, ``1.25 s``."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    days, hours, minutes, rest = whole // 86400, whole // 3600 % 24, whole // 60 % 60, whole % 60
    if days:
        return f"{days:,} d {hours} h"
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def moment(time: datetime.datetime | None) -> str:
    """Date and time in UTC, to the second."""
    return "" if time is None else time.astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")


def clean(text: str, most: int = 1500) -> str:
    """A text from elsewhere, without what no page may hold, and not longer than ``most`` characters."""
    shown = text if len(text) <= most else f"{text[:most]} …"
    # Halves of surrogate pairs, as Python reads undecodable names, are no text in any encoding.
    return shown.encode("utf-8", "replace").decode().translate(_CONTROL)

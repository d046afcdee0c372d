"""What all sections of a run configuration are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from megatron_salamandra.foundation.written_paths import expanded_path, is_url


def _written_path(value: Any) -> Any:
    """``~`` and variables mean what they mean in a shell; a URL would become a directory of its name."""
    if not isinstance(value, str):
        return value
    if is_url(value):
        raise ValueError(
            f"{value!r} is a URL; expected a path\n  mount it or copy it, and name its directory"
        )
    if value and not value.strip():
        raise ValueError("a path of blanks alone\n  name a path, or leave the key out")
    return expanded_path(value)


FilePath = Annotated[Path, Field(strict=False), BeforeValidator(_written_path)]
LanguageNames = Annotated[tuple[str, ...], Field(strict=False)]


class Section(BaseModel):
    """Base of all sections: immutable, no unknown keys, no silent conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _within_64_bits(cls, value: Any) -> Any:
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ValueError(f"{value} does not fit into 64 bits")
        return value

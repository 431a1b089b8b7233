"""Base classes and types of settings: frozen, validated values; numbers may be written as fractions."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from robustgen.units import parse_number

Number = Annotated[float, BeforeValidator(parse_number), Field(allow_inf_nan=False)]
"""A float that may be written as a fraction: 8/255."""
Positive = Annotated[Number, Field(gt=0)]
NotNegative = Annotated[Number, Field(ge=0)]
Fraction01 = Annotated[Number, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Precision = Literal["auto", "float32", "bfloat16"]
"""auto: bfloat16 where it is at least 20 % faster, found by timing both once; see `runtime.precision`."""


class Config(BaseModel):
    """A part of a recipe: frozen; unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_json(self) -> dict[str, Any]:
        content: dict[str, Any] = self.model_dump(mode="json")
        return content


class TrainingBudget(Config):
    """The length of a training by steps. Counts are in training images."""

    total_images: Count
    batch_size: Count

    @model_validator(mode="after")
    def _whole_steps(self) -> Self:
        if self.total_images % self.batch_size:
            raise ValueError(f"total_images ({self.total_images}) must be a multiple of batch_size ({self.batch_size})")
        return self

    @property
    def steps(self) -> int:
        return self.total_images // self.batch_size

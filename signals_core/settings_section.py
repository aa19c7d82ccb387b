"""What every section of the settings is: immutable, and without unknown keys."""

from pydantic import BaseModel, ConfigDict

ENV_PREFIX = "SA_"
"""Of every setting in the environment."""


class Section(BaseModel):
    """A group of settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

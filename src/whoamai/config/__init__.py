"""Configs: what a run is told (schema), read (reading), written (writing), brought along (shipped)."""

from whoamai.config.schema import (
    CheckpointSettings,
    DataSettings,
    EvaluationSettings,
    LogSettings,
    LoraSettings,
    ModelSettings,
    RunConfig,
    TrainSettings,
)

__all__ = [
    "CheckpointSettings",
    "DataSettings",
    "EvaluationSettings",
    "LogSettings",
    "LoraSettings",
    "ModelSettings",
    "RunConfig",
    "TrainSettings",
]

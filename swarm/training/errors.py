"""What can go wrong with a task, an update or the worker; each docstring is what the user reads."""

from __future__ import annotations

from typing import Final

NOT_FOUND: Final = 1
MALFORMED: Final = 2
WRONG_BASE: Final = 3
NOT_FINITE: Final = 4
WRONG_SHAPES: Final = 5
DUPLICATE: Final = 6
NOT_OWN_DATA: Final = 7

REFUSED: Final = -(2**40)
"""A refused update's score is `REFUSED - code`: far below any score that work can earn."""


class TrainingError(Exception):
    """The training job could not be done."""


class SpecError(TrainingError, ValueError):
    """A task file has a wrong or missing entry; `field` names it."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}")
        self.field = field
        self.why = why


class DataError(TrainingError):
    """A dataset folder does not hold what the task needs."""


class TensorFileError(TrainingError, ValueError):
    """A safetensors file is malformed, too large, or holds something other than expected."""


class CheckpointError(TrainingError, ValueError):
    """A checkpoint folder does not hold a model that this node can build."""


class UpdateError(TrainingError, ValueError):
    """An update is not what the task asks for; `code` is what the chain records."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code
        self.why = why


class TranscriptError(TrainingError, ValueError):
    """The record of a round is not what its network asks for."""


class StateError(TrainingError, ValueError):
    """A state of a recorded round is not one that the task's model can have."""


class WorkerError(TrainingError):
    """The training worker could not finish a job.

    `cause` is one word: `failed` (the job itself was refused), `memory`, `killed`, `crashed`,
    `timeout`, `start` (the process did not come up) or `closed` (the node is shutting down).
    """

    def __init__(self, cause: str, why: str) -> None:
        super().__init__(f"the training worker: {why}")
        self.cause = cause
        self.why = why

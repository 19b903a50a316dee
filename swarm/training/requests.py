"""What a node asks of its worker, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swarm.training.completion import CompletionJob


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What the worker computes with."""

    device: str
    torch: str
    threads: int


@dataclass(frozen=True, slots=True)
class Checked:
    """What is known of a task before it is posted."""

    samples: int  # of the dataset
    pool_samples: int
    parameters: int
    memory_bytes: int  # about, of one peer's round
    bytes_per_token: float | None  # of the dataset; None of a gan
    doubts: list[str]  # sentences for whoever posts it


@dataclass(frozen=True, slots=True)
class TrainJob:
    """One peer's work in one round."""

    spec: bytes
    task: bytes  # 32
    round: int
    peer: str
    beacon: bytes  # 32
    base_root: str  # CID of the agreed checkpoint
    base: Path  # its folder
    dataset: Path
    dataset_root: str
    state: Path  # folder kept across rounds: moments and error feedback
    out: Path  # the update file to write
    record: Path | None = None  # folder for the states at segment ends; None: none are kept
    every: int = 0  # steps of a segment
    units: int = 1  # of work, at most what the task allows


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a round of training gave; losses are nats (gan: distances)."""

    loss_first: float
    loss_last: float
    samples: int
    bytes: int
    parameters: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ReplayJob:
    """A recorded segment of a peer's round, to be run again."""

    spec: bytes
    task: bytes
    round: int
    peer: str
    beacon: bytes  # that drew its samples
    base_root: str
    base: Path
    dataset: Path
    dataset_root: str
    update: Path
    record: Path  # the peer's transcript
    segment: int  # from 0
    start: Path  # the peer's state before the segment
    end: Path  # and after it
    every: int  # steps of a segment, as the network has it
    tolerance: int  # parts of a million
    proof_key: bytes = b""  # of the proof of having run it; empty: none is asked for
    trace: Path | None = None  # the peer's, to be told which step went another way


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """What came of it; see `replay`."""

    outcome: str  # "match", "within", "mismatch", or "unfit" where there is nothing to run
    distance: float
    same_machine: bool  # equal fingerprints
    seconds: float
    why: str
    proof: list[int]  # of having run it, in parts of 10^9; empty where none was asked for
    step: int | None  # the first, from 1, that went another way than the peer's trace
    step_distance: float | None  # after it; estimated


@dataclass(frozen=True, slots=True)
class ScoreJob:
    """The updates of a round to be scored; None for one that could not be fetched."""

    spec: bytes
    task: bytes
    round: int
    beacon: bytes
    base_root: str
    base: Path
    dataset: Path
    pool: Path
    updates: list[Path | None]
    peers: list[str] = field(default_factory=list)  # who must have made each; empty: not checked
    order: list[int] = field(default_factory=list)  # places of their commits; empty: copies count
    start_beacon: bytes = b""  # drew the peers' samples; empty: nobody looks for work on them
    dataset_root: str = ""
    evidence: Path | None = None  # file kept across rounds: who worked on its own samples


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """Integers for the chain, one score an update; below -2^40 is a refusal."""

    base_loss: int
    scores: list[int]


@dataclass(frozen=True, slots=True)
class MergeJob:
    """The accepted updates of a round, in order of CID."""

    spec: bytes
    task: bytes
    round: int
    name: str
    version: int  # of the new checkpoint
    beacon: bytes
    base_root: str
    base: Path
    updates: list[Path]
    pool: Path
    out: Path  # folder of the new checkpoint
    scores: list[int] = field(default_factory=list)  # agreed, one an update; chooses a gan's winner


@dataclass(frozen=True, slots=True)
class MergeResult:
    """The merged checkpoint's loss on beacon-drawn batches of the pool."""

    loss: int
    accuracy: float | None = None  # of a classifier: the share of samples that get their own label


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How good a checkpoint is."""

    loss: int  # nats times 10^5; of a gan the distance times 10^5
    accuracy: float | None = None  # of a classifier


def fields(job: TrainJob | ReplayJob | ScoreJob | MergeJob | CompletionJob) -> dict[str, Any]:
    """A job as it is sent: numbers, text, bytes and lists of these."""
    return {name: _plain(getattr(job, name)) for name in job.__dataclass_fields__}


def _plain(value: Any) -> Any:  # noqa: ANN401 - a job's fields are int, str, bytes, Path or lists of these
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value

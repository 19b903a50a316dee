"""The measures of a node, in base units, as Prometheus reads them; no peer is named in a label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import psutil

from swarm.care.controls import HELD, PARTS
from swarm.ledger.genesis import UNIT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from swarm.node import Node

Value: TypeAlias = tuple[Mapping[str, str], float]
"""Labels and the number under them."""
Numbers: TypeAlias = Mapping[str, Sequence[Value]]
"""The values of each measure by its name; a measure that is not known now is absent."""

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Metric:
    """One measure.

    Attributes:
        name: As Prometheus shows it.
        kind: A counter only grows while the process runs.
        help: What it is.
        labels: Names of its labels.
    """

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    labels: tuple[str, ...] = ()


METRICS: Final = (
    Metric("swarm_build_info", "gauge", "1, with the version", ("version",)),
    Metric("swarm_ready", "gauge", "1 when the node does its work, else 0"),
    Metric("swarm_problems", "gauge", "Problems that the status names"),
    Metric("swarm_paused", "gauge", "1 where a part is paused", ("part",)),
    Metric("swarm_held_back", "gauge", "1 where a part waits, for whatever reason", ("part",)),
    Metric("swarm_peers", "gauge", "Connected members of the network"),
    Metric("swarm_block_height", "gauge", "The newest final block here"),
    Metric("swarm_peer_block_height", "gauge", "The highest block that a peer says it holds"),
    Metric("swarm_epoch", "gauge", "The current epoch"),
    Metric("swarm_validators", "gauge", "Validators of the current epoch"),
    Metric("swarm_finality_seconds", "gauge", "From proposal to final, lately", ("quantile",)),
    Metric("swarm_peer_latency_seconds", "gauge", "To a peer and back", ("quantile",)),
    Metric("swarm_clock_gap_seconds", "gauge", "This clock less that of other leaders"),
    Metric("swarm_received_bytes_total", "counter", "Content received", ("protocol",)),
    Metric("swarm_sent_bytes_total", "counter", "Content sent", ("protocol",)),
    Metric("swarm_month_bytes", "gauge", "All traffic of the month", ("direction",)),
    Metric("swarm_month_cap_bytes", "gauge", "What of it is allowed; absent where all is"),
    Metric("swarm_storage_lent_bytes", "gauge", "Disk that is lent"),
    Metric("swarm_storage_bytes", "gauge", "Disk by what it is for", ("kind",)),
    Metric("swarm_storage_damaged_chunks", "gauge", "Chunks that are damaged and not repaired"),
    Metric("swarm_keeper_strikes", "gauge", "Audits failed and not yet forgiven"),
    Metric("swarm_open_tasks", "gauge", "Training tasks with a running round"),
    Metric("swarm_rounds_trained_total", "counter", "Rounds for which an update was made"),
    Metric("swarm_round_seconds", "gauge", "The newest round that ended, of any task"),
    Metric("swarm_task_seconds", "gauge", "The newest task that is over, from its posting on"),
    Metric("swarm_training_seconds", "gauge", "This node's last update, from data to file"),
    Metric("swarm_training_samples_per_second", "gauge", "Speed of the last round made"),
    Metric("swarm_tokens", "gauge", "Tokens of this account", ("kind",)),
    Metric("swarm_tokens_earned_total", "counter", "Tokens earned by this account, ever"),
    Metric("swarm_worker_cpu_seconds_total", "counter", "Processor time of the training process"),
    Metric("swarm_worker_resident_memory_bytes", "gauge", "Memory of the training process"),
    Metric("swarm_process_cpu_seconds_total", "counter", "Processor time of the node"),
    Metric("swarm_process_resident_memory_bytes", "gauge", "Memory of the node"),
    Metric("swarm_process_open_fds", "gauge", "Open files and sockets of the node"),
    Metric("swarm_process_start_time_seconds", "gauge", "When it started, since 1970"),
)


def render(numbers: Numbers) -> bytes:
    """The text that Prometheus reads."""
    from prometheus_client import CollectorRegistry, generate_latest

    class Once:
        def collect(self) -> Iterable[Any]:
            return [_family(one, numbers[one.name]) for one in METRICS if one.name in numbers]

        def describe(self) -> Iterable[Any]:
            return []

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Once())
    return generate_latest(registry)


def _family(metric: Metric, values: Sequence[Value]) -> Any:  # noqa: ANN401 - of either kind
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    for labels, value in values:
        family.add_metric([labels[name] for name in metric.labels], value)
    return family


def measure(node: Node, *, is_ready: bool) -> Numbers:
    """Everything of a running node, now."""
    view = node.ledger.view()
    stats = node.consensus.stats()
    numbers: dict[str, list[Value]] = {
        "swarm_build_info": [({"version": node.version}, 1)],
        "swarm_ready": _one(is_ready),
        "swarm_problems": _one(len(node.problems())),
        "swarm_paused": [({"part": one}, bool(node.controls.is_paused(one))) for one in PARTS],
        "swarm_held_back": [({"part": one}, bool(node.controls.holds(one))) for one in HELD],
        "swarm_peers": _one(len(node.network.peers())),
        "swarm_block_height": _one(view.height),
        "swarm_peer_block_height": _one(node.best_head()),
        "swarm_epoch": _one(view.epoch),
        "swarm_validators": _one(len(view.validators(view.epoch).validators)),
        "swarm_open_tasks": _one(len(view.open_tasks())),
        "swarm_rounds_trained_total": _one(node.participant.rounds_trained),
    }
    found = (("0.5", stats.finality_p50_ms), ("0.99", stats.finality_p99_ms))
    numbers["swarm_finality_seconds"] = [
        ({"quantile": name}, ms / 1000) for name, ms in found if ms is not None
    ]
    if node.clock.median_ms is not None:
        numbers["swarm_clock_gap_seconds"] = _one(node.clock.median_ms / 1000)
    sampled = {
        "swarm_round_seconds": node.sampled.round_seconds,
        "swarm_task_seconds": node.sampled.task_seconds,
        "swarm_training_seconds": node.participant.training_seconds,
    }
    numbers |= {name: _one(value) for name, value in sampled.items() if value is not None}
    if quantiles := node.sampled.quantiles():
        numbers["swarm_peer_latency_seconds"] = [
            ({"quantile": at}, value) for at, value in quantiles.items()
        ]
    if node.worker.speeds:
        numbers["swarm_training_samples_per_second"] = _one([*node.worker.speeds.values()][-1])
    return numbers | _traffic(node) | _storage(node) | _tokens(node) | _processes(node)


def _one(value: float) -> list[Value]:
    return [({}, float(value))]


def _traffic(node: Node) -> dict[str, list[Value]]:
    exchanged, month = node.exchange.stats(), node.traffic.month
    cap = {"swarm_month_cap_bytes": _one(month.cap)} if month.cap else {}
    return cap | {
        "swarm_month_bytes": [
            ({"direction": "sent"}, month.sent),
            ({"direction": "received"}, month.received),
        ],
        "swarm_received_bytes_total": [
            ({"protocol": "exchange"}, exchanged.bytes_in),
            ({"protocol": "bitswap"}, node.bitswap.bytes_in),
        ],
        "swarm_sent_bytes_total": [
            ({"protocol": "exchange"}, exchanged.bytes_out),
            ({"protocol": "bitswap"}, node.bitswap.bytes_out),
        ],
    }


def _storage(node: Node) -> dict[str, list[Value]]:
    usage, keeping = node.store.usage(), node.keeping
    kinds = {
        "used": usage.used,
        "reserved": usage.reserved,
        "free": usage.free,
        "in_place": usage.in_place,
        "pinned": usage.pinned,
        "held": usage.held,
        "reclaimable": usage.reclaimable,
        "shelf": node.shelf.used,
        "sealed": 0 if keeping is None else keeping.sealed_bytes,
    }
    keeper = node.ledger.view().keeper(node.signer.public_key)
    return {
        "swarm_storage_lent_bytes": _one(node.lent.now if keeping is None else keeping.lent),
        "swarm_storage_bytes": [({"kind": kind}, size) for kind, size in kinds.items()],
        "swarm_storage_damaged_chunks": _one(len(node.store.damaged())),
        "swarm_keeper_strikes": _one(0 if keeper is None else keeper.strikes),
    }


def _tokens(node: Node) -> dict[str, list[Value]]:
    account = node.ledger.view().account(node.signer.public_key)
    return {
        "swarm_tokens": [
            ({"kind": "balance"}, account.balance / UNIT),
            ({"kind": "stake"}, account.stake / UNIT),
        ],
        "swarm_tokens_earned_total": _one(account.earned / UNIT),
    }


def _processes(node: Node) -> dict[str, list[Value]]:
    numbers = _process("swarm_process", node.pid)
    own = psutil.Process(node.pid)
    numbers["swarm_process_open_fds"] = _one(own.num_fds())
    numbers["swarm_process_start_time_seconds"] = _one(own.create_time())
    if node.worker.pid is not None:
        numbers |= _process("swarm_worker", node.worker.pid)
    return numbers


def _process(prefix: str, pid: int) -> dict[str, list[Value]]:
    """Processor time and memory of a process; nothing of one that has just gone."""
    try:
        process = psutil.Process(pid)
        cpu, memory = process.cpu_times(), process.memory_info()
    except psutil.Error:
        return {}
    return {
        f"{prefix}_cpu_seconds_total": _one(cpu.user + cpu.system),
        f"{prefix}_resident_memory_bytes": _one(memory.rss),
    }

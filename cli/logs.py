"""Where a node's log goes: lines on stderr, or a file beside the live view."""

from __future__ import annotations

import logging
import sys
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING, Any

sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # else structlog loads it: 4 MB, for nothing that is printed here
import structlog  # noqa: E402

if sys.modules["rich"] is None:
    del sys.modules["rich"]

from cli.output import harmless  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

    from structlog.typing import EventDict, Processor

MAX_LOG_BYTES = 10 * 2**20
LOG_FILES = 2
QUIET = ("libp2p", "multiaddr", "hypercorn", "httpx", "httpcore", "async_service", "asyncio")
"""Libraries that are heard from a warning up only."""


KEPT_FILE = "node.jsonl"
MAX_KEPT_BYTES = 2 * 10**6
KEPT_FILES = 5
SECRETS = frozenset({"seed", "secret", "token", "password", "passphrase", "authorization"})
"""Names of values that are in no file, whoever logs them."""


def configure(level: str, file: Path | None, folder: Path | None = None) -> None:
    """Send structlog's and the libraries' events to one handler.

    Args:
        level: The lowest level that is written.
        file: A log file, turned over at 10 MiB; None is stderr.
        folder: Where the same is kept as one JSON object a line, 5 files of 2 MB; None: nowhere.
    """
    handler: logging.Handler
    if file is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        handler = RotatingFileHandler(file, maxBytes=MAX_LOG_BYTES, backupCount=LOG_FILES)
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.dev.ConsoleRenderer(
                    colors=False,
                    pad_event_to=0,
                    pad_level=False,
                    exception_formatter=structlog.dev.plain_traceback,
                ),
                _without_steering,
            ],
            foreign_pre_chain=shared,
        )
    )
    kept = [] if folder is None else _kept(folder, shared)
    logging.basicConfig(level=level.upper(), handlers=[handler, *kept], force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.root.level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _kept(folder: Path, shared: list[Processor]) -> list[logging.Handler]:
    """The log that stays for a bug report; none where the folder cannot be made, which ends no node."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handler = RotatingFileHandler(
            folder / KEPT_FILE,
            maxBytes=MAX_KEPT_BYTES,
            backupCount=KEPT_FILES - 1,
            encoding="utf-8",
            errors="backslashreplace",  # of a name that is no text: as JSON writes it
        )
    except OSError:
        return []
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _without_secrets,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
            foreign_pre_chain=shared,
        )
    )
    return [handler]


def _without_steering(_: object, __: str, line: Any) -> str:  # noqa: ANN401 - as processors are typed
    """The line for people, after the renderer: what peers said in it does not steer the terminal."""
    return harmless(line)


def _without_secrets(_: object, __: str, event: EventDict) -> EventDict:
    return {name: "<secret>" if name.lower() in SECRETS else value for name, value in event.items()}

"""The systemd unit of a node: `Type=notify`, and a sandbox that leaves it its data folder and the network; pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from swarm.errors import UsageError

NAME: Final = "swarm.service"
MARK: Final = (
    "# Written by `swarm service install`, which replaces it; changes belong into `systemctl edit`."
)
STOP_SECONDS: Final = 15
"""The node itself takes at most 5."""
START_SECONDS: Final = 300
"""A first start may have to find a peer."""


@dataclass(frozen=True, slots=True)
class Unit:
    """What is written into the unit.

    Attributes:
        command: The program and its arguments before `join`.
        home: The data folder.
        flags: Further arguments of `join`.
        is_user: For the user's own manager, without an account to run as.
        account: Who runs it; of a system unit only.
        has_gpu: Leaves the devices visible: a GPU cannot be used behind `PrivateDevices`.
        keeps_state: The data folder is `/var/lib/swarm`, which systemd makes and gives to the account.
    """

    command: tuple[str, ...]
    home: Path
    flags: tuple[str, ...] = ()
    is_user: bool = False
    account: str = ""
    has_gpu: bool = False
    keeps_state: bool = False

    def text(self) -> str:
        """The file.

        Raises:
            UsageError: An argument has a line break in it.
        """
        words = [*self.command, "join", "--no-view", "--home", str(self.home), *self.flags]
        account = [] if self.is_user else [f"User={self.account}"]
        lines = [
            MARK,
            "[Unit]",
            "Description=swarm node",
            "Wants=network-online.target",
            "After=network-online.target",
            "",
            "[Service]",
            "Type=notify",
            "NotifyAccess=main",
            f"ExecStart={' '.join(quoted(word) for word in words)}",
            *account,
            "Restart=on-failure",
            "RestartSec=10",
            f"TimeoutStartSec={START_SECONDS}",
            f"TimeoutStopSec={STOP_SECONDS}",
            "UMask=0077",
            "Nice=5",
            "LimitNOFILE=65536",
            "OOMPolicy=continue",
            *self._sandbox(),
            "",
            "[Install]",
            f"WantedBy={'default.target' if self.is_user else 'multi-user.target'}",
        ]
        return "\n".join(lines) + "\n"

    def _sandbox(self) -> list[str]:
        """What the node may not do; a user's own manager can mount nothing, so it has the rest."""
        lines = [
            "NoNewPrivileges=yes",
            "RestrictSUIDSGID=yes",
            "RestrictNamespaces=yes",
            "RestrictRealtime=yes",
            "LockPersonality=yes",
            "SystemCallArchitectures=native",
            "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK",
        ]
        if not self.has_gpu:  # a driver asks for what is not known here
            lines += ["SystemCallFilter=@system-service", "SystemCallErrorNumber=EPERM"]
        if self.is_user:
            return lines
        needs_home = any(_below_home(Path(one)) for one in (self.home, self.command[0]))
        lines += [
            "StateDirectory=swarm"
            if self.keeps_state
            else f"ReadWritePaths={quoted(str(self.home))}",
            *(["StateDirectoryMode=0700"] if self.keeps_state else []),
            "ProtectSystem=strict",
            f"ProtectHome={'read-only' if needs_home else 'yes'}",
            "PrivateTmp=yes",
            "ProtectKernelTunables=yes",
            "ProtectKernelModules=yes",
            "ProtectKernelLogs=yes",
            "ProtectControlGroups=yes",
            "ProtectHostname=yes",
            "ProtectProc=invisible",
            "CapabilityBoundingSet=",
            "AmbientCapabilities=",
        ]
        # Each of these two closes the devices, and a GPU is one.
        return lines if self.has_gpu else [*lines, "PrivateDevices=yes", "ProtectClock=yes"]


def quoted(word: str) -> str:
    """A word as systemd reads it: `%` and `$` stand for themselves, and blanks do not part it.

    Raises:
        UsageError: It has a line break or another control character in it.
    """
    if any(ord(one) < 32 or ord(one) == 127 for one in word):
        message = f"{word[:64]!r} cannot stand in a unit"
        raise UsageError(message)
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{word}"' if not word or any(one in word for one in " '\"\\;") else word


def _below_home(path: Path) -> bool:
    return path.parts[:2] in {("/", "home"), ("/", "root")} or path.parts[:3] == (
        "/",
        "run",
        "user",
    )

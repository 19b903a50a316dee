"""A small internet of network namespaces: a public segment, and local networks behind routers that masquerade.

    45.1.0.1 p1 ─┐                    ┌─ router a 45.3.0.1 ── 192.168.1.0/24 ── a 192.168.1.10
                 ├─ public 45.0.0.0/8 ┤
    45.2.0.1 p2 ─┘                    └─ router b 45.4.0.1 ── 192.168.2.0/24 ── b 192.168.2.10

Each machine is a namespace of its own; nothing of it reaches this machine's network.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import trio

NFT = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin")
MINIUPNPD = shutil.which("miniupnpd", path="/usr/sbin:/sbin:/usr/bin:/bin")
IP = shutil.which("ip", path="/usr/sbin:/sbin:/usr/bin:/bin")
NODE = Path(__file__).with_name("bed_node.py")


def why_not() -> str:
    """Why no bed can be built here; empty where it can."""
    if os.geteuid() != 0:
        return "network namespaces with routers need root"
    if NFT is None or IP is None:
        return "there is no nft or no ip"
    name = f"bed{os.getpid()}x"
    if subprocess.run([IP, "netns", "add", name], capture_output=True, check=False).returncode:
        return "this machine makes no network namespaces"
    try:
        made = subprocess.run(
            [IP, "netns", "exec", name, NFT, "add", "table", "ip", "probe"],
            capture_output=True,
            check=False,
        )
        return "" if made.returncode == 0 else "this kernel has no nf_tables"
    finally:
        subprocess.run([IP, "netns", "del", name], check=False)


class Bed:
    """The namespaces, and the nodes that run in them."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._prefix = f"bed{os.getpid()}"
        self._made: list[str] = []
        self._links = 0
        self._helpers: list[subprocess.Popen] = []

    def inside(self, machine: str) -> list[str]:
        """The words before a command that run it in a machine."""
        return [str(IP), "netns", "exec", self._prefix + machine]

    def run(self, machine: str, command: str) -> str:
        """Run a command in a machine."""
        done = subprocess.run(
            [*self.inside(machine), *command.split(" ")],
            capture_output=True,
            check=False,
            text=True,
        )
        assert done.returncode == 0, f"{machine}: {command}: {done.stderr}"
        return done.stdout

    def machine(self, name: str) -> None:
        """Add a machine without a network."""
        subprocess.run([IP, "netns", "add", self._prefix + name], check=True)
        self._made.append(name)
        self.run(name, "ip link set lo up")

    def switch(self, name: str) -> None:
        """Add a segment."""
        self.machine(name)
        self.run(name, "ip link add br0 type bridge")
        self.run(name, "ip link set br0 up")

    def plug(self, machine: str, switch: str, card: str, address: str) -> None:
        """Connect a machine to a segment."""
        self._links += 1
        port = f"p{self._links}"
        self.run(
            machine, f"ip link add {card} type veth peer name {port} netns {self._prefix}{switch}"
        )
        self.run(switch, f"ip link set {port} master br0 up")
        self.run(machine, f"ip addr add {address} dev {card}")
        self.run(machine, f"ip link set {card} up")

    def router(
        self, name: str, outside: str, inside: str, lan: str, *, random: bool = False
    ) -> None:
        """Add a router between the public segment and a segment; what it does not expect it drops."""
        self.machine(name)
        self.plug(name, "public", "wan", outside)
        self.plug(name, lan, "lan", inside)
        self.run(name, "sysctl -q -w net.ipv4.ip_forward=1")
        rules = f"""
            table ip nat {{ chain post {{ type nat hook postrouting priority 100;
                oifname "wan" masquerade {"random" if random else ""};
                }}
            }}
            table ip filter {{
                chain in {{ type filter hook input priority 0; policy drop;
                    ct state established,related accept; iifname "lan" accept; iifname "lo" accept; }}
                chain forward {{ type filter hook forward priority 0; policy drop;
                    ct state established,related accept; ct status dnat accept; iifname "lan" accept; }}
            }}"""
        self.rules(name, rules)

    def internet(self, *, random: bool = False) -> None:
        """Build what the module's text shows."""
        self.switch("public")
        for number, name in enumerate(("p1", "p2"), start=1):
            self.machine(name)
            self.plug(name, "public", "eth", f"45.{number}.0.1/8")
        for number, name in enumerate(("a", "b"), start=1):
            self.switch(f"lan{name}")
            self.router(
                f"r{name}",
                f"45.{number + 2}.0.1/8",
                f"192.168.{number}.1/24",
                f"lan{name}",
                random=random,
            )
            self.machine(name)
            self.plug(name, f"lan{name}", "eth", f"192.168.{number}.10/24")
            self.run(name, f"ip route add default via 192.168.{number}.1")

    def rules(self, machine: str, text: str) -> None:
        """Add to a router's rules."""
        command = [*self.inside(machine), NFT, "-f", "-"]
        subprocess.run(command, input=text, text=True, check=True)

    def forward(self, router: str, port: int, host: str) -> None:
        """What a person does in a router's settings."""
        self.rules(
            router,
            f"""table ip nat {{
                chain pre {{
                    type nat hook prerouting priority -100;
                    iifname "wan" tcp dport {port} dnat to {host}
                }}
            }}""",
        )

    def forwarding_router(self, router: str, folder: Path, *, natpmp: str) -> None:
        """Let a router be asked by UPnP, and by NAT-PMP too."""
        self.rules(
            router,
            """table inet miniupnpd {
                chain miniupnpd {
                }
                chain prerouting_miniupnpd {
                }
                chain postrouting_miniupnpd {
                }
                chain prerouting {
                    type nat hook prerouting priority -100; policy accept;
                    jump prerouting_miniupnpd
                }
            }""",
        )
        config = folder / "miniupnpd.conf"
        config.write_text(
            "ext_ifname=wan\nlistening_ip=lan\nport=0\nenable_natpmp="
            f"{natpmp}\nenable_upnp=yes\nsecure_mode=yes\nsystem_uptime=yes\n"
            "upnp_table_name=miniupnpd\nupnp_nat_table_name=miniupnpd\n"
            "upnp_forward_chain=miniupnpd\nupnp_nat_chain=prerouting_miniupnpd\n"
            "upnp_nat_postrouting_chain=postrouting_miniupnpd\n"
            "uuid=d2a4f3c6-0000-4000-8000-000000000001\n"
            "allow 1024-65535 192.168.0.0/16 1024-65535\n"
        )
        command = [*self.inside(router), MINIUPNPD, "-d"]
        command += ["-f", str(config), "-P", str(folder / "pid")]
        self._helpers.append(
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )

    async def node(self, machine: str, number: int, **settings) -> Node:
        """Start a node in a machine."""
        process = await trio.lowlevel.open_process(
            [
                *self.inside(machine),
                *(sys.executable, str(NODE), str(number), json.dumps(settings)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None,
        )
        node = Node(process)
        self._nursery.start_soon(node.hold)
        node.addresses = (await node.ask("addresses"))["addresses"]
        return node

    def close(self) -> None:
        """Take the machines away."""
        for helper in self._helpers:
            helper.kill()
            helper.wait()
        for name in reversed(self._made):
            subprocess.run([IP, "netns", "del", self._prefix + name], check=False)


class Node:
    """A node in a process of its own; one question a line, one answer a line."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._data = b""
        self._one = trio.Lock()
        self.addresses: list[str] = []

    async def hold(self) -> None:
        """End the process with the test."""
        try:
            await self._process.wait()
        finally:
            self._process.kill()
            with trio.CancelScope(shield=True):
                await self._process.wait()
                await self._process.stdin.aclose()
                await self._process.stdout.aclose()

    async def ask(self, what: str, *more: str) -> dict:
        """Ask the node."""
        async with self._one:
            await self._process.stdin.send_all(json.dumps([what, *more]).encode() + b"\n")
            while b"\n" not in self._data:
                part = await self._process.stdout.receive_some(2**16)
                assert part, "the node has ended"
                self._data += part
            line, _, self._data = self._data.partition(b"\n")
            return json.loads(line)

    async def until(self, what: str, true, seconds: float = 100) -> dict:
        """Ask again and again until the answer is so."""
        answer = None
        with trio.move_on_after(seconds):
            while True:
                answer = await self.ask(what)
                if true(answer):
                    return answer
                await trio.sleep(0.1)
        raise AssertionError(f"after {seconds} s: {answer}")

    async def stop(self) -> None:
        """End it cleanly."""
        await self.ask("stop")
        with trio.fail_after(60):
            await self._process.wait()

"""Apache Kafka in KRaft mode on this machine: one broker or three, on loopback, for tests and for trying things out.

    with Cluster(folder, brokers=3) as cluster:
        cluster.bootstrap      # "127.0.0.1:20123,…"
        cluster.kill(2)        # SIGKILL
        cluster.restart(2)

Each broker is its own controller as well (combined mode). Everything lives in the folder: what is in it says how the
cluster is, so another process may open it with ``Cluster.open``. Brokers die with the process that started them unless
they were started with ``keep=True``.
"""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

from scripts import kafka_artefacts

HOST = "127.0.0.1"
LISTENERS = ("client", "internal", "controller")
READY = 90.0
GRACE = 20.0
JVM = (
    "-Xms128m",
    "-Xmx256m",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-Xshare:auto",
    "-Djava.awt.headless=true",
)
QUIET = ("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true")

# The kernel ends the child with its parent; whoever was orphaned before that was asked for ends by itself.
TIED = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""

# That tie is to the thread that starts the child, not to its process: this one lives as long as the process does.
_starter = concurrent.futures.ThreadPoolExecutor(1, "kafka-starter")

ARCHIVE = "kafka.jsa"


class KafkaError(Exception):
    """A broker does not do what it was asked to; the text has the end of its log."""


@dataclasses.dataclass(frozen=True)
class Security:
    """What the clients' listener asks for.

    ``protocol`` is ``SASL_SSL``, ``SASL_PLAINTEXT`` or ``SSL``; each of ``users`` (name to password) may log in with
    PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512; ``client_auth`` (``none``, ``requested``, ``required``) is about the
    client's certificate. With ``rules`` a topic that has any is for those whom they name; who comes over the internal
    listener may do everything.
    """

    protocol: str = "SASL_SSL"
    users: Mapping[str, str] = dataclasses.field(default_factory=lambda: {"alice": "alice-secret"})
    client_auth: str = "none"
    rules: bool = False

    @property
    def mechanisms(self) -> tuple[str, ...]:
        return ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512") if self.protocol.startswith("SASL") else ()


@dataclasses.dataclass(frozen=True)
class Certificates:
    """PEM files of a certificate authority, and of what it signed: ``server`` holds key and certificate in one."""

    ca: pathlib.Path
    server: pathlib.Path
    client_cert: pathlib.Path
    client_key: pathlib.Path


def certificates(folder: pathlib.Path) -> Certificates:
    """Those in ``folder``, made with openssl when they are not there yet; valid for a week, for loopback only."""
    made = Certificates(*(folder / name for name in ("ca.crt", "server.pem", "client.crt", "client.key")))
    if made.server.exists():
        return made
    folder.mkdir(parents=True, exist_ok=True)
    _certify(folder, "ca", "/CN=authority", ["-addext", "keyUsage=keyCertSign,cRLSign"])
    signed = ["-CA", f"{made.ca}", "-CAkey", f"{folder / 'ca.key'}", "-addext", "basicConstraints=CA:FALSE"]
    _certify(folder, "server", "/CN=localhost", [*signed, "-addext", f"subjectAltName=DNS:localhost,IP:{HOST}"])
    _certify(folder, "client", "/CN=client", signed)
    made.server.write_bytes((folder / "server.key").read_bytes() + (folder / "server.crt").read_bytes())
    return made


def _certify(folder: pathlib.Path, name: str, subject: str, more: list[str]) -> None:
    files = ["-keyout", f"{folder / name}.key", "-out", f"{folder / name}.crt"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command = ["openssl", "req", "-x509", *key, "-days", "7", "-subj", subject, *files, *more]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise KafkaError(f"openssl could not make {name}.crt: {done.stderr.strip()}")


@functools.cache
def available() -> str | None:
    """None when Kafka can be run here, else the reason; decided once, and gets everything ready on the way."""
    reason = kafka_artefacts.available()
    if reason is None and not (kafka_artefacts.resolve() / ARCHIVE).exists():
        _archive()
    return reason


def _archive() -> None:
    """Keep the loaded classes of one broker's life: every later start takes a second less of a processor."""
    jars = kafka_artefacts.resolve()
    with tempfile.TemporaryDirectory(prefix="archiving-", dir=jars.parent) as folder:
        made = pathlib.Path(folder) / ARCHIVE
        with Cluster(pathlib.Path(folder), more=(f"-XX:ArchiveClassesAtExit={made}",)) as cluster:
            cluster.stop()
        # Without it Kafka runs as well.
        if made.exists():
            made.rename(jars / ARCHIVE)


class Cluster:
    """One broker or three, numbered from 1, in ``folder``; the same ports and the same data after every start."""

    def __init__(
        self,
        folder: pathlib.Path,
        brokers: int = 1,
        security: Security | None = None,
        port: int | None = None,
        more: tuple[str, ...] = (),
    ) -> None:
        """``port`` is the clients' port of the first broker, the next ones follow it; left out: free ports.

        ``more`` are options for Java. A folder that holds a cluster already says itself how that is.
        """
        if brokers not in (1, 3):
            raise ValueError("a cluster has 1 broker or 3")
        self.folder = folder.resolve()
        self.security = security
        self._more = more
        self._ports = {n: dict(zip(LISTENERS, three, strict=True)) for n, three in _ports(brokers, port).items()}
        # No dash: the first letter of an argument must not make it an option.
        self._id = base64.b64encode(uuid.uuid4().bytes, altchars=b"__").decode().rstrip("=")
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        if (self.folder / "cluster.json").exists():
            self._recall()

    @classmethod
    def open(cls, folder: pathlib.Path) -> Cluster:
        """The cluster that was started in ``folder`` before; raises KafkaError when there is none."""
        if not (folder / "cluster.json").exists():
            raise KafkaError(f"there is no cluster in {folder}")
        return cls(folder)

    @property
    def bootstrap(self) -> str:
        """What clients connect to: every broker, comma separated."""
        return ",".join(f"{HOST}:{ports['client']}" for ports in self._ports.values())

    @property
    def brokers(self) -> tuple[int, ...]:
        """Their numbers."""
        return tuple(self._ports)

    @property
    def certificates(self) -> Certificates:
        """What a client of a cluster with TLS needs."""
        return certificates(self.folder / "certificates")

    def start(self, keep: bool = False) -> None:
        """Start what is not running, and return when every broker answers; raises KafkaError."""
        try:
            self._prepare()
            for n in self.brokers:
                self._launch(n, keep)
            for n in self.brokers:
                self._until_ready(n, self.brokers)
        except BaseException:
            for n in self.brokers:
                self.kill(n)
            raise

    def stop(self, n: int | None = None) -> None:
        """Stop one broker, or all, in an orderly way; whatever does not go in time is killed."""
        wanted = self.brokers if n is None else (n,)
        for one in wanted:
            self._signal(one, signal.SIGTERM)
        end = time.monotonic() + GRACE
        while any(self.pid(one) for one in wanted) and time.monotonic() < end:
            time.sleep(0.02)
        for one in wanted:
            self.kill(one)

    def kill(self, n: int) -> None:
        """SIGKILL one broker, and return when it is gone."""
        self._signal(n, signal.SIGKILL)
        while self.pid(n):
            time.sleep(0.005)

    def restart(self, n: int, keep: bool = False) -> None:
        """Start one broker again, after stopping it when it runs, and return when it answers; raises KafkaError."""
        if self.pid(n):
            self.stop(n)
        self._launch(n, keep)
        self._until_ready(n, (n,))

    def pid(self, n: int) -> int | None:
        """The process of one broker, None when it does not run."""
        child = self._children.get(n)
        if child is not None:
            return child.pid if child.poll() is None else None
        try:
            pid = int((self._home(n) / "pid").read_text())
            line = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        # Numbers of processes are used again: it is ours only if it runs with our file.
        return pid if f"{self._home(n) / 'server.properties'}".encode() in line else None

    def ready(self, n: int, others: Iterable[int] = ()) -> bool:
        """Whether broker ``n`` answers a metadata request, with a controller, itself and ``others`` in the answer."""
        try:
            controller, known = _metadata(self._ports[n]["internal"])
        except (OSError, struct.error):
            return False
        return controller >= 0 and known >= {n, *others}

    def log(self, n: int) -> str:
        """What broker ``n`` has said, all starts together."""
        with contextlib.suppress(FileNotFoundError):
            return (self._home(n) / "log").read_text(errors="replace")
        return ""

    def __enter__(self) -> Cluster:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        # Nobody reads what they would still write.
        for n in self.brokers:
            self.kill(n)

    def _home(self, n: int) -> pathlib.Path:
        return self.folder / f"broker-{n}"

    def _prepare(self) -> None:
        if (self.folder / "cluster.json").exists():
            return
        formatting = [self._format(n) for n in self.brokers]
        for n, process in zip(self.brokers, formatting, strict=True):
            said, _ = process.communicate(timeout=READY)
            if process.returncode:
                raise KafkaError(
                    f"storage of broker {n} could not be formatted: {said.decode(errors='replace')[-2000:]}"
                )
        kept: dict[str, Any] = {"id": self._id, "ports": self._ports, "security": None}
        if self.security is not None:
            kept["security"] = {**dataclasses.asdict(self.security), "users": dict(self.security.users)}
        (self.folder / "cluster.json").write_text(json.dumps(kept, indent=1))

    def _recall(self) -> None:
        kept = json.loads((self.folder / "cluster.json").read_text())
        self._id = kept["id"]
        self._ports = {int(n): ports for n, ports in kept["ports"].items()}
        self.security = Security(**kept["security"]) if kept["security"] else None

    def _format(self, n: int) -> subprocess.Popen[bytes]:
        home = self._home(n)
        home.mkdir(parents=True, exist_ok=True)
        path = home / "server.properties"
        path.write_text("".join(f"{key}={value}\n" for key, value in self._properties(n).items()))
        scram: list[str] = []
        for mechanism in (self.security.mechanisms if self.security else ())[1:]:
            for name, password in self.security.users.items() if self.security else ():
                scram += ["--add-scram", f"{mechanism}=[name={name},password={password}]"]
        command = _java("kafka.tools.StorageTool", "format", "--cluster-id", self._id, "--config", f"{path}", *scram)
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)

    def _properties(self, n: int) -> dict[str, Any]:
        ports, many = self._ports[n], len(self._ports)
        replicas, in_sync = many, min(2, many)
        protocol = self.security.protocol if self.security else "PLAINTEXT"
        voters = ",".join(f"{one}@{HOST}:{three['controller']}" for one, three in self._ports.items())
        listeners = {name.upper(): f"{name.upper()}://{HOST}:{port}" for name, port in ports.items()}
        return {
            "process.roles": "broker,controller",
            "node.id": n,
            "controller.quorum.voters": voters,
            "listeners": ",".join(listeners.values()),
            "advertised.listeners": f"{listeners['CLIENT']},{listeners['INTERNAL']}",
            "listener.security.protocol.map": f"CLIENT:{protocol},INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "INTERNAL",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": self._home(n) / "data",
            # A topic that nobody created must be seen as missing.
            "auto.create.topics.enable": "false",
            "default.replication.factor": replicas,
            "min.insync.replicas": in_sync,
            "offsets.topic.num.partitions": 1,
            "offsets.topic.replication.factor": replicas,
            "transaction.state.log.num.partitions": 1,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": in_sync,
            "share.coordinator.state.topic.num.partitions": 1,
            "share.coordinator.state.topic.replication.factor": replicas,
            "share.coordinator.state.topic.min.isr": in_sync,
            "group.initial.rebalance.delay.ms": 0,
            # A killed broker holds its number until its session is over: the default of 9 s delays every restart. Among
            # three it must not lose its partitions because this machine is busy.
            "broker.session.timeout.ms": 1000 if many == 1 else 3000,
            "broker.heartbeat.interval.ms": 300,
            "controlled.shutdown.enable": "true" if many > 1 else "false",
            "num.network.threads": 1,
            "num.io.threads": 2,
            "log.cleaner.dedupe.buffer.size": 4 * 1024 * 1024,
            **(self._secured() if self.security else {}),
        }

    def _secured(self) -> dict[str, Any]:
        assert self.security is not None
        prefix = "listener.name.client."
        found: dict[str, Any] = {}
        if self.security.mechanisms:
            login = "org.apache.kafka.common.security"
            users = "".join(f' user_{name}="{word}"' for name, word in self.security.users.items())
            found[f"{prefix}sasl.enabled.mechanisms"] = ",".join(self.security.mechanisms)
            found[f"{prefix}plain.sasl.jaas.config"] = f"{login}.plain.PlainLoginModule required{users};"
            for mechanism in self.security.mechanisms[1:]:
                key = f"{prefix}{mechanism.lower()}.sasl.jaas.config"
                found[key] = f"{login}.scram.ScramLoginModule required;"
        if self.security.protocol.endswith("SSL"):
            found[f"{prefix}ssl.keystore.type"] = found[f"{prefix}ssl.truststore.type"] = "PEM"
            found[f"{prefix}ssl.keystore.location"] = self.certificates.server
            found[f"{prefix}ssl.truststore.location"] = self.certificates.ca
            found[f"{prefix}ssl.client.auth"] = self.security.client_auth
        if self.security.rules:
            found["authorizer.class.name"] = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
            found["super.users"] = "User:ANONYMOUS"
            found["allow.everyone.if.no.acl.found"] = "true"
        return found

    def _launch(self, n: int, keep: bool) -> None:
        if self.pid(n):
            return
        home = self._home(n)
        command = _java(*self._more, "kafka.Kafka", f"{home / 'server.properties'}")
        if not keep:
            command = [sys.executable, "-c", TIED, f"{os.getpid()}", *command]
        with (home / "log").open("ab") as log:
            child = _starter.submit(
                subprocess.Popen, command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            ).result()
        self._children[n] = child
        (home / "pid").write_text(f"{child.pid}")

    def _until_ready(self, n: int, others: Iterable[int]) -> None:
        end = time.monotonic() + READY
        while not self.ready(n, others):
            if not self.pid(n):
                raise KafkaError(f"broker {n} ended while it started: {self.log(n)[-2000:]}")
            if time.monotonic() > end:
                raise KafkaError(f"broker {n} does not answer after {READY:g} s: {self.log(n)[-2000:]}")
            time.sleep(0.02)

    def _signal(self, n: int, which: signal.Signals) -> None:
        pid = self.pid(n)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, which)


def _java(*command: str) -> list[str]:
    jars = kafka_artefacts.resolve()
    shared = [f"-XX:SharedArchiveFile={jars / ARCHIVE}"] if (jars / ARCHIVE).exists() else []
    return [kafka_artefacts.java(), *JVM, *shared, *QUIET, "-cp", f"{jars}/*", *command]


def _ports(brokers: int, first: int | None) -> dict[int, tuple[int, ...]]:
    taken = set(range(first, first + brokers)) if first is not None else set()
    found: dict[int, tuple[int, ...]] = {}
    for n in range(1, brokers + 1):
        free = [_free(taken) for _ in LISTENERS]
        found[n] = (first + n - 1, *free[1:]) if first is not None else tuple(free)
    return found


def _free(taken: set[int]) -> int:
    # Below the range the kernel takes ports of outgoing connections from: a client that tries again and again to reach
    # a broker that is down would otherwise take the broker's port one day, even by connecting to itself.
    for port in random.sample(range(15000, 32000), 1000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            if port not in taken:
                taken.add(port)
                return port
    raise KafkaError("no free port")


def _metadata(port: int) -> tuple[int, set[int]]:
    """Number of the controller (-1: none is known) and numbers of the brokers, by a Metadata request of version 1."""
    request = struct.pack(">hhih", 3, 1, 1, -1) + struct.pack(">i", 0)
    with socket.create_connection((HOST, port), timeout=2) as wire, wire.makefile("rb") as answer:
        wire.sendall(struct.pack(">i", len(request)) + request)
        answer.read(8)
        (count,) = struct.unpack(">i", answer.read(4))
        brokers = set()
        for _ in range(count):
            brokers.add(struct.unpack(">i", answer.read(4))[0])
            answer.read(struct.unpack(">h", answer.read(2))[0])
            answer.read(4)
            answer.read(max(0, struct.unpack(">h", answer.read(2))[0]))
        (controller,) = struct.unpack(">i", answer.read(4))
    return controller, brokers

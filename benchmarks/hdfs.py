"""A real HDFS on this machine, a name node and a data node, made of what package registries carry.

    python -m benchmarks.hdfs        fetches it, once: 220 MB from the package index, 1 MB from Debian

PySpark 2.4.8 is the newest that brings all of Hadoop's own jars (release 2.7.3) and not only the client's; Debian has
Jersey 1 and its API, with which the name node speaks WebHDFS. They lie in SHOAL_HADOOP, or in the user's cache.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from benchmarks.patience import until
from benchmarks.report import exit_with
from configs.errors import UsageError

PYSPARK = "pyspark==2.4.8"
DEBIAN = ("libjersey1-core-java", "libjersey1-server-java", "libjersey1-servlet-java", "libjsr311-api-java")
# What HDFS needs of the many jars, by how their names begin.
JARS = re.compile(
    "(activation|apacheds|api-|commons-|curator|gson|guava|hadoop-(annotations|auth|common|hdfs)|htrace|httpc|jackson-|"
    "javax.inject|javax.servlet|jaxb-api|jetty|jsp-api|jsr305|leveldbjni|log4j|netty|protobuf|slf4j|stax-api|"
    "xercesImpl|xmlenc|zookeeper)"
)

OPENS = ("java.base/java.lang", "java.base/java.nio", "java.base/sun.nio.ch")  # to a Hadoop that knows only Java 8
LOOK_S = 5.0  # for an answer of the name node
END_S = 20.0  # for a node to end by itself


@dataclass(frozen=True)
class Hdfs:
    """A file system that is served."""

    url: str  # hdfs://HOST:PORT
    web_url: str  # webhdfs://HOST:PORT


def folder_of_jars() -> Path:
    """Return where Hadoop lies, or will lie."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("SHOAL_HADOOP") or f"{cache}/shoal-hadoop").expanduser()


def is_there() -> bool:
    """Say whether it was fetched, and there is a Java to run it."""
    return folder_of_jars().is_dir() and shutil.which("java") is not None


def fetch() -> Path:
    """Fetch the jars unless they are there; return their folder. Raises UsageError: a registry lacks something."""
    folder = folder_of_jars()
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".shoal-hadoop-") as name:
        scratch = Path(name)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", PYSPARK]
        _do([*pip, "--no-build-isolation", "--dest", name], scratch)
        _do(["apt-get", "download", "-qq", *DEBIAN], scratch)
        (scratch / "jars").mkdir()
        for package in scratch.glob("*.deb"):
            _do(["dpkg", "-x", str(package), "debian"], scratch)
        for jar in (scratch / "debian" / "usr" / "share" / "java").glob("*.jar"):
            if not jar.is_symlink():
                jar.rename(scratch / "jars" / jar.name)
        [archive] = scratch.glob("pyspark-*.tar.gz")
        with tarfile.open(archive) as packed:
            for member in packed:
                base = Path(member.name).name
                content = packed.extractfile(member) if "/deps/jars/" in member.name else None
                if content is not None and JARS.match(base):
                    (scratch / "jars" / base).write_bytes(content.read())
        (scratch / "jars").rename(folder)
    return folder


def _do(command: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise UsageError(f"cannot run {command[0]}, which fetches a part of Hadoop: {error.strerror}") from None
    if done.returncode:
        raise UsageError(f"{' '.join(command[:4])} failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}")


@contextmanager
def open_hdfs(folder: Path) -> Iterator[Hdfs]:
    """Serve an empty HDFS, on loopback only, that keeps its blocks in `folder`. Raises UsageError or Hung."""
    jars = sorted(str(jar) for jar in fetch().glob("*.jar"))
    rpc, web, data, data_web, data_rpc = (f"127.0.0.1:{port}" for port in _free_ports(5))
    settings = {
        "fs.defaultFS": f"hdfs://{rpc}",
        "hadoop.tmp.dir": str(folder / "blocks"),
        "dfs.replication": "1",
        "dfs.permissions.enabled": "false",
        "dfs.namenode.http-address": web,
        "dfs.datanode.address": data,
        "dfs.datanode.http.address": data_web,
        "dfs.datanode.ipc.address": data_rpc,
        "dfs.datanode.hostname": "127.0.0.1",
        "dfs.namenode.datanode.registration.ip-hostname-check": "false",
        "dfs.blocksize": str(1 << 20),
        "dfs.namenode.fs-limits.min-block-size": str(1 << 20),  # so that a file of some megabytes has several
    }
    conf = folder / "conf"
    for application in ("hdfs", "datanode"):  # the jars lack their pages
        (conf / "webapps" / application / "WEB-INF").mkdir(parents=True)
        (conf / "webapps" / application / "WEB-INF" / "web.xml").write_text("<web-app/>")
    properties = "".join(f"<property><name>{k}</name><value>{v}</value></property>" for k, v in settings.items())
    for name in ("core-site.xml", "hdfs-site.xml"):
        (conf / name).write_text(f"<configuration>{properties}</configuration>")
    java = ["java", "-Xmx256m", "-Djava.net.preferIPv4Stack=true"]
    java += [part for name in OPENS for part in ("--add-opens", f"{name}=ALL-UNNAMED")]
    java += ["-cp", ":".join([str(conf), *jars])]
    name_node = "org.apache.hadoop.hdfs.server.namenode.NameNode"
    _do([*java, name_node, "-format", "-force", "-nonInteractive"], folder)
    with ExitStack() as nodes:
        for node in (name_node, "org.apache.hadoop.hdfs.server.datanode.DataNode"):
            nodes.enter_context(_running([*java, node], folder / f"{node.rpartition('.')[2]}.log"))
        state = f"http://{web}/jmx?qry=Hadoop:service=NameNode,name=FSNamesystemState"
        until(lambda: _look(state), lambda said: '"NumLiveDataNodes" : 1' in said, "the data node to be known")
        yield Hdfs(f"hdfs://{rpc}", f"webhdfs://{web}")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        taken = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in taken]


@contextmanager
def _running(command: Sequence[str], log: Path) -> Iterator[None]:
    with log.open("wb") as said, subprocess.Popen(command, stdout=said, stderr=said) as process:
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _look(url: str) -> str:
    try:
        with urlopen(url, timeout=LOOK_S) as answer:
            return str(answer.read().decode())
    except (URLError, OSError):
        return ""


def main() -> int:
    print(fetch())
    return 0


if __name__ == "__main__":
    exit_with(main)

"""Starts and ends Spark for `spark.py`: Java, the master, what workers are given, and what its errors mean.

PySpark runs a Java machine beside this process. It gets a folder of its own for all that it writes and says, and is
gone with that folder when the work is done.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from configs.errors import NetworkError, ShoalError, UsageError
from configs.temporary import SOCKET_BYTES

LEAST_JAVA = 17
REACH_S = 10.0  # for a master to take a connection
END_S = 20.0  # for the Java machine to end by itself
MOST_BYTES = SOCKET_BYTES - len("/.00000000-0000-0000-0000-000000000000.sock")  # of a folder with Spark's sockets
LIGHT_JAVA = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"  # it only hands on: what it would gain later it does not pay
JAVA_S = 60.0  # for `java -version`, which takes a tenth of a second

SHIPPED = ("configs", "peer")  # our own code, which workers run in exactly this version
NOT_SHIPPED = {"web", "page", "__pycache__"}
MASTER = re.compile(
    r"local(\[[\d*]+(,\d+)?\])?|local-cluster\[\d+,\d+,\d+\]|yarn|k8s://.+|spark://[^:,]+:\d+(,[^:,]+:\d+)*"
)


class ClusterError(ShoalError):
    """The cluster failed, not the text: what was done so far stays, and the same command goes on with it."""


@contextmanager
def open_context(master: str, settings: Mapping[str, str]) -> Iterator[Any]:
    """Start Spark and yield its SparkContext; in the end nothing of it is left, no process and no file.

    `settings` are Spark's own (`spark.executor.memory` …) and go over ours.
    Raises UsageError (no PySpark, no Java, no such master) or NetworkError (the master does not answer).
    """
    _check_pyspark()
    check_java()
    check_master(master)
    with tempfile.TemporaryDirectory(prefix="shoal-spark-", ignore_cleanup_errors=True) as scratch:
        gateway = context = None
        handler = signal.getsignal(signal.SIGINT)
        try:
            gateway = _start_java(master, settings, Path(scratch))
            context = _start_context(master, gateway, Path(scratch))
            yield context
        finally:
            _end(context, gateway)
            if threading.current_thread() is threading.main_thread() and handler is not None:
                signal.signal(signal.SIGINT, handler)  # Spark's own stays behind


def _check_pyspark() -> None:
    try:
        from pyspark import SparkContext
    except ImportError:
        raise UsageError("--engine spark needs PySpark; pip install 'shoal[spark]'") from None
    if SparkContext._gateway is not None:
        raise UsageError("this process uses Spark already; prepare the corpus in a process of its own")


def check_java() -> None:
    """Raise UsageError unless there is a Java that Spark runs on."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home, "bin", "java")) if home else shutil.which("java")
    remedy = (
        f"install Java {LEAST_JAVA} or newer (on Debian: apt-get install openjdk-{LEAST_JAVA}-jre-headless), or let "
        f"JAVA_HOME name its folder"
    )
    if java is None:
        raise UsageError(f"Spark needs Java, and there is none on the PATH; {remedy}")
    try:
        done = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=JAVA_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        raise UsageError(f"Spark needs Java, and {java} does not run; {remedy}") from None
    found = re.search(r'version "(?:1\.)?(\d+)', done.stderr + done.stdout)
    if found is None or int(found[1]) < LEAST_JAVA:
        raise UsageError(f"Spark needs Java {LEAST_JAVA}, and {java} is {found[1] if found else 'another'}; {remedy}")


def check_master(master: str) -> None:
    """Raise UsageError if Spark knows no such master, and NetworkError if it is to be reached and is not."""
    if not MASTER.fullmatch(master):
        raise UsageError(
            f"Spark knows no master '{master}'; name one such as spark://HOST:7077, yarn, k8s://https://HOST:PORT, or "
            "local[2] for two cores of this machine"
        )
    if not master.startswith("spark://"):
        return
    reasons = []
    for place in master.removeprefix("spark://").split(","):
        host, _, port = place.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=REACH_S).close()
            return
        except (OSError, OverflowError) as error:
            reasons.append(getattr(error, "strerror", None) or str(error))
    raise NetworkError(
        f"the Spark master {master} does not answer ({reasons[0]}); check that it runs, and its address, which is on "
        "its page (port 8080 as a rule)"
    )


def is_here(master: str) -> bool:
    """Say whether all of the cluster runs on this machine."""
    return master.startswith("local")


def _start_java(master: str, settings: Mapping[str, str], scratch: Path) -> Any:
    from pyspark import SparkConf
    from pyspark.errors import PySparkRuntimeError
    from pyspark.java_gateway import launch_gateway

    ours = {
        "spark.master": master,
        "spark.app.name": "shoal prepare",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.local.dir": str(scratch),
        "spark.driver.memory": "2g",  # results that are not fetched yet lie there
        "spark.driver.maxResultSize": "0",
        "spark.driver.extraJavaOptions": f"-Djava.io.tmpdir={scratch} {LIGHT_JAVA}",
        "spark.executor.extraJavaOptions": LIGHT_JAVA,
        # A task has one core, and takes no more.
        "spark.executorEnv.TOKENIZERS_PARALLELISM": "false",
        "spark.executorEnv.RAYON_NUM_THREADS": "1",
    }
    if len(os.fsencode(scratch)) <= MOST_BYTES:
        # By TCP each task waits 40 ms for an acknowledgement that the other side puts off.
        ours["spark.python.unix.domain.socket.enabled"] = "true"
        if is_here(master):
            ours["spark.python.unix.domain.socket.dir"] = str(scratch)
    conf = SparkConf(loadDefaults=False).setAll(list((ours | dict(settings)).items()))
    # What a cluster on this machine listens on is not for others.
    loopback = {"SPARK_LOCAL_IP": "127.0.0.1"} if is_here(master) else {}
    with (scratch / "log").open("wb") as said, _environment(loopback):
        try:
            return launch_gateway(conf, _Spawned(stdout=said, stderr=said, start_new_session=True))
        except PySparkRuntimeError:
            raise UsageError(
                f"Spark did not start: {_last_said(scratch)}; check the settings, JAVA_HOME and PYSPARK_SUBMIT_ARGS"
            ) from None


class _Spawned(dict[str, Any]):
    """Arguments of Popen, without the one that PySpark adds to keep Ctrl-C from Java; a session of its own does that.

    `preexec_fn` runs Python in a forked child, which hangs for ever where a thread of ours held a lock. Those of
    hdfs-native do: it was seen to hang.
    """

    def __setitem__(self, key: str, value: Any) -> None:
        """Take what is not `preexec_fn`."""
        if key != "preexec_fn":
            super().__setitem__(key, value)


def _start_context(master: str, gateway: Any, scratch: Path) -> Any:
    from py4j.protocol import Py4JError
    from pyspark import SparkConf, SparkContext

    # Workers on this machine have this very interpreter; others, unless told, the one of the same path.
    with _environment({"PYSPARK_PYTHON": os.environ.get("PYSPARK_PYTHON", sys.executable)}):
        try:
            context = SparkContext(conf=SparkConf(_jvm=gateway.jvm), gateway=gateway)
            context.addPyFile(str(_packed(scratch)))
        except Py4JError as error:
            _abandon_context()
            reason = java_reason(str(error))
            raise NetworkError(f"no Spark at {master}: {reason}; check its address and its log") from None
    return context


def _abandon_context() -> None:
    """Forget a context that did not start."""
    from pyspark import SparkContext

    if SparkContext._active_spark_context is not None:
        with suppress(Exception):
            SparkContext._active_spark_context.stop()
        SparkContext._active_spark_context = None


def _packed(scratch: Path) -> Path:
    """Pack our own code for the workers."""
    root, target = Path(__file__).parents[2], scratch / "shoal.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for package in SHIPPED:
            for path in sorted((root / package).rglob("*")):
                if path.suffix in (".py", ".toml") and not NOT_SHIPPED & set(path.relative_to(root).parts):
                    archive.write(path, path.relative_to(root))
    return target


def _end(context: Any, gateway: Any) -> None:
    """End the application and the Java machine, however far they came."""
    from pyspark import SparkContext

    if context is not None:
        place = Path(os.environ.get("SPARK_HOME") or _spark_home(), "work", str(context.applicationId))
        with suppress(Exception):  # a Java machine that is gone cannot say goodbye
            context.stop()
        shutil.rmtree(place, ignore_errors=True)  # where `local-cluster` writes, whatever its settings
    SparkContext._active_spark_context = SparkContext._gateway = SparkContext._jvm = None
    if gateway is None:
        return
    with suppress(Exception):
        gateway.shutdown()
    if gateway.proc is None:  # somebody else started it
        return
    with suppress(OSError):
        gateway.proc.stdin.close()  # which ends it
    try:
        gateway.proc.wait(END_S)
    except subprocess.TimeoutExpired:
        gateway.proc.kill()
        gateway.proc.wait()


def _spark_home() -> str:
    from pyspark.find_spark_home import _find_spark_home

    return str(_find_spark_home())


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for as long as this lasts: of Spark, some things are said in no other way."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _last_said(scratch: Path) -> str:
    lines = [line.strip() for line in (scratch / "log").read_text(errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith("at ")]
    return told[-1] if told else "it says nothing"


def job_error(text: str) -> ClusterError:
    """Say in our words why a job failed, from what Spark says with its Java stack."""
    if reason := python_reason(text):
        return ClusterError(
            f"a worker failed several times, last with {reason}; where that names a file, each worker must find it "
            "under this path: take a folder that all share, hdfs:// or s3://"
        )
    if missing := re.search(r'Cannot run program "([^"]+)"', text):
        return ClusterError(
            f"the workers have no {missing[1]}; install Shoal there under the same path, or let PYSPARK_PYTHON name "
            "the Python that they have it in"
        )
    if "ExecutorLostFailure" in text or "exited unexpectedly" in text:
        return ClusterError(
            "the workers died of one task several times, most often for want of memory; give them more: "
            "spark.executor.memoryOverhead=2g is for what Python takes"
        )
    return ClusterError(f"Spark failed: {java_reason(text)}; see the workers' logs on its page, then start again")


def python_reason(text: str) -> str | None:
    """Return the last line of the Python traceback in what Spark says of a failed job; None: there is none."""
    found = re.search(r"Traceback \(most recent call last\):\n(.*?)(?:\n\s*\n|\n\tat |\Z)", text, re.DOTALL)
    if found is None:
        return None
    lines = [line for line in found[1].splitlines() if line and not line.startswith(" ")]
    return lines[-1].strip() if lines else None


def java_reason(text: str) -> str:
    """Return what the innermost Java exception says, in one line."""
    causes = re.findall(r"^(?:Caused by: |: )(.+)$", text, re.MULTILINE)
    line = causes[-1] if causes else text.strip().splitlines()[0] if text.strip() else "it says nothing"
    return re.sub(r"^(?:[\w$]+\.)+[\w$]*?(?:Exception|Error): ", "", line.strip())

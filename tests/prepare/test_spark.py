"""The steps of `prepare` on a real Spark, of several processes; left out where Java or PySpark lacks."""

import gzip
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.patience import until
from configs.errors import DataError, NetworkError, UsageError
from peer.prepare import cluster, spark
from peer.prepare.cluster import ClusterError, check_java, check_master, java_reason, job_error, python_reason
from peer.prepare.engine import prepare
from peer.prepare.plan import Plan
from peer.prepare.spark import (
    AHEAD,
    JOB_S,
    MOST_AT_ONCE,
    MOST_GROWTH,
    MOST_HELD,
    SparkWorkers,
    Task,
    Written,
    least_at_once,
    most_at_once,
    next_size,
    open_cluster,
    toolchain,
)

HAS_SPARK = importlib.util.find_spec("pyspark") is not None and shutil.which("java") is not None
needs_spark = pytest.mark.skipif(not HAS_SPARK, reason="needs Java and pip install 'shoal[spark]'")

ROOT = Path(cluster.__file__).parents[2]
PLAN = Plan(vocab_size=300, context_length=32)

TASK_FAILED = """An error occurred while calling z:org.apache.spark.api.python.PythonRDD.collectAndServe.
: org.apache.spark.SparkException: Job aborted due to stage failure: Task 1 in stage 5.0 failed 4 times, most recent \
failure: Lost task 1.3 in stage 5.0 (TID 9) (127.0.0.1 executor 0): org.apache.spark.api.python.PythonException: \
Traceback (most recent call last):
  File "/site-packages/pyspark/worker.py", line 2044, in main
    process()
FileNotFoundError: [Errno 2] No such file or directory: '/texts/one.txt'

\tat org.apache.spark.api.python.BasePythonRunner$ReaderIterator.handlePythonException(PythonRunner.scala:621)
Caused by: java.io.IOException: something else
"""
LOST = """An error occurred while calling z:org.apache.spark.api.python.PythonRDD.collectAndServe.
: org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 in stage 7.0 failed 4 times, most recent \
failure: Lost task 0.3 in stage 7.0 (TID 30) (127.0.0.1 executor 1): ExecutorLostFailure (executor 1 exited caused by \
one of the running tasks) Reason: Command exited with code 137
\tat org.apache.spark.scheduler.DAGScheduler.failJobAndIndependentStages(DAGScheduler.scala:3000)
"""
NO_PYTHON = """An error occurred while calling z:org.apache.spark.api.python.PythonRDD.collectAndServe.
: org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 in stage 0.0 failed 4 times, most recent \
failure: java.io.IOException: Cannot run program "/opt/shoal/bin/python": error=2, No such file or directory
\tat java.base/java.lang.ProcessBuilder.start(ProcessBuilder.java:1143)
"""


def refusal(action: Any, *arguments: Any) -> str:
    with pytest.raises((UsageError, NetworkError)) as caught:
        action(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_java_is_said_and_java_home_is_a_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    java = shutil.which("java")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "apt-get install openjdk-17-jre-headless" in refusal(check_java)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert "does not run" in refusal(check_java)
    if java is not None:
        monkeypatch.setenv("JAVA_HOME", str(Path(java).resolve().parent.parent))
        check_java()


@pytest.mark.parametrize("said", ['openjdk version "11.0.2"', 'java version "1.8.0_392"', "gcj"])
def test_an_old_java_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str) -> None:
    (tmp_path / "bin").mkdir()
    java = tmp_path / "bin" / "java"
    java.write_text(f"#!/bin/sh\necho '{said}' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert "Spark needs Java 17, and" in refusal(check_java)


@pytest.mark.parametrize(
    "master", ["local", "local[*]", "local[2]", "local[2,4]", "local-cluster[2,1,1024]", "yarn", "k8s://https://host:1"]
)
def test_masters_that_spark_knows(master: str) -> None:
    check_master(master)


@pytest.mark.parametrize("master", ["", "host:7077", "spark://host", "http://host:7077", "local-cluster[2]"])
def test_other_masters_are_refused_with_an_example(master: str) -> None:
    assert "spark://HOST:7077" in refusal(check_master, master)


def test_a_master_that_does_not_answer_is_said_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        closed = f"spark://127.0.0.1:{taken.getsockname()[1]}"
        assert "does not answer (Connection refused)" in refusal(check_master, closed)
        with socket.create_server(("127.0.0.1", 0)) as other:
            check_master(f"{closed},127.0.0.1:{other.getsockname()[1]}")  # one of several is enough


def test_what_a_failed_job_says_is_one_line_in_our_words() -> None:
    assert python_reason(TASK_FAILED) == "FileNotFoundError: [Errno 2] No such file or directory: '/texts/one.txt'"
    assert "under this path" in str(job_error(TASK_FAILED))
    assert "spark.executor.memoryOverhead" in str(job_error(LOST))
    assert "have no /opt/shoal/bin/python" in str(job_error(NO_PYTHON))
    assert java_reason(TASK_FAILED) == "something else"
    assert "it says nothing" in str(job_error(""))
    for text in (TASK_FAILED, LOST, NO_PYTHON, ""):
        assert "\n" not in str(job_error(text))


def test_what_the_driver_holds_is_bounded_and_all_cores_are_busy() -> None:
    assert most_at_once(is_shared=False) * AHEAD <= MOST_HELD < most_at_once(is_shared=True)
    for cores in (1, 2, 16, 64, 1000):
        assert least_at_once(cores, MOST_AT_ONCE) * (AHEAD - 1) >= cores


def test_a_job_has_as_much_as_takes_some_seconds() -> None:
    assert next_size(4, JOB_S / 2, 2, 512) == 8 and next_size(4, JOB_S / 3.5, 2, 512) == 14
    assert next_size(4, JOB_S / 100, 2, 512) == 4 * MOST_GROWTH and next_size(20, JOB_S / 100, 2, 32) == 32
    assert next_size(40, 2 * JOB_S, 2, 512) == 20 and next_size(40, 100 * JOB_S, 2, 512) == 4


def test_a_worker_with_other_libraries_refuses() -> None:
    here = dict(toolchain())
    task = Task.of(len, tuple((here | {"tokenizers": "0.1.0"}).items()), None)
    outcome = task(b"")
    assert isinstance(outcome, spark.Failed)
    assert f"has tokenizers {here['tokenizers']}, and the driver has 0.1.0" in str(outcome.error)


def test_a_worker_keeps_the_step_that_it_did_last() -> None:
    """A tokenizer that is unpacked anew for each item has forgotten the words that it knew."""
    spark._unpacked.cache_clear()
    for _ in range(3):
        assert Task.of(bytes, toolchain(), None)(3) == b"\0\0\0"
    assert spark._unpacked.cache_info().misses == 1


def test_a_result_in_a_shared_folder_is_named_only(tmp_path: Path) -> None:
    outcome = Task.of(bytes, toolchain(), str(tmp_path))(3)
    assert isinstance(outcome, Written)
    assert Path(outcome.url).read_bytes() == b"\0\0\0"


# What follows is sent to workers, which have no tests: the functions themselves travel, not their names.


@pytest.fixture(scope="module")
def workers() -> Iterator[SparkWorkers]:
    from pyspark import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with open_cluster("local-cluster[2,1,1024]") as found:
        yield found


def tokenize(text: str) -> bytes:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "a": 1, "whale": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    return bytes(tokenizer.encode(text).ids)


def home(_: int) -> bytes:
    """Say which code of ours, and which process, does the work."""
    from peer.prepare import spark

    return f"{spark.__file__} {os.environ.get('RAYON_NUM_THREADS')}".encode()


def refuse_seven(number: int) -> bytes:
    if number == 7:
        raise DataError("seven cannot be used; leave it out")
    return bytes([number])


def read_nothing(_: int) -> bytes:
    return Path("/nowhere/one.txt").read_bytes()


def die_once(number: int, generations: int) -> bytes:
    """Kill this worker at the first try: itself, or the Java machine that is its parent's parent."""
    from pyspark import TaskContext

    context = TaskContext.get()
    assert context is not None
    if number == 3 and context.attemptNumber() == 0:
        pid = os.getpid()
        for _ in range(generations):
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(pid, signal.SIGKILL)
        signal.pause()
    return bytes([number])


def kill_worker(number: int) -> bytes:
    return die_once(number, 0)


def kill_executor(number: int) -> bytes:
    return die_once(number, 2)


def bytes_of(number: int) -> bytes:
    return bytes([number])


def linger(path: str) -> bytes:
    """Say that it is at work, and never end."""
    if path:
        Path(path).touch()
        signal.pause()
    return b"done"


@needs_spark
def test_results_come_in_order_and_are_those_of_one_machine(workers: SparkWorkers) -> None:
    texts = [f"a whale {'whale ' * (number % 7)} and {number}" for number in range(40)]
    assert list(workers.run(tokenize, texts)) == [tokenize(text) for text in texts]
    assert list(workers.run(tokenize, [])) == []
    assert workers.cores == 2


@needs_spark
def test_many_short_steps_are_few_jobs(workers: SparkWorkers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each job costs Spark a fifth of a second, each task a fiftieth, and a twentieth where TCP waits."""
    sizes, job = list[int](), SparkWorkers._job

    def counted(self: SparkWorkers, task: Task[Any], items: Any, tag: str) -> Any:
        sizes.append(len(items))
        return job(self, task, items, tag)

    monkeypatch.setattr(SparkWorkers, "_job", counted)
    assert b"".join(workers.run(bytes_of, range(200))) == bytes(range(200))
    assert sizes[0] == 2 * workers.cores and max(sizes) > 4 * sizes[0] and len(sizes) < 20
    assert workers._context.getConf().get("spark.python.unix.domain.socket.enabled") == "true"


@needs_spark
def test_workers_run_our_code_of_this_version_on_one_core_each(workers: SparkWorkers) -> None:
    [said] = workers.run(home, [0])
    assert said.endswith(b"shoal.zip/peer/prepare/spark.py 1")


@needs_spark
def test_what_a_step_refuses_is_said_as_it_is_and_tried_once(workers: SparkWorkers) -> None:
    results = workers.run(refuse_seven, range(20))
    with pytest.raises(DataError, match=r"^seven cannot be used; leave it out$"):
        list(results)
    assert list(workers.run(refuse_seven, range(3))) == [b"\0", b"\1", b"\2"]


@needs_spark
def test_another_error_is_the_last_line_of_the_workers_traceback(workers: SparkWorkers) -> None:
    with pytest.raises(ClusterError, match=r"FileNotFoundError: \[Errno 2\].*'/nowhere/one.txt'; where") as caught:
        list(workers.run(read_nothing, [0]))
    assert "\n" not in str(caught.value)


@needs_spark
def test_a_worker_that_dies_changes_nothing(workers: SparkWorkers) -> None:
    assert list(workers.run(kill_worker, range(6))) == [bytes([number]) for number in range(6)]


@needs_spark
@pytest.mark.long
def test_an_executor_that_dies_changes_nothing(workers: SparkWorkers) -> None:
    assert list(workers.run(kill_executor, range(6))) == [bytes([number]) for number in range(6)]


@needs_spark
@pytest.mark.timeout(300)
def test_who_stops_reading_ends_what_is_under_way(workers: SparkWorkers, tmp_path: Path) -> None:
    size = 2 * workers.cores
    results = workers.run(linger, [""] * (AHEAD * size) + [str(tmp_path / "one"), str(tmp_path / "two")])
    for _ in range(size + 1):  # those who linger are sent when the first job has been read
        assert next(results) == b"done"
    until(lambda: len(list(tmp_path.iterdir())), lambda count: count >= 1, "a core to be taken")
    results.close()  # type: ignore[attr-defined]
    assert list(workers.run(refuse_seven, [1])) == [b"\1"]


@needs_spark
def test_results_of_any_size_pass_by_the_driver_in_a_shared_folder(workers: SparkWorkers, tmp_path: Path) -> None:
    shared = SparkWorkers(workers._context, workers._pool, f"file://{tmp_path}")
    results = shared.run(bytes, [1 << 20] * 12)
    assert all(len(result) == 1 << 20 for result in results)
    assert list(tmp_path.iterdir()) == []


def odd_texts(folder: Path) -> Path:
    """Make domains of several forms: large and small files, compressed, a task, repeated documents."""
    wiki, mail, quiz = (folder / name for name in ("wiki", "mail", "quiz"))
    for each in (wiki, mail, quiz):
        each.mkdir(parents=True)
    (wiki / "all.txt").write_text(
        "\n\n".join(f"Whale {number} swims {number % 9} miles. " * 30 for number in range(900))
    )
    with gzip.open(wiki / "more-00000-of-00001.jsonl.gz", "wt") as packed:
        packed.writelines(json.dumps({"text": f"Herring {number} ø " * 40}) + "\n" for number in range(700))
    for number in range(60):
        (mail / f"{number}.txt").write_text(f"Dear {number % 40},\n\nall is well with {number % 40}. " * 50)
    with (quiz / "all.jsonl").open("w") as lines:
        lines.writelines(json.dumps({"input": f"{n} + {n}?", "target": str(2 * n)}) + "\n" for n in range(300))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@needs_spark
def test_the_corpus_of_two_workers_is_that_of_one_machine(workers: SparkWorkers, tmp_path: Path) -> None:
    texts = odd_texts(tmp_path / "texts")
    prepare([texts], tmp_path / "one", PLAN)
    prepare([texts], tmp_path / "two", PLAN, workers=workers)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


FOUR = """
import sys
from pathlib import Path
from peer.prepare.engine import prepare
from peer.prepare.plan import Plan
from peer.prepare.spark import open_cluster
with open_cluster("local-cluster[4,1,1024]", folder=sys.argv[1]) as workers:
    prepare([sys.argv[2]], Path(sys.argv[3]), Plan(vocab_size=300, context_length=32), workers=workers)
"""


@needs_spark
@pytest.mark.long
def test_so_is_that_of_four_with_a_shared_folder(tmp_path: Path) -> None:
    texts = odd_texts(tmp_path / "texts")
    prepare([texts], tmp_path / "one", PLAN)
    places = [str(tmp_path / name) for name in ("shared", "texts", "four")]
    subprocess.run([sys.executable, "-c", FOUR, *places], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
    assert contents(tmp_path / "one") == contents(tmp_path / "four")


SESSION = """
import os, sys
from peer.prepare.spark import open_cluster, probe
with open_cluster("local[1]", folder=sys.argv[1]) as workers:
    print(workers._context._gateway.proc.pid, len(list(workers.run(probe, range(3)))), flush=True)
    if len(sys.argv) > 2:
        sys.stdin.read()
    raise KeyboardInterrupt
"""


@needs_spark
@pytest.mark.long
@pytest.mark.parametrize("is_killed", [False, True])
def test_nothing_is_left_of_spark(tmp_path: Path, is_killed: bool) -> None:
    (tmp_path / "temporary").mkdir()
    environment = os.environ | {"TMPDIR": str(tmp_path / "temporary"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SESSION, str(tmp_path / "shared"), *(["wait"] if is_killed else [])]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as driver:
        assert driver.stdout is not None and driver.stderr is not None
        pid, count = driver.stdout.readline().split()
        with open_pidfd(int(pid)) as java:
            if is_killed:
                driver.kill()
            said = driver.stderr.read()
            driver.wait()
            await_end(java)
    assert count == "3"
    if not is_killed:
        assert said.splitlines()[-1] == "KeyboardInterrupt"
        assert "WARN" not in said
        assert list((tmp_path / "temporary").iterdir()) == []
        assert list((tmp_path / "shared").iterdir()) == []


class open_pidfd:
    """Hold a process by a descriptor that becomes readable when it ends."""

    def __init__(self, pid: int) -> None:
        self._fd = os.pidfd_open(pid)

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def await_end(process: int) -> None:
    import select

    assert select.select([process], [], [], 120.0)[0], "the Java machine lives on"

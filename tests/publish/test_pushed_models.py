"""A fused model goes where it is to be, by its files' own names, and comes back as it was."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fused_example import BRANCHES, write_fused
from servers import Server

from configs.errors import DataError, UsageError
from configs.outlets import Target, read_target
from configs.run import RunSpec
from peer.publish.manifest import MODEL
from peer.publish.models import pull_model, push_model
from peer.publish.opening import open_place


def quiet(what: str, done: int, total: int) -> None:
    pass


@pytest.fixture(scope="module")
def model(smallest_run: Callable[..., RunSpec], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fused(tmp_path_factory.mktemp("fused") / "model", smallest_run(**BRANCHES))


@pytest.fixture(params=["folder", "s3", "hub"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    if request.param != "folder":
        request.getfixturevalue(request.param)
    root = {"folder": str(tmp_path / "there"), "s3": "s3://fish/there", "hub": "hf://me/fish"}[request.param]
    return read_target(root)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_model_comes_back_as_it_was(target: Target, model: Path, tmp_path: Path) -> None:
    sent, count = push_model(model, target, quiet)
    assert sent == count == len(files(model))
    assert open_place(target).sizes().keys() == {*files(model), MODEL}
    assert push_model(model, target, quiet) == (0, count)
    assert pull_model(target, tmp_path / "again", quiet) == count
    assert files(tmp_path / "again") == files(model)


def test_the_hubs_repository_is_private_and_has_a_card_and_one_commit(hub: Server, model: Path) -> None:
    push_model(model, read_target("hf://me/fish"), quiet)
    repository = hub.ask("/_state")["repositories"]["me/fish"]
    assert repository["private"] and "README.md" in repository["files"] and len(repository["commits"]) == 1


def test_the_hub_gets_no_weights_twice(hub: Server, model: Path) -> None:
    push_model(model, read_target("hf://me/one"), quiet)
    sent = hub.ask("/_state")["log"]
    push_model(model, read_target("hf://me/two"), quiet)
    assert hub.ask("/_state")["log"] == sent and sent


def test_a_push_that_was_interrupted_sends_the_rest(s3: Server, model: Path, tmp_path: Path) -> None:
    target = read_target("s3://fish/there")
    first = push_model(model, target, quiet)
    open_place(target).commit(MODEL, b"", [MODEL, "README.md"])  # as if it had been killed before the last file
    with pytest.raises(UsageError, match="or one that is just being pushed; look at the target, or try again"):
        pull_model(target, tmp_path / "again", quiet)
    assert push_model(model, target, quiet) == (1, first[1])
    pull_model(target, tmp_path / "again", quiet)


def test_a_model_that_is_damaged_there_is_found(model: Path, tmp_path: Path) -> None:
    target = read_target(str(tmp_path / "there"))
    push_model(model, target, quiet)
    (tmp_path / "there" / "README.md").write_text("other")
    with pytest.raises(DataError, match=r"README.md at .* is not what its list says; push the model again"):
        pull_model(target, tmp_path / "again", quiet)
    path = tmp_path / "there" / MODEL
    table = json.loads(path.read_text())
    table["files"][0]["path"] = "../README.md"
    path.write_text(json.dumps(table))
    with pytest.raises(DataError, match="is no list of files that this version reads"):
        pull_model(target, tmp_path / "once-more", quiet)


def test_no_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no model; `shoal fuse` writes one"):
        push_model(tmp_path, read_target(str(tmp_path / "there")), quiet)


def shoal(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "peer", *arguments], capture_output=True, text=True, env=os.environ)


def test_the_commands(s3: Server, model: Path, tmp_path: Path) -> None:
    done = shoal("push", str(model), "s3://fish/there")
    count = len(files(model))
    assert done.returncode == 0
    assert done.stdout == f"pushed {model} to s3://fish/there: {count} of {count} files were sent\n"
    done = shoal("pull", "s3://fish/there", str(tmp_path / "again"))
    assert done.returncode == 0 and "try it with: shoal generate" in done.stdout
    assert files(tmp_path / "again") == files(model)


NO_TARGET = "'gs://fish' is no target; there are a folder, s3://BUCKET/PREFIX, hf://USER/REPO"
NO_CHECKPOINT = "s3://fish/none holds no checkpoint; `shoal start --publish TARGET` pushes them"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("push nowhere s3://fish/x", "there is no directory nowhere; give a fused model or a state directory"),
        ("push . gs://fish", NO_TARGET),
        ("pull s3://missing-bucket/x out", "there is no bucket missing-bucket; make it, or name another"),
        ("fuse s3://fish/none --out out", NO_CHECKPOINT),
        ("start --from s3://fish/none --state-dir none", NO_CHECKPOINT),
    ],
)
def test_mistakes_are_one_line(
    s3: Server, arguments: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.chdir(tmp_path)
    done = shoal(*arguments.split())
    assert (done.returncode, done.stderr.splitlines()[-1:]) == (2, [f"shoal: {told}"]), done.stderr
    assert "Traceback" not in done.stderr

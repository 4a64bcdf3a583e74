"""Runs two peers in a Docker engine exactly as the Kubernetes manifest says: its command, environment and rights.

A cluster is not needed for it, and not tried by it: names, volumes and probes are the engine's. Needs the image `shoal`
(or the one that IMAGE names) and a Docker engine.

    python tests/containers/pods.py
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

MANIFEST = Path(__file__).parent.parent.parent / "deploy" / "kubernetes" / "base" / "statefulset.yaml"
DEADLINE_S = 600.0
NAME = f"shoal-pods-{os.getpid()}"


def docker(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise SystemExit(f"docker {' '.join(arguments[:2])}: {done.stderr.strip()}")
    return done.stdout + done.stderr


def start(spec: dict[str, Any], ordinal: int) -> None:
    """Start a pod, or start it again with the volume that it had."""
    [container] = spec["containers"]
    own, pod = container["securityContext"], spec["securityContext"]
    assert own["readOnlyRootFilesystem"] and not own["allowPrivilegeEscalation"]
    rights = ["--read-only", "--security-opt", "no-new-privileges", f"--user={pod['runAsUser']}:{pod['runAsGroup']}"]
    rights += [f"--cap-drop={name}" for name in own["capabilities"]["drop"]]
    plain = [f"--env={each['name']}={each['value']}" for each in container["env"] if "value" in each]
    name = f"shoal-{ordinal}"
    place = [f"--hostname={name}", f"--network={NAME}", f"--network-alias={name}.shoal", "--init"]
    mounts = [f"--volume={NAME}-{ordinal}:/state", "--tmpfs=/tmp", "--shm-size=1g"]
    image, [shell, *command] = os.environ.get("IMAGE", "shoal"), container["command"]
    docker(
        *("run", "--detach", f"--name={NAME}-{ordinal}", *rights, *plain, *place, *mounts),
        *("--env=SHOAL_PEER__THREADS=1", f"--entrypoint={shell}", image, *command),
    )


def until(what: str, ordinal: int, code: str) -> dict[str, Any]:
    """Wait until the status of a pod fulfils `code`, an expression of `status`; return that status."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        said = docker("exec", f"{NAME}-{ordinal}", "shoal", "status", "--json", check=False)
        if said.startswith("{"):
            status: dict[str, Any] = json.loads(said)
            if eval(code, {"status": status}):
                print(f"shoal-{ordinal}: {what}", flush=True)
                return status
        elif docker("inspect", "--format", "{{.State.Running}}", f"{NAME}-{ordinal}").strip() != "true":
            docker("start", f"{NAME}-{ordinal}")  # as Kubernetes does: the founder may not answer yet
        time.sleep(2.0)
    raise SystemExit(f"{what} did not come about: {docker('logs', '--tail=30', f'{NAME}-{ordinal}')}")


def main() -> None:
    spec = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))["spec"]["template"]["spec"]
    grace_s = str(spec["terminationGracePeriodSeconds"])
    docker("network", "create", NAME)
    try:
        start(spec, 0)
        run = until("founded a run", 0, "status['state'] == 'training'")["run_id"]
        start(spec, 1)
        together = "len(status['peers']) == 2 and any(b['outcome'] == 'sealed 2 of 2' for b in status['blocks'])"
        assert until("joined and sealed rounds", 1, together)["run_id"] == run
        docker("stop", "--time", grace_s, f"{NAME}-0")
        code = docker("inspect", "--format", "{{.State.ExitCode}}", f"{NAME}-0").strip()
        assert code == "0", f"ordinal 0 ended with {code}"
        docker("rm", f"{NAME}-0")
        start(spec, 0)  # a new pod with the old volume
        assert until("came back and sealed rounds", 0, together)["run_id"] == run
    finally:
        for ordinal in (0, 1):
            docker("rm", "--force", "--volumes", f"{NAME}-{ordinal}", check=False)
            docker("volume", "rm", f"{NAME}-{ordinal}", check=False)
        docker("network", "rm", NAME, check=False)
    print("pods: two peers ran as the manifest says, and ordinal 0 came back to its run")


if __name__ == "__main__":
    sys.exit(main())

"""A peer under a real systemd of a user, in namespaces of its own: started, killed, started again, gone for good.

It runs the commands of docs/guide/control.md, "As a service".
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from mistake import MICRO, running, shoal

from benchmarks.patience import HANG_S

SYSTEMD = Path("/usr/lib/systemd/systemd")
# In it everything ends with the script. /run is empty: the machine's own systemd, if any, is neither asked nor touched.
NAMESPACES = ["unshare", "--mount", "--cgroup", "--pid", "--fork", "--mount-proc", "--kill-child"]
SCRIPT = """
set -eu
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system /run/user
export XDG_RUNTIME_DIR=/run/user
{systemd} --user --log-target=null &
until [ "$(systemctl --user is-system-running)" = running ]; do sleep 0.2; done
shoal() {{ {python} -m peer "$@" --state-dir "$STATE"; }}
answers() {{ until shoal status --json > /dev/null 2>&1; do sleep 1; done; }}
main_pid() {{ systemctl --user show shoal --property=MainPID --value; }}
shoal service install || exit 10
answers
first=$(main_pid)
kill -KILL "$first"
until [ "$(main_pid)" != "$first" ] && [ "$(main_pid)" != 0 ]; do sleep 0.2; done
answers
echo "restarts $(systemctl --user show shoal --property=NRestarts --value)"
shoal service status
shoal leave
until [ "$(systemctl --user is-active shoal)" = inactive ]; do sleep 0.2; done
systemctl --user start shoal
answers
shoal service uninstall
[ "$(systemctl --user is-active shoal)" = inactive ]
[ ! -e "$HOME/.config/systemd/user/shoal.service" ]
echo all well
"""


@pytest.mark.swarm
@pytest.mark.long
def test_a_service_is_started_again_when_it_dies_and_stays_away_when_it_leaves(tmp_path: Path, corpus: Path) -> None:
    if os.geteuid() != 0 or not SYSTEMD.exists() or shutil.which("unshare") is None:
        pytest.skip("needs root, systemd (Debian: apt-get install systemd) and unshare")
    if subprocess.run([*NAMESPACES, "mount", "-t", "tmpfs", "tmpfs", "/run"], capture_output=True).returncode:
        pytest.skip("this machine gives no namespaces")
    state = tmp_path / "state"
    with running(shoal("start", "--config", MICRO, "--data", str(corpus)), state):
        pass  # the run that the service goes on with
    script = SCRIPT.format(systemd=SYSTEMD, python=shoal("status")[0])
    environment = {**os.environ, "HOME": str(tmp_path), "STATE": str(state)}
    environment.pop("XDG_CONFIG_HOME", None)
    done = subprocess.run(
        [*NAMESPACES, "bash", "-c", script], capture_output=True, text=True, timeout=HANG_S, env=environment
    )
    assert done.returncode == 0 and "all well" in done.stdout, done.stdout + done.stderr
    assert "restarts 1" in done.stdout and "ActiveState=active" in done.stdout
    assert "left" in done.stdout

"""Before a daemon ends, all that it started has ended: a service manager would kill what is left, and say so."""

from __future__ import annotations

import subprocess
import sys

from support.daemon import REPO

CODE = """
import os, time
from autodl_lib.supervisor.workers.orphans import await_children, become_reaper

become_reaper()
said = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        time.sleep(0.2)
        os.write(said[1], b"the last one has ended")
        os._exit(0)
    os._exit(0)
await_children(30)
os.set_blocking(said[0], False)
print(os.read(said[0], 100).decode())
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("nobody is left")
"""


def test_children_and_what_they_leave_are_waited_for() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], cwd=REPO, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("the last one has ended\nnobody is left\n", "")

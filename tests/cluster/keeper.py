"""The keeper: a tiny process that takes a control plane down when its owner dies, however it dies.

A test runner that is killed with SIGKILL can't clean up, and PR_SET_PDEATHSIG would not help: it
fires when the *thread* that started a program ends, and a plane may well be started from a worker
thread. So every plane has a keeper, which holds the reading end of a pipe. The kernel closes the
other end with the owner, whatever happens to it. All programs of a plane are born into the keeper's
process group, so nothing has to be written down that a crash could lose, and no process id can have
been reused by somebody else: a group lives as long as its last member.

Run as `python -I -S keeper.py FOLDER`; standard input is the pipe. One byte on it means "all is
cleaned up, go"; end of file means that the owner is gone.
"""

import os
import shutil
import signal
import sys


def main(folder: str) -> None:
    """Wait for the owner's end; then kill the whole group and remove `folder`."""
    if os.read(sys.stdin.fileno(), 1):
        return
    group = os.getpgrp()
    # A group can't be killed from inside by somebody who wants to survive it: a child steps out first.
    if os.fork() == 0:
        os.setpgid(0, 0)
        os.killpg(group, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)
    signal.pause()


if __name__ == "__main__":
    main(sys.argv[1])

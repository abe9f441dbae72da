"""A process that has imported everything and makes a new one for each command line: a second of imports a kill less.

It reads from each line of its input, in JSON, a list of arguments and the seconds after which SIGKILL is sent, and
answers with how the new process ended: its exit code, or less than 0 the signal.
"""

import json
import os
import signal
import sys
import time
import traceback

import torch
import transformer_lens.model_bridge  # noqa: F401  # takes longest to import
import transformers  # noqa: F401

import precompute.pipeline
import precompute.worker  # noqa: F401
from app.cli import app


def _carry_out(arguments: list[str]) -> None:
    try:
        app(arguments, standalone_mode=False)
        code = 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    torch.set_num_threads(1)  # a pool of threads would not survive the fork
    print("ready", flush=True)
    for line in sys.stdin:
        arguments, seconds = json.loads(line)
        child = os.fork()
        if not child:
            os.dup2(2, 1)
            _carry_out(arguments)
        print(_ended(child, seconds), flush=True)


def _ended(child: int, seconds: float) -> int:
    """Wait for a process, and kill it if it takes longer; until it has been waited for, its id is no other's."""
    last = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= last:
            os.kill(child, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        time.sleep(0.002)


if __name__ == "__main__":
    main()

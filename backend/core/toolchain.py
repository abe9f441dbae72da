"""Whether Triton can compile here: it builds the launcher of a kernel with a C compiler when the kernel first runs."""

import os
import shutil
import sysconfig
from functools import cache
from importlib.util import find_spec
from pathlib import Path


@cache
def missing_for_triton() -> str | None:
    """What Triton lacks on this machine, and how to have it; None where it lacks nothing."""
    if find_spec("triton") is None:
        return "it is not installed: pip install triton"
    if not os.environ.get("CC") and not (shutil.which("gcc") or shutil.which("clang")):
        return "it finds no C compiler: install gcc, or name one in CC"
    # Debian's own scheme has another folder, which Triton does not look into.
    scheme = sysconfig.get_default_scheme().replace("posix_local", "posix_prefix")
    if not (Path(sysconfig.get_path("include", scheme=scheme)) / "Python.h").is_file():
        return "it finds no Python.h: install this Python's headers (python3-dev on Debian and Ubuntu)"
    return None

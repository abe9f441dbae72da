"""The CUDA kernel compiled for cards that are not here: it compiles, and keeps all that it adds up in registers."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="Triton has no wheel for this platform")

_COMPILE = """
import json, pathlib, re, subprocess, sys, tempfile
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from backend.core.kernels import triton_rows as gpu

tools = pathlib.Path(triton.__file__).parent / "backends/nvidia/bin"
capability, flags, blocks = int(sys.argv[1]), json.loads(sys.argv[2]), gpu._BLOCKS[0]
given = {**blocks.kwargs, **flags, "V": gpu.LANES, "HALVINGS": gpu.LANES.bit_length() - 1, "GROUP": 16}
kinds = dict.fromkeys(("targets", "tops"), "*i64") | {"above": "*i32", "cap": "fp32"}
kinds |= dict.fromkeys(("n_tokens", "n_neurons", "d_vocab", "v_stride", "w_stride"), "i32")
names = gpu._rows.arg_names
signature = {name: "constexpr" if name in given else kinds.get(name, "*fp32") for name in names}
source = ASTSource(gpu._rows, signature, {(names.index(name),): value for name, value in given.items()})
compiled = triton.compile(source, GPUTarget("cuda", capability, 32), {"num_warps": blocks.num_warps})
with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
    file.write(compiled.asm["cubin"])
    file.flush()
    usage = subprocess.run([tools / "cuobjdump", "-res-usage", file.name], capture_output=True, text=True)
numbers = dict(re.findall(r"(REG|STACK|LOCAL):(\\d+)", usage.stdout + usage.stderr))
print(json.dumps({name: int(value) for name, value in numbers.items()}))
"""
DEFAULT_RUN = {"BIASED": True, "ALONG": False, "FIXED": True, "CAPPED": False, "DISTANT": False}
EVERYTHING = dict.fromkeys(DEFAULT_RUN, True)


@pytest.mark.parametrize(("capability", "flags"), [(90, DEFAULT_RUN), (80, EVERYTHING)])
def test_the_kernel_compiles(capability: int, flags: dict[str, bool]) -> None:
    """For an H100 as default runs use it, where nothing may spill; for an A100 with every kind of tilt at once."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-W", "ignore", "-c", _COMPILE, str(capability), json.dumps(flags)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    usage = json.loads(done.stdout.splitlines()[-1])
    assert usage["REG"] <= 255
    if flags is DEFAULT_RUN:
        assert (usage["STACK"], usage["LOCAL"]) == (0, 0)

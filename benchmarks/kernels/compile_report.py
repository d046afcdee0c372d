"""Compiles every kernel for NVIDIA architectures without a GPU and reports what the compiler made of it.

Triton's wheel brings ptxas and cuobjdump, so registers, spills and the width of every memory access can be
read from the machine code on any Linux host. Run: ``python benchmarks/kernels/compile_report.py``
(``--json FILE`` to keep the result, ``--arch 90`` for one architecture).
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shapes import HEAD_DIM, MODELS, VOCABULARY

ARCHITECTURES = (80, 90, 100)
WARP_SIZE = 32


@dataclasses.dataclass(frozen=True)
class Case:
    """One kernel with the constants it is specialised for."""

    name: str
    module: str
    kernel: str
    signature: dict[str, str]  # argument -> type, without the constants
    constants: dict[str, Any]
    warps: int


def cases() -> Iterator[Case]:
    """The kernels at the shapes of the published models, bf16, without and with tensor parallelism."""
    rope = importlib.import_module("salamandra_kernels.rope")
    swiglu = importlib.import_module("salamandra_kernels.swiglu")
    norm = importlib.import_module("salamandra_kernels.rms_norm")
    loss = importlib.import_module("salamandra_kernels.cross_entropy")
    for name, model in MODELS.items():
        constants = {"WIDTH": model.hidden, "BLOCK": model.hidden}
        for direction in ("forward", "backward"):
            kernel = f"_rms_norm_{direction}_kernel"
            kinds = dict.fromkeys(("x", "weight", "out", "grad", "grad_x"), "*bf16")
            kinds |= {"scale": "*fp32", "partial_grad_weight": "*fp32", "eps": "fp32", "rows": "i32"}
            signature = {n: kinds[n] for n in _arguments(getattr(norm, kernel)) if n in kinds}
            warps = norm.warps_for(model.hidden)
            yield Case(f"norm-{direction}-{name}-tp1", "rms_norm", kernel, signature, constants, warps)
        for tp in (1, 4, 8):
            suffix = f"{name}-tp{tp}"
            for direction, sign in (("forward", 1), ("backward", -1), ("documents", 1)):
                constants = {
                    "BATCH": 1,
                    "GROUPS": model.query_groups // tp,
                    "Q_PER_GROUP": model.q_per_group,
                    "HEAD_DIM": HEAD_DIM,
                    "BLOCK_ROWS": rope.BLOCK_ROWS,
                    "BLOCK_HALF": HEAD_DIM // 2,
                    "SIGN": sign,
                    "HAS_POSITIONS": direction == "documents",
                }
                pointers = dict.fromkeys(_arguments(rope._rope_kernel)[:6], "*bf16")
                pointers |= {"table": "*fp32", "positions": "*i64"}
                numbers = [n for n in _arguments(rope._rope_kernel) if n not in pointers | constants]
                yield Case(
                    f"rope-{direction}-{suffix}",
                    "rope",
                    "_rope_kernel",
                    pointers | dict.fromkeys(numbers, "i32"),
                    constants,
                    4,
                )
            constants = {"WIDTH": model.ffn // tp, "BLOCK": swiglu.BLOCK}
            yield Case(
                f"swiglu-forward-{suffix}",
                "swiglu",
                "_swiglu_forward_kernel",
                {"gate_up": "*bf16", "out": "*bf16"},
                constants,
                4,
            )
            yield Case(
                f"swiglu-backward-{suffix}",
                "swiglu",
                "_swiglu_backward_kernel",
                {"grad": "*bf16", "gate_up": "*bf16", "grad_gate_up": "*bf16"},
                constants,
                4,
            )
    for tp in (1, 4):
        constants = {"WIDTH": VOCABULARY // tp, "BLOCK": loss.BLOCK}
        pointers = {"logits": "*bf16", "labels": "*i64"}
        yield Case(
            f"loss-forward-tp{tp}",
            "cross_entropy",
            "_statistics_kernel",
            pointers | {"statistics": "*fp32", "tokens": "i32", "vocab_start": "i32"},
            constants,
            8,
        )
        yield Case(
            f"loss-backward-tp{tp}",
            "cross_entropy",
            "_gradient_kernel",
            pointers | {"lse": "*fp32", "grad": "*fp32", "vocab_start": "i32", "z_loss": "fp32"},
            constants | {"BLOCKS_PER_PROGRAM": loss.BLOCKS_PER_PROGRAM},
            8,
        )


def _arguments(kernel: Any) -> list[str]:
    return list(kernel.arg_names)


def compile_case(case: Case, architecture: int) -> dict[str, Any]:
    """Registers, stack, spills and counts of global accesses by width in bits."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(importlib.import_module(f"salamandra_kernels.{case.module}"), case.kernel)
    names = _arguments(kernel)
    # Pointers and sizes are multiples of 16 at these shapes, which the launcher tells the compiler as well.
    divisible = {
        (names.index(name),): [["tt.divisibility", 16]]
        for name, kind in case.signature.items()
        if kind.startswith("*") or kind == "i32"
    }
    signature = {name: case.signature.get(name, "constexpr") for name in names}
    constants = {(names.index(name),): value for name, value in case.constants.items()}
    source = ASTSource(kernel, signature, constants, divisible)
    target = GPUTarget("cuda", architecture, WARP_SIZE)
    compiled = triton.compile(source, target=target, options={"num_warps": case.warps})
    return {"kernel": case.name, "arch": architecture, **read_machine_code(compiled.asm["cubin"])}


def read_machine_code(cubin: bytes) -> dict[str, Any]:
    """What cuobjdump says about one compiled kernel."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        usage = _cuobjdump("-res-usage", path)
        assembly = _cuobjdump("-sass", path)
    numbers = dict(re.findall(r"\b(REG|STACK|SHARED|LOCAL):(\d+)", usage))
    widths: dict[str, Counter[str]] = {"LDG": Counter(), "STG": Counter()}
    for access, modifiers in re.findall(r"\b(LDG|STG)((?:\.\w+)+)", assembly):
        width = re.search(r"\.(U8|S8|U16|S16|64|128|256)\b", modifiers)
        bits = re.sub(r"\D", "", width.group(1)) if width else "32"
        widths[access][bits] += 1
    return {
        "registers": int(numbers["REG"]),
        "stack_bytes": int(numbers["STACK"]),
        "local_bytes": int(numbers["LOCAL"]),
        "shared_bytes": int(numbers["SHARED"]),
        "spills": len(re.findall(r"\b(?:LDL|STL)\b", assembly)),
        "loads_by_bits": dict(widths["LDG"]),
        "stores_by_bits": dict(widths["STG"]),
    }


def _cuobjdump(option: str, path: Path) -> str:
    import triton

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    result = subprocess.run([tool, option, path], capture_output=True, text=True, check=True)
    return result.stdout


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--arch", type=int, action="append", choices=ARCHITECTURES, help="default: all")
    parser.add_argument("--only", action="append", help="compile only kernels whose name contains this")
    parser.add_argument("--json", type=Path, help="also write the report here")
    options = parser.parse_args(argv)
    if os.environ.get("TRITON_INTERPRET", "0") == "1":
        print("compile_report: unset TRITON_INTERPRET; interpreted kernels are not compiled", file=sys.stderr)
        return 2
    report = []
    for architecture in options.arch or ARCHITECTURES:
        for case in cases():
            if options.only and not any(part in case.name for part in options.only):
                continue
            row = compile_case(case, architecture)
            report.append(row)
            print(
                f"sm_{architecture} {row['kernel']:<26} registers {row['registers']:>3}  "
                f"stack {row['stack_bytes']:>4}  spills {row['spills']:>3}  shared {row['shared_bytes']:>6}  "
                f"loads {row['loads_by_bits']}  stores {row['stores_by_bits']}",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

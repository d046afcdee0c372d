"""One task of the node check: ``srun python -m megatron_salamandra.node_check DIRECTORY [options]``.

The result is a line on stdout as well as a file: a node that does not see the run directory can still say so.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from megatron_salamandra.foundation.errors import UserError
from megatron_salamandra.foundation.json_files import write_json
from megatron_salamandra.node_check import RESULT_LINE, NodeResult, check_node


def main(argv: Sequence[str] | None = None) -> None:
    """Check this node and tell the result; the process ends here, whatever hangs in it."""
    parser = argparse.ArgumentParser(prog="megatron_salamandra.node_check", description="Check this node.")
    parser.add_argument("directory", type=Path, help="where the result is written, HOST.json")
    parser.add_argument("--gpus", type=int, help="GPUs that the run needs")
    parser.add_argument("--clock", metavar="HOST:PORT", help="whose clock counts")
    parser.add_argument("--token", help="what DIRECTORY/token must hold")
    options = parser.parse_args(argv)
    tell(
        check_node(options.directory, gpus=options.gpus, clock=options.clock, token=options.token),
        options.directory,
    )


def tell(result: NodeResult, directory: Path) -> None:
    """Print and write the result, and end the process."""
    print(f"{RESULT_LINE}{json.dumps(result.to_dict())}", flush=True)
    if directory.is_dir():
        try:
            write_json(directory / f"{result.host}.json", result.to_dict())
        except UserError as error:
            print(error, file=sys.stderr, flush=True)
    # Not by the interpreter's end, which would wait for a probe that the kernel does not let go.
    os._exit(0)


if __name__ == "__main__":
    main()

"""How long a person waits for `--help` and `import trueread` (aims: 0.5 s and 1 s); best of five, in one run."""

from __future__ import annotations

import subprocess
import sys
import time

COMMANDS = {
    "trueread --help": [sys.executable, "-m", "trueread", "--help"],
    "trueread run --help": [sys.executable, "-m", "trueread", "run", "--help"],
    "import trueread": [sys.executable, "-c", "import trueread, sys; assert 'torch' not in sys.modules"],
    "python (nothing)": [sys.executable, "-c", "pass"],
}


def main() -> None:
    for name, command in COMMANDS.items():
        times = []
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            times.append(time.perf_counter() - start)
        print(f"{name:<22} {min(times):.2f} s")


if __name__ == "__main__":
    main()

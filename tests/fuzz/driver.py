"""Runs the targets of atheris for a time: `python tests/fuzz/driver.py [seconds]`, or `make fuzz`.

What fails is left in .fuzz/, and shown; the exit status is 1 then.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fuzz.seeds import seeds

TARGETS = ("requests", "responses", "wires")
FOUND = Path(__file__).resolve().parents[2] / ".fuzz"
SECONDS = 600
#: The longest input, bytes: a few heads and bodies.
LONGEST = 4096


@dataclass
class Run:
    """How a run went."""

    target: str
    executions: int
    coverage: int  # edges of bgproxy's code
    kept: int  # inputs that reached something new
    found: list[Path]
    log: str

    def __str__(self) -> str:
        return (
            f"{self.target}: {self.executions} inputs, {self.coverage} edges, {self.kept} kept, {len(self.found)} found"
        )


def run(target: str, seconds: int, found: Path, *, python: str = sys.executable) -> Run:
    """Fuzz a target for so many seconds; what fails is written to `found`."""
    # No time-out for one input: libFuzzer's alarm has ended a run on a busy machine, and what hangs ends with this process.
    found.mkdir(parents=True, exist_ok=True)
    before = set(found.iterdir())
    with tempfile.TemporaryDirectory(prefix="bgproxy-fuzz-") as folder:
        for number, data in enumerate(seeds(target)):
            Path(folder, f"seed-{number}").write_bytes(data)
        options = [f"-max_total_time={seconds}", f"-max_len={LONGEST}", "-timeout=0", "-print_final_stats=1"]
        options += [f"-artifact_prefix={found}/{target}-", "-rss_limit_mb=1024"]
        done = subprocess.run(
            [python, Path(__file__).with_name("target.py"), target, *options, folder],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds + 60,
            check=False,
        )
        kept = len(list(Path(folder).iterdir()))
    log = done.stdout + done.stderr
    executions = re.findall(r"stat::number_of_executed_units: (\d+)", log) or re.findall(r"^#(\d+)", log, re.MULTILINE)
    coverage = re.findall(r"\bcov: (\d+)", log)
    new = sorted(set(found.iterdir()) - before)
    if done.returncode and not new:
        raise RuntimeError(f"the fuzzer did not run (exit status {done.returncode}):\n{log[-4000:]}")
    return Run(target, int(executions[-1]), int(coverage[-1]) if coverage else 0, kept, new, log)


def main(arguments: list[str]) -> int:
    """Run every target for its share of the seconds."""
    seconds = int(arguments[0]) if arguments else SECONDS
    failed = False
    for target in TARGETS:
        done = run(target, max(seconds // len(TARGETS), 1), FOUND)
        print(done, flush=True)
        for path in done.found:
            print(f"{path}: {path.read_bytes()!r}\n{done.log[-3000:]}")
        failed = failed or bool(done.found)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

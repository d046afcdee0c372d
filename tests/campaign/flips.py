"""Single bits that are flipped in files that commands read: found before they do harm, or the case failed."""

from __future__ import annotations

import contextlib
import io
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from disturbed_runs import STEPS, Broken, differences, last_recorded_step
from forked_ranks import ForkedRanks
from small_checkpoints import make_config, make_weights, train_tokenizer, write_step
from synthetic_blend import write_blend

from megatron_salamandra import cli
from megatron_salamandra.foundation.exit_codes import EXIT_STOPPED
from megatron_salamandra.run_directory import MetricsLog, RunDirectory, read_events

STOPPED_AT = 9
READERS = ("resume", "export", "generate", "compare", "verify", "start", "blend", "export")
"""What reads the flipped file, in turn."""
_SYNCHRONOUS = "checkpoint.asynchronous=false"


@dataclass(frozen=True)
class Flip:
    """One bit.

    Attributes:
        file: relative to the directory that is copied.
        bit: counted from the file's beginning.
    """

    file: str
    bit: int

    def apply(self, directory: Path) -> None:
        """Flip it."""
        path = directory / self.file
        contents = bytearray(path.read_bytes())
        contents[self.bit // 8] ^= 1 << self.bit % 8
        path.write_bytes(contents)


def draw_flip(draw: random.Random, directory: Path, files: list[Path]) -> Flip:
    """A bit of one of the files: each file is as likely as any other, since small ones matter as much."""
    path = draw.choice(sorted(file for file in files if file.stat().st_size))
    return Flip(str(path.relative_to(directory)), draw.randrange(8 * path.stat().st_size))


class Flips:
    """Flips bits of copies of what it makes below one directory."""

    def __init__(self, out: Path, seed: int, blend: Path, undisturbed: Callable[[], Path]) -> None:
        """Make nothing yet.

        Args:
            undisturbed: makes the run that others are compared with, and returns its directory.
        """
        self._out, self._seed, self._plan, self._undisturbed = out, seed, blend, undisturbed
        self._ranks = ForkedRanks()

    def attempt(self, number: int) -> dict[str, Any]:
        """Flip a bit, have it read, and say what was not as promised."""
        draw = random.Random(f"{self._seed}/flip/{number}")
        reader = READERS[number % len(READERS)]
        place = self._out / "flips" / f"{number:04d}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        try:
            flip, problems = getattr(self, f"_{reader}")(draw, place)
        except Broken as error:
            flip, problems = None, [str(error)]
        if not problems:
            shutil.rmtree(place)
            for log in place.parent.glob(f"{place.name}*.log"):
                log.unlink()
        what = f"{reader} of {flip.file}, bit {flip.bit}" if flip else reader
        return {"what": what, "group": reader, "problems": problems}

    def _resume(self, draw: random.Random, place: Path) -> tuple[Flip, list[str]]:
        run = place / "run"
        shutil.copytree(self._stopped_run(), run)
        newest = RunDirectory(run).checkpoints / f"step-{STOPPED_AT:08d}"
        flip = draw_flip(draw, newest, [path for path in newest.rglob("*") if path.is_file()])
        flip.apply(newest)
        code = self._ranks.start(self._plan, run, None, _SYNCHRONOUS)
        if code:
            return flip, [f"ended with {code}, though an older checkpoint is intact"]
        passed_over = [
            event for event in read_events(RunDirectory(run).events) if event.kind == "checkpoint_passed_over"
        ]
        if [event.details["checkpoint"] for event in passed_over] != [newest.name]:
            return flip, ["the damaged checkpoint was not passed over"]
        aside = newest.with_name(f"damaged-{newest.name}")
        if not aside.is_dir():
            return flip, ["the damaged checkpoint was not set aside"]
        shutil.rmtree(aside)
        return flip, differences(run, self._undisturbed())

    def _start(self, draw: random.Random, place: Path) -> tuple[Flip, list[str]]:
        data, run = place / "data", place / "run"
        shutil.copytree(self._plan.parent, data)
        files = [path for path in data.iterdir() if "validation" not in path.name]
        flip = draw_flip(draw, data, files)
        flip.apply(data)
        code = self._ranks.start(data / "blend.yaml", run, None, _SYNCHRONOUS)
        if not code:
            return flip, [f"trained all {STEPS} steps"]
        told = Path(f"{run}.log").read_text(errors="replace")
        problems = [] if Path(flip.file).stem in told else ["the message does not name the file"]
        trained = last_recorded_step(run)
        ours, theirs = (MetricsLog(RunDirectory(path).metrics).read() for path in (run, self._undisturbed()))
        if [record.loss for record in ours] != [record.loss for record in theirs[:trained]]:
            problems.append("trained on the damaged text")
        return flip, problems

    def _blend(self, draw: random.Random, place: Path) -> tuple[Flip, list[str]]:
        data = place / "data"
        shutil.copytree(self._plan.parent, data)
        files = [path for path in data.iterdir() if path.suffix in (".json", ".model")]
        flip = draw_flip(draw, data, files)
        flip.apply(data)
        words = ["data", "blend", "--shards", str(data), "--tokenizer", str(data / "tokenizer.model")]
        return flip, _refused(
            [*words, "--temperature", "1", "--out", str(place / "made.yaml")], flip, place / "made.yaml"
        )

    def _export(self, draw: random.Random, place: Path) -> tuple[Flip, list[str]]:
        step, flip = self._flipped_step(draw, place)
        words = ["hf", "export", "--checkpoint", str(step), "--out", str(place / "out")]
        return flip, _refused(words, flip, place / "out")

    def _generate(self, draw: random.Random, place: Path) -> tuple[Flip, list[str]]:
        step, flip = self._flipped_step(draw, place)
        words = ["generate", "--checkpoint", str(step), "--prompt", "Tots", "--max-new-tokens", "1"]
        return flip, _refused([*words, "--device", "cpu"], flip)

    def _compare(self, draw: random.Random, place: Path) -> tuple[Flip, list[str]]:
        step, flip = self._flipped_step(draw, place)
        return flip, _refused(
            ["hf", "compare", "--checkpoint", str(step), "--hf", str(self._exported())], flip
        )

    def _verify(self, draw: random.Random, place: Path) -> tuple[Flip, list[str]]:
        step, flip = self._flipped_step(draw, place)
        return flip, _refused(["checkpoint", "verify", str(step)], flip)

    def _flipped_step(self, draw: random.Random, place: Path) -> tuple[Path, Flip]:
        step = place / "step-00000020"
        shutil.copytree(self._step(), step)
        flip = draw_flip(draw, step, [path for path in step.rglob("*") if path.is_file()])
        flip.apply(step)
        return step, flip

    def _step(self) -> Path:
        """A checkpoint with a tokenizer that can be exported."""
        step = self._out / "step-00000020"
        if not (step / "manifest.json").exists():
            shutil.rmtree(step, ignore_errors=True)
            self._out.mkdir(parents=True, exist_ok=True)
            config = make_config()
            write_step(step, config, make_weights(config), train_tokenizer(self._out))
        return step

    def _exported(self) -> Path:
        out = self._out / "exported"
        if not (out / "config.json").exists():
            code, told = _command(["hf", "export", "--checkpoint", str(self._step()), "--out", str(out)])
            if code:
                raise Broken(f"the export of an intact checkpoint fails: {told}")
        return out

    def _stopped_run(self) -> Path:
        """A run that has saved steps 3, 6 and 9 and was stopped."""
        run = self._out / "stopped"
        if not (run / "done").exists():
            shutil.rmtree(run, ignore_errors=True)
            stop = f"training.stop_after_steps={STOPPED_AT}"
            code = self._ranks.start(self._plan, run, None, _SYNCHRONOUS, stop)
            if code != EXIT_STOPPED:
                raise Broken(f"the run that is to be stopped ended with {code}; see {run}.log")
            (run / "done").touch()
        return run


def _refused(words: list[str], flip: Flip, result: Path | None = None) -> list[str]:
    """What is wrong with the way in which a command refuses a flipped bit."""
    code, told = _command(words)
    if code == 0:
        return ["was not noticed"]
    problems = []
    if Path(flip.file).name not in told and Path(flip.file).stem not in told:
        problems.append(f"the message does not name the file: {told.strip()[-200:]}")
    if "Traceback" in told:
        problems.append("ended with a traceback")
    if result is not None and result.exists():
        problems.append(f"left {result.name}")
    return problems


def _command(words: list[str]) -> tuple[int, str]:
    """Exit code and messages of a command in this process."""
    told = io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
        try:
            code = cli.main(words)
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        except Exception as error:
            return 1, f"Traceback: {type(error).__name__}: {error}"
    return code, told.getvalue()


def make_blend(directory: Path) -> Path:
    """The blend that runs of a campaign train on."""
    blend = directory / "blend.yaml"
    if not blend.exists():
        write_blend(directory)
    return blend

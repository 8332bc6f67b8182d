"""Run a rendered template on this machine: the command line of each container as a process, in order.

There are no retries, no pods and no exit handler: this is for laptops and tests, and Argo is the engine for everything
else. The files that a step writes to its $OUT are uploaded to the run's folder in the store, like Argo's output
artifacts.
"""

import functools
import json
import os
import shutil
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from run_config.errors import ConfigError
from run_config.locations import resolve
from run_config.parameters import BY_NAME, PARAMETERS, Role, parse_value, unknown_name
from run_config.wording import duration
from workflows.errors import StepError, TemplateError, WorkflowError
from workflows.local.announcements import head
from workflows.local.identity import only_one, run_name, run_uid, show_owner
from workflows.local.plan import OutputFile, Plan, PlannedStep
from workflows.local.process import Foreground
from workflows.tags import PARAMETERS_JSON, RETRIES, fill

FINISHED = "finished.json"
"""Written last into a run's folder. Without this file, the same command resumes the run."""

CHOSEN_MODEL = "tasks.check.outputs.parameters.model"
"""What `model=auto` meant."""

MOST_RUNS_ALIKE = 1000

_NAMES = {parameter.role: parameter.name for parameter in PARAMETERS}
STORE, OUTPUT = _NAMES[Role.STORE], _NAMES[Role.OUTPUT]

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """The outcome of a run.

    `values` are its parameters, `results` the outputs of the template, `files` the files that the steps wrote.
    """

    name: str
    url: str
    values: Mapping[str, str]
    seconds: float
    results: Mapping[str, str]
    files: tuple[str, ...]


def run_local(plan: Plan, given: Mapping[str, str], scratch: Path, say: Say) -> FinishedRun:
    """Run a template to its end. A call with the same parameters resumes an interrupted run.

    It handles signals, so call it in the main thread.

    Raises ConfigError and TemplateError: before anything starts. Raises StepError: with the exit code of a failed step.
    Raises InterruptedRunError: when the run was stopped. Raises RunningElsewhereError: when another process is
    executing the same run.
    """
    values = complete_values(plan, given)
    programs = {step.command[0]: _program(step) for step in plan.steps}
    base = run_name(plan.name, values)
    foreground = Foreground()
    with only_one(scratch, base) as lock, foreground.taking_signals():
        run = _Run(plan, values, base, programs, foreground, lock, say)
        work = Path(tempfile.mkdtemp(prefix=f"{base}-", dir=scratch))
        try:
            return run.to_the_end(work)
        finally:
            shutil.rmtree(work)


def complete_values(plan: Plan, given: Mapping[str, str]) -> dict[str, str]:
    """The values of all parameters of the template, validated as text.

    Raises ConfigError: one sentence for each mistake.
    """
    for name in (STORE, OUTPUT):
        if name not in plan.parameters:
            raise TemplateError(f"the template {plan.name} has no parameter {name}, which defines the folder of a run")
    mistakes = [unknown_name(name, plan.parameters) for name in given if name not in plan.parameters]
    values: dict[str, str] = {}
    for name, default in plan.parameters.items():
        text = given.get(name, default)
        try:
            if name in BY_NAME:
                value = parse_value(BY_NAME[name], text or "")
                text = value if isinstance(value, str) else (text or "").strip()
            elif text is None:
                raise ConfigError(f"{name} is missing.")  # noqa: TRY301 - collected with the others
            values[name] = text
        except ConfigError as error:
            mistakes.append(str(error))
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return values


@dataclass(slots=True)
class _Run:
    """One call of run_local, with its lock held."""

    plan: Plan
    values: Mapping[str, str]
    base: str
    programs: Mapping[str, Path]
    foreground: Foreground
    lock: int
    say: Say
    tags: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)

    def to_the_end(self, work: Path) -> FinishedRun:
        """Run every step, then mark the run as finished."""
        began = time.monotonic()
        name = self._unfinished_name(work)
        url = f"{self._folder()}/{name}"
        self.say(head(name, url, self.plan, self.values))
        if name != self.base:
            self.say("  a run with these parameters has finished already: this one begins anew")
        self.tags = {f"workflow.parameters.{key}": text for key, text in self.values.items()}
        self.tags[PARAMETERS_JSON] = json.dumps([{"name": k, "value": v} for k, v in self.values.items()])
        self.tags |= {"workflow.name": name, "workflow.uid": run_uid(url), RETRIES: "0"}
        for number, step in enumerate(self.plan.steps, 1):
            self.say(f"\n[{number}/{len(self.plan.steps)}] {step.name}")
            step_began = time.monotonic()
            self._run_step(step, work / step.name, url)
            self.say(f"{step.name}: {duration(time.monotonic() - step_began)}")
        results = {key: fill(text, self.tags) for key, text in self.plan.results.items()}
        self._mark_finished(work / "mark", url, results)
        values = {**self.values, "model": self.tags.get(CHOSEN_MODEL, self.values.get("model", ""))}
        return FinishedRun(name, url, values, time.monotonic() - began, results, tuple(sorted(self.files)))

    def _folder(self) -> str:
        return resolve(self.values[OUTPUT], self.values[STORE])

    def _unfinished_name(self, work: Path) -> str:
        """The run's name, with a suffix if finished runs of that name exist."""
        answer = work / "finished"
        for start in range(1, MOST_RUNS_ALIKE, 10):
            names = [self.base if n == 1 else f"{self.base}-{n}" for n in range(start, start + 10)]
            keys = [f"{name}/{FINISHED}" for name in names]
            with answer.open("wb") as stdout:
                self._store_process(["exists", self._folder(), *keys], stdout=stdout)
            finished = answer.read_text().splitlines()
            for name, key in zip(names, keys, strict=True):
                if key not in finished:
                    return name
        raise WorkflowError(f"there are {MOST_RUNS_ALIKE} finished runs named {self.base}; change a parameter")

    def _run_step(self, step: PlannedStep, out: Path, url: str) -> None:
        """Run a step as one process, read its outputs and upload its files."""
        tags = self.tags | {f"inputs.parameters.{key}": fill(text, self.tags) for key, text in step.inputs.items()}
        (out / "outputs").mkdir(parents=True)
        program, *arguments = step.command
        env = os.environ | {key: fill(text, tags) for key, text in step.env.items()}
        if step.out_mount is not None:
            env["OUT"] = str(out)
        command = [str(self.programs[program]), *(fill(text, tags) for text in arguments)]
        _raise_for(step.name, self._process(command, env))
        for output in step.outputs:
            tag, text = f"tasks.{step.name}.outputs.parameters.{output.name}", _read_output(step, output, out)
            if tag in self.plan.single and text != "1":
                raise StepError(
                    f"step {step.name} asks for {text} pods; the local runner has one: a bug of the step", 1
                )
            self.tags[tag] = text
        for artifact in step.artifacts:
            if not artifact.optional and not (out / artifact.path).exists():
                raise _left_nothing(step, artifact.path)
        shutil.rmtree(out / "outputs")
        left = [path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()]
        if left:
            self._store_process(["put-folder", str(out), url])
        self.files.extend(left)
        shutil.rmtree(out)

    def _mark_finished(self, folder: Path, url: str, results: Mapping[str, str]) -> None:
        folder.mkdir()
        mark = {"template": self.plan.name, "parameters": dict(self.values), "results": dict(results)}
        (folder / FINISHED).write_text(json.dumps(mark, indent=2) + "\n", encoding="utf-8")
        self._store_process(["put-folder", str(folder), url])

    def _process(self, command: Sequence[str], env: Mapping[str, str], stdout: IO[bytes] | None = None) -> int:
        shown = functools.partial(show_owner, self.lock)
        return self.foreground.run(command, env, keep_open=[self.lock], stdout=stdout, started=shown)

    def _store_process(self, arguments: Sequence[str], stdout: IO[bytes] | None = None) -> None:
        """Run a command of `object_store`. On failure, the process itself prints the reason."""
        code = self._process([sys.executable, "-m", "object_store", *arguments], os.environ, stdout)
        if code:
            raise StepError("the store could not be used, see above", code)


def _program(step: PlannedStep) -> Path:
    """The program of a container's command in the local Python environment."""
    name = step.command[0]
    if name == "python":
        return Path(sys.executable)
    for folder in (Path(sys.executable).parent, Path(sysconfig.get_path("scripts"))):
        if "/" not in name and (folder / name).is_file():
            return folder / name
    raise TemplateError(
        f"step {step.name}: its program {name} is not installed with {sys.executable}; the local runner "
        "can run only python and the programs that are installed with it"
    )


def _read_output(step: PlannedStep, output: OutputFile, out: Path) -> str:
    """Read an output parameter as Argo does: without one line break at its end."""
    path = out / output.path
    if path.is_file():
        return path.read_text(encoding="utf-8").removesuffix("\n")
    if output.default is None:
        raise _left_nothing(step, output.path)
    return output.default


def _left_nothing(step: PlannedStep, path: PurePosixPath) -> StepError:
    return StepError(f"step {step.name} succeeded but did not write $OUT/{path}: a bug of the step", 1)


def _raise_for(step: str, code: int) -> None:
    """Raise the StepError for a step's exit code, if it is not 0."""
    match code:
        case 0:
            return
        case 2:
            message = f"step {step} refused its input; see its last line above"
        case 75 | 143:
            message = f"step {step} failed temporarily; run the same command again to resume"
        case 137:
            message = f"step {step} was killed, probably for lack of memory: choose a smaller batch-size"
        case _:
            message = f"step {step} failed with exit code {code}; see its output above"
    raise StepError(message, code)

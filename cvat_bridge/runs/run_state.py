"""The state, progress, results and links of a run, read from its workflow."""

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any
from urllib.parse import quote, urlencode

from cvat_bridge.http.schemas import RunSchema, SettingSchema, StepSchema
from cvat_bridge.runs import run_labels
from cvat_bridge.runs.run_files import ModelConfig
from cvat_client.settings import BridgeSettings
from cvat_client.subject import Subject
from run_config.parameters import BY_NAME, TEMPLATES
from run_config.set_warnings import SetWarnings
from workflows.cluster.ap_so_far import Ap
from workflows.cluster.run_metadata import USER_NAME, annotation, folder, template_of
from workflows.cluster.run_status import RunStatus, StepStatus, read_status, state_of

ROOT = "/training-bridge"
_NO_STEP = "exit handler"
_WEIGHTS = {"export": 2, "prepare": 3, "train": 30, "annotate": 30}
"""Weights of slow steps in a run's progress. Other steps take seconds and count 1."""
_MOST_SETTINGS = 12


def page(subject: Subject, run: str = "") -> str:
    """Path of the page for a subject or for one of its runs, on CVAT's origin."""
    query = [(subject.kind.value, str(number)) for number in subject.ids]
    return f"{ROOT}/?{urlencode(query + ([('run', run)] if run else []))}"


def argo_link(settings: BridgeSettings, namespace: str, run: str) -> str | None:
    """The run's URL in Argo's web page. None: `links.argo` is not set."""
    if not settings.links.argo:
        return None
    return f"{settings.links.argo.rstrip('/')}/workflows/{quote(namespace)}/{quote(run)}"


class Run:
    """One run."""

    def __init__(self, workflow: Mapping[str, Any], subject: Subject) -> None:
        self.workflow = workflow
        self.subject = subject
        self.name = str(workflow["metadata"]["name"])
        self.status: RunStatus = read_status(workflow)
        self._steps = _by_step(self.status)

    @property
    def finished(self) -> bool:
        """Whether the run has ended."""
        return self.status.finished

    def succeeded(self, step: str) -> bool:
        """Whether the step with this name has succeeded."""
        found = self._steps.get(step)
        return found is not None and found.phase == "Succeeded"

    @property
    def is_ours(self) -> bool:
        """Whether its template is ours. Third-party templates may use the same step names for other things."""
        return template_of(self.workflow) in TEMPLATES

    def model(self, store: str) -> str | None:
        """URL of the run's model. None: there is none, or the template is third-party."""
        place = folder(self.workflow)
        return f"{store}/{place}/model" if place and self.is_ours and self.succeeded("train") else None

    @property
    def prepared_set(self) -> str:
        """The id of the run's prepared set. Empty: there is none yet, or the template is third-party."""
        if not self.is_ours or not self.succeeded("prepare"):
            return ""
        return self.status.output("prepared-set")

    @property
    def has_report(self) -> bool:
        """Whether the run has written a report."""
        return self.is_ours and self.succeeded("report") and folder(self.workflow) is not None

    def shown(
        self,
        settings: BridgeSettings,
        namespace: str,
        store: str,
        ap: Ap | None,
        places: str,
        *,
        used: bool,
        config: ModelConfig | None = None,
        warnings: SetWarnings | None = None,
    ) -> RunSchema:
        """The run as the API returns it. `places`: where its model can be pinned; `used`: it is pinned there.

        `config`: of its model; `warnings`: about its data. None: unknown.
        """
        metadata, status = self.workflow["metadata"], self.workflow.get("status") or {}
        model = self.model(store)
        report = f"{ROOT}/api/runs/{self.name}/report/" if self.has_report else None
        return {
            "name": self.name,
            "template": template_of(self.workflow),
            "title": annotation(self.workflow, run_labels.TITLE) or template_of(self.workflow),
            "state": self.status.state,
            "message": self.status.reason()[:2000],
            "subject": {"kind": self.subject.kind.value, "ids": list(self.subject.ids)},
            "settings": self.settings,
            "user": annotation(self.workflow, USER_NAME),
            "created": metadata.get("creationTimestamp"),
            "started": status.get("startedAt"),
            "finished": status.get("finishedAt"),
            "progress": self._progress(),
            "steps": self._shown_steps(),
            "ap": None if ap is None else {"value": ap.value, "step": ap.step},
            "results": {name: " ".join(text.split())[:200] for name, text in self.status.results.items()},
            "warnings": {"first": list(warnings.first), "total": warnings.total} if warnings else None,
            "links": {
                "argo": argo_link(settings, namespace, self.name),
                "report": report,
                "page": page(self.subject, self.name),
            },
            "model": None
            if model is None
            else {
                "url": model,
                "used": used,
                "place": places,
                "threshold": config.threshold(settings.models.threshold) if config else "",
                "warning": config.warning if config else "",
            },
            "may": {
                "stop": settings.controls.stop and not self.finished,
                "rerun": settings.controls.rerun and self.finished,
                "use": model is not None and not used,
                "release": model is not None and used,
            },
        }

    @cached_property
    def settings(self) -> list[SettingSchema]:
        """The values of the form that differ from the defaults."""
        try:
            given = json.loads(annotation(self.workflow, run_labels.FORM) or "{}")
            chosen = [(str(name), " ".join(str(text).split())) for name, text in given.items()]
        except (ValueError, RecursionError, AttributeError):
            return []
        ours = BY_NAME if self.is_ours else {}
        different = [(name, text) for name, text in chosen if text and (name not in ours or text != ours[name].default)]
        return [
            {"title": ours[name].title if name in ours else name, "value": text[:80]}
            for name, text in different[:_MOST_SETTINGS]
        ]

    def _progress(self) -> float | None:
        """Progress from 0 to 1 over all planned steps, weighted. Argo's own value counts only steps that have begun."""
        if self.status.phase == "Succeeded":
            return 1.0
        weights = {name: _WEIGHTS.get(name, 1) for name in _planned(self.workflow)}
        if not weights:
            return None
        done = sum(weight * self._part(name) for name, weight in weights.items())
        return round(done / sum(weights.values()), 4)

    def _part(self, name: str) -> float:
        """Progress of one step from 0 to 1."""
        step = self._steps.get(name)
        if step is None or step.phase != "Running":
            return float(step is not None and step.phase in ("Succeeded", "Skipped", "Omitted"))
        done, _, total = step.progress.partition("/")
        if not (done.isdigit() and total.isdigit()) or not 0 < int(total) < 10**12:
            return 0.0
        return min(1.0, int(done) / int(total))

    def _shown_steps(self) -> list[StepSchema]:
        shown: list[StepSchema] = []
        for name in dict.fromkeys((*_planned(self.workflow), *self._steps)):
            step = self._steps.get(name)
            ended = self.status.stopped and step is not None and step.phase in ("Failed", "Error")
            state = state_of(step.phase) if step else self._unbegun()
            shown.append(
                {
                    "name": name,
                    "title": step.label if step else name,
                    "state": "stopped" if ended else state,
                    "progress": step.progress if step else "",
                    "message": _message_of(step)[:2000] if step and not ended else "",
                }
            )
        return shown

    def _unbegun(self) -> str:
        return "skipped" if self.finished else "pending"


def _message_of(step: StepStatus) -> str:
    """The step's message. For a step whose pod has not begun: what it waits for, then Argo's own words."""
    if step.phase != "Pending":
        return step.message
    if step.message.startswith("Unschedulable"):
        waits = "waiting for a machine with free capacity"
    elif any(word in step.message for word in ("ImagePull", "InvalidImageName")):
        waits = "its image cannot be loaded"
    elif step.message in ("", "ContainerCreating", "PodInitializing"):
        return "its machine is loading the image, which can take some minutes"
    else:
        return step.message
    return f"{waits} ({step.message})"


def _by_step(status: RunStatus) -> dict[str, StepStatus]:
    """Step name → the last attempt of the step."""
    found: dict[str, StepStatus] = {}
    for step in status.steps():
        name = step.label.partition(" (attempt ")[0]
        if name != _NO_STEP:
            found[name] = step
    return found


def _planned(workflow: Mapping[str, Any]) -> list[str]:
    """Names of the steps in the order of the graph, from the template that Argo stores with the workflow.

    Steps of several pods are not among them: they appear when they begin.
    """
    stored = (workflow.get("status") or {}).get("storedWorkflowTemplateSpec") or {}
    spec = stored if stored.get("templates") else workflow.get("spec") or {}
    for one in spec.get("templates") or ():
        if one.get("name") == spec.get("entrypoint"):
            tasks = (one.get("dag") or {}).get("tasks") or ()
            return [str(task["name"]) for task in tasks if "withSequence" not in task]
    return []

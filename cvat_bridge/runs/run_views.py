"""Runs for a user: lists, states and actions. A user sees a run if CVAT lets them view its whole subject."""

import asyncio
import functools
import json
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from cvat_bridge.access import Access, VisibleSubject
from cvat_bridge.cluster import Cluster, unfinished
from cvat_bridge.http.problems import NO_SUCH_RUN, Refusal
from cvat_bridge.http.schemas import RunSchema
from cvat_bridge.runs import run_labels
from cvat_bridge.runs.run_files import Pin, ReportFile, RunFiles, RunPlace, StoredWeights
from cvat_bridge.runs.run_state import Run
from cvat_bridge.runs.submit_run import RunRequest, StartedRun, Submitter
from cvat_bridge.templates.catalog import Fill, OfferedTemplate
from cvat_bridge.templates.start_choices import TrainedModel
from cvat_client.connection import Session
from cvat_client.questions import whole_number
from cvat_client.settings import BridgeSettings
from cvat_client.subject import Kind, Subject
from object_store import StoreError
from workflows.cluster.run_metadata import annotation, folder, template_of

log = logging.getLogger(__name__)

MOST_RUNS = 50
MOST_SUBJECTS = 100
"""Limit of other subjects per page for which the user's permission is requested from CVAT."""

MOST_MODELS = 20
MOST_READ = 500
_READ_S = 60.0
_MOST_LISTS = 10


class RunViews:
    """Views of runs, restricted by the user's permissions in CVAT."""

    def __init__(
        self, settings: BridgeSettings, access: Access, cluster: Cluster, files: RunFiles, submitter: Submitter
    ) -> None:
        self._settings = settings
        self._access = access
        self._cluster = cluster
        self._files = files
        self._submitter = submitter
        self._read: dict[str, tuple[float, str, Run]] = {}

    async def listed(self, session: Session, seen: VisibleSubject) -> list[RunSchema]:
        """The runs of a subject, newest first."""
        labels = [run_labels.subject_label(seen.subject)]
        if seen.subject.kind is Kind.TASK:
            labels = [run_labels.task_label(number) for number in seen.subject.ids[:_MOST_LISTS]]
        found = await self._visible(session, seen, labels, lambda _: True, most=MOST_RUNS)
        return list(await asyncio.gather(*(self._shown(run, places_of(seen)) for run in found)))

    async def one(self, session: Session, name: str) -> tuple[Run, VisibleSubject]:
        """A run that the user may see. Refusal 404: it does not exist, or the user may not see it."""
        await self._access.user(session)
        workflow = await self._cluster.run(name)
        subject = run_labels.subject_of(workflow) if workflow else None
        if workflow is None or subject is None:
            raise Refusal(404, NO_SUCH_RUN)
        try:
            seen = await self._access.see(session, subject)
        except Refusal as refusal:
            if refusal.status == 403:
                raise Refusal(404, NO_SUCH_RUN) from refusal
            raise
        return self._run(workflow, subject), seen

    async def shown(self, session: Session, name: str) -> RunSchema:
        """One run."""
        run, seen = await self.one(session, name)
        return await self._shown(run, places_of(seen))

    async def stop(self, session: Session, name: str) -> RunSchema:
        """Stop a run. Refusal 403: the installation does not allow it; 409: the run has ended."""
        if not self._settings.controls.stop:
            raise Refusal(403, "Stopping runs is disabled in this installation; ask its operator.")
        run, _ = await self.one(session, name)
        if run.finished:
            raise Refusal(409, f"{name} has ended already.")
        await self._cluster.stop(name)
        return await self.shown(session, name)

    async def rerun(self, session: Session, name: str) -> StartedRun:
        """Start a run with the same values, with a grant for the current user."""
        if not self._settings.controls.rerun:
            raise Refusal(403, "Rerunning is disabled in this installation; ask its operator.")
        run, seen = await self.one(session, name)
        if not run.finished:
            raise Refusal(409, f"{name} has not ended yet.")
        again = await self._again(run)
        return await self._submitter.submit(seen, again)

    async def _again(self, run: Run) -> RunRequest:
        """The request for a rerun. It stays the same until that rerun has ended, so a second click starts nothing."""
        form = annotation(run.workflow, run_labels.FORM)
        try:
            given = {str(key): str(value) for key, value in json.loads(form or "{}").items()}
        except (ValueError, RecursionError, AttributeError) as error:
            raise Refusal(409, f"The settings of {run.name} cannot be read; start a new run from the form.") from error
        others = await self._cluster.fresh_runs(run_labels.subject_label(run.subject))
        ended = sum(annotation(one, run_labels.RERUN_OF) == run.name and not unfinished(one) for one in others)
        request = f"rerun {run.name} {ended}"
        return RunRequest(template_of(run.workflow), given, request, annotations={run_labels.RERUN_OF: run.name})

    async def use_model(self, session: Session, name: str) -> RunSchema:
        """Pin the run's model for its project, or for tasks outside of projects."""
        run, seen = await self.one(session, name)
        model = run.model(self._files.url)
        if model is None:
            raise Refusal(409, f"{name} has no model yet.")
        places = await self._own_places(session, seen)
        for place in places:
            await self._files.set_pin(place, Pin(model, name))
        return await self._shown(run, places)

    async def release_model(self, session: Session, name: str) -> RunSchema:
        """Remove the pins of this run's model, so that the newest model is used again."""
        run, seen = await self.one(session, name)
        places = await self._own_places(session, seen)
        for place in places:
            pin = await self._files.pin(place)
            if pin is not None and pin.model == run.model(self._files.url):
                await self._files.clear_pin(place)
        return await self._shown(run, places)

    async def _own_places(self, session: Session, seen: VisibleSubject) -> list[RunPlace]:
        """Where the user may pin a model. Refusal 403: the user may not view the whole project."""
        places = places_of(seen)
        for place in places:
            # A user who may view only one task must not choose the model for the whole project.
            whole = place.kind != Kind.PROJECT or await self._access.may_see(session, Subject.project(place.number))
            if not whole:
                text = "The model is for the whole project, which you may not see: ask its owner to choose it."
                raise Refusal(403, text)
        return places

    async def report(self, session: Session, name: str) -> ReportFile:
        """The run's report. Refusal 404: there is none yet."""
        run, _ = await self.one(session, name)
        place = folder(run.workflow)
        found = await self._files.report(place) if place and run.has_report else None
        if found is None:
            raise Refusal(404, "This run has no report yet.")
        return found

    async def models(
        self, session: Session, seen: VisibleSubject, offered: Sequence[OfferedTemplate], classes: Collection[str]
    ) -> dict[str, list[TrainedModel]]:
        """Template → models for fine-tuning or annotating, newest first.

        They are those of the subject and its project. If it has none, our templates get the models of other tasks and
        projects that know one of the subject's `classes`.
        """
        labels = [
            run_labels.subject_label(seen.subject),
            *(run_labels.project_label(one) for one in sorted(seen.projects())),
        ]
        models: dict[str, list[TrainedModel]] = {}
        ours: list[TrainedModel] | None = None
        for one in offered:
            if not any(one.filled(fill) for fill in (Fill.FINETUNE, Fill.MODEL)):
                continue
            if one.template.ours and ours is not None:
                models[one.name] = ours  # our templates can use each other's models
                continue
            left = self._model_of_ours if one.template.ours else functools.partial(self._folder_of, one.name)
            found = await self._visible(session, seen, labels, left, most=MOST_MODELS)
            models[one.name] = await asyncio.gather(*(self._trained(run, left(run) or "") for run in found))
            if one.template.ours:
                ours = models[one.name] = models[one.name] or await self._fitting_models(session, seen, classes)
        return models

    async def _fitting_models(
        self, session: Session, seen: VisibleSubject, classes: Collection[str]
    ) -> list[TrainedModel]:
        """The models of all visible runs that know one of the classes."""
        runs = await self._visible(session, seen, [{}], self._model_of_ours, most=MOST_RUNS)
        folders = [folder(run.workflow) or "" for run in runs]
        try:
            known = await asyncio.gather(*map(self._files.model_config, folders))
        except StoreError as error:
            log.warning("the classes of models were not read", extra={"reason": type(error).__name__})
            return []
        fitting = [run for run, config in zip(runs, known, strict=True) if config and config.classes & set(classes)]
        return [await self._trained(run, self._model_of_ours(run) or "") for run in fitting[:MOST_MODELS]]

    async def published_weights(self) -> StoredWeights | None:
        """The published weights in the store. None: the store is unreachable."""
        try:
            return await self._files.published_weights()
        except StoreError as error:
            log.warning("the published weights were not read", extra={"reason": type(error).__name__})
            return None

    def _model_of_ours(self, run: Run) -> str | None:
        return run.model(self._files.url) if run.finished else None

    @staticmethod
    def _folder_of(template: str, run: Run) -> str | None:
        """The whole folder of a run. Only the third-party template knows where its model is inside."""
        is_theirs = template_of(run.workflow) == template and run.status.phase == "Succeeded"
        return folder(run.workflow) if is_theirs else None

    async def _trained(self, run: Run, value: str) -> TrainedModel:
        """A run's model. Its title is such as `cvat-train-x, AP 0.51, threshold 0.33, 2026-11-29`."""
        place, config = folder(run.workflow), None
        try:
            if place and run.is_ours:
                config = await self._files.model_config(place)
        except StoreError as error:
            log.warning("the store was not read for a run", extra={"run": run.name, "reason": type(error).__name__})
        ap = run.status.results.get("ap", "")
        threshold = config.threshold(self._settings.models.threshold) if config else ""
        day = str(run.workflow["metadata"].get("creationTimestamp") or "")[:10]
        parts = (
            run.name,
            "AP not measurable: no boxes" if ap.startswith("-") else f"AP {ap[:10]}" if ap else "",
            f"threshold {threshold}" if threshold else "",
            config.warning if config else "",
            day,
        )
        title = ", ".join(part for part in parts if part)
        classes, preset = (tuple(sorted(config.classes)), config.preset) if config else ((), "")
        return TrainedModel(value, run.name, title, classes, preset)

    async def _visible(
        self,
        session: Session,
        seen: VisibleSubject,
        labels: Iterable[Mapping[str, str]],
        matches: Callable[[Run], object],
        *,
        most: int,
    ) -> list[Run]:
        """The newest runs that match and that the user may see. Other runs do not count towards `most`."""
        lists = await asyncio.gather(*(self._cluster.runs(one) for one in labels))
        trees = {str(one["metadata"]["name"]): one for some in lists for one in some}
        newest = sorted(trees.values(), key=lambda one: str(one["metadata"].get("creationTimestamp")), reverse=True)
        about = [(one, subject) for one in newest if (subject := run_labels.subject_of(one)) is not None]
        sees = {seen.subject: True}
        found: list[Run] = []
        for start in range(0, len(about), MOST_RUNS):
            part = [
                run for tree, subject in about[start : start + MOST_RUNS] if matches(run := self._run(tree, subject))
            ]
            asked = [one for one in dict.fromkeys(run.subject for run in part) if one not in sees]
            asked = asked[: MOST_SUBJECTS + 1 - len(sees)]
            answers = await asyncio.gather(*(self._access.may_see(session, subject) for subject in asked))
            sees |= zip(asked, answers, strict=True)
            found += [run for run in part if sees.get(run.subject)]
            if len(found) >= most:
                break
            # Let the event loop serve other requests: reading many runs takes long.
            await asyncio.sleep(0)
        return found[:most]

    def _run(self, workflow: Mapping[str, Any], subject: Subject) -> Run:
        """The run, cached by its resourceVersion, since many pages show the same runs."""
        metadata = workflow["metadata"]
        uid, version = str(metadata.get("uid")), str(metadata.get("resourceVersion") or "")
        if not version:
            return Run(workflow, subject)
        _, read, run = self._read.pop(uid, (0.0, "", None))
        if run is None or read != version:
            run = Run(workflow, subject)
        now = time.monotonic()
        self._read[uid] = (now, version, run)
        # The first entry is the least recently used one.
        while len(self._read) > MOST_READ or next(iter(self._read.values()))[0] < now - _READ_S:
            del self._read[next(iter(self._read))]
        return run

    async def _shown(self, run: Run, places: Sequence[RunPlace]) -> RunSchema:
        model, place = run.model(self._files.url), folder(run.workflow)
        ap, used, config, warnings = None, False, None, None
        try:
            if run.prepared_set:
                warnings = await self._files.warnings(run.prepared_set)
            if place and "ap" not in run.status.results and run.status.phase:
                ap = await self._files.ap_so_far(place)
            if model and place:
                config = await self._files.model_config(place)
            if model and places:
                pins = await asyncio.gather(*(self._files.pin(one) for one in places))
                used = all(pin is not None and pin.model == model for pin in pins)
        except StoreError as error:
            # If the store is unreachable, the run is shown without its AP, threshold and pin.
            log.warning("the store was not read for a run", extra={"run": run.name, "reason": type(error).__name__})
        about = ", ".join(f"{one.kind} {one.number}" for one in places)
        return run.shown(
            self._settings,
            self._cluster.namespace,
            self._files.url,
            ap,
            about,
            used=used,
            config=config,
            warnings=warnings,
        )


def places_of(seen: VisibleSubject) -> list[RunPlace]:
    """The projects or tasks for which a model of this subject is pinned."""
    if seen.subject.kind is Kind.PROJECT:
        return [RunPlace(Kind.PROJECT.value, number) for number in seen.subject.ids]
    places = dict.fromkeys(
        RunPlace(Kind.PROJECT.value, project)
        if (project := whole_number(task.get("project_id"))) > 0
        else RunPlace(Kind.TASK.value, number)
        for number, task in zip(seen.subject.ids, seen.things, strict=True)
    )
    return list(places)

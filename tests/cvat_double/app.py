"""The routes of CVAT's REST API that are used here, with CVAT's own forms of answers and refusals."""

import hashlib
import io
import re
import secrets
import time
import zipfile
from collections.abc import Callable, Sequence

import httpx
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.cvat_double import answers, nuclio_calls, shapes
from tests.cvat_double.asked import base_of, json_of, number_of
from tests.cvat_double.export_answers import pieces, request_answer
from tests.cvat_double.exports import Export, Exports, default_name, request_id
from tests.cvat_double.faults import Faults
from tests.cvat_double.who import (
    SAFE,
    Answer,
    RefusedError,
    bad_request,
    check_accept,
    detail,
    forbidden,
    not_found,
    user_of,
)
from tests.cvat_double.world import CloudStorage, Job, Project, Seen, Task, User, World

Handler = Callable[[Request, User], Response]
MOST_OF_A_PAGE = 500


class CvatApp:
    """Holds what the routes need; `asgi` is the application."""

    def __init__(self, world: World, faults: Faults, exports: Exports, more: Sequence[Route] = ()) -> None:
        self.world, self.faults, self.exports = world, faults, exports
        task, project = "/api/tasks/{id:int}", "/api/projects/{id:int}"
        routes = [
            Route("/api/server/about", self._guarded(self._about, anonymous=True)),
            Route("/api/auth/login", self._guarded(self._login, anonymous=True), methods=["POST"]),
            self._route("/api/server/annotation/formats", self._formats),
            self._route("/api/users/self", self._self),
            self._route("/api/auth/access_tokens/self", self._own_token),
            self._route("/api/memberships", self._memberships),
            self._route("/api/tasks", self._tasks),
            self._route(task, self._task),
            self._route(task, self._change_task, "PATCH"),
            *self._both(task + "/annotations", self._annotations, "GET", "PUT", "PATCH", "DELETE"),
            *self._both(task + "/data", self._data, "GET"),
            self._route(task + "/data/meta", self._data_meta),
            self._route(task + "/dataset/export", self._export_task, "POST"),
            self._route(task + "/dataset/download", self._download),
            self._route("/api/projects", self._projects),
            self._route(project, self._project),
            self._route(project, self._change_project, "PATCH"),
            self._route(project + "/dataset/export", self._export_project, "POST"),
            self._route(project + "/dataset/download", self._download),
            self._route("/api/jobs", self._jobs),
            self._route("/api/jobs/{id:int}", self._job),
            self._route("/api/labels", self._labels),
            self._route("/api/requests", self._requests),
            self._route("/api/requests/{rq_id}", self._request),
            self._route("/api/requests/{rq_id}/cancel", self._cancel, "POST"),
            self._route("/api/cloudstorages/{id:int}", self._storage),
            self._route("/api/lambda/functions", self._functions),
            self._route("/api/lambda/functions/{name}", self._call_function, "POST"),
            self._route("/api/lambda/requests", self._annotate, "POST"),
            *more,
        ]
        self.asgi = Starlette(routes=routes)

    def _route(self, path: str, handler: Handler, *methods: str) -> Route:
        return Route(path, self._guarded(handler), methods=list(methods) or ["GET"])

    def _both(self, path: str, handler: Handler, *methods: str) -> list[Route]:
        """With a slash at the end, as the SDK writes it, and without."""
        return [self._route(path, handler, *methods), self._route(path + "/", handler, *methods)]

    def _guarded(self, handler: Handler, *, anonymous: bool = False) -> Callable[[Request], object]:
        """What holds for every route: faults, the media type, and who it is."""

        async def endpoint(request: Request) -> Response:
            request.state.body = await request.body()
            return await run_in_threadpool(answer, request)

        def answer(request: Request) -> Response:
            self._note(request)
            fault = self._fault(request)
            if fault is not None:
                return fault
            try:
                check_accept(request)
                if anonymous:
                    return handler(request, None)  # type: ignore[arg-type]
                user, request.state.read_only = user_of(request, self.world)
                return handler(request, user)
            except RefusedError as refused:
                return refused.answer()
            except shapes.InvalidAnnotationsError as error:
                return Answer(error.problem, 400)

        return endpoint

    def _note(self, request: Request) -> None:
        seen = Seen(request.method, request.url.path, request.url.query, dict(request.headers))
        with self.world.lock:
            self.world.seen.append(seen)

    def _fault(self, request: Request) -> Response | None:
        if self.faults.slow_s:
            time.sleep(self.faults.slow_s)
        if self.faults.bad_gateway:
            return Response("<html><h1>502 Bad Gateway</h1></html>", 502, media_type="text/html")
        if self.faults.one("page_at") and not self.faults.page_at:
            return Response("<html><h1>Back soon</h1></html>", 200, media_type="text/html")
        if self.faults.redirect_to:
            return RedirectResponse(self.faults.redirect_to + request.url.path, 302)
        of_annotations = request.url.path.rstrip("/").endswith("/annotations")
        if of_annotations and self.faults.slow_annotations_s:
            time.sleep(self.faults.slow_annotations_s)
        if self.faults.one("errors") or (of_annotations and self.faults.one("annotation_errors")):
            return Response("<h1>Server Error (500)</h1>", 500, media_type="text/html")
        return None

    # Who and what

    def _about(self, _request: Request, _user: User) -> Response:
        return Answer(answers.about(self.world.version))

    def _login(self, request: Request, _user: User) -> Response:
        given = json_of(request)
        for user in self.world.users:
            if (user.username, user.password) == (given.get("username"), given.get("password")):
                answer = Answer({"key": secrets.token_hex(20)})  # the old kind of token, which nothing here takes
                answer.set_cookie("sessionid", user.session, httponly=True, samesite="lax")
                answer.set_cookie("csrftoken", user.csrf, samesite="lax")
                return answer
        raise RefusedError(400, {"non_field_errors": ["Unable to log in with provided credentials."]})

    def _formats(self, _request: Request, _user: User) -> Response:
        return Answer(answers.formats())

    def _self(self, request: Request, user: User) -> Response:
        return Answer(answers.user_self(user, base_of(request)))

    def _own_token(self, request: Request, user: User) -> Response:
        if not request.headers.get("authorization", "").startswith("Bearer "):
            raise not_found()
        return Answer(answers.access_token(user, base_of(request), read_only=request.state.read_only))

    def _memberships(self, request: Request, user: User) -> Response:
        """Those of one organization, whose members may see each other; its slug is its number here."""
        slug = request.query_params.get("org") or request.headers.get("x-organization", "")
        found = [
            (member, organization, role)
            for (organization, number), role in sorted(self.world.roles.items())
            for member in self.world.users
            if member.id == number
            and slug in ("", str(organization))
            and request.query_params.get("user", member.username) == member.username
            and (user.is_admin or (organization, user.id) in self.world.roles)
        ]
        return self._page(request, found, lambda one, base: answers.membership(*one, base))

    # Tasks, projects, jobs, labels

    def _tasks(self, request: Request, user: User) -> Response:
        wanted = number_of(request, "project_id")
        mine = [task for task in self.world.tasks.values() if self.world.may_see_task(user, task)]
        if wanted is not None:
            mine = [task for task in mine if task.project and task.project.id == wanted]
        return self._page(request, sorted(mine, key=lambda task: -task.id), answers.task)

    def _task(self, request: Request, user: User) -> Response:
        return Answer(answers.task(self._visible_task(request, user), base_of(request)))

    def _change_task(self, request: Request, user: User) -> Response:
        task = self._visible_task(request, user)
        self._may_write(request)
        change = json_of(request)
        task.bug_tracker = str(change.get("bug_tracker", task.bug_tracker))
        task.name = str(change.get("name", task.name))
        return Answer(answers.task(task, base_of(request)))

    def _projects(self, request: Request, user: User) -> Response:
        mine = [one for one in self.world.projects.values() if self.world.may_see_project(user, one)]
        form = lambda one, base: answers.project(one, self.world, base)  # noqa: E731
        return self._page(request, sorted(mine, key=lambda one: -one.id), form)

    def _project(self, request: Request, user: User) -> Response:
        return Answer(answers.project(self._visible_project(request, user), self.world, base_of(request)))

    def _change_project(self, request: Request, user: User) -> Response:
        project = self._visible_project(request, user)
        self._may_write(request)
        project.bug_tracker = str(json_of(request).get("bug_tracker", project.bug_tracker))
        return Answer(answers.project(project, self.world, base_of(request)))

    def _jobs(self, request: Request, user: User) -> Response:
        task_id, project_id = number_of(request, "task_id"), number_of(request, "project_id")
        wanted = {name: request.query_params[name] for name in ("state", "stage") if name in request.query_params}
        mine = [
            (job, task)
            for task in self.world.tasks.values()
            for job in task.jobs
            if task_id in {None, task.id}
            and (project_id is None or (task.project is not None and task.project.id == project_id))
            and all(getattr(job, name) == value for name, value in wanted.items())
            and (self.world.may_see_task(user, task) or job.assignee is user)
        ]
        return self._page(request, mine, lambda one, base: answers.job(one[0], one[1], base))

    def _job(self, request: Request, user: User) -> Response:
        job, task = self._found_job(request.path_params["id"])
        if not self.world.may_see_task(user, task) and job.assignee is not user:
            raise forbidden()
        return Answer(answers.job(job, task, base_of(request)))

    def _found_job(self, number: int) -> tuple[Job, Task]:
        for task in self.world.tasks.values():
            for job in task.jobs:
                if job.id == number:
                    return job, task
        raise not_found()

    def _labels(self, request: Request, user: User) -> Response:
        task_id, project_id = number_of(request, "task_id"), number_of(request, "project_id")
        if task_id is not None:
            task = self.world.tasks.get(task_id)
            if task is None:
                raise not_found()
            if not self.world.may_see_task(user, task):
                raise forbidden()
            of_task, project = (None, task.project.id) if task.project else (task.id, None)
            found = [answers.label(label, of_task, project) for label in task.labels]
        elif project_id is not None:
            owner = self.world.projects.get(project_id)
            if owner is None:
                raise not_found()
            if not self.world.may_see_project(user, owner):
                raise forbidden()
            found = [answers.label(label, None, owner.id) for label in owner.labels]
        else:
            raise bad_request("task_id or project_id is needed here")
        return self._page(request, found, lambda one, _base: one)

    # Annotations and images

    def _annotations(self, request: Request, user: User) -> Response:
        task = self._visible_task(request, user)
        if request.method == "GET":
            return Answer(shapes.read(task))
        self._may_write(request)
        if request.method == "PUT":
            return Answer(shapes.put(self.world, task, json_of(request)))
        if request.method == "DELETE":
            shapes.clear(self.world, task)
            return Response(status_code=204)
        action = {"create": shapes.create, "update": shapes.update, "delete": shapes.delete}.get(
            request.query_params.get("action", "")
        )
        if action is None:
            raise bad_request("Please specify a correct 'action' for the request")
        return Answer(action(self.world, task, json_of(request)))

    def _data(self, request: Request, user: User) -> Response:
        task = self._visible_task(request, user)
        kind, number = request.query_params.get("type"), number_of(request, "number")
        if kind not in {"chunk", "frame"} or number is None:
            raise bad_request("Data type not specified or not supported, or number is not there")
        if kind == "frame":
            if not 0 <= number < len(task.frames):
                raise not_found()
            return Response(task.frames[number].content, media_type="image/jpeg")
        frames = task.frames[number * task.chunk_size : (number + 1) * task.chunk_size]
        if not frames:
            raise not_found()
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for index, frame in enumerate(frames):
                archive.writestr(f"{index:06d}.jpeg", frame.content)
        return Response(buffer.getvalue(), media_type="application/zip")

    def _data_meta(self, request: Request, user: User) -> Response:
        return Answer(answers.data_meta(self._visible_task(request, user)))

    # Exports and their requests

    def _export_task(self, request: Request, user: User) -> Response:
        task = self._visible_task(request, user)
        if not self.world.may_export_task(user, task):
            raise forbidden()
        return self._export(request, user, task)

    def _export_project(self, request: Request, user: User) -> Response:
        project = self._visible_project(request, user)
        if not self.world.may_export_project(user, project):
            raise forbidden()
        return self._export(request, user, project)

    def _export(self, request: Request, user: User, target: Task | Project) -> Response:
        """Who may is decided before this; CVAT looks at the format and the rest only then."""
        if self.faults.export_answer:
            return Response("<h1>Not here</h1>", self.faults.export_answer, media_type="text/html")
        asked = request.query_params
        wanted = asked.get("format", "")
        if wanted not in dict(answers.EXPORTERS):
            raise bad_request("Unknown format specified for the request")
        save_images = asked.get("save_images", "false").lower() in {"true", "1"}
        storage = self._destination(request, user, target)
        kind = "task" if isinstance(target, Task) else "project"
        name = asked.get("filename") or default_name(kind, target.id, wanted, save_images=save_images)
        rq_id = request_id(kind, target.id, user, wanted, save_images=save_images)
        if not self.exports.start(Export(rq_id, user, target, wanted, save_images, storage, name)):
            return Answer({"rq_id": rq_id}, 409)
        return Answer({"rq_id": rq_id}, 202)

    def _destination(self, request: Request, user: User, target: Task | Project) -> CloudStorage | None:
        setting = target.target_storage if isinstance(target, Task) else None
        location = request.query_params.get("location") or ("local" if setting is None else "cloud_storage")
        if location == "local":
            return None
        if location != "cloud_storage":
            raise bad_request(f'"{location}" is not a valid choice.')
        number = number_of(request, "cloud_storage_id")
        if request.query_params.get("location") is None:
            number = setting
        if number is None:  # CVAT does not handle this, and neither does the double
            raise RefusedError(500, "Server Error (500)")
        storage = self.world.storages.get(number)
        if storage is None:
            raise bad_request(f"The specified cloud storage #{number} does not exist.")
        if not self.world.may_see_storage(user, storage) or request.state.read_only:
            raise forbidden()
        return storage

    def _requests(self, request: Request, user: User) -> Response:
        asked = request.query_params
        mine = [export for export in self.exports.by_id.values() if export.owner is user]
        for kind in ("task", "project"):
            number = number_of(request, f"{kind}_id")
            if number is not None:
                mine = [export for export in mine if (export.target_kind, export.target.id) == (kind, number)]
        for name, value in {"status": "status", "format": "format", "subresource": "subresource"}.items():
            if name in asked:
                mine = [export for export in mine if getattr(export, value) == asked[name]]
        return self._page(request, mine, request_answer)

    def _request(self, request: Request, user: User) -> Response:
        return Answer(request_answer(self._own_request(request.path_params["rq_id"], user), base_of(request)))

    def _cancel(self, request: Request, user: User) -> Response:
        if not self.exports.cancel(self._own_request(request.path_params["rq_id"], user)):
            raise bad_request("Only requests that have not yet been started can be cancelled")
        return Response(status_code=200)

    def _own_request(self, rq_id: str, user: User) -> Export:
        export = self.exports.by_id.get(rq_id)
        if export is None:
            raise not_found()
        if export.owner is not user and not user.is_admin:
            raise forbidden()
        return export

    def _download(self, request: Request, user: User) -> Response:
        export = self._own_request(request.query_params.get("rq_id", ""), user)
        if export.status != "finished" or export.result is None:
            raise detail(404, "The exported file has expired, please retry exporting")
        content, status = export.result, 200
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        headers = {"etag": tag, "content-disposition": 'attachment; filename="dataset.zip"'}
        start = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        if start and self.faults.ranges and request.headers.get("if-range", tag) == tag:
            headers["content-range"] = f"bytes {start[1]}-{len(content) - 1}/{len(content)}"
            content, status = content[int(start[1]) :], 206
        headers["content-length"] = str(len(content))
        cut = self.faults.one("cut_downloads")
        return StreamingResponse(
            pieces(content, self.faults.download_pause_s, cut=cut),
            status,
            headers=headers,
            media_type="application/zip",
        )

    def _storage(self, request: Request, user: User) -> Response:
        storage = self.world.storages.get(request.path_params["id"])
        if storage is None:
            raise not_found()
        if not self.world.may_see_storage(user, storage):
            raise forbidden()
        return Answer(answers.cloud_storage(storage, base_of(request)))

    # Automatic annotation

    def _functions(self, _request: Request, _user: User) -> Response:
        if not self.world.nuclio:
            return Answer([])
        return Answer([one.answer() for one in self._from_nuclio(nuclio_calls.functions, self.world.nuclio)])

    def _call_function(self, request: Request, user: User) -> Response:
        """One frame, as the dialog in the annotation page does it: nothing is written."""
        asked = json_of(request)
        task = self._visible(self.world.tasks.get(asked.get("task")), user)
        if not 0 <= asked.get("frame", -1) < len(task.frames):
            raise bad_request("the frame is out of range")
        image = task.frames[asked["frame"]].content
        name = request.path_params["name"]
        return Answer(self._from_nuclio(nuclio_calls.invoke, self.world.nuclio, name, image, asked.get("threshold")))

    def _annotate(self, request: Request, user: User) -> Response:
        """The whole task. CVAT works on it in the background; the double has done it when it answers."""
        asked = json_of(request)
        task = self._visible(self.world.tasks.get(asked.get("task")), user)
        self._may_write(request)
        options = {"threshold": asked.get("threshold"), "cleanup": bool(asked.get("cleanup"))}
        arguments = (self.world, task, self.world.nuclio, asked.get("function", ""))
        written = self._from_nuclio(nuclio_calls.annotate, *arguments, **options)
        return Answer({"id": f"autoannotate-{task.id}", "status": "finished", "progress": 100, "shapes": written})

    def _from_nuclio(self, call: Callable, *arguments: object, **options: object):
        try:
            return call(*arguments, **options)
        except (nuclio_calls.FunctionError, httpx.HTTPError) as error:
            raise RefusedError(502, str(error)) from error

    # What several routes share

    def _visible_task(self, request: Request, user: User) -> Task:
        return self._visible(self.world.tasks.get(request.path_params["id"]), user)

    def _visible(self, task: Task | None, user: User) -> Task:
        if task is None:
            raise not_found()
        if not self.world.may_see_task(user, task):
            raise forbidden()
        return task

    def _visible_project(self, request: Request, user: User) -> Project:
        project = self.world.projects.get(request.path_params["id"])
        if project is None:
            raise not_found()
        if not self.world.may_see_project(user, project):
            raise forbidden()
        return project

    def _may_write(self, request: Request) -> None:
        if request.state.read_only and request.method not in SAFE:
            raise forbidden()

    def _page(self, request: Request, entries: Sequence, form: Callable) -> Response:
        size = min(number_of(request, "page_size") or self.faults.page_size, MOST_OF_A_PAGE)
        page = number_of(request, "page") or 1
        pages = max(1, -(-len(entries) // size))
        if not 1 <= page <= pages:
            raise detail(404, "Invalid page.")
        results = [form(one, base_of(request)) for one in entries[(page - 1) * size : page * size]]
        after = str(request.url.include_query_params(page=page + 1)) if page < pages else None
        before = str(request.url.include_query_params(page=page - 1)) if page > 1 else None
        return Answer({"count": len(entries), "next": after, "previous": before, "results": results})

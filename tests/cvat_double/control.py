"""`/_double/…`: what a test in another process may see and do. Not part of CVAT; no check of who asks.

GET  /_double/state                   users with tokens and sessions, tasks, projects, storages, requests seen
POST /_double/faults  {"slow_s": 1}   turn knobs (faults.py)
POST /_double/projects {"name": "Parts", "labels": ["bolt"]}      labels beside those of the drawn parts
POST /_double/tasks   {"name": "Parts 2", "images": 4, "seed": 1, "project": 3, "with_boxes": false}
                      {…, "names": ["a.jpg", "b.png"], "damaged": true}   other names; pictures that are none
POST /_double/away    {"seconds": 3, "how": "closed" | "502"}
POST /_double/revoke  {"user": "service"}
POST /_double/nuclio  {"address": "http://…:8070"}   where automatic annotation finds its functions
"""

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.cvat_double.drawing import LABELS

if TYPE_CHECKING:
    from tests.cvat_double.server import CvatDouble


def control_routes(double: "CvatDouble") -> list[Route]:
    actions: dict[str, Callable[[CvatDouble, dict], object]] = {
        "faults": _faults,
        "projects": _project,
        "tasks": _task,
        "away": _away,
        "revoke": _revoke,
        "nuclio": _nuclio,
    }

    async def act(request: Request) -> Response:
        action = actions.get(request.path_params["action"])
        if action is None:
            return JSONResponse({"error": "no such action"}, 404)
        body = json.loads(await request.body() or b"{}")
        return JSONResponse(await run_in_threadpool(functools.partial(action, double, body)))

    def state(_request: Request) -> Response:
        return JSONResponse(_state(double))

    return [Route("/_double/state", state), Route("/_double/{action}", act, methods=["POST"])]


def _state(double: "CvatDouble") -> dict:
    world = double.world
    users = {
        user.username: {"id": user.id, "token": user.token, "session": user.session, "csrf": user.csrf}
        for user in world.users
    }
    tasks = [
        {
            "id": task.id,
            "name": task.name,
            "project": task.project.id if task.project else None,
            "images": len(task.frames),
            "shapes": len(task.shapes),
            "automatic": sum(shape["source"] == "auto" for shape in task.shapes),
        }
        for task in world.tasks.values()
    ]
    return {
        "users": users,
        "tasks": tasks,
        "projects": [{"id": one.id, "name": one.name} for one in world.projects.values()],
        "storages": [{"id": one.id, "bucket": one.bucket} for one in world.storages.values()],
        "exports": [
            {"rq_id": one.rq_id, "filename": one.filename, "status": one.status} for one in double.exports.asked
        ],
        "seen": [{"method": one.method, "path": one.path, "query": one.query} for one in world.seen],
    }


def _faults(double: "CvatDouble", body: dict) -> object:
    for name, value in body.items():
        double.faults.set(name, value)
    return {}


def _project(double: "CvatDouble", body: dict) -> object:
    return {"id": double.add_project(body["name"], labels=(*LABELS, *body.get("labels", ()))).id}


def _task(double: "CvatDouble", body: dict) -> object:
    project = double.world.projects[body.pop("project")] if body.get("project") else None
    names, damaged = body.pop("names", ()), body.pop("damaged", False)
    task = double.add_drawn_task(body.pop("name"), project=project, **body)
    for frame, name in zip(task.frames, names, strict=False):
        frame.name = name
    if damaged:
        task.frames = [replace(frame, content=b"no picture") for frame in task.frames]
    return {"id": task.id}


def _away(double: "CvatDouble", body: dict) -> object:
    if body.get("how") == "502":
        double.away_for(float(body["seconds"]), how="502")
    else:
        double.leave_soon(float(body["seconds"]))
    return {}


def _revoke(double: "CvatDouble", body: dict) -> object:
    double.revoke(next(user for user in double.world.users if user.username == body["user"]))
    return {}


def _nuclio(double: "CvatDouble", body: dict) -> object:
    double.world.nuclio = body["address"]
    return {}

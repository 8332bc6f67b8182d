"""The double as a running server: on a free port, in a thread, with methods for what a test sets up and breaks."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Sequence

import uvicorn

from tests.cvat_double import nuclio_calls
from tests.cvat_double.app import CvatApp
from tests.cvat_double.control import control_routes
from tests.cvat_double.drawing import LABELS, blank, drawn
from tests.cvat_double.exports import Exports
from tests.cvat_double.faults import Faults
from tests.cvat_double.world import CloudStorage, Frame, Job, Label, Project, Seen, Task, User, World, now

COLORS = ("#ff0000", "#00aa00", "#0000ff", "#ffaa00", "#aa00ff", "#00aaaa")


class CvatDouble:
    """A CVAT with four users: `admin`, `service` (what the bridge works as), `ann` (owns things), `bob` (nothing)."""

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.world, self.faults = World(), Faults()
        self.exports = Exports(self.world, self.faults)
        self.admin = self.world.add_user("admin", admin=True)
        self.service = self.world.add_user("service", admin=True)
        self.ann = self.world.add_user("ann")
        self.bob = self.world.add_user("bob")
        self._app = CvatApp(self.world, self.faults, self.exports, control_routes(self))
        self._host, self._port = host, port
        self._place: socket.socket | None = None
        """Holds the port, so that nobody else gets it while the server is away."""
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._timers: list[threading.Timer] = []

    @property
    def url(self) -> str:
        """`http://host:port`, the same before and after the server was away."""
        return f"http://{self._host}:{self._port}"

    @property
    def seen(self) -> list[Seen]:
        """Every request so far."""
        return list(self.world.seen)

    # The server

    def start(self) -> None:
        """Listen, and return when the first request would be answered."""
        if self._place is None:
            self._place = self._bound()
            self._port = self._place.getsockname()[1]
        listener = self._listening()
        config = uvicorn.Config(
            self._app.asgi,
            log_level="critical",
            access_log=False,
            lifespan="off",
            ws="none",
            loop="asyncio",
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise RuntimeError(f"the double does not listen on {self.url}")
            time.sleep(0.005)

    def _listening(self) -> socket.socket:
        """A listening socket at the double's address: as soon as nobody else listens there, within a minute."""
        end = time.monotonic() + 60
        while True:
            try:
                listener = self._bound()
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)
            else:
                listener.listen(2048)
                return listener

    def _bound(self) -> socket.socket:
        """A socket at the double's address, which does not listen yet."""
        bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((self._host, self._port))
        except OSError:
            bound.close()
            raise
        return bound

    def stop(self) -> None:
        """Close the socket and every connection; what it knows stays, and exports go on."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join()  # without a limit: a machine that stood still must not leave the port taken
            self._server = self._thread = None

    def close(self) -> None:
        """Stop for good."""
        for timer in self._timers:
            timer.cancel()
            timer.join()
        self.stop()
        if self._place is not None:
            self._place.close()
        self.exports.close()

    def away_for(self, seconds: float, *, how: str = "closed") -> None:
        """Away from now on, and back by itself: `closed` refuses connections, `502` answers with that."""
        if how == "502":
            self.faults.bad_gateway = True
            back = threading.Timer(seconds, self.faults.set, ("bad_gateway", False))
        else:
            self.stop()
            back = threading.Timer(seconds, self.start)
        self._timers.append(back)
        back.start()

    def leave_soon(self, seconds: float) -> None:
        """As `away_for`, a moment later: whoever asks for it over the wire still gets an answer."""
        leaving = threading.Timer(0.1, self.away_for, (seconds,))
        self._timers.append(leaving)
        leaving.start()

    # What is in it

    def add_project(self, name: str, *, labels: Sequence[str] = LABELS, owner: User | None = None) -> Project:
        project = Project(self.world.number(), name, owner or self.ann, self._new_labels(labels))
        self.world.projects[project.id] = project
        return project

    def add_task(
        self,
        name: str,
        frames: Sequence[Frame],
        *,
        labels: Sequence[str] = LABELS,
        project: Project | None = None,
        owner: User | None = None,
        subset: str = "",
        images_per_job: int = 0,
    ) -> Task:
        """A task with these images and no annotations, in jobs of `images_per_job` (0: one job)."""
        step = images_per_job or max(1, len(frames))
        spans = [(start, min(start + step, len(frames)) - 1) for start in range(0, len(frames), step)]
        task = Task(
            id=self.world.number(),
            name=name,
            owner=owner or (project.owner if project else self.ann),
            frames=list(frames),
            jobs=[Job(self.world.number(), *span) for span in spans],
            project=project,
            own_labels=[] if project else self._new_labels(labels),
            subset=subset,
        )
        self.world.tasks[task.id] = task
        return task

    def add_drawn_task(
        self,
        name: str,
        *,
        images: int = 4,
        seed: int = 0,
        project: Project | None = None,
        owner: User | None = None,
        subset: str = "",
        images_per_job: int = 0,
        with_boxes: bool = True,
    ) -> Task:
        """A task with drawn pictures and, unless told otherwise, the boxes of what is in them."""
        pictures = [drawn(seed, index) for index in range(images)]
        frames = [frame for frame, _ in pictures]
        options = {"project": project, "owner": owner, "subset": subset, "images_per_job": images_per_job}
        task = self.add_task(name, frames, **options)
        if with_boxes:
            for number, (_, parts) in enumerate(pictures):
                for label, box, occluded in parts:
                    self.add_box(task, number, label, box, occluded=occluded)
        return task

    def add_blank_task(self, name: str, *, images: int = 2, **options: object) -> Task:
        """A task whose images are small and grey: where only its fields matter."""
        frames = [blank(f"image_{index:05d}.png") for index in range(images)]
        return self.add_task(name, frames, **options)  # type: ignore[arg-type]

    def add_box(
        self,
        task: Task,
        frame: int,
        label: str,
        box: Sequence[float],
        *,
        occluded: bool = False,
        source: str = "manual",
    ) -> dict:
        """A rectangle (xyxy pixels) as a person drew it."""
        label_id = next(one.id for one in task.labels if one.name == label)
        shape = {
            "id": self.world.number(),
            "type": "rectangle",
            "label_id": label_id,
            "frame": frame,
            "points": [float(number) for number in box],
            "occluded": occluded,
            "outside": False,
            "z_order": 0,
            "rotation": 0.0,
            "group": 0,
            "source": source,
            "attributes": [],
            "elements": [],
            "score": 1.0,
        }
        task.shapes.append(shape)
        return shape

    def add_cloud_storage(
        self, bucket: str, *, endpoint: str, access_key: str, secret_key: str, owner: User | None = None
    ) -> CloudStorage:
        """A bucket that exports can go to; it belongs to the service account unless told otherwise."""
        keys = {"access_key": access_key, "secret_key": secret_key}
        storage = CloudStorage(self.world.number(), owner or self.service, bucket, endpoint, **keys)
        self.world.storages[storage.id] = storage
        return storage

    def complete(self, task: Task, jobs: int | None = None) -> None:
        """Set the first `jobs` jobs (None: all) to accepted and completed."""
        for job in task.jobs[:jobs]:
            job.stage, job.state = "acceptance", "completed"
        task.updated = now()

    def finish(self, task: Task, jobs: int | None = None) -> None:
        """*Finish the job* in the editor, for the first `jobs` jobs (None: all): the stage stays."""
        for job in task.jobs[:jobs]:
            job.state = "completed"
        task.updated = now()

    def add_member(self, user: User, organization: int, role: str) -> None:
        """A user in an organization, which is no more than its number here."""
        self.world.roles[organization, user.id] = role

    def revoke(self, user: User) -> None:
        """From now on the user's tokens and session are not accepted."""
        self.world.revoked |= {user.token, user.read_only_token, user.session}

    def label_names(self, task: Task) -> dict[int, str]:
        return {label.id: label.name for label in task.labels}

    def functions(self, address: str) -> list[nuclio_calls.Function]:
        """The models that CVAT would list with this Nuclio address."""
        return nuclio_calls.functions(address)

    def annotate(self, task: Task, address: str, name: str, **options: object) -> int:
        """Automatic annotation of the whole task; how many shapes were written."""
        return nuclio_calls.annotate(self.world, task, address, name, **options)  # type: ignore[arg-type]

    def _new_labels(self, names: Sequence[str]) -> list[Label]:
        return [Label(self.world.number(), name, COLORS[at % len(COLORS)]) for at, name in enumerate(names)]


@contextlib.contextmanager
def running(*, host: str = "127.0.0.1", port: int = 0) -> Iterator[CvatDouble]:
    """A double that is started, and closed in the end."""
    double = CvatDouble(host=host, port=port)
    double.start()
    try:
        yield double
    finally:
        double.close()

"""The settings of the bridge: `bridge.yaml` in the chart's ConfigMap.

Read by the service, the steps `export` and `annotate`, and the model server. CVAT_BRIDGE_SETTINGS holds the path.
Secrets are separate: CVAT_ACCESS_TOKEN, CVAT_BRIDGE_SIGNING_KEY and CVAT_WEBHOOK_SECRET.
"""

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError, field_validator

from cvat_client.errors import BridgeError
from run_config.errors import ConfigError
from run_config.installation import EXPORTS, Name, Part, Prefix
from run_config.yaml_text import read_yaml

VARIABLE = "CVAT_BRIDGE_SETTINGS"
"""The environment variable with the path of the settings file."""

Address = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$")]
Origin = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#@]+$")]


class DoneJobs(StrEnum):
    """When a job counts as done."""

    COMPLETED = "completed"
    ACCEPTED = "accepted"


class Cvat(Part):
    """CVAT's addresses, and the organization and cloud storage of its service account."""

    url: Address
    """URL at which pods reach CVAT's server, such as http://cvat-backend-service:8080."""
    public_origin: Origin
    """CVAT's origin in the browser, such as https://cvat.example.org."""
    organization: str = ""
    """Slug of the service account's organization."""
    cloud_storage_id: int | None = None
    """CVAT's cloud storage for the store's bucket. None: the step downloads exports and uploads them itself."""
    done_jobs: DoneJobs = DoneJobs.COMPLETED
    """completed: jobs with the state completed, as after *Finish the job*. accepted: also in the stage acceptance."""
    ca_file: str = ""
    """File of CA certificates for CVAT's certificate. Empty: the default CA certificates."""


class Links(Part):
    """Addresses of other web pages."""

    argo: str = ""
    """Address of Argo's web page. Empty: no links to it."""


class Exports(Part):
    """The place of exports in the store, and their time limits."""

    prefix: Prefix = EXPORTS
    save_for_s: int = Field(default=1800, ge=60)
    """How long the step retries while CVAT is unreachable. After that it fails, and the workflow may retry it."""
    longest_s: int = Field(default=21_600, ge=60)
    """Time limit of one export, including the wait for another user's export."""


class UserLimits(Part):
    """Limits on runs, requests and submissions."""

    runs_per_user: int = Field(default=2, ge=1)
    runs_of_events: int = Field(default=20, ge=1)
    """Unfinished runs of all triggers together."""
    request_bytes: int = Field(default=65_536, ge=1024)
    submissions_per_minute: int = Field(default=10, ge=1)


class Grants(Part):
    """How long a grant is valid."""

    lifetime_s: int = Field(default=3600, ge=60)
    accept_expired: bool = False


class Controls(Part):
    """Actions for which the chart gives the bridge a Role."""

    stop: bool = False
    rerun: bool = False
    nodes: bool = False


class Event(StrEnum):
    """Events of CVAT that can start a run."""

    TASK_COMPLETED = "task-completed"
    EXPORT_FINISHED = "export-finished"


class Trigger(Part):
    """An event of CVAT that starts a run automatically."""

    event: Event
    template: Name = "cvat-train"
    projects: tuple[int, ...] = ()
    """Only tasks of these projects. Empty: all tasks, also those without a project."""
    parameters: Mapping[str, str] = {}


class Models(Part):
    """How trained models are shown in CVAT."""

    threshold: float | None = Field(default=None, ge=0, le=1)
    """Lowest score of a box if neither the call nor the run sets one. None: each model's own threshold."""
    keep_repeated: bool = False
    """Keep a box that has nearly the place of a better box."""
    most: int = Field(default=20, ge=1)
    """At most this many models are listed, newest first."""
    loaded: int = Field(default=3, ge=1)
    """Models kept in memory at the same time."""
    nuclio: str = ""
    """Address of a Nuclio dashboard for functions other than trained models. Empty: no dashboard."""


class BridgeSettings(Part):
    """The whole settings file."""

    version: Literal[1] = 1
    cvat: Cvat
    links: Links = Links()
    exports: Exports = Exports()
    limits: UserLimits = UserLimits()
    grants: Grants = Grants()
    controls: Controls = Controls()
    triggers: tuple[Trigger, ...] = ()
    models: Models = Models()

    @field_validator("triggers")
    @classmethod
    def _one_of_each(cls, triggers: tuple[Trigger, ...]) -> tuple[Trigger, ...]:
        places: dict[tuple[Event, str], list[int | None]] = {}
        for one in triggers:
            places.setdefault((one.event, one.template), []).extend(one.projects or (None,))
        for projects in places.values():
            # A trigger for all projects overlaps with a trigger for a named project.
            if len(set(projects)) != len(projects) or (None in projects and len(projects) > 1):
                raise ValueError("two triggers would start the same template for the same event")
        return triggers


def load_settings(environment: Mapping[str, str] = os.environ) -> BridgeSettings:
    """Load the settings of this process. BridgeError: CVAT_BRIDGE_SETTINGS is unset, or the file missing or invalid."""
    path = environment.get(VARIABLE)
    if not path:
        raise BridgeError(f"{VARIABLE} is not set: it names the bridge's settings, bridge.yaml")
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BridgeError(
            f"the bridge's settings are missing ({path}): the chart creates them if cvatBridge.enabled is true"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BridgeError(f"the bridge's settings {path} cannot be read: {error}") from error
    return parse_settings(text, path)


def parse_settings(text: str, where: str) -> BridgeSettings:
    """Parse the file's text. `where` names the file in messages. BridgeError: it is invalid."""
    try:
        return BridgeSettings.model_validate(read_yaml(text, where))
    except ConfigError as error:
        raise BridgeError(str(error)) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the document"
        raise BridgeError(f"{where}: {place}: {first['msg']}") from error

"""What the platform engineer has set for the bridge: `bridge.yaml` of the chart's ConfigMap.

Read by the service, by the steps `export` and `annotate`, and by the model server; named by
CVAT_BRIDGE_SETTINGS. Secrets are not in it: they come as CVAT_ACCESS_TOKEN, CVAT_BRIDGE_SIGNING_KEY and
CVAT_WEBHOOK_SECRET.
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
"""Environment variable with the file's path."""

Address = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$")]
Origin = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#@]+$")]


class Cvat(Part):
    """Where CVAT is, and what its service account may use."""

    url: Address
    """Where our pods reach CVAT's server, such as http://cvat-backend-service:8080."""
    public_origin: Origin
    """What stands in the browser's address bar, such as https://cvat.example.org."""
    organization: str = ""
    """Slug of the organization that the service account works in."""
    cloud_storage_id: int | None = None
    """CVAT's cloud storage that is the store's bucket; None: the step moves the export itself."""
    ca_file: str = ""
    """Certificates that CVAT's is signed by."""


class Links(Part):
    """Where pages of others are."""

    argo: str = ""
    """Address of Argo's page; empty: no links to it."""


class Exports(Part):
    """Where exports go in the store."""

    prefix: Prefix = EXPORTS
    save_for_s: int = Field(default=1800, ge=60)
    """How long CVAT being away is waited for before the step gives up for its retry."""
    longest_s: int = Field(default=21_600, ge=60)
    """How long one export may take, the wait for another's included."""


class UserLimits(Part):
    """What one user may ask for, and what events may start."""

    runs_per_user: int = Field(default=2, ge=1)
    runs_of_events: int = Field(default=20, ge=1)
    """Unfinished runs, of all triggers together."""
    request_bytes: int = Field(default=65_536, ge=1024)
    submissions_per_minute: int = Field(default=10, ge=1)


class Grants(Part):
    """How long a signature is good."""

    lifetime_s: int = Field(default=3600, ge=60)
    accept_expired: bool = False


class Controls(Part):
    """What the chart gave the bridge a role for."""

    stop: bool = False
    rerun: bool = False
    nodes: bool = False


class Event(StrEnum):
    """What CVAT may tell."""

    TASK_COMPLETED = "task-completed"
    EXPORT_FINISHED = "export-finished"


class Trigger(Part):
    """A run that an event starts, without a click."""

    event: Event
    template: Name = "cvat-train"
    projects: tuple[int, ...] = ()
    """Only tasks of these projects; empty: of any, and of none."""
    parameters: Mapping[str, str] = {}


class Models(Part):
    """How trained models appear in CVAT."""

    threshold: float | None = Field(default=None, ge=0, le=1)
    """Lowest score of a box where neither the call nor the run says; None: each model's own."""
    most: int = Field(default=20, ge=1)
    """Newest models that are listed."""
    loaded: int = Field(default=3, ge=1)
    """Models kept in memory at a time."""
    nuclio: str = ""
    """Address of a Nuclio dashboard that answers what is not ours; empty: there is none."""


class BridgeSettings(Part):
    """The whole file."""

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
            # One for any project is for those that another one names, too.
            if len(set(projects)) != len(projects) or (None in projects and len(projects) > 1):
                raise ValueError("two triggers would start the same template for the same event")
        return triggers


def load_settings(environment: Mapping[str, str] = os.environ) -> BridgeSettings:
    """The settings of this process. BridgeError: the file is not named, not there, or not right."""
    path = environment.get(VARIABLE)
    if not path:
        raise BridgeError(f"{VARIABLE} is not set: it names the bridge's settings, bridge.yaml")
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BridgeError(
            f"the bridge's settings are missing ({path}): the chart makes them where cvatBridge.enabled is true"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BridgeError(f"the bridge's settings {path} cannot be read: {error}") from error
    return parse_settings(text, path)


def parse_settings(text: str, where: str) -> BridgeSettings:
    """Read the file's text; `where` names it in messages. BridgeError: it is wrong."""
    try:
        return BridgeSettings.model_validate(read_yaml(text, where))
    except ConfigError as error:
        raise BridgeError(str(error)) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the document"
        raise BridgeError(f"{where}: {place}: {first['msg']}") from error

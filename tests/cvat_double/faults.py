"""What a test can make go wrong. Every knob works at once and until it is turned back."""

from dataclasses import dataclass, fields


@dataclass(slots=True)
class Faults:
    """All off: a CVAT that is well."""

    export_answer: int = 0
    """Whoever may export is answered with this status instead, by what stands before CVAT."""
    export_takes_s: float = 0.0
    """Seconds that an export is `started` before it is `finished`."""
    export_fails: str = ""
    """Exports end as `failed` with this message."""
    export_failures: int = -1
    """How many exports fail so before they succeed again; -1: all of them."""
    annotation_export_fails: str = ""
    """Exports without images end as `failed` with this message, and others do not."""
    export_hangs: bool = False
    """Exports stay `started` until this is turned off."""
    export_forgotten: int = 0
    """So many finished requests are forgotten at once, their result with them: CVAT answers 404."""
    export_truncated: int = 0
    """So many exports lose their last bytes on the way into the bucket."""
    errors: int = 0
    """So many requests are answered with 500."""
    bad_gateway: bool = False
    """Every request is answered 502 by what stands before CVAT."""
    page_at: int = 0
    """The request of this number from now on gets a page, with status 200, from what stands before CVAT."""
    slow_s: float = 0.0
    """Seconds that every answer takes longer."""
    slow_annotations_s: float = 0.0
    """Seconds that annotations take longer, and nothing else."""
    annotation_errors: int = 0
    """So many requests for annotations are answered with 500."""
    cut_downloads: int = 0
    """So many downloads break off in the middle."""
    download_pause_s: float = 0.0
    """Seconds that a download rests in the middle."""
    ranges: bool = True
    """Whether a download can be gone on with from the middle."""
    redirect_to: str = ""
    """Every request is sent to this address."""
    page_size: int = 10
    """Entries of a page of a list, when the caller does not say."""

    def set(self, name: str, value: object) -> None:
        """Turn one knob by its name."""
        if name not in {field.name for field in fields(self)}:
            raise KeyError(name)
        setattr(self, name, value)

    def one(self, name: str) -> bool:
        """Whether a counted fault strikes now; it then strikes once less."""
        left = getattr(self, name)
        if left <= 0:
            return False
        setattr(self, name, left - 1)
        return True

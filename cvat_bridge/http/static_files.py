"""Serve the plugin, the page and their files from the package. Browsers revalidate them by ETag."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

FOLDER = Path(__file__).parents[1] / "static"

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file, held in memory."""

    content: bytes
    type: str
    etag: str


class StaticFiles:
    """The files of a folder, by name."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._files = {
            path.name: StaticFile(
                content := path.read_bytes(), _TYPES[path.suffix], f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            )
            for path in sorted(folder.glob("*"))
            if path.is_file() and path.suffix in _TYPES
        }

    def answer(self, name: str, request: Request) -> Response:
        """The response for a file: 200, 304 (not modified) or 404."""
        file = self._files.get(name)
        if file is None:
            return Response("There is no such file.\n", 404, media_type="text/plain")
        headers = {"ETag": file.etag, "Cache-Control": "no-cache"}
        if file.type.startswith("text/html"):
            headers["Content-Security-Policy"] = PAGE_POLICY
            headers["X-Frame-Options"] = "DENY"
        seen = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
        if file.etag in seen:
            return Response(status_code=304, headers=headers)
        return Response(file.content, headers={**headers, "Content-Type": file.type})

"""What a request asks for: its address, its JSON, its numbers."""

import json

from starlette.requests import Request

from tests.cvat_double.who import bad_request, detail


def base_of(request: Request) -> str:
    return str(request.base_url).rstrip("/")


def json_of(request: Request) -> dict:
    try:
        return json.loads(request.state.body or b"{}")
    except ValueError as error:
        raise detail(400, f"JSON parse error - {error}") from None


def number_of(request: Request, name: str) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    if not text.isdecimal():
        raise bad_request(f"{name}: Enter a number.")
    return int(text)

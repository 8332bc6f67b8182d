"""One HTTP client that speaks for several people must not carry a cookie from one to the next."""

from http.cookiejar import DefaultCookiePolicy

import httpx


def keep_no_cookies(client: httpx.Client | httpx.AsyncClient) -> None:
    """Make a client drop each cookie that a server sets. A `Cookie` header of a request itself is still sent."""
    client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))

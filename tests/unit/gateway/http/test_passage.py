"""Which headers go on: none of one connection, no cookies, none of ours."""

from __future__ import annotations

from shammah_gateway.http.passage import forward_headers, reply_headers


def test_what_is_of_the_connection_stays_with_it() -> None:
    raw = [
        (b"connection", b"keep-alive, X-Hop"),
        (b"x-hop", b"1"),
        (b"cookie", b"session=secret"),
        (b"x-shammah-no-train", b"1"),
        (b"anthropic-version", b"2026-10-21"),
    ]
    assert dict(forward_headers(raw)) == {"anthropic-version": "2026-10-21"}


def test_the_upstreams_cookies_are_not_the_callers() -> None:
    raw = [(b"Set-Cookie", b"__cf_bm=1"), (b"Connection", b"x-hop"), (b"X-Hop", b"1"), (b"request-id", b"req_1")]
    found = reply_headers(raw, {"x-shammah-route": "teacher"}, stream=False)
    assert found == [(b"request-id", b"req_1"), (b"x-shammah-route", b"teacher")]

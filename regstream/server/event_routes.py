"""The history over HTTP: pages and downloads of events, figures about them, control calls."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

import orjson

from regstream import errors, spec
from regstream.server import cursors, responses, timestamps
from regstream.server.router import Answered, Call, Reply

if TYPE_CHECKING:
    from regstream import store
    from regstream.store import reader

NDJSON = "application/x-ndjson"
CSV = "text/csv; charset=utf-8"
PAGE = 1_000
DEFAULT = 100
HOUR = 3_600.0
COLUMNS = ("stream", "epoch", "seq", "id", "type", "time", "key", "priority", "region", "data")
_Keyed = tuple[bytes, str | None]
_MEDIA = {NDJSON: "ndjson", "application/ndjson": "ndjson", "text/csv": "csv"}
# A spreadsheet takes what begins so for a formula
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


async def events(call: Call) -> Reply | Answered:
    """Events of the database, or of the rings where there is none."""
    form = call.query.format or _accepted(call.request.headers.get("accept", ""))
    if call.services.store is None:
        return await _of_rings(call, form)
    return await _of_store(call, call.services.store, form)


def _accepted(accept: str) -> str:
    wanted = (one.partition(";")[0].strip().lower() for one in accept.split(","))
    return next((_MEDIA[one] for one in wanted if one in _MEDIA), "json")


# Without a database


async def _of_rings(call: Call, form: str) -> Reply | Answered:
    query, life = call.query, call.services.engine.started_at
    for name in ("before", "priority", "epoch", "from_seq", "to_seq", "where"):
        if getattr(query, name) not in (None, []):
            raise errors.Conflict(f"{name} needs a database: set DATABASE_URL")
    after = None if query.after is None else cursors.read(life, query.after)
    limit = min(query.limit or DEFAULT, PAGE) if form == "json" else query.limit or 10**9
    # A download begins with the oldest
    after = 0 if after is None and form != "json" else after
    found = call.services.hub.events(query.stream or None, query.since, query.until, after, limit + 1)
    page = found[-limit:] if after is None else found[:limit]
    if form != "json":
        return await _download(call, form, _once([(entry.value, entry.key) for entry in page]))
    # Without a cursor these are the newest, and what exceeds the limit is older
    more = after is not None and len(found) > limit
    tail = {"cursor": cursors.write(life, page[-1].order if page else after or 0), "more": more}
    return _page((entry.value for entry in page), tail)


async def _once(events: Sequence[_Keyed]) -> AsyncIterator[Sequence[_Keyed]]:
    for first in range(0, len(events), PAGE):
        yield events[first : first + PAGE]


def _page(values: Iterable[bytes], tail: dict[str, Any]) -> Reply:
    return Reply(b'{"events":[' + b",".join(values) + b"]," + orjson.dumps(tail)[1:])


# With a database


async def _of_store(call: Call, kept: store.Store, form: str) -> Reply | Answered:
    from regstream.store import reader

    query = call.query
    after = None if query.after is None else reader.EventKey(*cursors.read_place("after", query.after))
    before = None if query.before is None else reader.EventKey(*cursors.read_place("before", query.before))
    await kept.settled()
    await check_streams(call, kept, query.stream)
    question = reader.EventQuery(
        tuple(query.stream), query.since, query.until, tuple(map(str, query.priority)),
        query.epoch, query.from_seq, query.to_seq, tuple(query.where),
    )  # fmt: skip
    if form == "json":
        found = await kept.archive.page(question, after, before, min(query.limit or DEFAULT, PAGE))
        cursor = found.last or after or reader.START
        tail = {
            "cursor": cursors.write_place(cursor),
            "more": found.more and (after is not None or before is not None),
            "previous": cursors.write_place(found.first) if found.first else None,
        }
        return _page(found.values, tail)
    pages = _pages(kept.archive, question, after or reader.START, before, query.limit)
    return await _download(call, form, pages)


async def check_streams(call: Call, kept: store.Store, streams: Sequence[str]) -> None:
    """Raises UnknownName for a stream that neither the files nor the database know."""
    declared = call.services.engine.catalog.streams.keys() | {spec.ALERTS}
    strange = [name for name in streams if name not in declared]
    for name in sorted(set(strange) - (await kept.archive.known(strange) if strange else set())):
        raise errors.UnknownName("stream", name, errors.near(name, declared))


async def _pages(
    source: reader.EventReader,
    question: reader.EventQuery,
    after: reader.EventKey,
    before: reader.EventKey | None,
    limit: int | None,
) -> AsyncIterator[Sequence[_Keyed]]:
    left = limit
    while left is None or left > 0:
        page = await source.page(question, after, before, PAGE if left is None else min(PAGE, left))
        if page.last is None:
            return
        yield list(zip(page.values, page.keys, strict=True))
        if not page.more:
            return
        after, left = page.last, None if left is None else left - len(page.values)


# Downloads


async def _download(call: Call, form: str, pages: AsyncIterator[Sequence[_Keyed]]) -> Reply | Answered:
    """Write page after page, as fast as they are taken. One that fails in the middle does not look whole."""
    first = await anext(pages, None) or []
    write = _Csv() if form == "csv" else _lines
    headers = {"cache-control": "no-store", "content-disposition": f'attachment; filename="events.{form}"'}
    request, transport = call.request, cast(asyncio.Transport, call.request.transport)
    response = await request.respond(headers=headers, content_type=CSV if form == "csv" else NDJSON)
    assert response is not None  # noqa: S101 - there was no answer before
    if call.request.method == "HEAD":
        return Answered()
    try:
        await response.send(write(first))
        async for page in pages:
            await response.send(write(page))
    except errors.StoreError:
        # The status is out already: only a connection that breaks tells that this is not all
        transport.abort()
        raise
    await response.eof()
    return Answered()


def _lines(events: Iterable[_Keyed]) -> bytes:
    # Between the tokens of JSON only; such bytes come from others who write to the topic
    return b"".join(value.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n" for value, _ in events)


class _Csv:
    """RFC 4180, with a line of names at the beginning of what is written first."""

    def __init__(self) -> None:
        self._begun = False

    def __call__(self, events: Iterable[_Keyed]) -> str:
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        if not self._begun:
            writer.writerow(COLUMNS)
            self._begun = True
        for value, key in events:
            event = orjson.loads(value)
            event |= {"stream": event["subject"], "key": key, "data": orjson.dumps(event["data"]).decode()}
            writer.writerow([_cell(event.get(name)) for name in COLUMNS])
        return text.getvalue()


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


# Figures and control calls


def _store(call: Call, what: str) -> store.Store:
    if call.services.store is None:
        raise errors.Conflict(f"{what} needs a database: set DATABASE_URL")
    return call.services.store


async def analytics(call: Call) -> responses.Analytics:
    """Figures of a stream by SQL."""
    kept, query = _store(call, "analytics"), call.query
    from regstream.store import reader

    counts = query.agg in reader.OF_EVENTS
    if counts is not (query.field is None):
        raise errors.BadValue("field", f"{query.agg} is one of events, without a field" if counts else "missing")
    until = call.services.now() if query.until is None else query.until
    since = until - HOUR if query.since is None else query.since
    if since >= until:
        raise errors.BadValue("since", "it has to be before until")
    if (until - since) / query.bucket > reader.MAX_BUCKETS - 1:
        reason = f"these would be more than {reader.MAX_BUCKETS} buckets: ask for longer ones, or less"
        raise errors.BadValue("bucket", reason)
    await kept.settled()
    await check_streams(call, kept, [query.stream])
    path = tuple(query.field.split(".")) if query.field else ()
    found = await kept.archive.figures(
        reader.EventQuery((query.stream,), since, until), reader.Figures(query.agg, path, query.bucket)
    )
    return responses.Analytics(
        stream=query.stream,
        field=query.field,
        agg=query.agg,
        bucket=query.bucket,
        since=timestamps.text(since),
        until=timestamps.text(until),
        skipped=sum(one.skipped for one in found),
        buckets=[responses.Bucket(time=timestamps.text(one.time), value=one.value, count=one.events) for one in found],
    )


async def audit(call: Call) -> responses.Audit:
    """Control calls, as they were kept."""
    kept, query = _store(call, "audit"), call.query
    await kept.settled()
    found = await kept.archive.controls(query.since, query.until, query.action, query.target, query.after, query.limit)
    calls = [responses.ControlCall(id=name, **{**one._asdict(), "at": timestamps.text(one.at)}) for name, one in found]
    return responses.Audit(calls=calls, cursor=calls[-1].id if calls else query.after)

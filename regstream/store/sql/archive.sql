-- Questions are put together out of these parts; what somebody asked for is always a parameter.

-- name: page
SELECT {columns} FROM regstream.events WHERE {conditions} ORDER BY {order} LIMIT %(limit)s;

-- name: forwards
time, stream, epoch, seq

-- name: backwards
time DESC, stream DESC, epoch DESC, seq DESC

-- name: is_stream
stream = %(stream)s

-- name: is_among
stream = ANY(%(streams)s::text[])

-- name: since
time >= %(since)s

-- name: until
time < %(until)s

-- name: has_priority
priority = ANY(%(priorities)s::text[])

-- name: in_epoch
epoch = %(epoch)s

-- name: from_seq
seq >= %(first)s

-- name: to_seq
seq <= %(last)s

-- name: holds
data #> {path}::text[] = {value}

-- name: behind
-- The first comparison says nothing more, and lets an index begin there.
time >= %(after_time)s AND (time, stream, epoch, seq)
    > (%(after_time)s, %(after_stream)s::text, %(after_epoch)s::text, %(after_seq)s)

-- name: before
time <= %(before_time)s AND (time, stream, epoch, seq)
    < (%(before_time)s, %(before_stream)s::text, %(before_epoch)s::text, %(before_seq)s)

-- name: every
TRUE

-- name: number_of
SELECT count(*) FROM regstream.events WHERE {conditions};

-- name: known
SELECT stream FROM regstream.positions WHERE stream = ANY(%(streams)s::text[]);

-- name: buckets
-- `counted` are the events of a bucket, `numbers` those of them in which the field is a number.
SELECT extract(epoch FROM bucket)::float8, {aggregate}::float8, count(*), count(number)
FROM (
    SELECT
        date_bin(make_interval(secs => %(bucket)s), time, timestamptz '1970-01-01T00:00:00Z') AS bucket,
        CASE WHEN jsonb_typeof(data #> %(path)s::text[]) = 'number' THEN (data #>> %(path)s::text[])::float8 END
            AS number
    FROM regstream.events
    WHERE {conditions}
) AS found
GROUP BY bucket
ORDER BY bucket;

-- name: bare_buckets
SELECT extract(epoch FROM bucket)::float8, count(*)::float8, count(*), count(*)
FROM (
    SELECT date_bin(make_interval(secs => %(bucket)s), time, timestamptz '1970-01-01T00:00:00Z') AS bucket
    FROM regstream.events
    WHERE {conditions}
) AS found
GROUP BY bucket
ORDER BY bucket;

-- name: avg
avg(number)

-- name: min
min(number)

-- name: max
max(number)

-- name: p50
percentile_cont(0.5) WITHIN GROUP (ORDER BY number)

-- name: p95
percentile_cont(0.95) WITHIN GROUP (ORDER BY number)

-- name: controls
SELECT id, extract(epoch FROM at)::float8, actor, address, action, target, request, status, before, after
FROM regstream.audit
WHERE {conditions}
ORDER BY id DESC
LIMIT %(limit)s;

-- name: controls_behind
SELECT id, extract(epoch FROM at)::float8, actor, address, action, target, request, status, before, after
FROM regstream.audit
WHERE {conditions}
ORDER BY id
LIMIT %(limit)s;

-- name: audit_since
at >= %(since)s

-- name: audit_until
at < %(until)s

-- name: audit_action
action = %(action)s

-- name: audit_target
target = %(target)s

-- name: audit_after
id > %(after)s

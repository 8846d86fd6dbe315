-- name: copy_events
COPY regstream.events (stream, epoch, seq, type, time, key, priority, region, value) FROM STDIN (FORMAT binary);

-- name: create_arrivals
-- A commit whose answer was lost leaves rows that are sent again: they go through here, and are passed over.
CREATE TEMPORARY TABLE IF NOT EXISTS arrivals (
    stream text, epoch text, seq bigint, type text, time timestamptz(3), key text, priority text, region text, value text
) ON COMMIT DELETE ROWS;

-- name: copy_arrivals
COPY pg_temp.arrivals (stream, epoch, seq, type, time, key, priority, region, value) FROM STDIN (FORMAT binary);

-- name: merge_arrivals
WITH taken AS (DELETE FROM pg_temp.arrivals RETURNING *)
INSERT INTO regstream.events (stream, epoch, seq, type, time, key, priority, region, value)
SELECT stream, epoch, seq, type, time, key, priority, region, value FROM taken
ON CONFLICT DO NOTHING;

-- name: carried
-- A text as the database gives it back
SELECT %(text)s::text;

-- name: keep_position
INSERT INTO regstream.positions AS there (stream, epoch, seq) VALUES (%(stream)s, %(epoch)s, %(seq)s)
ON CONFLICT (stream) DO UPDATE SET epoch = excluded.epoch, seq = excluded.seq
WHERE (there.epoch, there.seq) < (excluded.epoch, excluded.seq);

-- name: keep_offset
INSERT INTO regstream.offsets (topic, "partition", next) VALUES (%(topic)s, %(partition)s, %(next)s)
ON CONFLICT (topic, "partition") DO UPDATE SET next = excluded.next;

-- name: keep_state
INSERT INTO regstream.entities (entity, key, state) VALUES (%(entity)s, %(key)s, %(state)s)
ON CONFLICT (entity, key) DO UPDATE SET state = excluded.state;

-- name: keep_seed
-- The first one stands: rows were made from it.
INSERT INTO regstream.memory (name, value) VALUES ('seed', to_jsonb(%(seed)s::text)) ON CONFLICT DO NOTHING;

-- name: offsets
SELECT topic, "partition", next FROM regstream.offsets;

-- name: positions
SELECT stream, epoch, seq FROM regstream.positions;

-- name: states
SELECT entity, key, state FROM regstream.entities;

-- name: seed
SELECT value #>> '{}' FROM regstream.memory WHERE name = 'seed';

-- name: newest
-- The newest rows of a stream in one numbering, newest first.
SELECT stream, epoch, seq, type, time, key, priority, region, value
FROM regstream.events
WHERE stream = %(stream)s AND epoch = %(epoch)s
ORDER BY seq DESC
LIMIT %(limit)s;

-- name: run
-- What follows a number in one numbering, in order.
SELECT stream, epoch, seq, type, time, key, priority, region, value
FROM regstream.events
WHERE stream = %(stream)s AND epoch = %(epoch)s AND seq > %(seq)s
ORDER BY seq
LIMIT %(limit)s;

-- name: lock_transaction
SELECT pg_advisory_xact_lock(%(lock)s);

-- name: lock_session
SELECT pg_try_advisory_lock(%(lock)s);

-- name: lock_holder
-- Who has that lock in this database; of a session of another role only the process is shown.
SELECT coalesce(a.application_name, ''), coalesce(host(a.client_addr), 'a local socket'), l.pid, a.backend_start
FROM pg_catalog.pg_locks l
JOIN pg_catalog.pg_database d ON d.oid = l.database AND d.datname = pg_catalog.current_database()
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
    AND ((l.classid::bigint << 32) | l.objid::bigint) = %(lock)s;

-- name: backend
-- Behind a pooler it is not the process that the client was told of.
SELECT pg_catalog.pg_backend_pid();

-- name: unbounded
SET statement_timeout TO 0;

-- name: pin
-- For the session; those that this server does not have yet are passed over.
SELECT pg_catalog.set_config(name, value, false)
FROM ROWS FROM (
    pg_catalog.unnest(%(names)s::pg_catalog.text[]), pg_catalog.unnest(%(values)s::pg_catalog.text[])
) AS wanted (name, value)
JOIN pg_catalog.pg_settings USING (name);

-- name: migrations_table
SELECT to_regclass('regstream.migrations');

-- name: create_schema
CREATE SCHEMA IF NOT EXISTS regstream;

-- name: create_migrations
CREATE TABLE regstream.migrations (
    number     integer PRIMARY KEY,
    name       text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- name: migrations_done
SELECT number FROM regstream.migrations;

-- name: migration_done
INSERT INTO regstream.migrations (number, name) VALUES (%(number)s, %(name)s);

-- name: partitions
-- The days that there are tables for, as the names of those.
SELECT child.relname
FROM pg_inherits
JOIN pg_class child ON child.oid = pg_inherits.inhrelid
WHERE pg_inherits.inhparent = 'regstream.events'::regclass
ORDER BY child.relname;

-- name: create_partition
-- Made beside the table and attached then: unlike PARTITION OF, that does not wait for those who read.
CREATE TABLE {name} (LIKE regstream.events INCLUDING ALL);

-- name: attach_partition
ALTER TABLE regstream.events ATTACH PARTITION {name} FOR VALUES FROM ({begin}) TO ({end});

-- name: clock
SELECT extract(epoch FROM clock_timestamp())::float8;

-- name: span_of_partition
SELECT extract(epoch FROM min(time))::float8, extract(epoch FROM max(time))::float8 FROM {name};

-- name: rows_of_partition
-- No further than somebody would read.
SELECT count(*) FROM (SELECT FROM {name} LIMIT %(most)s) AS counted;

-- name: drop_partition
DROP TABLE IF EXISTS {name};

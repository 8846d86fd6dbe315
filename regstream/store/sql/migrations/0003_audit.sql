-- Who asked for what, and what it changed; `id` sorts by time.

CREATE TABLE regstream.audit (
    id      text COLLATE "C" PRIMARY KEY,
    at      timestamptz(3) NOT NULL,
    actor   text NOT NULL,
    address text NOT NULL,
    action  text NOT NULL,
    target  text NOT NULL,
    request jsonb,
    status  integer NOT NULL,
    before  jsonb,
    after   jsonb
);

CREATE INDEX audit_in_time ON regstream.audit (at);

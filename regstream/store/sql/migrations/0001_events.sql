-- Events, one partition a day of UTC. `value` is the CloudEvent as it went to Kafka and to dashboards, byte for byte;
-- what can be asked for within it is `data`.

CREATE FUNCTION regstream.event_data(value text) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    -- jsonb holds every character but this one
    RETURN CASE WHEN strpos(value, '\u0000') = 0 THEN value
                ELSE regexp_replace(value, '(?<!\\)((?:\\\\)*)\\u0000', '\1\\ufffd', 'g')
           END::jsonb -> 'data';

CREATE TABLE regstream.events (
    stream   text COLLATE "C" NOT NULL,
    epoch    text COLLATE "C" NOT NULL,
    seq      bigint NOT NULL,
    id       text GENERATED ALWAYS AS (stream || '/' || epoch || '/' || seq::text) STORED,
    type     text COLLATE "C" NOT NULL,
    time     timestamptz(3) NOT NULL,
    key      text,
    priority text COLLATE "C" NOT NULL,
    region   text NOT NULL,
    data     jsonb GENERATED ALWAYS AS (regstream.event_data(value)) STORED,
    value    text NOT NULL,
    -- (stream, epoch, seq) names an event; the day has to be in it, and an event has one time
    PRIMARY KEY (stream, epoch, seq, time)
) PARTITION BY RANGE (time);

CREATE INDEX events_of_stream ON regstream.events (stream, time);
CREATE INDEX events_in_time ON regstream.events (time, stream);

-- Where each stream stands in the table.
CREATE TABLE regstream.positions (
    stream text COLLATE "C" PRIMARY KEY,
    epoch  text COLLATE "C" NOT NULL,
    seq    bigint NOT NULL
);

-- Of each partition of Kafka: the offset of the first message that is not in the table.
CREATE TABLE regstream.offsets (
    topic       text COLLATE "C" NOT NULL,
    "partition" integer NOT NULL,
    next        bigint NOT NULL,
    PRIMARY KEY (topic, "partition")
);

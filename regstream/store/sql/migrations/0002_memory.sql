-- What streams go on with after a restart: the seed, and what events have changed of entity rows.

CREATE TABLE regstream.memory (
    name  text COLLATE "C" PRIMARY KEY,
    value jsonb NOT NULL
);

CREATE TABLE regstream.entities (
    entity text COLLATE "C" NOT NULL,
    key    text NOT NULL,
    state  jsonb NOT NULL,
    PRIMARY KEY (entity, key)
);

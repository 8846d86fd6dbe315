-- name: keep_control
INSERT INTO regstream.audit (id, at, actor, address, action, target, request, status, before, after)
VALUES (
    %(id)s, to_timestamp(%(at)s), %(actor)s, %(address)s, %(action)s, %(target)s, %(request)s, %(status)s,
    %(before)s, %(after)s
)
ON CONFLICT DO NOTHING;

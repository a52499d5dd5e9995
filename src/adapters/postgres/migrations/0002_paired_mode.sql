-- Version 2: paired mode. The holder renews its lease, lets go of it, and says that it lives; who wants
-- it must know on what ground: nobody has it, it was offered, it was mine, or its holder is silent.
--
-- Runs as version 1 did. Every change of state is still one call and one commit, needs nothing of the
-- session, and is harmless when it is executed late.

-- ttl_ms is the time within which the holder's units are dead after its last renewal; 0: nobody renews,
-- as in observed mode. It stays when the holder lets go, and so does what observers derive from it.
-- renewed_at is for people; nothing is decided by it.
ALTER TABLE lease
  ADD COLUMN ttl_ms     integer NOT NULL DEFAULT 0 CHECK (ttl_ms >= 0),
  ADD COLUMN offered_to text,
  ADD COLUMN renewed_at timestamptz,
  ADD CONSTRAINT lease_offered_only_if_free CHECK (offered_to IS NULL OR holder IS NULL);

-- A renewal is an update of one row every other second; with room on its page it needs no index and
-- leaves nothing behind for long.
ALTER TABLE lease SET (fillfactor = 50);

-- The nodes of a group, as they say of themselves. beat counts within one incarnation, a run of the
-- daemon; max_epoch is the highest that the node has ever seen, which a restored store may not know.
CREATE TABLE member (
  grp          text        NOT NULL REFERENCES lease,
  node         text        NOT NULL,
  incarnation  uuid        NOT NULL,
  max_epoch    bigint      NOT NULL DEFAULT 0 CHECK (max_epoch >= 0),
  version      text        NOT NULL,
  beat         bigint      NOT NULL,
  ready        boolean     NOT NULL,
  problems     jsonb       NOT NULL DEFAULT '[]',
  prepared_for uuid,
  window_ms    bigint      NOT NULL,
  seen_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (grp, node)
) WITH (fillfactor = 50);

-- What a holder was asked to do. At most one at a time is unfinished.
CREATE TABLE request (
  id         uuid        PRIMARY KEY,
  grp        text        NOT NULL REFERENCES lease,
  kind       text        NOT NULL CHECK (kind IN ('switchover', 'hand_over')),
  from_epoch bigint      NOT NULL,
  target     text,
  by_whom    text        NOT NULL,
  reason     text,
  status     text        NOT NULL DEFAULT 'open'
    CHECK (status IN ('open', 'announced', 'done', 'refused', 'expired')),
  text       text,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  ended_at   timestamptz,
  CHECK ((ended_at IS NULL) = (status IN ('open', 'announced')))
);
CREATE UNIQUE INDEX request_unfinished ON request (grp) WHERE ended_at IS NULL;
CREATE INDEX request_by_group ON request (grp, created_at);

-- Renews the lease of a tenure: its new count, or NULL, which means that the tenure is over and the
-- units must stop. It touches no row that an application locks.
CREATE FUNCTION renew(g text, me text, e bigint, n uuid) RETURNS bigint
LANGUAGE sql SET lock_timeout = '1500ms' AS $$
  UPDATE @schema@.lease SET seq = seq + 1, renewed_at = clock_timestamp()
   WHERE grp = g AND holder = me AND epoch = e AND nonce = n RETURNING seq
$$;

-- Lets go of a group whose units are verified dead: for dest, or for anyone. The new epoch, or NULL if
-- the tenure is over. Asked again it gives the same answer, as long as nobody has taken the group.
CREATE FUNCTION hand_over(g text, me text, e bigint, n uuid, dest text) RETURNS bigint
LANGUAGE plpgsql SET lock_timeout = '1500ms' AS $$
DECLARE
  l @schema@.lease;
BEGIN
  SELECT * INTO l FROM @schema@.lease WHERE grp = g FOR NO KEY UPDATE;
  IF l.epoch = e + 1 AND l.holder IS NULL AND EXISTS (
    SELECT 1 FROM @schema@.event
     WHERE grp = g AND kind = 'hand_over' AND epoch = e + 1 AND node = me AND detail->>'nonce' = n::text)
  THEN
    RETURN l.epoch;
  END IF;
  IF (l.holder = me AND l.epoch = e AND l.nonce = n) IS NOT TRUE THEN
    RETURN NULL;
  END IF;
  -- Waits for transactions that checked the token and have not ended yet.
  UPDATE @schema@.fence SET epoch = e + 1, holder = NULL, nonce = NULL WHERE grp = g;
  UPDATE @schema@.lease SET epoch = e + 1, holder = NULL, nonce = NULL, seq = 0, offered_to = dest,
         changed_at = clock_timestamp() WHERE grp = g;
  UPDATE @schema@.failover SET status = 'superseded', ended_at = clock_timestamp()
   WHERE grp = g AND status = 'running';
  INSERT INTO @schema@.event (grp, epoch, kind, node, by_whom, reason, detail)
  SELECT g, e + 1, 'hand_over', me, r.by_whom, r.reason,
         jsonb_build_object('from_epoch', e, 'nonce', n, 'to', dest, 'request', r.id)
    FROM (SELECT 1) one LEFT JOIN @schema@.request r
      ON r.grp = g AND r.ended_at IS NULL AND r.from_epoch = e;
  RETURN e + 1;
END $$;

-- Ends unfinished requests of a group, each with an event.
CREATE FUNCTION end_requests(ids uuid[], me text, how text, words text) RETURNS bigint
LANGUAGE sql SET lock_timeout = '1500ms' AS $$
  WITH ended AS (
    UPDATE @schema@.request SET status = how, text = words, ended_at = clock_timestamp()
     WHERE id = ANY (ids) AND ended_at IS NULL RETURNING *
  ), told AS (
    INSERT INTO @schema@.event (grp, epoch, kind, node, by_whom, reason, outcome, detail)
    SELECT r.grp, l.epoch, 'request_ended', me, r.by_whom, r.reason, how,
           jsonb_build_object('request', r.id, 'kind', r.kind, 'to', r.target, 'text', words,
                              'took_ms', (extract(epoch FROM r.ended_at - r.created_at) * 1000)::bigint)
      FROM ended r JOIN @schema@.lease l USING (grp) RETURNING 1
  )
  SELECT count(*) FROM told
$$;

-- Asks the holder of an epoch to let go of the group. One at a time; one that nobody finished within
-- max_age_ms, or whose tenure is over, makes room.
CREATE FUNCTION ask(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SET lock_timeout = '1500ms' AS $$
DECLARE
  g  text := request->>'group';
  i  uuid := (request->>'id')::uuid;
  ts timestamptz;
  l  @schema@.lease;
  c  @schema@.control;
  r  @schema@.request;
BEGIN
  SELECT * INTO l FROM @schema@.lease WHERE grp = g FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RETURN '{"outcome": "no_such_group"}';
  END IF;
  IF EXISTS (SELECT 1 FROM @schema@.request WHERE id = i) THEN
    RETURN '{"outcome": "asked"}';
  END IF;
  SELECT * INTO c FROM @schema@.control WHERE grp = g;
  ts := clock_timestamp();
  IF c.held_by IS NOT NULL AND (c.held_until IS NULL OR c.held_until > ts) THEN
    RETURN jsonb_build_object('outcome', 'held', 'by', c.held_by, 'reason', c.held_reason);
  END IF;
  IF l.holder IS NULL OR l.epoch IS DISTINCT FROM (request->>'from_epoch')::bigint THEN
    RETURN jsonb_build_object('outcome', 'changed', 'epoch', l.epoch, 'holder', l.holder);
  END IF;
  SELECT * INTO r FROM @schema@.request WHERE grp = g AND ended_at IS NULL FOR NO KEY UPDATE;
  IF FOUND THEN
    IF r.from_epoch = l.epoch
       AND abs(extract(epoch FROM ts - r.created_at)) * 1000 <= (request->>'max_age_ms')::bigint THEN
      RETURN jsonb_build_object('outcome', 'pending', 'kind', r.kind, 'by', r.by_whom, 'reason', r.reason);
    END IF;
    PERFORM @schema@.end_requests(ARRAY[r.id], request->>'node', 'expired', 'nobody carried it out');
  END IF;
  INSERT INTO @schema@.request (id, grp, kind, from_epoch, target, by_whom, reason, created_at)
    VALUES (i, g, request->>'kind', l.epoch, request->>'target', request->>'by', request->>'reason', ts);
  INSERT INTO @schema@.event (at, grp, epoch, kind, node, by_whom, reason, detail)
    VALUES (ts, g, l.epoch, 'request', request->>'node', request->>'by', request->>'reason',
            jsonb_build_object('request', i, 'kind', request->>'kind', 'to', request->>'target'));
  RETURN '{"outcome": "asked"}';
EXCEPTION WHEN lock_not_available OR deadlock_detected OR serialization_failure THEN
  RETURN '{"outcome": "busy"}';
END $$;

-- Says that the holder, and nobody else, has begun with a request, and for which node, so that this one
-- prepares. Only while the tenure lasts that was asked.
CREATE FUNCTION announce(i uuid, me text, dest text) RETURNS boolean
LANGUAGE sql SET lock_timeout = '1500ms' AS $$
  WITH told AS (
    UPDATE @schema@.request r SET status = 'announced', target = dest
      FROM @schema@.lease l
     WHERE r.id = i AND r.ended_at IS NULL AND coalesce(r.target, dest) IS NOT DISTINCT FROM dest
       AND l.grp = r.grp AND l.holder = me AND l.epoch = r.from_epoch
    RETURNING 1
  )
  SELECT EXISTS (SELECT 1 FROM told)
$$;

-- Ends a request, as who carried it out or refused it says. False if it had ended, or never was.
CREATE FUNCTION end_request(i uuid, me text, how text, words text) RETURNS boolean
LANGUAGE sql SET lock_timeout = '1500ms' AS $$
  SELECT @schema@.end_requests(ARRAY[i], me, how, words) = 1
$$;

-- Each group's row of a node, in one statement. One that was held up somewhere does not count: within
-- one incarnation beats only grow. A group that the store does not know is left out.
CREATE FUNCTION report_members(me text, i uuid, v text, b bigint, rows jsonb) RETURNS bigint
LANGUAGE sql SET lock_timeout = '1500ms' AS $$
  WITH told AS (
    INSERT INTO @schema@.member AS m
      (grp, node, incarnation, max_epoch, version, beat, ready, problems, prepared_for, window_ms)
    SELECT l.grp, me, i, r.max_epoch, v, b, r.ready, r.problems, r.prepared_for, r.window_ms
      FROM jsonb_to_recordset(rows) AS r ("group" text, max_epoch bigint, ready boolean, problems jsonb,
                                          prepared_for uuid, window_ms bigint)
      JOIN @schema@.lease l ON l.grp = r."group"
     ORDER BY l.grp
    ON CONFLICT (grp, node) DO UPDATE SET incarnation = excluded.incarnation,
      max_epoch = greatest(m.max_epoch, excluded.max_epoch), version = excluded.version,
      beat = excluded.beat, ready = excluded.ready, problems = excluded.problems,
      prepared_for = excluded.prepared_for, window_ms = excluded.window_ms, seen_at = clock_timestamp()
     WHERE m.incarnation <> excluded.incarnation OR m.beat < excluded.beat
    RETURNING 1
  )
  SELECT count(*) FROM told
$$;

-- As version 1, but what must have been observed is said apart from what an automatic request is
-- refused for.
DROP FUNCTION last_look(jsonb, jsonb, boolean);
CREATE FUNCTION last_look(mapping jsonb, expected jsonb, automatic boolean, needed boolean) RETURNS jsonb
LANGUAGE plpgsql
SET timezone = 'UTC' SET datestyle = 'ISO' SET extra_float_digits = 1 AS $$
DECLARE
  rows  bigint;
  now_  jsonb;
  which text;
  said  text;
BEGIN
  BEGIN
    EXECUTE format(
      'SELECT count(*), coalesce(jsonb_object_agg(b.name, b.value), ''{}'') FROM ('
      'SELECT %1$I::text AS name, %2$I::text AS value FROM %3$I.%4$I WHERE %1$I::text = ANY ($1)'
      ' FOR NO KEY UPDATE NOWAIT) b',
      mapping->>'name_column', mapping->>'beat_column', mapping->>'schema', mapping->>'table')
      INTO rows, now_ USING ARRAY(SELECT jsonb_object_keys(expected));
  EXCEPTION WHEN lock_not_available THEN
    RETURN jsonb_build_object('outcome', 'alive', 'locked', true);
  END;
  SELECT e.key INTO which FROM jsonb_each_text(expected) e
   WHERE now_->>e.key IS DISTINCT FROM e.value ORDER BY e.key LIMIT 1;
  IF FOUND OR rows <> (SELECT count(*) FROM jsonb_object_keys(expected)) OR needed AND rows = 0 THEN
    RETURN jsonb_build_object('outcome', 'alive', 'locked', false, 'bot', which);
  END IF;
  IF automatic THEN
    EXECUTE format(
      'SELECT %1$I::text, %2$I::text FROM %3$I.%4$I WHERE %1$I::text = ANY ($1) AND %2$I::text = ANY ($2) ORDER BY 1 LIMIT 1',
      mapping->>'name_column', mapping->>'status_column', mapping->>'schema', mapping->>'table')
      INTO which, said USING ARRAY(SELECT jsonb_array_elements_text(mapping->'bots')),
                             ARRAY(SELECT jsonb_array_elements_text(mapping->'stopped_statuses'));
    IF which IS NOT NULL THEN
      RETURN jsonb_build_object('outcome', 'stopped_on_purpose', 'bot', which, 'status', said);
    END IF;
  END IF;
  RETURN NULL;
END $$;

-- As version 1, on one of four grounds, which the caller has watched for as long as each needs:
--   silent  the holder says nothing. In observed mode (ttl_ms = 0) nothing more is asked; in paired mode
--           there must be a holder.
--   free    nobody has the group.
--   again   this node has it, and goes on with a new tenure: no failover, so hold, latch and cooldown do
--           not refuse it, and heartbeats are looked at only if some are given.
--   offer   it was handed over to this node. Latch and cooldown were for who let go to look at; if it is
--           automatic it counts as one.
-- Whatever happens, the new epoch is above every one that the store or any node has ever seen.
CREATE OR REPLACE FUNCTION acquire(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SET lock_timeout = '1500ms' AS $$
DECLARE
  g         text    := request->>'group';
  me        text    := request->>'node';
  n         uuid    := (request->>'nonce')::uuid;
  automatic boolean := request->>'kind' = 'automatic';
  way       text    := coalesce(request->>'way', 'silent');
  ttl       integer := coalesce((request->>'ttl_ms')::integer, 0);
  ts        timestamptz;
  age_us    bigint;
  l         @schema@.lease;
  c         @schema@.control;
  d         @schema@.cooldown;
  fits      boolean;
  look      jsonb;
  attempts  timestamptz[];
  latch     boolean := false;
  e         bigint;
BEGIN
  SELECT * INTO l FROM @schema@.lease WHERE grp = g FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RETURN '{"outcome": "no_such_group"}';
  END IF;
  SELECT * INTO c FROM @schema@.control  WHERE grp = g FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RETURN '{"outcome": "no_such_group"}';
  END IF;
  SELECT * INTO d FROM @schema@.cooldown WHERE grp = g FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RETURN '{"outcome": "no_such_group"}';
  END IF;
  ts := clock_timestamp();

  IF l.holder = me AND l.nonce = n THEN
    RETURN jsonb_build_object('outcome', 'already', 'epoch', l.epoch);
  END IF;
  fits := CASE way
    WHEN 'silent' THEN ttl = 0 OR l.holder IS NOT NULL
    WHEN 'free'   THEN l.holder IS NULL
    WHEN 'again'  THEN l.holder = me
    WHEN 'offer'  THEN l.holder IS NULL AND l.offered_to = me
  END;
  IF l.epoch IS DISTINCT FROM (request->>'expected_epoch')::bigint
     OR l.seq IS DISTINCT FROM (request->>'expected_seq')::bigint
     OR l.nonce IS DISTINCT FROM (request->>'expected_nonce')::uuid
     OR fits IS NOT TRUE THEN
    RETURN jsonb_build_object('outcome', 'changed', 'epoch', l.epoch, 'holder', l.holder);
  END IF;
  IF way <> 'again' AND c.held_by IS NOT NULL AND (c.held_until IS NULL OR c.held_until > ts) THEN
    RETURN jsonb_build_object('outcome', 'held', 'by', c.held_by, 'reason', c.held_reason);
  END IF;
  IF automatic AND way IN ('silent', 'free') THEN
    IF c.latched_at IS NOT NULL THEN
      RETURN '{"outcome": "latched"}';
    END IF;
    IF d.last_at > ts THEN
      -- The clock went back. How much of the cooldown is over cannot be known, so it starts again
      -- now, rather than when the clock is where it was.
      UPDATE @schema@.cooldown SET last_at = ts WHERE grp = g;
      d.last_at := ts;
    END IF;
    IF d.last_at IS NOT NULL
       AND (ts - d.last_at >= (request->>'cooldown_ms')::bigint * interval '1 millisecond') IS NOT TRUE THEN
      RETURN jsonb_build_object('outcome', 'cooldown', 'left_ms', (request->>'cooldown_ms')::bigint
        - (extract(epoch FROM ts - d.last_at) * 1000)::bigint);
    END IF;
  END IF;

  -- Waits for transactions that checked the old token and have not ended yet. The time that takes, as
  -- that of the waits above, counts towards the age of the evidence.
  PERFORM 1 FROM @schema@.fence WHERE grp = g FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RETURN '{"outcome": "no_such_group"}';
  END IF;
  ts := clock_timestamp();
  age_us := (extract(epoch FROM ts) * 1000000)::bigint - (request->>'seen_at')::bigint;
  IF (age_us BETWEEN 0 AND (request->>'max_age_ms')::bigint * 1000) IS NOT TRUE THEN
    RETURN jsonb_build_object('outcome', 'stale_request', 'age_ms', age_us / 1000);
  END IF;
  IF way IN ('silent', 'free') OR request->'heartbeats' <> '{}' THEN
    look := @schema@.last_look(request->'mapping', request->'heartbeats', automatic,
                               automatic AND way = 'silent');
    IF look IS NOT NULL THEN
      RETURN look;
    END IF;
  END IF;

  e := greatest(l.epoch, (request->>'min_epoch')::bigint,
                (SELECT max(max_epoch) FROM @schema@.member WHERE grp = g)) + 1;
  UPDATE @schema@.fence SET epoch = e, holder = me, nonce = n WHERE grp = g;
  UPDATE @schema@.lease SET epoch = e, holder = me, nonce = n, seq = 0, ttl_ms = ttl, offered_to = NULL,
         renewed_at = NULL, changed_at = ts WHERE grp = g;
  UPDATE @schema@.failover SET status = 'superseded', ended_at = ts WHERE grp = g AND status = 'running';
  -- What the last holder was asked to do is over, unless this is it.
  PERFORM @schema@.end_requests(ARRAY[r.id], me, 'expired', 'epoch ' || e || ' began before it was done')
    FROM @schema@.request r
   WHERE r.grp = g AND r.ended_at IS NULL AND NOT (way = 'offer' AND r.from_epoch = l.epoch - 1);
  IF automatic AND way IN ('silent', 'offer') THEN
    -- A time in the future (the clock went back) is counted as now, not forgotten.
    attempts := ARRAY(SELECT least(x, ts) FROM unnest(d.recent) x
      WHERE x > ts - (request->>'latch_window_ms')::bigint * interval '1 millisecond') || ts;
    latch := cardinality(attempts) >= (request->>'latch_after')::int;
    UPDATE @schema@.cooldown SET last_at = ts, recent = attempts WHERE grp = g;
    IF latch THEN
      UPDATE @schema@.control SET latched_at = coalesce(latched_at, ts) WHERE grp = g;
    END IF;
  END IF;
  INSERT INTO @schema@.failover (id, grp, epoch, kind, node, by_whom, reason, step, status, evidence, started_at)
    VALUES (n, g, e, request->>'kind', me, request->>'by', request->>'reason', 'acquired', 'running',
            CASE WHEN ttl > 0 THEN request->'evidence' || jsonb_build_object('way', way)
              ELSE request->'evidence' END, ts);
  INSERT INTO @schema@.event (at, grp, epoch, kind, node, by_whom, reason, failover, step, outcome, detail)
    VALUES (ts, g, e, 'acquired', me, request->>'by', request->>'reason', n, 'acquire', 'done',
            jsonb_build_object('from_epoch', l.epoch, 'from_holder', l.holder, 'latched', latch, 'way', way));
  INSERT INTO @schema@.alert (id, grp, epoch, node, severity, body)
    VALUES ((request->>'alert_id')::uuid, g, e, me, request->>'alert_severity',
            request->'alert_body' || jsonb_build_object('epoch', e));
  RETURN jsonb_build_object('outcome', 'acquired', 'epoch', e);
EXCEPTION WHEN lock_not_available OR deadlock_detected OR serialization_failure THEN
  RETURN '{"outcome": "busy"}';
END $$;

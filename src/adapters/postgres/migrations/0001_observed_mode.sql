-- Version 1: lease, fence, operators' orders, history and alerts.
--
-- Runs with search_path set to understudy's own schema, whose quoted name replaces @schema@. Functions
-- keep that path (SET search_path FROM CURRENT) unless they touch the heartbeat table: its triggers and
-- views belong to others, and must find what they find in any other session. Every change of state is
-- one call and one commit, so that a transaction pooler may sit in between.

-- One row. A copy or a restore of the database under another name is told apart by its uuid.
CREATE TABLE store_id (
  one            boolean PRIMARY KEY DEFAULT true CHECK (one),
  uuid           uuid    NOT NULL DEFAULT gen_random_uuid(),
  schema_version integer NOT NULL
);
INSERT INTO store_id (schema_version) VALUES (1);

-- Who has a group. (epoch, nonce) is the token of a tenure. A primary without an understudy of its
-- own has no nonce and renews nothing.
CREATE TABLE lease (
  grp        text        PRIMARY KEY,
  epoch      bigint      NOT NULL DEFAULT 0 CHECK (epoch >= 0),
  holder     text,
  nonce      uuid,
  seq        bigint      NOT NULL DEFAULT 0,
  changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  CHECK (holder IS NOT NULL OR nonce IS NULL)
);

-- Written only when the tenure changes; applications lock it FOR SHARE in their own transactions.
CREATE TABLE fence (
  grp    text   PRIMARY KEY REFERENCES lease,
  epoch  bigint NOT NULL,
  holder text,
  nonce  uuid
);

-- What operators have said, and the latch, which only an operator clears.
CREATE TABLE control (
  grp         text PRIMARY KEY REFERENCES lease,
  held_by     text,
  held_reason text,
  held_until  timestamptz,
  latched_at  timestamptz,
  CHECK (held_by IS NOT NULL OR held_until IS NULL)
);

-- Automatic attempts, counted when they begin.
CREATE TABLE cooldown (
  grp     text          PRIMARY KEY REFERENCES lease,
  last_at timestamptz,
  recent  timestamptz[] NOT NULL DEFAULT '{}'
);

-- One row per tenure that understudy took; its id is the tenure's nonce.
CREATE TABLE failover (
  id         uuid        PRIMARY KEY,
  grp        text        NOT NULL REFERENCES lease,
  epoch      bigint      NOT NULL,
  kind       text        NOT NULL CHECK (kind IN ('automatic', 'operator')),
  node       text        NOT NULL,
  by_whom    text,
  reason     text,
  step       text        NOT NULL,
  status     text        NOT NULL CHECK (status IN ('running', 'done', 'failed', 'superseded')),
  evidence   jsonb       NOT NULL,
  started_at timestamptz NOT NULL,
  ended_at   timestamptz,
  UNIQUE (grp, epoch)
);

-- For applications that cannot be changed: which node a database role belongs to. Filled by whoever
-- gives each node a role of its own.
CREATE TABLE node_role (
  rolname name PRIMARY KEY,
  node    text NOT NULL
);

-- Everything that happened, append-only: the daemon's role may insert and read, nothing else.
CREATE TABLE event (
  id       bigint      PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  at       timestamptz NOT NULL DEFAULT clock_timestamp(),
  grp      text        NOT NULL REFERENCES lease,
  epoch    bigint      NOT NULL,
  kind     text        NOT NULL,
  node     text        NOT NULL,
  by_whom  text,
  reason   text,
  failover uuid        REFERENCES failover,
  step     text,
  outcome  text,
  after_ms bigint,
  took_ms  bigint,
  detail   jsonb       NOT NULL DEFAULT '{}'
);
CREATE INDEX event_by_group ON event (grp, id);
CREATE INDEX event_by_failover ON event (failover, id) WHERE failover IS NOT NULL;

-- Alerts that must not be lost if the node dies right after it took a group.
CREATE TABLE alert (
  id           uuid        PRIMARY KEY,
  grp          text        NOT NULL REFERENCES lease,
  epoch        bigint      NOT NULL,
  node         text        NOT NULL,
  severity     text        NOT NULL,
  body         jsonb       NOT NULL,
  created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  delivered_at timestamptz
);
CREATE INDEX alert_undelivered ON alert (node, created_at) WHERE delivered_at IS NULL;

-- A number that goes back would let an old token look current.
CREATE FUNCTION epoch_only_grows() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  IF NEW.epoch < OLD.epoch THEN
    RAISE EXCEPTION 'the epoch of group % may not go back from % to %', NEW.grp, OLD.epoch, NEW.epoch
      USING ERRCODE = 'UF005';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER epoch_only_grows BEFORE UPDATE ON lease
  FOR EACH ROW EXECUTE FUNCTION epoch_only_grows();
CREATE TRIGGER epoch_only_grows BEFORE UPDATE ON fence
  FOR EACH ROW EXECUTE FUNCTION epoch_only_grows();

-- Which server this is. Services that forbid a question answer it with "unknown"; the rest still
-- tells a restart, a promotion and a restore apart.
CREATE FUNCTION identity() RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
  system_id text := 'unknown';
  timeline  text := 'unknown';
BEGIN
  BEGIN
    system_id := (pg_control_system()).system_identifier::text;
  EXCEPTION WHEN OTHERS THEN NULL;
  END;
  BEGIN
    timeline := substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8);
  EXCEPTION WHEN OTHERS THEN NULL;
  END;
  RETURN jsonb_build_object(
    'system', system_id,
    'timeline', timeline,
    'started', (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint::text,
    'uuid', (SELECT uuid FROM store_id));
END $$;

-- Heartbeats of one table as text, one entry [name, rows, heartbeat, status, age in ms] per name
-- found. A table that cannot be read is a fault of its own groups and must not blind the others,
-- hence the handler. The settings make the text of a heartbeat the same in every session; the age is
-- for people and uses the caller's time zone, since that is what NOW() would have stored.
CREATE FUNCTION beats(mapping jsonb, time_zone text) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET timezone = 'UTC' SET datestyle = 'ISO' SET extra_float_digits = 1 SET lock_timeout = '500ms' AS $$
DECLARE
  base  oid;
  age   text := 'NULL::bigint';
  found jsonb;
BEGIN
  SELECT coalesce(nullif(t.typbasetype, 0), t.oid) INTO base
    FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid
    JOIN pg_attribute a ON a.attrelid = c.oid JOIN pg_type t ON t.oid = a.atttypid
   WHERE n.nspname = mapping->>'schema' AND c.relname = mapping->>'table'
     AND a.attname = mapping->>'beat_column' AND NOT a.attisdropped;
  IF base = 'timestamptz'::regtype THEN
    age := 'CASE WHEN isfinite(%1$s) THEN round((extract(epoch FROM clock_timestamp()) - extract(epoch FROM %1$s)) * 1000)::bigint END';
  ELSIF base = 'timestamp'::regtype THEN
    age := 'CASE WHEN isfinite(%1$s) THEN round((extract(epoch FROM clock_timestamp() AT TIME ZONE %2$L) - extract(epoch FROM %1$s)) * 1000)::bigint END';
  ELSIF base IN ('int4'::regtype, 'int8'::regtype, 'numeric'::regtype, 'float8'::regtype) THEN
    -- Seconds, or milliseconds, since 1970; anything else is a counter and has no age.
    age := 'CASE WHEN %1$s > 1e8 AND %1$s < 1e11 THEN round((extract(epoch FROM clock_timestamp()) - %1$s) * 1000)::bigint'
        || ' WHEN %1$s >= 1e11 AND %1$s < 1e14 THEN round(extract(epoch FROM clock_timestamp()) * 1000 - %1$s)::bigint END';
  END IF;
  age := format(age, format('%I', mapping->>'beat_column'), time_zone);
  EXECUTE format(
    'SELECT coalesce(jsonb_agg(jsonb_build_array(b.name, b.rows, b.value, b.status, b.age)), ''[]'') FROM ('
    'SELECT %1$I::text AS name, count(*) AS rows, min(%2$I::text) AS value, min(%3$I::text) AS status, min(%4$s) AS age'
    ' FROM %5$I.%6$I WHERE %1$I::text = ANY ($1) GROUP BY 1) b',
    mapping->>'name_column', mapping->>'beat_column', mapping->>'status_column', age,
    mapping->>'schema', mapping->>'table')
    INTO found USING ARRAY(SELECT jsonb_array_elements_text(mapping->'bots'));
  RETURN jsonb_build_object('rows', found);
EXCEPTION WHEN OTHERS THEN
  RETURN jsonb_build_object('fault', jsonb_build_object('code', SQLSTATE, 'message', SQLERRM));
END $$;

-- The heartbeats once more, inside the acquiring transaction, after every wait for a lock. NULL means
-- that nothing has changed since `expected` was read; an automatic request must expect something. The rows stay locked until the commit, in the
-- mode that an UPDATE takes: whoever writes a heartbeat comes either before or after, and a foreign
-- key that merely points at a row is no sign of life.
CREATE FUNCTION last_look(mapping jsonb, expected jsonb, automatic boolean) RETURNS jsonb
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
  IF FOUND OR rows <> (SELECT count(*) FROM jsonb_object_keys(expected)) OR automatic AND rows = 0 THEN
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

-- Takes the group for a node: a compare-and-swap on the lease that also asks everything which may have
-- changed since the caller looked. Attempt, history, event and alert are written in the same commit.
--
-- Rows are locked in the order lease, control, cooldown, fence, heartbeats, as everyone else does who
-- locks two of them, and in the mode of an UPDATE, which lets foreign keys be checked meanwhile: without
-- that, a hold and a takeover could each wait for the other. Whatever a request does not say refuses it.
CREATE FUNCTION acquire(request jsonb) RETURNS jsonb
LANGUAGE plpgsql SET lock_timeout = '1500ms' AS $$
DECLARE
  g         text    := request->>'group';
  me        text    := request->>'node';
  n         uuid    := (request->>'nonce')::uuid;
  automatic boolean := request->>'kind' = 'automatic';
  ts        timestamptz;
  age_us    bigint;
  l         @schema@.lease;
  c         @schema@.control;
  d         @schema@.cooldown;
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
  IF l.epoch IS DISTINCT FROM (request->>'expected_epoch')::bigint
     OR l.seq IS DISTINCT FROM (request->>'expected_seq')::bigint
     OR l.nonce IS DISTINCT FROM (request->>'expected_nonce')::uuid THEN
    RETURN jsonb_build_object('outcome', 'changed', 'epoch', l.epoch, 'holder', l.holder);
  END IF;
  IF c.held_by IS NOT NULL AND (c.held_until IS NULL OR c.held_until > ts) THEN
    RETURN jsonb_build_object('outcome', 'held', 'by', c.held_by, 'reason', c.held_reason);
  END IF;
  IF automatic THEN
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
  look := @schema@.last_look(request->'mapping', request->'heartbeats', automatic);
  IF look IS NOT NULL THEN
    RETURN look;
  END IF;

  e := greatest(l.epoch, (request->>'min_epoch')::bigint) + 1;
  UPDATE @schema@.fence SET epoch = e, holder = me, nonce = n WHERE grp = g;
  UPDATE @schema@.lease SET epoch = e, holder = me, nonce = n, seq = 0, changed_at = ts WHERE grp = g;
  UPDATE @schema@.failover SET status = 'superseded', ended_at = ts WHERE grp = g AND status = 'running';
  IF automatic THEN
    -- A time in the future (the clock went back) is counted as now, not forgotten.
    attempts := ARRAY(SELECT least(x, ts) FROM unnest(d.recent) x
      WHERE x > ts - (request->>'latch_window_ms')::bigint * interval '1 millisecond') || ts;
    latch := cardinality(attempts) >= (request->>'latch_after')::int;
    UPDATE @schema@.cooldown SET last_at = ts, recent = attempts WHERE grp = g;
    IF latch THEN
      UPDATE @schema@.control SET latched_at = ts WHERE grp = g;
    END IF;
  END IF;
  INSERT INTO @schema@.failover (id, grp, epoch, kind, node, by_whom, reason, step, status, evidence, started_at)
    VALUES (n, g, e, request->>'kind', me, request->>'by', request->>'reason', 'acquired', 'running',
            request->'evidence', ts);
  INSERT INTO @schema@.event (at, grp, epoch, kind, node, by_whom, reason, failover, step, outcome, detail)
    VALUES (ts, g, e, 'acquired', me, request->>'by', request->>'reason', n, 'acquire', 'done',
            jsonb_build_object('from_epoch', l.epoch, 'from_holder', l.holder, 'latched', latch));
  INSERT INTO @schema@.alert (id, grp, epoch, node, severity, body)
    VALUES ((request->>'alert_id')::uuid, g, e, me, request->>'alert_severity',
            request->'alert_body' || jsonb_build_object('epoch', e));
  RETURN jsonb_build_object('outcome', 'acquired', 'epoch', e);
EXCEPTION WHEN lock_not_available OR deadlock_detected OR serialization_failure THEN
  RETURN '{"outcome": "busy"}';
END $$;

-- Sets the status of every bot of a group, or of none: an exception undoes all of it.
CREATE FUNCTION flip(g text, e bigint, n uuid, mapping jsonb) RETURNS bigint
LANGUAGE plpgsql SET lock_timeout = '1500ms' AS $$
DECLARE
  names    text[] := ARRAY(SELECT jsonb_array_elements_text(mapping->'bots'));
  affected bigint;
  now_so   bigint;
BEGIN
  PERFORM 1 FROM @schema@.fence WHERE grp = g AND epoch = e AND nonce = n FOR SHARE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'epoch % of group % is not current', e, g USING ERRCODE = 'UF001';
  END IF;
  -- A literal, not a parameter: it fits a column of any type that text can be written into.
  EXECUTE format('UPDATE %I.%I SET %I = %L WHERE %I::text = ANY ($1)', mapping->>'schema', mapping->>'table',
                 mapping->>'status_column', mapping->>'primary_status', mapping->>'name_column') USING names;
  GET DIAGNOSTICS affected = ROW_COUNT;
  EXECUTE format('SELECT count(*) FROM %I.%I WHERE %I::text = ANY ($1) AND %I::text = $2', mapping->>'schema',
                 mapping->>'table', mapping->>'name_column', mapping->>'status_column')
    INTO now_so USING names, mapping->>'primary_status';
  IF affected <> cardinality(names) OR now_so <> cardinality(names) THEN
    RAISE EXCEPTION '% of % rows could be set, and % read back', affected, cardinality(names), now_so
      USING ERRCODE = 'UF003';
  END IF;
  RETURN affected;
END $$;

-- For applications, as the first statement of a transaction that must not commit under a superseded
-- token. A takeover that is under way waits for it to end.
CREATE FUNCTION fence_check(g text, e bigint, n uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM 1 FROM fence WHERE grp = g AND epoch = e AND nonce = n FOR SHARE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'understudy: epoch % of group % is not current', e, g USING ERRCODE = 'UF001';
  END IF;
END $$;

-- For applications that cannot be changed, as a trigger on their tables:
--   CREATE TRIGGER fence BEFORE INSERT OR UPDATE OR DELETE ON orders
--     FOR EACH STATEMENT EXECUTE FUNCTION understudy.fence_by_role('group');
-- A role of a node that does not have the group cannot write; roles of no node are not fenced.
CREATE FUNCTION fence_by_role() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
  who text;
BEGIN
  SELECT node INTO who FROM node_role WHERE rolname = session_user;
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  PERFORM 1 FROM fence WHERE grp = TG_ARGV[0] AND holder = who FOR SHARE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'understudy: node % does not have group %', who, TG_ARGV[0] USING ERRCODE = 'UF002';
  END IF;
  RETURN NULL;
END $$;

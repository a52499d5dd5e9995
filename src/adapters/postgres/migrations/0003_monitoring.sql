-- Version 3: what checks measured, and what is told of it.
--
-- Nothing here is needed for a failover. The daemon writes by one function, which also makes and drops
-- partitions, so that its role needs no right to change the schema.

-- A check of a node. Numbers instead of names keep the samples small.
CREATE TABLE check_series (
  id     integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  node   text NOT NULL,
  name   text NOT NULL,
  grp    text NOT NULL,
  kind   text NOT NULL,
  suffix text NOT NULL,
  UNIQUE (node, name)
);

-- Samples of some minutes, all of one hour: when each was taken (milliseconds after `at`), its value
-- (NULL: none), and its level, one letter each: u, g, y, r. A row for each sample would take five times
-- the space.
CREATE TABLE check_chunk (
  series  integer     NOT NULL,
  at      timestamptz NOT NULL,
  offsets integer[]   NOT NULL,
  vals    real[]      NOT NULL,
  levels  text        NOT NULL,
  PRIMARY KEY (series, at)
) PARTITION BY RANGE (at);

-- The same by the hour, from which reports are made.
CREATE TABLE check_hour (
  series   integer          NOT NULL,
  hour     timestamptz      NOT NULL,
  samples  integer          NOT NULL,
  valued   integer          NOT NULL,
  total    double precision NOT NULL,
  squares  double precision NOT NULL,
  least    double precision,
  greatest double precision,
  p50      double precision,
  p95      double precision,
  green    integer          NOT NULL,
  yellow   integer          NOT NULL,
  red      integer          NOT NULL,
  PRIMARY KEY (series, hour)
);
CREATE INDEX check_hour_by_hour ON check_hour (hour);

-- What a check was like when a person said that all is well.
CREATE TABLE check_baseline (
  name        text               NOT NULL,
  series      integer            NOT NULL REFERENCES check_series,
  saved_at    timestamptz        NOT NULL DEFAULT clock_timestamp(),
  saved_by    text               NOT NULL,
  over_s      bigint             NOT NULL,
  samples     bigint             NOT NULL,
  mean        double precision   NOT NULL,
  deviation   double precision   NOT NULL,
  least       double precision   NOT NULL,
  greatest    double precision   NOT NULL,
  percentiles double precision[] NOT NULL CHECK (cardinality(percentiles) = 99),
  PRIMARY KEY (name, series)
);

-- Makes the partition of a day. Two at once wait for each other.
CREATE FUNCTION check_day(day date) RETURNS void
LANGUAGE plpgsql SET search_path = @schema@, pg_temp AS $$
DECLARE
  part text := 'check_chunk_' || to_char(day, 'YYYYMMDD');
BEGIN
  IF to_regclass(part) IS NULL THEN
    PERFORM pg_advisory_xact_lock(hashtextextended('understudy check_day', 0));
    EXECUTE format(
      'CREATE TABLE IF NOT EXISTS %I PARTITION OF check_chunk FOR VALUES FROM (%L) TO (%L)',
      part, (day::timestamp AT TIME ZONE 'UTC'), ((day + 1)::timestamp AT TIME ZONE 'UTC'));
  END IF;
END
$$;

-- A batch of chunks as rows, without what is too old to be kept, or from a future that this server does
-- not expect.
CREATE FUNCTION check_batch(batch jsonb, keep_days integer)
RETURNS TABLE (name text, grp text, kind text, suffix text, at timestamptz, offsets integer[],
               vals real[], levels text)
LANGUAGE sql STABLE AS $$
  SELECT c.name, c.grp, c.kind, c.suffix, to_timestamp(c.at_ms / 1000.0), c.offsets, c.vals, c.levels
  FROM jsonb_to_recordset(batch) AS c(name text, grp text, kind text, suffix text, at_ms bigint,
                                      offsets integer[], vals real[], levels text)
  WHERE to_timestamp(c.at_ms / 1000.0)
        >= (now() AT TIME ZONE 'UTC')::date::timestamp AT TIME ZONE 'UTC' - make_interval(days => keep_days)
    AND to_timestamp(c.at_ms / 1000.0) < now() + interval '1 day'
$$;

-- Stores chunks of a node and sums up the hours that they are of. Returns how many chunks are new. May
-- be repeated with the same chunks.
CREATE FUNCTION store_checks(who text, batch jsonb, keep_days integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = @schema@, pg_temp AS $$
DECLARE
  day    date;
  stored integer;
BEGIN
  INSERT INTO check_series AS s (node, name, grp, kind, suffix)
    SELECT DISTINCT ON (b.name) who, b.name, b.grp, b.kind, b.suffix
    FROM check_batch(batch, keep_days) b ORDER BY b.name, b.at DESC
    ON CONFLICT (node, name) DO UPDATE SET grp = excluded.grp, kind = excluded.kind,
      suffix = excluded.suffix
      WHERE (s.grp, s.kind, s.suffix) IS DISTINCT FROM (excluded.grp, excluded.kind, excluded.suffix);
  FOR day IN SELECT DISTINCT (b.at AT TIME ZONE 'UTC')::date FROM check_batch(batch, keep_days) b LOOP
    PERFORM check_day(day);
  END LOOP;
  INSERT INTO check_chunk (series, at, offsets, vals, levels)
    SELECT s.id, b.at, b.offsets, b.vals, b.levels
    FROM check_batch(batch, keep_days) b JOIN check_series s ON s.node = who AND s.name = b.name
    ON CONFLICT DO NOTHING;
  GET DIAGNOSTICS stored = ROW_COUNT;
  INSERT INTO check_hour AS t (series, hour, samples, valued, total, squares, least, greatest, p50, p95,
                               green, yellow, red)
    SELECT c.series, h.hour, count(*), count(x.v), coalesce(sum(x.v), 0),
           coalesce(sum(x.v * x.v), 0), min(x.v), max(x.v),
           percentile_cont(0.5) WITHIN GROUP (ORDER BY x.v),
           percentile_cont(0.95) WITHIN GROUP (ORDER BY x.v),
           count(*) FILTER (WHERE x.l = 'g'), count(*) FILTER (WHERE x.l = 'y'),
           count(*) FILTER (WHERE x.l = 'r')
    FROM (SELECT DISTINCT s.id, date_trunc('hour', b.at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS hour
          FROM check_batch(batch, keep_days) b
          JOIN check_series s ON s.node = who AND s.name = b.name) h
    JOIN check_chunk c ON c.series = h.id AND c.at >= h.hour AND c.at < h.hour + interval '1 hour'
    CROSS JOIN LATERAL (
      SELECT u.v::double precision AS v, u.l
      FROM unnest(c.vals, string_to_array(c.levels, NULL)) AS u(v, l)) x
    GROUP BY c.series, h.hour
    ON CONFLICT (series, hour) DO UPDATE SET samples = excluded.samples, valued = excluded.valued,
      total = excluded.total, squares = excluded.squares, least = excluded.least,
      greatest = excluded.greatest, p50 = excluded.p50, p95 = excluded.p95,
      green = excluded.green, yellow = excluded.yellow, red = excluded.red;
  RETURN stored;
END
$$;

-- Drops what is older than it should be kept. Returns how many days of samples that were.
CREATE FUNCTION forget_checks(keep_days integer, keep_hours_days integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = @schema@, pg_temp AS $$
DECLARE
  oldest date := (now() AT TIME ZONE 'UTC')::date - keep_days;
  part   text;
  gone   integer := 0;
BEGIN
  -- Somebody else is at it, or it was just done.
  IF NOT pg_try_advisory_xact_lock(hashtextextended('understudy forget_checks', 0)) THEN
    RETURN 0;
  END IF;
  FOR part IN
    SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'check_chunk'::regclass AND c.relname ~ '^check_chunk_[0-9]{8}$'
      AND to_date(right(c.relname, 8), 'YYYYMMDD') < oldest
  LOOP
    EXECUTE format('DROP TABLE %I', part);
    gone := gone + 1;
  END LOOP;
  DELETE FROM check_hour WHERE hour < now() - make_interval(days => keep_hours_days);
  RETURN gone;
END
$$;

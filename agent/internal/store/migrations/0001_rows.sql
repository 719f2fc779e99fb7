-- Bookkeeping. Names that begin with an underscore are not replicated.
CREATE TABLE _meta (key TEXT PRIMARY KEY NOT NULL, value ANY) STRICT, WITHOUT ROWID;
INSERT INTO _meta VALUES ('min_reader', 1);

-- Small numbers for sites and names, so that packed records stay small.
CREATE TABLE _site (n INTEGER PRIMARY KEY, site BLOB NOT NULL UNIQUE) STRICT;
CREATE TABLE _name (n INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;

-- Which versions of each site are completely here.
CREATE TABLE _known (
  site INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
  PRIMARY KEY (site, first)
) STRICT, WITHOUT ROWID;

-- For each row and site, the newest version in which the site wrote the row.
CREATE TABLE _version (
  site INTEGER NOT NULL, seq INTEGER NOT NULL, tbl INTEGER NOT NULL, key TEXT NOT NULL,
  PRIMARY KEY (site, seq, tbl, key)
) STRICT, WITHOUT ROWID;

-- Rows with a record but no place in a table: deleted ones, and those of
-- tables that only newer agents know.
CREATE TABLE _shelf (
  tbl INTEGER NOT NULL, key TEXT NOT NULL, record BLOB NOT NULL,
  PRIMARY KEY (tbl, key)
) STRICT, WITHOUT ROWID;

-- The replicated tables. Every column takes any type: a value that a newer
-- agent writes must be kept and passed on, never refused.
CREATE TABLE cluster (
  id TEXT PRIMARY KEY NOT NULL, cluster_id ANY, network ANY, domain ANY, created_at ANY,
  _record BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE machines (
  id TEXT PRIMARY KEY NOT NULL, name ANY, public_key ANY, signing_key ANY, subnet ANY, endpoints ANY,
  labels ANY, roles ANY, schedulable ANY, version ANY, generation ANY, os ANY, arch ANY, joined_at ANY,
  _record BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE projects (
  id TEXT PRIMARY KEY NOT NULL, name ANY, created_at ANY,
  _record BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE services (
  id TEXT PRIMARY KEY NOT NULL, project ANY, name ANY, mode ANY, revision ANY, replicas ANY, wanted ANY, created_at ANY,
  _record BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE revisions (
  id TEXT PRIMARY KEY NOT NULL, service ANY, spec ANY, created_at ANY,
  _record BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE replicas (
  id TEXT PRIMARY KEY NOT NULL, name ANY, service ANY, revision ANY, machine ANY, wanted ANY, epoch ANY, rollout ANY,
  created_at ANY,
  _record BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE containers (
  replica TEXT PRIMARY KEY NOT NULL, machine ANY, engine_id ANY, revision ANY, address ANY, state ANY, health ANY,
  exit_code ANY, error ANY, since ANY, started_at ANY,
  _record BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE rollouts (
  id TEXT PRIMARY KEY NOT NULL, service ANY, from_revision ANY, to_revision ANY, stage ANY, driver ANY, error ANY,
  started_at ANY, ended_at ANY,
  _record BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE volumes (
  id TEXT PRIMARY KEY NOT NULL, project ANY, name ANY, machine ANY, spec ANY, created_at ANY,
  _record BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE tickets (
  id TEXT PRIMARY KEY NOT NULL, issuer ANY, public_keys ANY, uses ANY, expires_at ANY, revoked ANY, created_at ANY,
  _record BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE ticket_uses (
  id TEXT PRIMARY KEY NOT NULL, ticket ANY, machine ANY, at ANY,
  _record BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
  id TEXT PRIMARY KEY NOT NULL, machine ANY, at ANY, kind ANY, subject ANY, text ANY,
  _record BLOB NOT NULL
) STRICT, WITHOUT ROWID;

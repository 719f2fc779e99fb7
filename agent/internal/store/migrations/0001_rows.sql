-- The replicated tables. The first agents made these and the bookkeeping in one
-- script; hence IF NOT EXISTS.
-- Every column takes any type: a value that a newer
-- agent writes must be kept and passed on, never refused.
CREATE TABLE IF NOT EXISTS cluster (
  id TEXT PRIMARY KEY NOT NULL, cluster_id ANY, network ANY, domain ANY, created_at ANY,
  _record BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS machines (
  id TEXT PRIMARY KEY NOT NULL, name ANY, public_key ANY, signing_key ANY, subnet ANY, endpoints ANY,
  labels ANY, roles ANY, schedulable ANY, version ANY, generation ANY, os ANY, arch ANY, joined_at ANY,
  _record BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS projects (
  id TEXT PRIMARY KEY NOT NULL, name ANY, created_at ANY,
  _record BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS services (
  id TEXT PRIMARY KEY NOT NULL, project ANY, name ANY, mode ANY, revision ANY, replicas ANY, wanted ANY, created_at ANY,
  _record BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS revisions (
  id TEXT PRIMARY KEY NOT NULL, service ANY, spec ANY, created_at ANY,
  _record BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS replicas (
  id TEXT PRIMARY KEY NOT NULL, name ANY, service ANY, revision ANY, machine ANY, wanted ANY, epoch ANY, rollout ANY,
  created_at ANY,
  _record BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS containers (
  replica TEXT PRIMARY KEY NOT NULL, machine ANY, engine_id ANY, revision ANY, address ANY, state ANY, health ANY,
  exit_code ANY, error ANY, since ANY, started_at ANY,
  _record BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS rollouts (
  id TEXT PRIMARY KEY NOT NULL, service ANY, from_revision ANY, to_revision ANY, stage ANY, driver ANY, error ANY,
  started_at ANY, ended_at ANY,
  _record BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS volumes (
  id TEXT PRIMARY KEY NOT NULL, project ANY, name ANY, machine ANY, spec ANY, created_at ANY,
  _record BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS tickets (
  id TEXT PRIMARY KEY NOT NULL, issuer ANY, public_keys ANY, uses ANY, expires_at ANY, revoked ANY, created_at ANY,
  _record BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS ticket_uses (
  id TEXT PRIMARY KEY NOT NULL, ticket ANY, machine ANY, at ANY,
  _record BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS events (
  id TEXT PRIMARY KEY NOT NULL, machine ANY, at ANY, kind ANY, subject ANY, text ANY,
  _record BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Generations of the host's system, and the upgrades that change them.
ALTER TABLE machines ADD COLUMN system ANY;
ALTER TABLE machines ADD COLUMN nixos ANY;

CREATE TABLE IF NOT EXISTS upgrades (
  id TEXT PRIMARY KEY NOT NULL, machines ANY, flake ANY, system ANY, generation ANY, rollback ANY, restart ANY, drain ANY,
  stage ANY, error ANY, started_by ANY, started_at ANY, ended_at ANY,
  _record BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS turns (
  machine TEXT PRIMARY KEY NOT NULL, upgrade ANY, stage ANY, drain ANY, from_system ANY, to_system ANY, witnesses ANY, healthy ANY,
  error ANY, lines ANY, since ANY,
  _record BLOB NOT NULL
) STRICT, WITHOUT ROWID;

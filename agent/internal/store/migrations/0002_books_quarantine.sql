-- Rows that their table did not take, and why. The rows themselves are on the
-- shelf, so that they are merged and passed on as any other.
CREATE TABLE _quarantine (
  tbl INTEGER NOT NULL, key TEXT NOT NULL, error TEXT NOT NULL,
  PRIMARY KEY (tbl, key)
) STRICT, WITHOUT ROWID;

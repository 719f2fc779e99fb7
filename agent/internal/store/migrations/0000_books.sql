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

-- What the flakes of an upgrade were when its first machine read them.
ALTER TABLE upgrades ADD COLUMN locked ANY;

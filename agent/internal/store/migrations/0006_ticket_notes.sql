-- Why machines with a good ticket could not ask to be admitted.
ALTER TABLE tickets ADD COLUMN notes ANY;

package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"uncloud/agent/internal/crdt"
)

// bucketOf is the bucket of a row: a part of its table that is hashed and, if
// it differs from another machine's, exchanged as a whole.
func bucketOf(key string) byte {
	sum := sha256.Sum256([]byte(key))
	return sum[0]
}

// Buckets gives, from one read, the versions known and for each table a hash
// over the rows of each bucket, deleted ones too, with their records. They are
// equal on machines that know the same and agree.
func (s *Store) Buckets(ctx context.Context) (crdt.Known, map[string]*[256]uint64, error) {
	var known crdt.Known
	out := map[string]*[256]uint64{}
	err := s.snapshot(ctx, func(c *conn) (err error) {
		if known, err = s.file.readKnown(c); err != nil {
			return err
		}
		return s.file.scan(c, func(row crdt.Row) error {
			if out[row.Table] == nil {
				out[row.Table] = new([256]uint64)
			}
			// Sums do not depend on the order of the rows.
			out[row.Table][bucketOf(row.Key)] += rowSum(row)
			return nil
		})
	})
	if err != nil {
		return nil, nil, fmt.Errorf("hash the rows: %w", err)
	}
	return known, out, nil
}

// rowSum is a hash of all that machines must agree on about a row. Its writers
// are part of that: others find the row by them.
func rowSum(row crdt.Row) uint64 {
	sum := sha256.Sum256(crdt.AppendBatch(nil, crdt.Batch{Rows: []crdt.Row{row}}))
	return binary.BigEndian.Uint64(sum[:])
}

// BucketRows gives the rows of some buckets of each table, deleted ones too.
func (s *Store) BucketRows(ctx context.Context, buckets map[string][]byte) ([]crdt.Row, error) {
	var out []crdt.Row
	err := s.snapshot(ctx, func(c *conn) error {
		return s.file.scan(c, func(row crdt.Row) error {
			if slices.Contains(buckets[row.Table], bucketOf(row.Key)) {
				out = append(out, row)
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read the rows of buckets: %w", err)
	}
	return out, nil
}

// Repair merges rows that another machine holds in buckets that differ, and
// says how many were changed by it. It brings no new versions. A deleted row
// that is not here at all, though its writers' versions are, stays away: it was
// forgotten here, and is not there either for those who read.
func (s *Store) Repair(ctx context.Context, rows []crdt.Row) (int, error) {
	release, err := s.acquire(ctx)
	if err != nil {
		return 0, err
	}
	defer release()
	if err := s.checkBatch(crdt.Batch{Rows: rows}); err != nil {
		return 0, err
	}
	done, err := s.write(true, s.file.saveEach, func(c *conn) (outcome, error) {
		fit, err := s.withoutForgotten(c, rows)
		if err != nil {
			return outcome{}, err
		}
		return s.join(fit, s.file.known)
	})
	s.recount()
	if err != nil {
		return 0, fmt.Errorf("repair %d rows: %w", len(rows), err)
	}
	if len(done.changes) > 0 {
		s.publish(Commit{Batch: crdt.Batch{Rows: rowsOf(done.changes), Marks: crdt.Known{}}, Known: done.known}, done.changes)
	}
	return s.repaired(done.changes), nil
}

// repaired counts the rows that held something else. Where only one side has
// collected, the row's writers may differ by versions of the floor: that is
// evened out, and is no divergence.
func (s *Store) repaired(changes []change) int {
	n, floor := 0, s.Floor().Known
	for _, ch := range changes {
		if !ch.old.Record.Equal(ch.row.Record) || slices.ContainsFunc(ch.row.Writers, func(v Version) bool {
			return !slices.Contains(ch.old.Writers, v) && !floor.Covers(v)
		}) {
			n++
		}
	}
	return n
}

func (s *Store) withoutForgotten(c *conn, rows []crdt.Row) ([]crdt.Row, error) {
	var out []crdt.Row
	for _, row := range rows {
		if !row.Record.Alive() && s.file.known.CoversAll(allOf(row.Writers)) {
			_, at, err := s.file.load(c, row.Table, row.Key)
			if err != nil {
				return nil, err
			}
			if at == nowhere {
				continue
			}
		}
		out = append(out, row)
	}
	return out, nil
}

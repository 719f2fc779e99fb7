package store

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"uncloud/agent/internal/crdt"
	"uncloud/internal/spec"
)

// Rows of one transaction are looked up and written by lists of their keys.
// Whatever is in a key, that is the same as one row at a time.
func TestAnyKeyFitsIntoALargeBatch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.SliceOfNDistinct(anyKey(), some, 3*many, rapid.ID).Draw(t, "keys")
		together, alone := openFor(t), openFor(t)
		for round := range uint64(2) {
			site := crdt.SiteID{15: byte(round + 1)}
			var rows []crdt.Row
			for i, key := range keys {
				row := rawRow("t", key, site, crdt.Assignment{Column: "kind", Value: crdt.Integer(int64(i))})
				row.Record.CL += round * uint64(i%3) // some are deleted in the second round, some born anew
				if !row.Record.Alive() {
					row.Record.Cells = nil
				}
				rows = append(rows, row)
				merge(t, alone, crdt.Batch{Rows: []crdt.Row{row}})
			}
			marks := crdt.Knows(Version{Site: site, Seq: 1})
			merge(t, together, crdt.Batch{Rows: rows, Marks: marks})
			merge(t, alone, crdt.Batch{Rows: rows, Marks: marks})
		}
		if mustDigest(t, together) != mustDigest(t, alone) {
			t.Fatalf("the stores differ")
		}
		checked(t, together)
	})
}

// anyKey is keys that mean something in JSON, and such as are no text at all.
func anyKey() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.StringN(1, 8, -1),
		rapid.Custom(func(t *rapid.T) string { return string(rapid.SliceOfN(rapid.Byte(), 1, 8).Draw(t, "bytes")) }),
		rapid.StringOfN(rapid.SampledFrom([]rune("\"\\\x00\x1f\n{}[],:u0041é\u2028")), 1, 8, -1),
	)
}

func openFor(t *rapid.T) *Store {
	s, err := Open(testContext, Options{Schema: benchSchema})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func merge(t fataler, s *Store, b crdt.Batch) {
	t.Helper()
	if _, err := s.Merge(testContext, b); err != nil {
		t.Fatal(err)
	}
}

// Guards that an earlier agent made are replaced, not doubled.
func TestGuardsOfEarlierAgents(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	put(t, s, project(1))
	earlier := fmt.Sprintf(`DROP TRIGGER _guard_projects_insert;
		CREATE TRIGGER _guard_projects_insert BEFORE INSERT ON projects WHEN NOT %s() BEGIN SELECT RAISE(ABORT, 'no'); END`, guardFunction)
	if err := s.file.w.script(earlier); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, Options{Dir: dir, schema: newer("SELECT 1;")})
	put(t, again, project(2))
	for kind, want := range map[string]int64{"BEFORE": 0, "AFTER": int64(3 * len(again.file.tables))} {
		n, err := again.file.w.number("SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND sql LIKE '% " + kind + " %'")
		if err != nil || n != want {
			t.Errorf("%d guards look %s the row, %v", n, kind, err)
		}
	}
}

// The pass that a large transaction takes ends with it, also when it fails.
func TestThePassOfALargeTransactionEnds(t *testing.T) {
	s := open(t, Options{})
	raw := "INSERT INTO projects (id, _record) VALUES ('raw', x'')"
	var rows []spec.Row
	for i := range 2 * many {
		rows = append(rows, project(i))
	}
	put(t, s, rows...)
	if err := s.file.w.script(raw); err == nil {
		t.Error("a write after a large transaction passes")
	}
	failed := errors.New("failed")
	err := s.file.write(false, func(c *conn) error {
		return c.passing(func() error {
			if err := c.script(raw); err != nil {
				t.Error("the writer does not pass:", err)
			}
			return failed
		})
	})
	if !errors.Is(err, failed) || s.file.w.script(raw) == nil {
		t.Error("a write after a failed transaction passes:", err)
	}
}

// A batch may name a row several times: that is their merge. The batch itself
// stays as it was.
func TestRowsNamedTwice(t *testing.T) {
	var rows []crdt.Row
	for i, key := range []string{"a", "b", "a", "c", "b", "a", "d"} {
		row := rawRow("t", key, crdt.SiteID{15: byte(i + 1)})
		row.Record.CL = uint64(1 + i)
		rows = append(rows, row)
	}
	given := slices.Clone(rows)
	got := dedupe(rows)
	var told []string
	for _, r := range got {
		told = append(told, fmt.Sprintf("%s%d %d", r.Key, r.Record.CL, len(r.Writers)))
	}
	if want := []string{"a6 3", "b5 2", "c4 1", "d7 1"}; !slices.Equal(told, want) {
		t.Errorf("%v, not %v", told, want)
	}
	for i := range rows {
		if rows[i].Record.CL != given[i].Record.CL || len(rows[i].Writers) != 1 {
			t.Errorf("row %d of the batch was written to", i)
		}
	}
	if one := dedupe(rows[:2]); &one[0] != &rows[0] {
		t.Error("a batch without repetition was copied")
	}
}

package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand"
	"testing"
	"time"

	"uncloud/agent/internal/crdt"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

func follow(t testing.TB, s *Store, table string, from uint64) *Follower {
	t.Helper()
	f, err := s.Follow(table, from)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// folded is what the events of a follower amount to.
type folded struct {
	rows     map[string]crdt.Record
	at       uint64
	restarts int
}

// fold takes events and says what breaks the promises about them.
func (f *folded) fold(events []Event) error {
	for _, e := range events {
		_, had := f.rows[e.Row.Key]
		switch {
		case e.Kind == Restart:
			f.rows, f.at = map[string]crdt.Record{}, e.ID
			f.restarts++
			for _, row := range e.Rows {
				f.rows[row.Key] = row.Record
			}
			continue
		case e.ID != f.at+1:
			return fmt.Errorf("event %d after %d", e.ID, f.at)
		case had != (e.Kind != Inserted):
			return fmt.Errorf("%v of a row that is there: %v", e.Kind, had)
		}
		f.at = e.ID
		f.rows[e.Row.Key] = e.Row.Record
		if e.Kind == Deleted {
			delete(f.rows, e.Row.Key)
		}
	}
	return nil
}

func next(t testing.TB, f *Follower) []Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	events, err := f.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return events
}

func TestFollowATable(t *testing.T) {
	s, other := open(t, Options{Dir: t.TempDir()}), open(t, Options{})
	put(t, s, project(1), spec.Machine{ID: "mch_1"})
	f := follow(t, s, "projects", 0)
	first := next(t, f)
	if len(first) != 1 || first[0].Kind != Restart || len(first[0].Rows) != 1 {
		t.Fatalf("%+v", first)
	}
	put(t, s, project(2), spec.Machine{ID: "mch_2"})
	put(t, s, spec.Project{ID: "prj_2", Name: "changed"})
	remove(t, s, "projects", "prj_1")
	put(t, other, project(3))
	remove(t, other, "projects", "prj_3") // a tombstone of a row that nobody here has seen
	put(t, other, project(4))
	pull(t, s, other)
	events := next(t, f)
	var kinds []EventKind
	for i, e := range events {
		kinds = append(kinds, e.Kind)
		if e.ID != first[0].ID+uint64(i)+1 {
			t.Errorf("event %d has id %d after %d", i, e.ID, first[0].ID)
		}
	}
	if fmt.Sprint(kinds) != "[insert update delete insert]" {
		t.Fatal(kinds)
	}
	// Resume in the middle, at the end, and where nothing can be continued.
	if got := next(t, follow(t, s, "projects", events[1].ID)); len(got) != 2 || got[0].ID != events[2].ID {
		t.Errorf("resumed with %+v", got)
	}
	for _, from := range []uint64{1, first[0].ID - 1, events[3].ID + 1} {
		if got := next(t, follow(t, s, "projects", from)); got[0].Kind != Restart || got[0].ID != events[3].ID || len(got[0].Rows) != 2 {
			t.Errorf("resumed from %d with %+v", from, got)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := follow(t, s, "projects", events[3].ID).Next(ctx); !errors.Is(err, context.Canceled) {
		t.Error(got, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := follow(t, s, "projects", events[3].ID).Next(t.Context()); faults.CodeOf(err) != faults.Interrupted {
		t.Error(err)
	}
}

// Whoever reads slowly gets a restart, never a gap.
func TestSlowFollowerStartsAnew(t *testing.T) {
	s := open(t, Options{})
	f := follow(t, s, "projects", 0)
	var got folded
	if err := got.fold(next(t, f)); err != nil {
		t.Fatal(err)
	}
	for n := range feedEvents + 10 {
		put(t, s, project(n))
	}
	if err := got.fold(next(t, f)); err != nil || got.restarts != 2 || len(got.rows) != feedEvents+10 {
		t.Fatalf("%v, %d restarts, %d rows", err, got.restarts, len(got.rows))
	}
	big := make([]byte, MaxRowBytes/2)
	for n := range 40 {
		put(t, s, spec.Project{ID: "prj_0", Name: fmt.Sprint(n, string(big))})
	}
	if err := got.fold(next(t, f)); err != nil || got.restarts != 3 {
		t.Fatalf("%v, %d restarts", err, got.restarts)
	}
}

// Under load, from writers and merges, folded events are the table.
func TestFoldedEventsAreTheTable(t *testing.T) {
	s, other := open(t, Options{Dir: t.TempDir()}), open(t, Options{})
	done := make(chan error, 4)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	results := make(chan folded, 2)
	for range 2 {
		f := follow(t, s, "projects", 0)
		go func() {
			var got folded
			for {
				events, err := f.Next(ctx)
				if err == nil {
					err = got.fold(events)
				}
				if _, end := got.rows["end"]; end || err != nil {
					results <- got
					done <- err
					return
				}
				if rand.Intn(20) == 0 {
					if f, err = s.Follow("projects", got.at); err != nil {
						results <- got
						done <- err
						return
					}
				}
			}
		}()
	}
	for n := range 400 {
		put(t, s, spec.Project{ID: fmt.Sprint("prj_", rand.Intn(10)), Name: fmt.Sprint(n)})
		remove(t, s, "projects", fmt.Sprint("prj_", rand.Intn(10)))
		if n%10 == 0 {
			put(t, other, spec.Project{ID: fmt.Sprint("prj_", rand.Intn(10)), Name: fmt.Sprint(n)})
			remove(t, other, "projects", fmt.Sprint("prj_", rand.Intn(10)))
			pull(t, s, other)
		}
	}
	put(t, s, spec.Project{ID: "end"})
	want := map[string]crdt.Record{}
	records, err := s.Records(t.Context(), "projects")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range records {
		if row.Record.Alive() {
			want[row.Key] = row.Record
		}
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if got := <-results; !maps.EqualFunc(got.rows, want, crdt.Record.Equal) {
			t.Errorf("folded %v\nwant %v", got.rows, want)
		}
	}
}

func TestStalledWriterIsSeen(t *testing.T) {
	s := open(t, Options{})
	before := s.Turns()
	_, err := s.Update(t.Context(), func(tx *Tx) error {
		if s.Stalled() <= 0 || s.Turns() != before+1 {
			t.Error("a running write is not seen")
		}
		return nil
	})
	if err != nil || s.Stalled() != 0 {
		t.Error(err, s.Stalled())
	}
}

package store

import (
	"fmt"
	"reflect"
	"testing"

	"uncloud/agent/internal/crdt"
	"uncloud/internal/spec"
)

// A row that one machine lacks, or has in another state, though both know the
// same, is found by its bucket and comes back by Repair.
func TestBucketsFindAndMendADifference(t *testing.T) {
	a, b := open(t, Options{Dir: t.TempDir()}), open(t, Options{Dir: t.TempDir()})
	for i := range 500 {
		put(t, a, spec.Project{ID: fmt.Sprint("prj_", i), Name: "n"})
	}
	all, err := a.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	broken := crdt.Batch{Marks: all.Marks}
	for _, row := range all.Rows {
		if row.Key != "prj_7" && row.Key != "prj_70" {
			broken.Rows = append(broken.Rows, row)
		}
	}
	if _, err := b.Merge(t.Context(), broken); err != nil {
		t.Fatal(err)
	}
	want, sums, err := a.Buckets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	known, got, err := b.Buckets(t.Context())
	if err != nil || !known.Equal(want) {
		t.Fatalf("known %v and %v, %v", known, want, err)
	}
	differ := map[string][]byte{}
	for i, sum := range sums["projects"] {
		if got["projects"][i] != sum {
			differ["projects"] = append(differ["projects"], byte(i))
		}
	}
	if n := len(differ["projects"]); n < 1 || n > 2 {
		t.Fatalf("%d buckets differ", n)
	}
	rows, err := a.BucketRows(t.Context(), differ)
	if err != nil || len(rows) > 20 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	if n, err := b.Repair(t.Context(), rows); n != 2 || err != nil {
		t.Fatalf("%d repaired, %v", n, err)
	}
	if n, err := b.Repair(t.Context(), rows); n != 0 || err != nil {
		t.Fatalf("%d repaired again, %v", n, err)
	}
	if _, got, err = b.Buckets(t.Context()); err != nil || !reflect.DeepEqual(got, sums) {
		t.Fatalf("still different, %v", err)
	}
	if len(b.State().Projects) != 500 {
		t.Fatalf("%d projects in the state", len(b.State().Projects))
	}
}

package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"uncloud/agent/internal/crdt"
	"uncloud/internal/faults"
	"uncloud/internal/spec"
)

func TestMain(m *testing.M) {
	if runAsChild() {
		return
	}
	goleak.VerifyTestMain(m)
}

func open(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func put(t testing.TB, s *Store, rows ...spec.Row) Version {
	t.Helper()
	v, err := s.Update(t.Context(), func(tx *Tx) error {
		tx.Put(rows...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func remove(t testing.TB, s *Store, table, key string) {
	t.Helper()
	if _, err := s.Update(t.Context(), func(tx *Tx) error {
		tx.Delete(table, key)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func digest(t testing.TB, s *Store) string {
	t.Helper()
	d, err := s.Digest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func project(n int) spec.Project {
	return spec.Project{ID: fmt.Sprintf("prj_%d", n), Name: fmt.Sprint("name ", n), CreatedAt: time.Unix(int64(n), 5).UTC()}
}

// fill sets every field to something that is not its zero value.
func fill(v reflect.Value) {
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.Date(2026, 2, 3, 4, 5, 6, 789, time.UTC)))
		return
	case v.Type() == reflect.TypeFor[netip.Prefix]():
		v.Set(reflect.ValueOf(netip.MustParsePrefix("10.210.7.0/24")))
		return
	case v.Type() == reflect.TypeFor[netip.AddrPort]():
		v.Set(reflect.ValueOf(netip.MustParseAddrPort("[2001:db8::1]:51820")))
		return
	case v.Type() == reflect.TypeFor[netip.Addr]():
		v.Set(reflect.ValueOf(netip.MustParseAddr("10.210.7.2")))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("ä \x00 text")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(-42)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		v.SetUint(42)
	case reflect.Float64:
		v.SetFloat(0.25)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(1))
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key)
		fill(value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	default:
		panic("fill " + v.Type().String())
	}
}

// everyRow is one full and one empty row of every table.
func everyRow() []spec.Row {
	var rows []spec.Row
	for _, row := range []spec.Row{
		spec.Cluster{}, spec.Machine{}, spec.Project{}, spec.Service{}, spec.Revision{}, spec.Replica{}, spec.Container{},
		spec.Rollout{}, spec.Volume{}, spec.Ticket{}, spec.TicketUse{}, spec.Event{},
		spec.Upgrade{}, spec.Turn{},
	} {
		full, empty := reflect.New(reflect.TypeOf(row)).Elem(), reflect.New(reflect.TypeOf(row)).Elem()
		fill(full)
		full.Field(0).SetString("full")
		empty.Field(0).SetString("empty")
		if row.Table() == "cluster" {
			full.Field(0).SetString(spec.ClusterKey)
			rows = append(rows, full.Interface().(spec.Row))
			continue
		}
		rows = append(rows, full.Interface().(spec.Row), empty.Interface().(spec.Row))
	}
	return rows
}

// Every row struct fits its table, and comes back from the disk as it was.
func TestEveryRowIsKept(t *testing.T) {
	rows := everyRow()
	if len(rows) != 2*len(typedTables)-1 {
		t.Fatalf("%d rows for %d tables", len(rows), len(typedTables))
	}
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	for _, typed := range typedTables {
		shape := s.file.tables[typed.name()]
		if shape == nil {
			t.Fatalf("no table %s", typed.name())
		}
		if has := append([]string{shape.key}, shape.columns...); !slices.Equal(has, typed.columns()) {
			t.Errorf("table %s has columns %v, the struct %v", typed.name(), has, typed.columns())
		}
	}
	if len(s.file.tables) != len(typedTables) {
		t.Errorf("%d tables, %d structs", len(s.file.tables), len(typedTables))
	}
	put(t, s, rows...)
	check := func(s *Store) {
		t.Helper()
		for _, want := range rows {
			got, ok := typedTables[want.Table()].get(s.State(), want.Key())
			if !ok || !reflect.DeepEqual(got, want) {
				t.Errorf("%s %s\ngot  %+v\nwant %+v", want.Table(), want.Key(), got, want)
			}
		}
	}
	check(s)
	before := digest(t, s)
	if v := put(t, s, rows...); v.Seq != 1 {
		t.Errorf("writing what is there made version %v", v)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, Options{Dir: dir})
	check(again)
	if got := digest(t, again); got != before {
		t.Error("the digest changed over a restart")
	}
	if v := put(t, again, rows...); v.Seq != 1 {
		t.Errorf("after a restart, writing what is there made version %v", v)
	}
}

func TestUpdateIsAllOrNothing(t *testing.T) {
	s := open(t, Options{})
	put(t, s, project(1))
	before := s.State()
	failed := errors.New("no")
	for name, do := range map[string]func(*Tx) error{
		"error":         func(tx *Tx) error { tx.Put(project(2)); tx.Delete("projects", "prj_1"); return failed },
		"no key":        func(tx *Tx) error { tx.Put(project(2), spec.Project{}); return nil },
		"wrong type":    func(tx *Tx) error { tx.Put(&spec.Project{ID: "x"}); return nil },
		"unknown table": func(tx *Tx) error { tx.Put(project(2)); tx.Delete("gadgets", "x"); return nil },
	} {
		if _, err := s.Update(t.Context(), do); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if s.State() != before || s.Known().Head(s.Site()) != 1 {
		t.Error("a failed update left something behind")
	}
}

func TestPanicInUpdateLeavesTheStoreUsable(t *testing.T) {
	s := open(t, Options{})
	func() {
		defer func() { _ = recover() }()
		_, _ = s.Update(t.Context(), func(tx *Tx) error { tx.Put(project(1)); panic("bug") })
	}()
	if v := put(t, s, project(2)); v.Seq != 1 || len(s.State().Projects) != 1 {
		t.Fatalf("%v %v", v, s.State().Projects)
	}
}

func TestTxSeesItsOwnWrites(t *testing.T) {
	s := open(t, Options{})
	put(t, s, project(1))
	_, err := s.Update(t.Context(), func(tx *Tx) error {
		tx.Put(project(2))
		first := tx.State()
		tx.Delete("projects", "prj_1")
		tx.Put(project(3))
		if len(first.Projects) != 2 {
			t.Errorf("an earlier view of the transaction changed: %v", first.Projects)
		}
		if now := tx.State().Projects; len(now) != 2 || now["prj_3"] != project(3) {
			t.Errorf("the transaction sees %v", now)
		}
		if len(s.State().Projects) != 1 {
			t.Error("others see an uncommitted row")
		}
		return nil
	})
	if err != nil || len(s.State().Projects) != 2 {
		t.Fatalf("%v %v", err, s.State().Projects)
	}
}

func TestRowsShareNothingWithTheCaller(t *testing.T) {
	s := open(t, Options{})
	labels := map[string]string{"a": "1"}
	put(t, s, spec.Machine{ID: "mch_1", Labels: labels})
	labels["a"] = "2"
	if got := s.State().Machines["mch_1"].Labels["a"]; got != "1" {
		t.Fatalf("the caller wrote %q into the state", got)
	}
}

func TestPutStampsOnlyWhatChanged(t *testing.T) {
	s := open(t, Options{})
	service := spec.Service{ID: "svc_1", Name: "web", Replicas: 1, Revision: "rev_1"}
	put(t, s, service)
	service.Replicas = 3
	put(t, s, service)
	row, _, err := s.file.load(s.file.w, "services", "svc_1")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range row.Record.Cells {
		if want := map[bool]uint64{true: 2, false: 1}[c.Column == "replicas"]; c.Ver != want {
			t.Errorf("column %s was edited %d times, want %d", c.Column, c.Ver, want)
		}
	}
	remove(t, s, "services", "svc_1")
	put(t, s, service)
	if row, _, _ = s.file.load(s.file.w, "services", "svc_1"); row.Record.CL != 3 {
		t.Errorf("second life has causal length %d", row.Record.CL)
	}
}

func TestNothingChangedWritesNothing(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir()})
	put(t, s, project(1))
	before := filesOf(t, s)
	v, err := s.Update(t.Context(), func(tx *Tx) error {
		tx.Put(project(1), project(2))
		tx.Delete("projects", "prj_2")
		tx.Delete("projects", "prj_3")
		return nil
	})
	if err != nil || v != (Version{Site: s.Site(), Seq: 1}) || !s.Covers(v) {
		t.Fatalf("%v %v", v, err)
	}
	all, err := s.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Merge(t.Context(), all.Batch); err != nil {
		t.Fatal(err)
	}
	digest(t, s)
	if _, _, err := s.Buckets(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := filesOf(t, s); after != before {
		t.Fatalf("files changed:\n%s\n%s", before, after)
	}
	if kept := readingTimes(t, s); kept != "" {
		t.Fatalf("reading is noted on the disk: %s", kept)
	}
	if strings.Contains(before, "-shm") {
		t.Fatalf("readers mark themselves in a file on the disk:\n%s", before)
	}
}

func TestSubscriptionsWakeForTheirTables(t *testing.T) {
	s := open(t, Options{})
	projects, all, closed := s.Subscribe("projects"), s.Subscribe(), s.Subscribe()
	closed.Close()
	awake := func(sub *Subscription) bool {
		select {
		case <-sub.C():
			return true
		default:
			return false
		}
	}
	put(t, s, spec.Machine{ID: "mch_1"})
	if awake(projects) || !awake(all) || awake(closed) {
		t.Fatal("a commit to machines woke the wrong ones")
	}
	put(t, s, project(1))
	put(t, s, project(2))
	if !awake(projects) || awake(projects) {
		t.Fatal("two commits are not one wake-up")
	}
	put(t, s, project(2))
	if awake(projects) {
		t.Fatal("woken though nothing changed")
	}
}

func TestWaitForAMergedVersion(t *testing.T) {
	a, b := open(t, Options{}), open(t, Options{})
	v := put(t, a, project(1))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	done := make(chan error)
	go func() { done <- b.WaitFor(ctx, v) }()
	pull(t, b, a)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	st, known := b.StateKnown()
	if !known.Covers(v) || st.Projects["prj_1"] != project(1) {
		t.Fatalf("%v %v", known, st.Projects)
	}
	short, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.WaitFor(short, Version{Site: v.Site, Seq: 2}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := b.WaitFor(short, Version{}); err != nil {
		t.Fatal(err)
	}
}

func TestBoundsOfOneUpdate(t *testing.T) {
	s := open(t, Options{})
	big := spec.Event{ID: "evt_1", Text: string(make([]byte, MaxRowBytes))}
	if _, err := s.Update(t.Context(), func(tx *Tx) error { tx.Put(big); return nil }); faults.CodeOf(err) != faults.Invalid {
		t.Errorf("row too large: %v", err)
	}
	_, err := s.Update(t.Context(), func(tx *Tx) error {
		for i := range MaxCommitRows + 1 {
			tx.Put(spec.Event{ID: fmt.Sprint("evt_", i)})
		}
		return nil
	})
	if faults.CodeOf(err) != faults.Invalid || s.Known().Head(s.Site()) != 0 {
		t.Errorf("transaction too large: %v", err)
	}
	put(t, s, project(1))
}

func TestWritesAfterClose(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir()})
	put(t, s, project(1))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Update(t.Context(), func(tx *Tx) error { return nil }); faults.CodeOf(err) != faults.Interrupted {
		t.Error(err)
	}
	if _, err := s.Digest(t.Context()); faults.CodeOf(err) != faults.Interrupted {
		t.Error(err)
	}
	if len(s.State().Projects) != 1 {
		t.Error("the last state is gone")
	}
}

func TestManyWritersAndReaders(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir()})
	const writers, each = 8, 25
	errs := make(chan error)
	for w := range writers {
		go func() {
			for i := range each {
				v, err := s.Update(t.Context(), func(tx *Tx) error {
					counter := tx.State().Services["svc_1"]
					counter.ID = "svc_1"
					counter.Replicas++
					tx.Put(counter, project(w*each+i))
					return nil
				})
				if _, known := s.StateKnown(); err == nil && !known.Covers(v) {
					err = fmt.Errorf("%v is not known after its commit", v)
				}
				if err != nil {
					errs <- err
					return
				}
				if rand.Intn(10) == 0 {
					if _, err = s.Digest(t.Context()); err != nil {
						errs <- err
						return
					}
				}
			}
			errs <- nil
		}()
	}
	for range writers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if st := s.State(); st.Services["svc_1"].Replicas != writers*each || len(st.Projects) != writers*each {
		t.Errorf("%d counted, %d projects", st.Services["svc_1"].Replicas, len(st.Projects))
	}
	if got := s.Known()[s.Site()]; !slices.Equal(got, crdt.Single(1, writers*each)) {
		t.Errorf("versions %v", got)
	}
}

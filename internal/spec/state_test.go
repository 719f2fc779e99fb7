package spec

import (
	"fmt"
	"reflect"
	"testing"
	"time"
)

// TestRowsOfForgetsNoTable: each table whose rows name a machine goes with it.
func TestRowsOfForgetsNoTable(t *testing.T) {
	stays := map[string]bool{
		"TicketUses": true, // a ticket is not used less because its machine left
	}
	s := &State{}
	v := reflect.ValueOf(s).Elem()
	want := 0
	for i := range v.NumField() {
		field, name := v.Field(i), v.Type().Field(i).Name
		if field.Kind() != reflect.Map {
			continue
		}
		field.Set(reflect.MakeMap(field.Type()))
		_, names := field.Type().Elem().FieldByName("Machine")
		if name == "Machines" {
			names = true
		}
		if !names {
			continue
		}
		for _, machine := range []string{"mch_a", "mch_b"} {
			row := reflect.New(field.Type().Elem()).Elem()
			if f := row.FieldByName("ID"); f.IsValid() {
				f.SetString(machine)
			}
			if f := row.FieldByName("Machine"); f.IsValid() {
				f.SetString(machine)
			}
			field.SetMapIndex(reflect.ValueOf(machine), row)
		}
		if !stays[name] {
			want++
		}
	}
	rows := s.RowsOf("mch_a")
	if len(rows) != want || want < 6 {
		t.Errorf("%d rows, want %d: %v", len(rows), want, rows)
	}
	tables := map[string]bool{}
	for _, r := range rows {
		tables[r.Table()] = true
	}
	if len(tables) != want {
		t.Errorf("tables %v", tables)
	}
	if rows := s.RowsOf("mch_none"); len(rows) != 0 {
		t.Errorf("rows of nobody: %v", rows)
	}
}

func TestLeads(t *testing.T) {
	s := &State{Machines: map[string]Machine{"mch_a": {}, "mch_b": {}, "mch_c": {}}}
	tests := []struct {
		alive Alive
		want  string
	}{
		{Alive{"mch_a": true, "mch_b": true, "mch_c": true}, "mch_a"},
		{Alive{"mch_b": true, "mch_c": true}, "mch_b"},
		{Alive{"mch_a": false, "mch_b": true}, "mch_b"},
		{Alive{"mch_0": true, "mch_b": true}, "mch_b"}, // no member
	}
	for _, tt := range tests {
		for id, lives := range tt.alive {
			if got := s.Leads(tt.alive, id); lives && got != (id == tt.want) {
				t.Errorf("%v: %s leads: %v", tt.alive, id, got)
			}
		}
	}
}

func TestSurplusEvents(t *testing.T) {
	s := &State{Events: map[string]Event{}}
	for i := range KeptEvents + 5 {
		id := fmt.Sprintf("evt_%03d", i)
		s.Events[id] = Event{ID: id, Machine: "mch_a", At: time.Unix(int64(i), 0)}
	}
	s.Events["evt_b"] = Event{ID: "evt_b", Machine: "mch_b"}
	gone := s.SurplusEvents("mch_a", 1)
	if len(gone) != 6 || gone[0].ID != "evt_000" || gone[5].ID != "evt_005" {
		t.Errorf("%v", gone)
	}
	if gone := s.SurplusEvents("mch_b", 1); len(gone) != 0 {
		t.Errorf("%v", gone)
	}
}

func TestNeverRan(t *testing.T) {
	failed := Rollout{ID: "rol_1", Service: "svc_1", To: "rev_1", Stage: RolloutFailed}
	tests := []struct {
		name string
		more Row
		want bool
	}{
		{"only a first rollout that failed", failed, true},
		{"one that gave way", Rollout{ID: "rol_2", Service: "svc_1", To: "rev_2", Stage: RolloutSuperseded}, true},
		{"one under way", Rollout{ID: "rol_2", Service: "svc_1", To: "rev_2", Stage: RolloutRunning}, false},
		{"one done", Rollout{ID: "rol_2", Service: "svc_1", To: "rev_2", Stage: RolloutDone}, false},
		{"a later one failed", Rollout{ID: "rol_2", Service: "svc_1", From: "rev_2", To: "rev_2", Stage: RolloutFailed}, false},
		{"a replica", Replica{ID: "rep_1", Service: "svc_1"}, false},
		{"another service", Rollout{ID: "rol_2", Service: "svc_2", To: "rev_2", Stage: RolloutDone}, true},
	}
	for _, tt := range tests {
		port := []Port{{Mode: IngressPort, Hostname: "a.test", Container: 80, Protocol: "https"}}
		s := &State{
			Services:  map[string]Service{"svc_1": {ID: "svc_1", Revision: "rev_1"}},
			Revisions: map[string]Revision{"rev_1": {ID: "rev_1", Spec: ServiceSpec{Ports: port}}},
			Rollouts:  map[string]Rollout{failed.ID: failed}, Replicas: map[string]Replica{},
		}
		switch r := tt.more.(type) {
		case Rollout:
			s.Rollouts[r.ID] = r
		case Replica:
			s.Replicas[r.ID] = r
		}
		routes, _ := Routes(s)
		if got := s.NeverRan()["svc_1"]; got != tt.want || (len(routes) == 0) != tt.want {
			t.Errorf("%s: %v, routes %v", tt.name, got, routes)
		}
	}
}

package render

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/internal/faults"
)

func TestMeasures(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 119 * time.Second: "119s", 2 * time.Minute: "2m", 119 * time.Minute: "119m", 47 * time.Hour: "47h", 48 * time.Hour: "2d",
	} {
		if got := Age(d); got != want {
			t.Errorf("age %v is %s, want %s", d, got, want)
		}
	}
	for d, want := range map[time.Duration]string{0: "0.0 s", 1234 * time.Millisecond: "1.2 s", 125 * time.Second: "2 min 5 s"} {
		if got := Took(d); got != want {
			t.Errorf("%v took %s, want %s", d, got, want)
		}
	}
	for n, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.0 kB", 9949: "9.9 kB", 9950: "10 kB", 999_499: "999 kB", 999_500: "1.0 MB", 23_456_789: "23 MB", 5e18: "5.0 EB",
	} {
		if got := Size(n); got != want {
			t.Errorf("%d bytes are %s, want %s", n, got, want)
		}
	}
}

// Colours and wide characters do not move the columns.
func TestTableIsAligned(t *testing.T) {
	var plain, coloured bytes.Buffer
	for _, s := range []Stream{{Writer: &plain}, {Writer: &coloured, Style: Style{colour: true}}} {
		table := NewTable("A", "LONGER", "C")
		table.Row(s.Good("naïve"), "", "end")
		table.Row("日本", s.Bad("x"), "end")
		table.Write(s)
	}
	const want = "A      LONGER  C\nnaïve  -       end\n日本   x       end\n"
	if plain.String() != want {
		t.Errorf("table\n%s\nwant\n%s", plain.String(), want)
	}
	if coloured.String() == want || !strings.Contains(coloured.String(), "-       end") {
		t.Errorf("coloured table %q", coloured.String())
	}
}

func TestEveryFieldIsThere(t *testing.T) {
	b, err := Message(&uncloudv1.Volume{Name: "<data>", CreatedAt: timestamppb.New(time.Unix(0, 0))})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"id":"","project":"","name":"<data>","machine":"","driver":"","usedBy":[],"createdAt":"1970-01-01T00:00:00Z"}`
	if string(b) != want {
		t.Errorf("got %s\nwant %s", b, want)
	}
}

// What is in hand when a call is interrupted: services that were begun and not
// finished, also between two steps.
func TestFailSaysWhatToDoNext(t *testing.T) {
	for want, err := range map[string]error{
		"uc: error: a\nuc: hint: b\n": faults.New(faults.Internal, "a").WithHint("b"),
		"uc: error: a\nuc: hint: see what happened: uc events; more is told on the machine: journalctl -u uncloud\n": errors.New("a"),
		"uc: error: a\nuc: hint: see how commands are written: uc --help\n":                                          faults.New(faults.Invalid, "a"),
		"uc: error: a\n": faults.New(faults.Interrupted, "a"),
		"uc: error: a\nuc: hint: c\nuc: error: b\n": errors.Join(faults.New(faults.Invalid, "a").WithHint("c"), faults.New(faults.Invalid, "b").WithHint("c")),
	} {
		var said bytes.Buffer
		(&UI{Err: Stream{Writer: &said}}).Fail(err)
		if said.String() != want {
			t.Errorf("%q, want %q", said.String(), want)
		}
	}
}

func TestInHand(t *testing.T) {
	ui := &UI{Out: Stream{Writer: new(bytes.Buffer)}, Now: time.Now}
	p := ui.NewProgress()
	step := func(service, replica string) *uncloudv1.Step {
		return &uncloudv1.Step{Service: service, Replica: service + replica}
	}
	plan := &uncloudv1.Plan{Services: []*uncloudv1.ServicePlan{
		{Service: "a", Steps: []*uncloudv1.Step{step("a", "1")}},
		{Service: "b", Steps: []*uncloudv1.Step{step("b", "1"), step("b", "2")}},
		{Service: "c", Steps: []*uncloudv1.Step{step("c", "1")}},
	}}
	for _, event := range []struct {
		kind string
		step *uncloudv1.Step
		want string
	}{
		{"plan", nil, "a,b,c"},
		{"step-start", step("a", "1"), "a"}, {"step-done", step("a", "1"), "b,c"},
		{"step-start", step("b", "1"), "b"}, {"step-done", step("b", "1"), "b"},
		{"step-start", step("b", "2"), "b"}, {"step-failed", step("b", "2"), "b"},
	} {
		p.Handle(&uncloudv1.Progress{Kind: event.kind, Step: event.step, Plan: plan})
		if got := strings.Join(p.InHand(), ","); got != event.want {
			t.Errorf("after %s of %v: %q in hand, want %q", event.kind, event.step, got, event.want)
		}
	}
}

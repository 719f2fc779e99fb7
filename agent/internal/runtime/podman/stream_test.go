package podman

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"uncloud/agent/internal/runtime"
)

func logLines(t *testing.T, e *Engine, id string, o runtime.LogOptions) []runtime.LogLine {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var out []runtime.LogLine
	must(t, e.Logs(ctx, id, o, func(l runtime.LogLine) error {
		out = append(out, l)
		return nil
	}))
	return out
}

// logText is the whole log of a container that has ended.
func logText(t *testing.T, e *Engine, id string) string {
	t.Helper()
	b := &strings.Builder{}
	for _, l := range logLines(t, e, id, runtime.LogOptions{Follow: true, Tail: -1}) {
		fmt.Fprintln(b, l.Text)
	}
	return b.String()
}

// awaitLine returns when a container has said something.
func awaitLine(t *testing.T, e *Engine, id, line string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	said := errors.New("it said so")
	err := e.Logs(ctx, id, runtime.LogOptions{Follow: true, Tail: -1}, func(l runtime.LogLine) error {
		if l.Text == line {
			return said
		}
		return nil
	})
	if !errors.Is(err, said) {
		t.Fatalf("container %.12s did not say %q: %v", id, line, err)
	}
}

func TestLogs(t *testing.T) {
	e := realPodman(t)
	id := run(t, e, request(t, "lines", "5", "50ms", "0"))
	all := logLines(t, e, id, runtime.LogOptions{Follow: true, Tail: -1}) // ends with the container
	if len(all) != 10 {
		t.Fatalf("%d lines: %+v", len(all), all)
	}
	var out, errs int
	for _, l := range all {
		if l.Stderr != strings.HasPrefix(l.Text, "err ") || time.Since(l.At) > time.Minute {
			t.Errorf("%+v", l)
		}
		if l.Stderr {
			errs++
		} else {
			out++
		}
	}
	if out != 5 || errs != 5 {
		t.Errorf("%d and %d lines", out, errs)
	}
	if got := logLines(t, e, id, runtime.LogOptions{Tail: 2}); len(got) != 2 || got[1].At != all[9].At {
		t.Errorf("tail 2: %+v", got)
	}
	if got := logLines(t, e, id, runtime.LogOptions{Tail: 0}); len(got) != 0 {
		t.Errorf("tail 0: %+v", got)
	}
}

// Podman 5.4 tells times over its API to the second only, and takes the
// bounds to be part of the range.
func TestLogsBetweenTimes(t *testing.T) {
	e := realPodman(t)
	id := run(t, e, request(t, "lines", "3", "1100ms", "0"))
	all := logLines(t, e, id, runtime.LogOptions{Follow: true, Tail: -1})
	if len(all) != 6 {
		t.Fatalf("%d lines: %+v", len(all), all)
	}
	since := logLines(t, e, id, runtime.LogOptions{Tail: -1, Since: all[2].At})
	if len(since) != 4 || since[0].Text != "line 1" {
		t.Errorf("since: %+v", since)
	}
	until := logLines(t, e, id, runtime.LogOptions{Tail: -1, Until: all[2].At.Add(-time.Millisecond)})
	if len(until) != 2 || until[1].Text != "err 0" {
		t.Errorf("until: %+v", until)
	}
}

func TestLogsOfLongLines(t *testing.T) {
	e := realPodman(t)
	id := run(t, e, request(t, "long", "100000"))
	got := logLines(t, e, id, runtime.LogOptions{Follow: true, Tail: -1})
	if len(got) != 1 || len(got[0].Text) != 100000 {
		t.Fatalf("%d lines", len(got))
	}
}

func TestLogsEndWithTheirCaller(t *testing.T) {
	e := realPodman(t)
	id := run(t, e, request(t))
	ctx, cancel := context.WithCancel(t.Context())
	err := e.Logs(ctx, id, runtime.LogOptions{Follow: true, Tail: -1}, func(runtime.LogLine) error {
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	enough := errors.New("enough")
	err = e.Logs(t.Context(), id, runtime.LogOptions{Follow: true, Tail: -1}, func(runtime.LogLine) error { return enough })
	if !errors.Is(err, enough) {
		t.Errorf("refused by its reader: %v", err)
	}
	err = e.Logs(t.Context(), strings.Repeat("0", 64), runtime.LogOptions{}, nil)
	if !errors.Is(err, runtime.ErrNoContainer) {
		t.Errorf("of nothing: %v", err)
	}
}

func TestExec(t *testing.T) {
	e := realPodman(t)
	id := run(t, e, request(t))
	for _, c := range []struct {
		name        string
		command     []string
		stdin       string
		code        int
		out, errors string
	}{
		{"success", []string{"/app", "env", "FROM_IMAGE"}, "", 0, "1\n", ""},
		{"both streams and a code", []string{"/app", "exit", "7"}, "", 7, "going to exit\n", "bye\n"},
		{"input", []string{"/app", "cat"}, "a\nb\n", 0, "a\nb\n", ""},
		{"much input", []string{"/app", "cat"}, strings.Repeat("0123456789", 100_000), 0, strings.Repeat("0123456789", 100_000), ""},
		{"missing program", []string{"/absent"}, "", 127, "", "*"},
	} {
		out, errs := &strings.Builder{}, &strings.Builder{}
		r := runtime.ExecRequest{Command: c.command, Stdout: out, Stderr: errs, Env: map[string]string{"A": "b"}}
		if c.stdin != "" {
			r.Stdin = strings.NewReader(c.stdin)
		}
		code, err := e.Exec(t.Context(), id, r)
		must(t, err)
		if code != c.code || out.String() != c.out || (errs.String() != c.errors && c.errors != "*") {
			t.Errorf("%s: code %d, %d bytes out, err %q", c.name, code, out.Len(), errs)
		}
	}
}

func TestExecTerminal(t *testing.T) {
	e := realPodman(t)
	id := run(t, e, request(t))
	in, typed := io.Pipe()
	shown, out := io.Pipe()
	resize := make(chan runtime.TerminalSize)
	done := make(chan error, 1)
	go func() {
		_, err := e.Exec(t.Context(), id, runtime.ExecRequest{
			Command: []string{"/app", "size"}, TTY: true, Stdin: in, Stdout: out,
			Size: runtime.TerminalSize{Rows: 30, Columns: 90}, Resize: resize,
		})
		out.Close()
		done <- err
	}()
	lines := bufio.NewScanner(shown)
	ask := func() string { // the terminal echoes what is typed, then comes the answer
		fmt.Fprint(typed, "?\r")
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "size") {
				return strings.TrimSpace(lines.Text())
			}
		}
		return "nothing"
	}
	if got := ask(); got != "size 30 90" {
		t.Errorf("first: %q", got)
	}
	resize <- runtime.TerminalSize{Rows: 40, Columns: 120}
	resize <- runtime.TerminalSize{Rows: 40, Columns: 120} // taken only when the first was applied
	if got := ask(); got != "size 40 120" {
		t.Errorf("resized: %q", got)
	}
	fmt.Fprint(typed, "\x04") // end of input
	go io.Copy(io.Discard, shown)
	must(t, <-done)
}

func TestExecIsKilledWithItsCaller(t *testing.T) {
	e := realPodman(t)
	id := run(t, e, request(t))
	ctx, cancel := context.WithCancel(t.Context())
	out, began := io.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := e.Exec(ctx, id, runtime.ExecRequest{Command: []string{"/app", "wait", "here"}, Stdout: began})
		done <- err
	}()
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	for deadline := time.Now().Add(patience); strings.Contains(command(t, "podman", "top", id, "args"), "here"); {
		if time.Now().After(deadline) {
			t.Fatal("the command still runs")
		}
	}
}

func TestExecInAStoppedContainer(t *testing.T) {
	e := realPodman(t)
	id := create(t, e, request(t))
	if _, err := e.Exec(t.Context(), id, runtime.ExecRequest{Command: []string{"/app"}}); err == nil {
		t.Error("no error")
	}
}

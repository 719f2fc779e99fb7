// Command told reads what `go test -json` writes and tells it as go test does
// without -v. In the end it says which tests were skipped and why, which go
// test keeps to itself, and writes that to a file too:
//
//	go test -json ./... | told FILE
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "use: go test -json PACKAGE... | told FILE")
		os.Exit(2)
	}
	skipped, err := tell(os.Stdin, os.Stdout)
	if err == nil {
		fmt.Print(skipped)
		err = add(os.Args[1], skipped)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "told:", err)
		os.Exit(1)
	}
}

func add(file, text string) error {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// event is a line of go test -json: see go doc test2json.
type event struct {
	Action, Package, Test, Output string
}

type test struct{ pkg, name string }

type teller struct {
	out     io.Writer
	said    map[test][]string // of tests that have not ended, and of the package itself under ""
	skipped map[string][]test // by reason
}

// tell copies what people want to read of a run, and returns what was skipped,
// a line for each reason.
func tell(in io.Reader, out io.Writer) (string, error) {
	t := teller{out: out, said: map[test][]string{}, skipped: map[string][]test{}}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<26)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Fprintln(out, lines.Text())
			continue
		}
		t.hear(e)
	}
	return t.summary(), lines.Err()
}

var noise = regexp.MustCompile(`^(\s*=== (RUN|PAUSE|CONT|NAME) |PASS\n$)`)

func (t *teller) hear(e event) {
	id := test{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		fmt.Fprint(t.out, e.Output)
	case "output":
		if !noise.MatchString(e.Output) {
			t.said[id] = append(t.said[id], e.Output)
		}
	case "skip":
		if e.Test != "" {
			reason := reasonOf(t.said[id])
			t.skipped[reason] = append(t.skipped[reason], id)
		} else {
			t.print(id)
		}
		delete(t.said, id)
	case "pass", "fail":
		if e.Action == "fail" && e.Test == "" {
			t.unfinished(e.Package)
		}
		if e.Action == "fail" || e.Test == "" {
			t.print(id)
		}
		delete(t.said, id)
	}
}

func (t *teller) print(id test) { fmt.Fprint(t.out, strings.Join(t.said[id], "")) }

// unfinished prints what tests said that were under way when their package
// ended by a panic or by its time limit.
func (t *teller) unfinished(pkg string) {
	for _, id := range slices.SortedFunc(maps.Keys(t.said), func(a, b test) int { return cmp.Compare(a.name, b.name) }) {
		if id.pkg == pkg && id.name != "" {
			t.print(id)
			delete(t.said, id)
		}
	}
}

var logged = regexp.MustCompile(`^\s+\S+\.go:\d+: (.*)`)

// reasonOf is what a test said last before it was skipped.
func reasonOf(said []string) string {
	for _, line := range slices.Backward(said) {
		if m := logged.FindStringSubmatch(line); m != nil {
			return m[1]
		}
	}
	return "no reason given"
}

func (t *teller) summary() string {
	var b strings.Builder
	for _, reason := range slices.Sorted(maps.Keys(t.skipped)) {
		tests := t.skipped[reason]
		some := fmt.Sprintf("%s %s", strings.TrimPrefix(tests[0].pkg, "uncloud/"), tests[0].name)
		if len(tests) > 1 {
			some += fmt.Sprintf(" and %d more", len(tests)-1)
		}
		fmt.Fprintf(&b, "SKIPPED (%s): %s\n", reason, some)
	}
	return b.String()
}

package store

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"uncloud/internal/spec"
)

var testContext = context.Background()

const childDir = "STORE_CRASH_TEST_DIR"

// runAsChild makes this test binary a process that writes until it is killed,
// and says on its output what was acknowledged.
func runAsChild() bool {
	dir := os.Getenv(childDir)
	if dir == "" {
		return false
	}
	s, err := Open(testContext, Options{Dir: dir})
	if err != nil {
		fmt.Println("error", err)
		return true
	}
	for {
		var n int
		v, err := s.Update(testContext, func(tx *Tx) error {
			counter := tx.State().Services["counter"]
			counter.ID = "counter"
			counter.Replicas++
			n = counter.Replicas
			tx.Put(counter, spec.Event{ID: fmt.Sprint("evt_", n)})
			if n > 20 {
				tx.Delete("events", fmt.Sprint("evt_", n-20))
			}
			return nil
		})
		if err != nil {
			fmt.Println("error", err)
			return true
		}
		fmt.Println("ok", n, v.Seq)
	}
}

// A process killed at any moment has lost nothing that it acknowledged, has
// nothing half done, and uses no version twice.
func TestKilledWhileWriting(t *testing.T) {
	dir, acknowledged, seq := t.TempDir(), 0, 0
	for round := range 8 {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), childDir+"="+dir)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		var wait *time.Timer // to kill it, from its first write on
		for lines := bufio.NewScanner(out); lines.Scan(); {
			parts := strings.Fields(lines.Text())
			if len(parts) != 3 || parts[0] != "ok" {
				t.Fatal(lines.Text())
			}
			n, _ := strconv.Atoi(parts[1])
			v, _ := strconv.Atoi(parts[2])
			if v <= seq {
				t.Fatalf("version %d was given again after %d", v, seq)
			}
			if acknowledged, seq = n, v; wait == nil {
				wait = time.AfterFunc(time.Duration(round*9)*time.Millisecond, func() { _ = child.Process.Kill() })
			}
		}
		_ = child.Wait()
		checkSurvivor(t, dir, acknowledged)
	}
	if acknowledged < 8 {
		t.Fatalf("only %d writes in all rounds", acknowledged)
	}
}

func checkSurvivor(t *testing.T, dir string, acknowledged int) {
	t.Helper()
	s, err := Open(t.Context(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	n := s.State().Services["counter"].Replicas
	// One write may have been committed and not yet acknowledged.
	if n < acknowledged || n > acknowledged+1 {
		t.Fatalf("%d on disk, %d acknowledged", n, acknowledged)
	}
	if got := len(s.State().Events); got != min(n, 20) {
		t.Fatalf("%d events after %d writes", got, n)
	}
}

package lab

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Whatever thread the runtime picks, the process itself stays where it is.
func TestALostThreadIsNeverTheProcess(t *testing.T) {
	for range 2000 {
		err := onLostThread(func() error {
			if unix.Gettid() == unix.Getpid() {
				t.Error("ran on the first thread")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if threads, err := os.ReadDir("/proc/self/task"); err != nil || len(threads) > 100 {
		t.Errorf("%d threads are left, %v", len(threads), err)
	}
}

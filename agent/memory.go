package agent

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// gcPercent trades a little processor time for a heap that grows by half
	// between collections instead of doubling: the agent shares small machines
	// with the services that they are for.
	gcPercent = 50
	// restEvery is how often it is asked whether memory can be given back, and
	// restAfter how much must have been allocated in between to be worth it. An
	// idle agent allocates about 1 MB a minute.
	restEvery = 30 * time.Second
	restAfter = 16 << 20
)

// rest gives memory back to the machine after work: a deploy needs several
// times of what an idle agent does, and Go keeps what it had for long.
func rest(ctx context.Context) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	tick := time.NewTicker(restEvery)
	defer tick.Stop()
	var before uint64
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if now := allocated(); now-before > restAfter {
			debug.FreeOSMemory()
			before = now
		}
	}
}

// allocated is how many bytes were ever allocated.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

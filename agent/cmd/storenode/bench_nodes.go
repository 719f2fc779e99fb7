package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"uncloud/agent/internal/crdt"
)

// fleet is nodes in this process, on loopback.
type fleet struct {
	nodes []*node
	stop  []func() error
}

func (f *fleet) start(ctx context.Context, dir string) (*node, error) {
	n, err := openNode(ctx, nodeOptions{dir: dir, listen: "127.0.0.1:0", schema: benchSchema, cluster: "bench", log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- n.run(ctx) }()
	f.nodes = append(f.nodes, n)
	f.stop = append(f.stop, func() error {
		cancel()
		return <-done
	})
	return n, nil
}

func (f *fleet) close() error {
	var errs []error
	for _, stop := range f.stop {
		errs = append(errs, stop())
	}
	f.stop = nil
	return errors.Join(errs...)
}

// startFleet brings up count nodes, each a peer of up to most of those before
// it, and waits until they are connected.
func startFleet(ctx context.Context, dir string, count, most int) (*fleet, error) {
	f := &fleet{}
	for i := range count {
		n, err := f.start(ctx, filepath.Join(dir, fmt.Sprint("node", i)))
		if err != nil {
			return nil, errors.Join(err, f.close())
		}
		var peers []string
		for _, p := range rand.Perm(i)[:min(i, most)] {
			peers = append(peers, f.nodes[p].address)
		}
		if err := n.setPeers(peers, nil); err != nil {
			return nil, errors.Join(err, f.close())
		}
	}
	return f, f.await(ctx, 30*time.Second, "all are connected", func() bool {
		for i, n := range f.nodes {
			up := 0
			for _, p := range n.sync.Status().Peers {
				if p.Connected {
					up++
				}
			}
			if up < min(i, most) {
				return false
			}
		}
		return true
	})
}

func (f *fleet) await(ctx context.Context, limit time.Duration, what string, holds func() bool) error {
	for deadline := time.Now().Add(limit); !holds(); time.Sleep(time.Millisecond) {
		if ctx.Err() != nil || time.Now().After(deadline) {
			return fmt.Errorf("not within %v: %s", limit, what)
		}
	}
	return nil
}

// equal tells whether all know the same, without gaps.
func (f *fleet) equal() bool {
	known := f.nodes[0].store.Known()
	for _, n := range f.nodes {
		if !n.store.Known().Equal(known) || n.store.Status().Missing > 0 {
			return false
		}
	}
	return true
}

// same checks that all hold the same rows with the same records.
func (f *fleet) same(ctx context.Context) error {
	want, err := f.nodes[0].store.Digest(ctx)
	for _, n := range f.nodes {
		got, e := n.store.Digest(ctx)
		if err = errors.Join(err, e); err == nil && got != want {
			return fmt.Errorf("nodes %s and %s know the same and differ", f.nodes[0].address, n.address)
		}
	}
	return err
}

func (b *bench) latency(ctx context.Context) error {
	var p50, p99, trips []time.Duration
	err := b.each(func(dir string) error {
		trip, err := loopbackTrip()
		if err != nil {
			return err
		}
		f, err := startFleet(ctx, dir, 3, 2)
		if err != nil {
			return err
		}
		took, err := f.latencies(ctx, 500)
		if err := errors.Join(err, f.close()); err != nil {
			return err
		}
		trips, p50, p99 = append(trips, trip), append(p50, percentile(took, 50)), append(p99, percentile(took, 99))
		return nil
	})
	if err != nil {
		return err
	}
	b.show("3 nodes, 100 writes/s: accepted to readable on both others, p50", brief(median(trips))+" round trip", brief(median(p50)), "", "<= 2ms", median(p50) <= 2*time.Millisecond)
	b.show("  p99", "", brief(median(p99)), "", "<= 15ms", median(p99) <= 15*time.Millisecond)
	return nil
}

// latencies writes 100 times a second, at each node in turn.
func (f *fleet) latencies(ctx context.Context, writes int) ([]time.Duration, error) {
	var took []time.Duration
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for i := range writes {
		<-tick.C
		at := f.nodes[i%3]
		if err := putRows(ctx, at.store, i, 1); err != nil {
			return nil, err
		}
		began := time.Now()
		v := crdt.Version{Site: at.store.Site(), Seq: at.store.Known().Head(at.store.Site())}
		for _, n := range f.nodes {
			if err := n.store.WaitFor(ctx, v); err != nil {
				return nil, err
			}
		}
		took = append(took, time.Since(began))
	}
	return took, nil
}

// loopbackTrip is the median round trip of 100 bytes over a TCP connection.
func loopbackTrip() (time.Duration, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = io.Copy(c, c) // until the other end closes
			_ = c.Close()
		}
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return 0, errors.Join(err, l.Close())
	}
	var took []time.Duration
	buf := make([]byte, 100)
	for range 1000 {
		began := time.Now()
		_, err = c.Write(buf)
		if _, e := io.ReadFull(c, buf); err != nil || e != nil {
			return 0, errors.Join(err, e, c.Close(), l.Close())
		}
		took = append(took, time.Since(began))
	}
	return median(took), errors.Join(c.Close(), l.Close())
}

// burst lets one node alone and one of three be written to in turn, for a
// quarter of a second each. Before the next turn the three have to be equal, so
// that the node alone does not pay for what they have left to do.
func (b *bench) burst(ctx context.Context) error {
	const clients, lasts, turns = 16, 250 * time.Millisecond, 8
	var alone, among, ratios []float64
	var equal []time.Duration
	err := b.each(func(dir string) (err error) {
		one, err := startFleet(ctx, filepath.Join(dir, "one"), 1, 0)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, one.close()) }()
		three, err := startFleet(ctx, filepath.Join(dir, "three"), 3, 2)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, three.close()) }()
		var a, m int
		for turn := range turns {
			for _, f := range []*fleet{one, three} {
				n, err := f.nodes[0].hammer(ctx, turn, clients, lasts)
				if err != nil {
					return err
				}
				if f == one {
					a += n
					continue
				}
				m += n
				took, err := f.settle(ctx)
				if err != nil {
					return err
				}
				equal = append(equal, took)
			}
		}
		whole := (turns * lasts).Seconds()
		alone, among, ratios = append(alone, float64(a)/whole), append(among, float64(m)/whole), append(ratios, float64(m)/float64(a))
		return three.same(ctx)
	})
	if err != nil {
		return err
	}
	b.show("writes/s at one of 3 nodes, 16 clients", fmt.Sprintf("%.0f/s alone", median(alone)), fmt.Sprintf("%.0f/s", median(among)),
		fmt.Sprintf("%.2fx", median(ratios)), ">= 0.70x", median(ratios) >= 0.7)
	b.show("  others equal after the burst", "", brief(median(equal)), "", "<= 2s", median(equal) <= 2*time.Second)
	return nil
}

// settle waits until all are equal, and says how long that took.
func (f *fleet) settle(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	err := f.await(ctx, 30*time.Second, "equal after the burst", f.equal)
	return time.Since(began), err
}

// hammer writes new rows from several clients, and gives how many it wrote in
// the time. Each turn has rows of its own.
func (n *node) hammer(ctx context.Context, turn, clients int, lasts time.Duration) (int, error) {
	const room = 1_000_000 // more than one turn can write
	var next, late atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, clients)
	began := time.Now()
	for i := range clients {
		wg.Go(func() {
			for time.Since(began) < lasts && errs[i] == nil {
				errs[i] = putRows(ctx, n.store, turn*room+int(next.Add(1)), 1)
				if time.Since(began) > lasts {
					late.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return int(next.Load() - late.Load()), errors.Join(errs...)
}

func (b *bench) thirty(ctx context.Context) error {
	var took []time.Duration
	err := b.each(func(dir string) error {
		f, err := startFleet(ctx, dir, 30, 10)
		if err != nil {
			return err
		}
		began := time.Now()
		for i := range 200 {
			if err = putRows(ctx, f.nodes[rand.IntN(30)].store, 4*i, 4); err != nil {
				break
			}
		}
		err = errors.Join(err, f.await(ctx, time.Minute, "30 nodes are equal", f.equal))
		took = append(took, time.Since(began))
		return errors.Join(err, f.same(ctx), f.close())
	})
	if err != nil {
		return err
	}
	b.show("30 nodes, 10 peers each, 200 inputs x 4 inserts: all equal, no gaps", "-", brief(median(took)), "", "<= 10s", median(took) <= 10*time.Second)
	return nil
}

func (b *bench) rejoin(ctx context.Context) error {
	base := filepath.Join(b.dir, "base")
	f := &fleet{}
	full, err := f.start(ctx, filepath.Join(b.dir, "full"))
	if err != nil {
		return err
	}
	defer func() { _ = f.close() }() // what matters was read
	if err := b.missed(ctx, full, base); err != nil {
		return err
	}
	var copies, joins []time.Duration
	err = b.each(func(dir string) error {
		began := time.Now()
		if err := os.CopyFS(filepath.Join(dir, "copy"), os.DirFS(filepath.Join(b.dir, "full"))); err != nil {
			return err
		}
		copies = append(copies, time.Since(began))
		if err := os.CopyFS(filepath.Join(dir, "late"), os.DirFS(base)); err != nil {
			return err
		}
		took, err := rejoinFrom(ctx, full, filepath.Join(dir, "late"))
		joins = append(joins, took)
		return err
	})
	if err != nil {
		return err
	}
	b.show("rejoin of a node that missed 100,000 changes", brief(median(copies))+" to copy the file", brief(median(joins)), "", "<= 15s", median(joins) <= 15*time.Second)
	return nil
}

// missed has a node write 100,000 rows after another, in base, was there.
func (b *bench) missed(ctx context.Context, full *node, base string) error {
	if err := putRows(ctx, full.store, 0, 1); err != nil {
		return err
	}
	if _, err := rejoinFrom(ctx, full, base); err != nil {
		return err
	}
	_, err := times(10_000, 10, func(from int) error { return putRows(ctx, full.store, 1+from, 10) })
	return err
}

// rejoinFrom brings a node up and waits until it has all that full has.
func rejoinFrom(ctx context.Context, full *node, dir string) (took time.Duration, err error) {
	f := &fleet{}
	began := time.Now()
	late, err := f.start(ctx, dir)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	if err := late.setPeers([]string{full.address}, nil); err != nil {
		return 0, err
	}
	late.sync.Poke("")
	err = f.await(ctx, 2*time.Minute, "the node that was away has all", func() bool {
		return late.store.Known().CoversAll(full.store.Known())
	})
	return time.Since(began), err
}

func (b *bench) idleNodes(ctx context.Context) error {
	f, err := startFleet(ctx, filepath.Join(b.dir, "idle"), 3, 2)
	if err != nil {
		return err
	}
	if err := putRows(ctx, f.nodes[0].store, 0, 100); err != nil {
		return errors.Join(err, f.close())
	}
	if err := f.await(ctx, 10*time.Second, "equal", f.equal); err != nil {
		return errors.Join(err, f.close())
	}
	time.Sleep(20 * time.Second) // what the last commit still causes
	disk, sent := writtenBytes(), f.sent()
	time.Sleep(b.idle)
	wrote, rate := writtenBytes()-disk, float64(f.sent()-sent)/b.idle.Seconds()/6
	b.show(fmt.Sprintf("3 idle nodes for %v: written to disk", b.idle), "-", fmt.Sprintf("%d bytes", wrote), "", "0 bytes", wrote == 0)
	b.show("  sent to each peer", "-", fmt.Sprintf("%.1f B/s", rate), "", "< 1 kB/s", rate < 1000)
	return f.close()
}

func (f *fleet) sent() (bytes uint64) {
	for _, n := range f.nodes {
		bytes += n.sync.Counters().BytesOut
	}
	return bytes
}

// writtenBytes is what this process has caused to be written to disks.
func writtenBytes() (bytes int64) {
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return -1
	}
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Sscanf(line, "write_bytes: %d", &bytes); err == nil {
			return bytes
		}
	}
	return -1
}

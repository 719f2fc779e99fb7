package statesync

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

const (
	helloTimeout = 5 * time.Second
	// readTimeout is how long a link may be silent: three lost pings.
	readTimeout = 3 * pingEvery
	// writeTimeout is how long the other machine may not read.
	writeTimeout = 10 * time.Second
)

// wire is the connection of one link.
type wire struct {
	id   linkID
	conn net.Conn
	// out has room for all that the core has in flight, so send never blocks.
	out    chan frame
	ending sync.Once
	reason error // set before out is closed
}

func (w *wire) send(f frame) { w.out <- f }

// finish lets the writer send what was handed over, and then close.
func (w *wire) finish(reason error) {
	w.ending.Do(func() {
		w.reason = reason
		close(w.out)
	})
}

// serve runs a connection until it ends, and says why it did. to is the
// machine that was dialed, or empty.
func (s *Syncer) serve(ctx context.Context, conn net.Conn, to string) error {
	w := s.attach(conn, to)
	if w == nil {
		return errors.Join(context.Canceled, conn.Close())
	}
	var writing sync.WaitGroup
	writing.Go(func() { s.write(w) })
	err := s.read(ctx, w)
	s.detach(w, err)
	writing.Wait()
	return w.reason
}

// attach makes a link of a connection, or nil when Run has ended.
func (s *Syncer) attach(conn net.Conn, to string) *wire {
	s.mu.Lock()
	if s.launch == nil {
		s.mu.Unlock()
		return nil
	}
	s.nextID++
	w := &wire{id: s.nextID, conn: conn, out: make(chan frame, window)}
	s.wires[w.id] = w
	s.mu.Unlock()
	s.step(connected{Link: w.id, To: to})
	return w
}

func (s *Syncer) detach(w *wire, reason error) {
	s.step(disconnected{Link: w.id})
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.wires, w.id)
	w.finish(reason)
}

// hangUp makes the reader of the link fail, which ends it.
func (w *wire) hangUp() { _ = w.conn.Close() }

// read gives frames to the core until the connection ends. What a frame brings
// is merged before the next is read, so that a machine that sends faster than
// the store merges is slowed down by its own connection.
func (s *Syncer) read(ctx context.Context, w *wire) error {
	in := bufio.NewReaderSize(w.conn, 64<<10)
	timeout, limit := helloTimeout, uint32(maxHelloBytes)
	for ; ; timeout, limit = readTimeout, maxFrameBytes {
		if err := w.conn.SetReadDeadline(time.Now().Add(timeout)); err != nil {
			return err
		}
		f, n, err := readFrame(in, limit)
		s.bytesIn.Add(uint64(n))
		s.framesIn.Add(1)
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("the other machine closed the connection")
		}
		if err != nil {
			return err
		}
		if r, ok := f.(rows); ok && r.Spoilt != nil {
			s.noteSpoilt(r.Spoilt)
		}
		for _, m := range s.step(received{Link: w.id, Frame: f}) {
			s.merge(ctx, m)
		}
	}
}

// write sends frames until the link is finished, then closes the connection.
func (s *Syncer) write(w *wire) {
	out := bufio.NewWriterSize(w.conn, 64<<10)
	var scratch []byte
	var err error
	for f := range w.out {
		if err != nil {
			continue // until the reader has noticed, and finished the link
		}
		var n int
		if scratch, n, err = w.put(out, f, scratch); err != nil {
			_ = w.conn.Close()
			continue
		}
		s.bytesOut.Add(uint64(n))
		s.framesOut.Add(1)
		s.step(sent{Link: w.id})
	}
	_ = w.conn.Close() // nothing more to send or to lose
}

// put writes a frame, and flushes unless another is waiting.
func (w *wire) put(out *bufio.Writer, f frame, scratch []byte) ([]byte, int, error) {
	if err := w.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return scratch, 0, err
	}
	scratch, n, err := writeFrame(out, f, scratch)
	if err == nil && len(w.out) == 0 {
		err = out.Flush()
	}
	if cap(scratch) > 2*frameBytes {
		scratch = nil
	}
	return scratch, n, err
}

package statesync

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"

	"uncloud/agent/internal/crdt"
)

const (
	// frameBytes is about how much of a batch goes into one frame, so that a
	// push never waits for long behind an answer.
	frameBytes = 256 << 10
	// maxFrameBytes bounds what is read: a frame, and one row over it. A row is
	// no larger than 1 MiB when it is written, but as many machines as it has
	// columns may each have given one of them that size.
	maxFrameBytes = 32 << 20
	// maxHelloBytes bounds what is read of a machine that said nothing yet.
	maxHelloBytes = 4 << 20
	// packFrom is the size from which frames that answer a request are
	// compressed. News are small and are not.
	packFrom = 8 << 10
)

// Compression is set up when the first large answer is sent or read: an idle
// machine needs no tables for it.
var (
	packer = sync.OnceValues(func() (*zstd.Encoder, error) {
		return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(256<<10))
	})
	unpacker = sync.OnceValues(func() (*zstd.Decoder, error) {
		return zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxFrameBytes))
	})
)

// writeFrame writes f with its length, and says how many bytes that took.
// scratch is used again.
func writeFrame(w io.Writer, f frame, scratch []byte) ([]byte, int, error) {
	scratch = appendFrame(append(scratch[:0], 0, 0, 0, 0), f)
	out := scratch
	if r, ok := f.(rows); ok && r.Req != 0 && len(scratch) >= packFrom {
		enc, err := packer()
		if err != nil {
			return scratch, 0, fmt.Errorf("compress: %w", err)
		}
		out = enc.EncodeAll(scratch[4:], []byte{0, 0, 0, 0, kindPacked})
	}
	binary.BigEndian.PutUint32(out, uint32(len(out)-4))
	_, err := w.Write(out)
	return scratch, len(out), err
}

// readFrame reads one frame of at most limit bytes, and says how many it took.
func readFrame(r *bufio.Reader, limit uint32) (frame, int, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, 0, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n > limit {
		return nil, 0, fmt.Errorf("frame of %d bytes", n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, 0, fmt.Errorf("torn frame: %w", err)
	}
	f, err := openFrame(body)
	return f, len(length) + len(body), err
}

// openFrame reads a frame that may be compressed.
func openFrame(body []byte) (frame, error) {
	if len(body) == 0 || body[0] != kindPacked {
		return parseFrame(body)
	}
	dec, err := unpacker()
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	plain, err := dec.DecodeAll(body[1:], nil)
	if err != nil {
		return nil, fmt.Errorf("compressed frame: %w", err)
	}
	f, err := parseFrame(plain)
	if u, ok := f.(unknown); ok {
		return nil, fmt.Errorf("compressed frame of kind %d", u.of)
	}
	return f, err
}

// split cuts a batch into frames like the given one. What says that a snapshot
// is whole goes into the last.
func split(like rows, b crdt.Batch) []frame {
	var out []frame
	start, size := 0, 0
	part := func(batch crdt.Batch, more bool) {
		f := like
		f.Part, f.More, f.Batch = uint64(len(out)), more, batch
		if more {
			f.Whole, f.Floor = false, crdt.Floor{}
		}
		out = append(out, f)
	}
	for i, row := range b.Rows {
		if n := row.Size(); size > 0 && size+n > frameBytes {
			part(crdt.Batch{Rows: b.Rows[start:i]}, true)
			start, size = i, n
		} else {
			size += n
		}
	}
	part(crdt.Batch{Rows: b.Rows[start:], Marks: b.Marks}, false)
	return out
}

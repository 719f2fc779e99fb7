package statesync

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"uncloud/agent/internal/crdt"
)

// protocolVersion is the first number of a hello. Machines of different
// versions do not exchange state; frames of an unknown kind are skipped, so
// that a version can grow.
const protocolVersion = 1

// A frame is one message. On the wire it is its length in four bytes, its kind
// in one, and its body.
type frame interface{ kind() byte }

const (
	kindHello byte = iota + 1
	kindRefuse
	kindTell
	kindRows
	kindAsk
	kindAck
	kindDone
	kindPing
)

type (
	// hello is the first frame in each direction.
	hello struct {
		Cluster string // machines of another cluster are refused
		Machine string
		Site    crdt.SiteID
		Nonce   uint64     // drawn at each start; tells a machine from its clone
		Known   crdt.Known // everything the sender has
	}
	// refuse says why the connection ends.
	refuse struct{ Reason string }
	// tell adds to what the sender is known to have.
	tell struct {
		Known crdt.Known
		Reply bool // the receiver should tell too, at once
	}
	// rows is a batch or a part of one: all but the last part have More set,
	// and the marks come with the last.
	rows struct {
		Req   uint64 // the request that it answers, or 0 for a push
		More  bool
		Batch crdt.Batch
	}
	// ask requests versions, or everything.
	ask struct {
		Req      uint64
		Snapshot bool
		Wants    crdt.Known
	}
	// ack lets the sender of an answer send one more batch.
	ack struct{ Req uint64 }
	// done ends an answer. Busy: nothing was answered, ask again later.
	done struct {
		Req  uint64
		Busy bool
	}
	// ping shows that the connection lives.
	ping struct{}
	// unknown is a frame of a later version.
	unknown struct{ of byte }
)

func (hello) kind() byte     { return kindHello }
func (refuse) kind() byte    { return kindRefuse }
func (tell) kind() byte      { return kindTell }
func (rows) kind() byte      { return kindRows }
func (ask) kind() byte       { return kindAsk }
func (ack) kind() byte       { return kindAck }
func (done) kind() byte      { return kindDone }
func (ping) kind() byte      { return kindPing }
func (u unknown) kind() byte { return u.of }

// appendFrame appends the kind and body of f.
func appendFrame(b []byte, f frame) []byte {
	b = append(b, f.kind())
	switch f := f.(type) {
	case hello:
		b = binary.AppendUvarint(b, protocolVersion)
		b = appendText(appendText(b, f.Cluster), f.Machine)
		b = append(b, f.Site[:]...)
		b = binary.AppendUvarint(b, f.Nonce)
		b = crdt.AppendKnown(b, f.Known)
	case refuse:
		b = appendText(b, f.Reason)
	case tell:
		b = crdt.AppendKnown(appendBool(b, f.Reply), f.Known)
	case rows:
		b = appendBool(binary.AppendUvarint(b, f.Req), f.More)
		b = crdt.AppendBatch(b, f.Batch)
	case ask:
		b = appendBool(binary.AppendUvarint(b, f.Req), f.Snapshot)
		b = crdt.AppendKnown(b, f.Wants)
	case ack:
		b = binary.AppendUvarint(b, f.Req)
	case done:
		b = appendBool(binary.AppendUvarint(b, f.Req), f.Busy)
	}
	return b
}

// parseFrame reads what appendFrame wrote.
func parseFrame(b []byte) (frame, error) {
	d := crdt.NewDecoder(b)
	kind := d.Byte()
	var f frame
	switch kind {
	case kindHello:
		if v := d.Uvarint(); v != protocolVersion && d.Err() == nil {
			return nil, fmt.Errorf("the other machine speaks version %d of the protocol, this one %d", v, protocolVersion)
		}
		f = hello{Cluster: d.Text(), Machine: d.Text(), Site: d.SiteID(), Nonce: d.Uvarint(), Known: d.Known()}
	case kindRefuse:
		f = refuse{Reason: d.Text()}
	case kindTell:
		f = tell{Reply: d.Byte() == 1, Known: d.Known()}
	case kindRows:
		f = rows{Req: d.Uvarint(), More: d.Byte() == 1, Batch: d.Batch()}
	case kindAsk:
		f = ask{Req: d.Uvarint(), Snapshot: d.Byte() == 1, Wants: d.Known()}
	case kindAck:
		f = ack{Req: d.Uvarint()}
	case kindDone:
		f = done{Req: d.Uvarint(), Busy: d.Byte() == 1}
	case kindPing:
		f = ping{}
	default:
		return unknown{kind}, d.Err()
	}
	if err := d.Done(); err != nil {
		return nil, fmt.Errorf("frame of kind %d: %w", kind, err)
	}
	return f, nil
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

const (
	// frameBytes is about how much of a batch goes into one frame, so that a
	// push never waits for long behind an answer.
	frameBytes = 256 << 10
	// maxFrameBytes bounds what is read: a frame, and one row over it.
	maxFrameBytes = 4 << 20
)

// writeFrame writes f with its length. scratch is used again.
func writeFrame(w io.Writer, f frame, scratch []byte) ([]byte, error) {
	scratch = appendFrame(append(scratch[:0], 0, 0, 0, 0), f)
	binary.BigEndian.PutUint32(scratch, uint32(len(scratch)-4))
	_, err := w.Write(scratch)
	return scratch, err
}

// readFrame reads one frame.
func readFrame(r *bufio.Reader) (frame, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n > maxFrameBytes {
		return nil, fmt.Errorf("frame of %d bytes", n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, fmt.Errorf("torn frame: %w", err)
	}
	return parseFrame(body)
}

// split cuts a batch into frames.
func split(req uint64, b crdt.Batch) []frame {
	var out []frame
	start, size := 0, 0
	for i, row := range b.Rows {
		if n := row.Size(); size > 0 && size+n > frameBytes {
			out = append(out, rows{Req: req, More: true, Batch: crdt.Batch{Rows: b.Rows[start:i]}})
			start, size = i, n
		} else {
			size += n
		}
	}
	return append(out, rows{Req: req, Batch: crdt.Batch{Rows: b.Rows[start:], Marks: b.Marks}})
}

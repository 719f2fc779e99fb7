package statesync

import (
	"encoding/binary"
	"fmt"

	"uncloud/agent/internal/crdt"
)

// A hello begins with the version that the sender speaks and the least that it
// still understands. Machines are upgraded one after another, and say by their
// rows whose turn it is: so an agent has to exchange state with those of the
// release before it, and may raise leastVersion to a version only when all
// releases since speak that. What it sends to one that speaks less is in the
// form of that. Frames of an unknown kind are skipped, and the hello of a later
// version may be longer, so that a version can grow.
const protocolVersion, leastVersion = 4, 4

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
	kindSums
	kindMend
	kindPacked
	kindFloor
)

type (
	// hello is the first frame in each direction.
	hello struct {
		Cluster string // machines of another cluster are refused
		Machine string
		Site    crdt.SiteID
		Nonce   uint64     // drawn at each start; tells a machine from its clone
		Known   crdt.Known // everything the sender has
		Floor   crdt.Known // of which it has forgotten tombstones
	}
	// refuse says why the connection ends.
	refuse struct{ Reason string }
	// tell adds to what the sender is known to have.
	tell struct {
		Known  crdt.Known
		Reply  bool // the receiver should tell what is new, at once
		Afresh bool // the receiver should tell all it has, at once
	}
	// rows is a batch or a part of one: all but the last part have More set,
	// and the marks come with the last.
	rows struct {
		Req    uint64 // the request that it answers, or 0 for a push
		Serial uint64 // of the batch, on this connection
		Part   uint64 // counted from 0; a batch of which one is lost is void
		More   bool
		Mend   bool // compared rows of a scrub: they bring no new versions
		Batch  crdt.Batch
		// Whole is the last part of a snapshot, which has the Floor too.
		Whole bool
		Floor crdt.Floor
		// Spoilt says why the batch cannot be read; it is not on the wire. The
		// batch is void then, and the link goes on.
		Spoilt error
	}
	// ask requests versions, or everything.
	ask struct {
		Req      uint64
		Snapshot bool
		Wants    crdt.Known
	}
	// ack lets the sender of an answer send one more batch.
	ack struct{ Req uint64 }
	// done ends an answer. With RetryAfter nothing was answered, since others
	// are being served: ask again after so many milliseconds.
	done struct {
		Req        uint64
		RetryAfter uint64
	}
	// ping shows that the connection lives, and what the sender has, so that
	// a machine that was told something else notices.
	ping struct{ Sum uint64 }
	// sums are hashes over rows: first one a table, then, of those tables
	// that differ, one a bucket.
	sums struct {
		Known  uint64 // only states of the same versions can be compared
		Detail bool
		Tables map[string][]uint64 // one, or 256 with Detail
	}
	// mend asks for the rows of some buckets.
	mend struct{ Buckets map[string][]byte }
	// floor says that the sender has forgotten more tombstones.
	floor struct{ Known crdt.Known }
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
func (sums) kind() byte      { return kindSums }
func (mend) kind() byte      { return kindMend }
func (floor) kind() byte     { return kindFloor }
func (u unknown) kind() byte { return u.of }

// appendFrame appends the kind and body of f.
func appendFrame(b []byte, f frame) []byte {
	b = append(b, f.kind())
	switch f := f.(type) {
	case hello:
		b = binary.AppendUvarint(binary.AppendUvarint(b, protocolVersion), leastVersion)
		b = appendText(appendText(b, f.Cluster), f.Machine)
		b = append(b, f.Site[:]...)
		b = binary.AppendUvarint(b, f.Nonce)
		b = crdt.AppendKnown(crdt.AppendKnown(b, f.Known), f.Floor)
	case refuse:
		b = appendText(b, f.Reason)
	case tell:
		b = crdt.AppendKnown(appendFlags(b, f.Reply, f.Afresh), f.Known)
	case rows:
		b = binary.AppendUvarint(binary.AppendUvarint(binary.AppendUvarint(b, f.Req), f.Serial), f.Part)
		b = crdt.AppendBatch(appendFlags(b, f.More, f.Mend, f.Whole), f.Batch)
		if f.Whole {
			b = crdt.AppendFloor(b, f.Floor)
		}
	case ask:
		b = appendFlags(binary.AppendUvarint(b, f.Req), f.Snapshot)
		b = crdt.AppendKnown(b, f.Wants)
	case ack:
		b = binary.AppendUvarint(b, f.Req)
	case done:
		b = binary.AppendUvarint(binary.AppendUvarint(b, f.Req), f.RetryAfter)
	case ping:
		b = binary.AppendUvarint(b, f.Sum)
	case sums:
		b = appendSums(b, f)
	case mend:
		b = appendMend(b, f)
	case floor:
		b = crdt.AppendKnown(b, f.Known)
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
		return parseHello(d)
	case kindRefuse:
		f = refuse{Reason: d.Text()}
	case kindTell:
		flags := d.Byte()
		f = tell{Reply: flags&1 != 0, Afresh: flags&2 != 0, Known: d.Known()}
	case kindRows:
		return parseRows(d)
	case kindAsk:
		f = ask{Req: d.Uvarint(), Snapshot: d.Byte() == 1, Wants: d.Known()}
	case kindAck:
		f = ack{Req: d.Uvarint()}
	case kindDone:
		f = done{Req: d.Uvarint(), RetryAfter: d.Uvarint()}
	case kindPing:
		f = ping{Sum: d.Uvarint()}
	case kindSums:
		f = parseSums(d)
	case kindMend:
		f = parseMend(d)
	case kindFloor:
		f = floor{Known: d.Known()}
	default:
		return unknown{kind}, d.Err()
	}
	if err := d.Done(); err != nil {
		return nil, fmt.Errorf("frame of kind %d: %w", kind, err)
	}
	return f, nil
}

func parseHello(d *crdt.Decoder) (frame, error) {
	speaks, least := d.Uvarint(), d.Uvarint()
	if d.Err() == nil && (speaks < leastVersion || least > protocolVersion) {
		return nil, fmt.Errorf("the other machine speaks versions %d to %d of the protocol, this one %d to %d", least, speaks, leastVersion, protocolVersion)
	}
	f := hello{Cluster: d.Text(), Machine: d.Text(), Site: d.SiteID(), Nonce: d.Uvarint(), Known: d.Known(), Floor: d.Known()}
	err := d.Err()
	if speaks <= protocolVersion {
		err = d.Done()
	}
	if err != nil {
		return nil, fmt.Errorf("frame of kind %d: %w", kindHello, err)
	}
	return f, nil
}

// parseRows reads part of a batch. One that cannot be read must not cost the
// link, by which all the others come.
func parseRows(d *crdt.Decoder) (frame, error) {
	r := rows{Req: d.Uvarint(), Serial: d.Uvarint(), Part: d.Uvarint()}
	flags := d.Byte()
	if err := d.Err(); err != nil {
		return nil, fmt.Errorf("frame of kind %d: %w", kindRows, err)
	}
	r.More, r.Mend, r.Whole = flags&1 != 0, flags&2 != 0, flags&4 != 0
	r.Batch = d.Batch()
	if r.Whole {
		r.Floor = d.Floor()
	}
	if r.Spoilt = d.Done(); r.Spoilt != nil {
		r.Batch, r.Floor = crdt.Batch{}, crdt.Floor{}
	}
	return r, nil
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// appendFlags packs up to eight truth values into a byte, the first lowest.
func appendFlags(b []byte, flags ...bool) []byte {
	var packed byte
	for i, set := range flags {
		if set {
			packed |= 1 << i
		}
	}
	return append(b, packed)
}

package statesync

import (
	"bufio"
	"bytes"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"uncloud/agent/internal/crdt"
	"uncloud/agent/internal/store"
)

func everyFrame() []frame {
	site := crdt.SiteID{15: 1}
	known := crdt.Known{site: {{First: 1, Last: 4}, {First: 9, Last: 9}}}
	record, _ := crdt.Record{}.Put([]crdt.Assignment{{Column: "v", Value: crdt.Real(2.5)}}, 77, site)
	row := crdt.Row{Table: "t", Key: "k", Record: record, Writers: []crdt.Version{{Site: site, Seq: 9}}}
	return []frame{
		hello{Cluster: "cls", Machine: "mch", Site: site, Nonce: 1 << 63, Known: known, Floor: crdt.Known{site: crdt.Single(1, 3)}},
		refuse{Reason: "no"}, tell{Known: known, Reply: true}, tell{Known: crdt.Known{}},
		rows{Req: 3, More: true, Batch: crdt.Batch{Rows: []crdt.Row{row}, Marks: crdt.Known{}}},
		rows{Batch: crdt.Batch{Rows: []crdt.Row{row}, Marks: known}},
		ask{Req: 4, Snapshot: true, Wants: known}, ack{Req: 5}, done{Req: 6, RetryAfter: 1500}, ping{Sum: 1 << 63},
		tell{Known: crdt.Known{}, Afresh: true}, rows{Serial: 4, Part: 2, Mend: true, Batch: crdt.Batch{Rows: []crdt.Row{row}, Marks: crdt.Known{}}},
		sums{Known: 9, Tables: map[string][]uint64{"t": {1 << 60}}}, sums{Known: 9, Detail: true, Tables: map[string][]uint64{"t": {1, 2, 3}, "u": {}}},
		mend{Buckets: map[string][]byte{"t": {0, 255}}}, floor{Known: known},
		rows{Req: 9, Whole: true, Batch: crdt.Batch{Rows: []crdt.Row{row}, Marks: known}, Floor: crdt.Floor{Known: known, CL: 4}},
	}
}

func TestFramesComeBack(t *testing.T) {
	var b bytes.Buffer
	var scratch []byte
	var err error
	for _, f := range everyFrame() {
		if scratch, _, err = writeFrame(&b, f, scratch); err != nil {
			t.Fatal(err)
		}
	}
	in := bufio.NewReader(&b)
	for _, want := range everyFrame() {
		got, _, err := readFrame(in, maxFrameBytes)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%v\ngot  %+v\nwant %+v", err, got, want)
		}
	}
}

func TestFramesThatAreNone(t *testing.T) {
	later, err := parseFrame([]byte{200, 1, 2})
	if u, ok := later.(unknown); !ok || err != nil || u.kind() != 200 {
		t.Errorf("frame of a later version: %+v %v", later, err)
	}
	for name, b := range map[string][]byte{
		"empty": {}, "other protocol": {kindHello, 9}, "too long": {kindPing, 0, 0}, "torn": {kindAsk, 1},
	} {
		if f, err := parseFrame(b); err == nil && name != "empty" {
			t.Errorf("%s: %+v", name, f)
		}
	}
	if _, _, err := readFrame(bufio.NewReader(bytes.NewReader([]byte{0xff, 0, 0, 0})), maxFrameBytes); err == nil {
		t.Error("a frame of 4 GB was read")
	}
}

// Machines are upgraded one after another, so a later version that still
// understands this one is let in, whatever it has to say besides.
func TestProtocolsOfOtherReleases(t *testing.T) {
	rest := appendFrame(nil, everyFrame()[0])[3:]
	for name, c := range map[string]struct {
		speaks, least byte
		more          []byte
		ok            bool
	}{
		"the same":                        {protocolVersion, leastVersion, nil, true},
		"the same, too long":              {protocolVersion, leastVersion, []byte{1}, false},
		"a later one":                     {protocolVersion + 1, protocolVersion, nil, true},
		"a later one with more":           {protocolVersion + 3, protocolVersion, []byte{1, 2}, true},
		"a later one that understands no": {protocolVersion + 2, protocolVersion + 1, nil, false},
		"one before the least":            {leastVersion - 1, 1, nil, false},
	} {
		got, err := parseFrame(slices.Concat([]byte{kindHello, c.speaks, c.least}, rest, c.more))
		if (err == nil) != c.ok || c.ok && !reflect.DeepEqual(got, everyFrame()[0]) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// A row that was merged from many machines is larger than any of them may write.
func TestARowOfManyLargeWritesTravels(t *testing.T) {
	row := crdt.Row{Table: "t", Key: "k", Record: crdt.Record{CL: 1}, Writers: []crdt.Version{{Site: crdt.SiteID{1}, Seq: 1}}}
	for i := range 14 {
		noise := make([]byte, store.MaxRowBytes)
		_, _ = rand.NewChaCha8([32]byte{byte(i)}).Read(noise) // never fails
		row.Record.Cells = append(row.Record.Cells, crdt.Cell{Column: string(rune('a' + i)), Ver: 1, Value: crdt.Blob(noise)})
	}
	for _, f := range []frame{rows{Batch: crdt.Batch{Rows: []crdt.Row{row}, Marks: crdt.Knows(row.Writers[0])}}, rows{Req: 1, Batch: crdt.Batch{Rows: []crdt.Row{row}, Marks: crdt.Known{}}}} {
		var b bytes.Buffer
		if _, _, err := writeFrame(&b, f, nil); err != nil {
			t.Fatal(err)
		}
		if got, _, err := readFrame(bufio.NewReader(&b), maxFrameBytes); err != nil || !reflect.DeepEqual(got, f) {
			t.Error(err)
		}
	}
}

func TestSplitKeepsAll(t *testing.T) {
	big := crdt.Text(string(make([]byte, 100_000)))
	b := crdt.Batch{Marks: crdt.Knows(crdt.Version{Site: crdt.SiteID{1}, Seq: 1})}
	for range 9 {
		b.Rows = append(b.Rows, crdt.Row{Table: "t", Key: "k", Record: crdt.Record{CL: 1, Cells: []crdt.Cell{{Column: "v", Ver: 1, Value: big}}}})
	}
	count := 0
	parts := split(rows{Req: 7}, b)
	for i, f := range parts {
		part := f.(rows)
		count += len(part.Batch.Rows)
		if last := i == len(parts)-1; part.More == last || (len(part.Batch.Marks) > 0) != last || part.Req != 7 || part.Batch.Size() > frameBytes+100 {
			t.Errorf("part %d: more %v, marks %v, %d bytes", i, part.More, part.Batch.Marks, part.Batch.Size())
		}
	}
	if count != 9 || len(parts) != 5 {
		t.Errorf("%d rows in %d parts", count, len(parts))
	}
}

func FuzzParseFrame(f *testing.F) {
	for _, fr := range everyFrame() {
		f.Add(appendFrame(nil, fr))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := openFrame(b)
		if r, ok := got.(rows); err != nil || ok && r.Spoilt != nil {
			return
		}
		again, err := parseFrame(appendFrame(nil, got))
		if err != nil || !reflect.DeepEqual(got, again) {
			t.Fatalf("%+v became %+v, %v", got, again, err)
		}
	})
}

// Whatever frame comes, and whatever the store says to what it brings, a node
// goes on: it still pushes what is written there.
func FuzzLiveNode(f *testing.F) {
	fuzzLiveNode(f, func(_ *testing.T, n int) simStore { return newReplica(n) })
}

// FuzzLiveNodeWithStore is FuzzLiveNode with stores of the product, which have
// reasons of their own to refuse what comes.
func FuzzLiveNodeWithStore(f *testing.F) {
	fuzzLiveNode(f, func(t *testing.T, n int) simStore { return openReal(t, n) })
}

func fuzzLiveNode(f *testing.F, stores func(t *testing.T, n int) simStore) {
	for _, fr := range everyFrame() {
		f.Add(appendFrame(nil, fr))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, err := openFrame(b)
		if err != nil {
			return
		}
		s := newSimOf(1, 3, func(n int) simStore { return stores(t, n) })
		s.strange = true
		s.run(10 * time.Second)
		victim := s.nodes[0]
		from := victim.core.live[machineName(1)]
		victim.step(received{Link: from.id, Frame: fr})
		victim.step(received{Link: from.id, Frame: fr})
		s.run(10 * time.Second)
		v := crdt.Knows(crdt.Version{Site: victim.rep.Site(), Seq: 1})
		victim.write("x", "after")
		s.run(10 * time.Second)
		if !s.nodes[2].rep.Known().CoversAll(v) {
			t.Fatalf("after %+v nothing is pushed", fr)
		}
	})
}

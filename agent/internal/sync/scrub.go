package statesync

import (
	"encoding/binary"
	"hash/fnv"
	"time"

	"uncloud/agent/internal/crdt"
)

// Once in a while two machines that know the same versions compare hashes of
// what they hold. They must be equal; if they are not, some part of the
// bookkeeping has failed, and the rows of the buckets that differ are
// exchanged and merged.
//
//	A: sums, one a table     ->  B
//	A  <-  sums, one a bucket, of the tables that differ  :B
//	A: mend, and its rows    ->  B
//	A  <-  its rows                                       :B
const (
	scrubMin, scrubMax = 9 * time.Minute, 11 * time.Minute
	// scrubAgainMin to scrubAgainMax is when to try again, if the other
	// machine was just then behind or ahead.
	scrubAgainMin, scrubAgainMax = 5 * time.Second, 15 * time.Second
	// scrubStill is for how long nothing may have come in before machines are
	// compared: a row can arrive ahead of its version, and then differs for a
	// moment. A cluster that is never still is compared all the same, after
	// scrubTries attempts.
	scrubStill  = 5 * time.Second
	scrubTries  = 20
	bucketCount = 256
)

type (
	// readSums has the store hash its rows. Theirs is what the other machine
	// said, or nil to begin.
	readSums struct {
		Link   linkID
		Theirs *sums
	}
	summed struct {
		Link   linkID
		Theirs *sums
		Known  crdt.Known
		Tables map[string]*[bucketCount]uint64
		Err    error
	}
	// readBuckets reads the rows of buckets, to be sent over a link.
	readBuckets struct {
		Link    linkID
		Buckets map[string][]byte
	}
	bucketsRead struct {
		Link linkID
		Rows []crdt.Row
		Err  error
	}
	// scrubNow begins to compare with every connected machine.
	scrubNow struct{}
)

// sumOf is a hash of what is known.
func sumOf(k crdt.Known) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(crdt.AppendKnown(nil, k)) // never fails
	return h.Sum64()
}

// sum is the hash of what is known here. It is asked for by every ping.
func (c *core) sum() uint64 {
	if c.summedOf == nil || !c.known.Same(c.summedOf) {
		c.summedOf, c.summedTo = c.known, sumOf(c.known)
	}
	return c.summedTo
}

// rootOf is one hash over the buckets of a table.
func rootOf(buckets *[bucketCount]uint64) uint64 {
	h := fnv.New64a()
	for _, b := range buckets {
		_, _ = h.Write(binary.BigEndian.AppendUint64(nil, b)) // never fails
	}
	return h.Sum64()
}

// scrub begins to compare with one machine, drawn by lot.
func (c *core) scrub() {
	if c.now.Sub(c.movedAt) < scrubStill && c.tries < scrubTries {
		c.tries++
		c.scrubAt = c.jitter(scrubAgainMin, scrubAgainMax)
		return
	}
	c.tries = 0
	c.scrubAt = c.jitter(scrubMin, scrubMax)
	if all := c.peers(); len(all) > 0 {
		c.hash(all[c.rand.IntN(len(all))], nil)
	}
}

// hash has the store hash its rows, once at a time for a link: each time it
// reads all of them. Of two scrubs that meet, one is let go.
func (c *core) hash(l *link, theirs *sums) {
	if !l.hashing {
		l.hashing = true
		c.do(readSums{Link: l.id, Theirs: theirs})
	}
}

// readBuckets reads the rows of buckets for a link, if those before are sent.
func (c *core) readBuckets(l *link, buckets map[string][]byte) {
	if !l.mending && len(l.answers) == 0 {
		l.mending = true
		c.do(readBuckets{Link: l.id, Buckets: buckets})
	}
}

// summed goes on when the store has hashed its rows.
func (c *core) summed(l *link, e summed) {
	l.hashing = false
	switch known := sumOf(e.Known); {
	case e.Err != nil:
	case e.Theirs == nil:
		out := sums{Known: known, Tables: map[string][]uint64{}}
		for table, buckets := range e.Tables {
			out.Tables[table] = []uint64{rootOf(buckets)}
		}
		c.count.Scrubs++
		c.post(l, out)
	case e.Theirs.Known != known && e.Theirs.Detail:
	case e.Theirs.Known != known:
		// An answer without tables tells the other machine that it is so.
		c.post(l, sums{Known: known, Detail: true})
	case e.Theirs.Detail:
		c.exchange(l, differing(e.Theirs.Tables, e.Tables))
	default:
		c.post(l, sums{Known: known, Detail: true, Tables: detail(e.Theirs.Tables, e.Tables)})
	}
}

// compare takes hashes of the other machine.
func (c *core) compare(l *link, f sums) {
	switch {
	case !f.Detail:
		c.hash(l, &f)
	case f.Known != c.sum():
		if again := c.jitter(scrubAgainMin, scrubAgainMax); again.Before(c.scrubAt) {
			c.scrubAt = again
		}
	case len(f.Tables) > 0:
		c.hash(l, &f)
	}
}

// detail is our buckets of the tables of which the hash differs, or that only
// one side has.
func detail(theirs map[string][]uint64, ours map[string]*[bucketCount]uint64) map[string][]uint64 {
	out := map[string][]uint64{}
	for table, buckets := range ours {
		if root := theirs[table]; len(root) != 1 || root[0] != rootOf(buckets) {
			out[table] = buckets[:]
		}
	}
	for table := range theirs {
		if ours[table] == nil {
			out[table] = make([]uint64, bucketCount)
		}
	}
	return out
}

// differing is the buckets that are not equal.
func differing(theirs map[string][]uint64, ours map[string]*[bucketCount]uint64) map[string][]byte {
	out := map[string][]byte{}
	for table, sums := range theirs {
		have := ours[table]
		if have == nil {
			have = new([bucketCount]uint64)
		}
		for i, sum := range sums {
			if sum != have[i] {
				out[table] = append(out[table], byte(i))
			}
		}
	}
	return out
}

// exchange asks for the rows of buckets, and sends those that are here.
func (c *core) exchange(l *link, buckets map[string][]byte) {
	if len(buckets) > 0 {
		c.post(l, mend{Buckets: buckets})
		c.readBuckets(l, buckets)
	}
}

// sendBuckets sends rows to be compared with those of the other machine.
func (c *core) sendBuckets(l *link, e bucketsRead) {
	l.mending = false
	if e.Err == nil && len(e.Rows) > 0 {
		l.answers = append(l.answers, split(rows{Serial: c.serial(), Mend: true}, crdt.Batch{Rows: e.Rows})...)
	}
}

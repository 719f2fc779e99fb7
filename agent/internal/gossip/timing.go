package gossip

import (
	"time"

	"github.com/hashicorp/memberlist"
)

// How soon a dead machine is seen dead. With n machines, of which one dies,
//
//	every living machine probes the others in turn, one each ProbeInterval;
//	a probe of the dead one fails a ProbeInterval after it began;
//	the suspect then has SuspicionMult x max(1, log10 n) x ProbeInterval to object.
//
//	  dies    first probe         suspected                       dead
//	   |--------|--------------------|-------------------------------|
//	     <= 1 s        0.5 s                      1.5 s
//	     (n = 3)
//
// so three machines notice within 3 s. With more machines there are more
// probers and the first term stays about one ProbeInterval; the last one is
// 3 s for a hundred machines.
const (
	// probeInterval bounds the round trip that still counts as alive: an ack
	// is accepted until the interval ends. Lower finds the dead sooner and
	// calls distant or busy machines dead wrongly.
	probeInterval = 500 * time.Millisecond
	// probeTimeout is when help is asked: three other machines probe too, and
	// TCP is tried, in what is left of the interval.
	probeTimeout = 300 * time.Millisecond
	// suspicionMult gives a machine that stalled 1.5 s to hear that it is
	// suspected and to object. This is what keeps a Raspberry Pi that flushes
	// its SD card from flapping.
	suspicionMult = 3
	// suspicionMaxMult of 1 leaves no wait for confirmation by others. With
	// two or three machines nobody may be left to confirm, and the smaller
	// side of a partition must see the others go as quickly as the larger.
	suspicionMaxMult = 1
	// awarenessMax lets a machine that misses acks itself (it is busy, or
	// alone) halve its probe rate, no more: a machine that is cut off must
	// probe everybody in turn before it knows that it is alone.
	awarenessMax = 2
	// gossipInterval is when queued news goes to three random machines. An
	// empty queue sends nothing.
	gossipInterval = 200 * time.Millisecond
	// toTheDead is how long the dead still get news, so that a machine that
	// comes back within it learns at once that it has to object.
	toTheDead = 30 * time.Second
	// pushPullInterval is a full exchange with one random machine: the safety
	// net below the news.
	pushPullInterval = 30 * time.Second
	// streamTimeout bounds a connection for a full exchange. It is one SYN
	// and one repetition (after 1 s): longer would only delay the next try.
	streamTimeout = 2 * time.Second
	// packetSize fits the smallest mesh MTU: 1280 less the IPv6 and UDP headers.
	packetSize = 1280 - 40 - 8
	// leavePropagation is how long a leaving machine still answers probes, so
	// that nobody calls it failed before hearing that it left.
	leavePropagation = 500 * time.Millisecond
	leaveBroadcast   = 2 * time.Second
)

// How absent machines are sought. Serf's own reconnect knows only machines it
// has met, waits 30 s and rolls dice; here every machine that the state knows
// is sought.
const (
	// seekInterval is the pace while a machine is absent: with streamTimeout
	// it bounds the return after a healed partition.
	seekInterval = 1500 * time.Millisecond
	// seekPatience is how long a machine is sought at that pace. One that has
	// been away longer is sought at seekIdleInterval; when it comes back it
	// seeks the others itself, at the quick pace.
	seekPatience     = 5 * time.Minute
	seekIdleInterval = 10 * time.Second
	// seekWidth is how many absent machines are tried at once. One success
	// brings the whole other side.
	seekWidth = 3
	// seekConfirm is the pause before the second exchange with a machine that
	// answered but is still held dead: the first one told it so, and only the
	// second one brings its objection.
	seekConfirm = 200 * time.Millisecond
)

func memberlistConfig() *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.ProbeInterval = probeInterval
	c.ProbeTimeout = probeTimeout
	c.SuspicionMult = suspicionMult
	c.SuspicionMaxTimeoutMult = suspicionMaxMult
	c.AwarenessMaxMultiplier = awarenessMax
	c.GossipInterval = gossipInterval
	c.GossipToTheDeadTime = toTheDead
	c.PushPullInterval = pushPullInterval
	c.TCPTimeout = streamTimeout
	c.UDPBufferSize = packetSize
	// The packets are small and WireGuard pads them: compression costs CPU
	// on every probe and saves nothing.
	c.EnableCompression = false
	return c
}

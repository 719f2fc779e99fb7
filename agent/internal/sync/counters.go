package statesync

// Counters is what a Syncer has done since it began. They only rise.
type Counters struct {
	Pushed          uint64 // local commits given to others
	Relayed         uint64 // pushes passed on, in a large cluster
	Repeated        uint64 // pushes that held nothing new
	Merged          uint64 // batches that the store took
	MergeErrors     uint64 // batches that it did not take
	Spoilt          uint64 // batches that cannot be read, or are impossible
	Asked           uint64 // requests made
	Served          uint64 // requests answered
	TurnedAway      uint64 // requests put off, since three were being answered
	Snapshots       uint64 // answers that were everything
	OutboxesDropped uint64 // times that a machine was too slow to be pushed to
	Scrubs          uint64 // comparisons with another machine that were begun
	Repaired        uint64 // rows that differed though both machines knew the same
	Refused         uint64 // connections turned down: another cluster, a clone, no room
	FramesIn        uint64
	FramesOut       uint64
	BytesIn         uint64
	BytesOut        uint64
}

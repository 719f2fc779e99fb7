// Package crdt holds the laws by which replicas of one row agree: row records
// and their merge, sets of versions, and the hybrid clock that stamps writes.
//
// It owns the merge rules and the byte form of records. It refuses I/O, and it
// has no clock and no randomness of its own: both are arguments. Everything in
// it is a value; no function changes what it was given.
//
// A row travels whole, with its Record. The merge of two records is the join
// of a semilattice, so replicas that saw the same writes hold the same rows in
// whatever order, number and grouping the writes arrived:
//
//   - The causal length CL counts births and deaths of the row: odd is alive,
//     even is deleted. A higher CL wins whole. So removal beats a concurrent
//     change, and a later re-creation beats the removal.
//   - With equal CL each column is decided by itself: more edits (Ver), then
//     the later Stamp, then the larger Value, then the larger site.
//   - The owner of the CL is decided by later Stamp, then larger site.
//
// A write that has seen another always beats it, because it counts on from the
// Ver it saw. Only concurrent writes with equal counts are decided by time, so
// a wrong clock matters in such a tie and nowhere else.
package crdt

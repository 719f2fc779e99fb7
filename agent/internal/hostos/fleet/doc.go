// Package fleet takes machines to other generations one after another. It owns
// what a machine does in its turn, when that turn is, and what the others look
// at before they confirm it. It refuses to drive other machines: nothing of an
// upgrade is lost with any of them.
//
// An upgrade is a row of the replicated state, which any machine may write: the
// machines in their order, and what they are taken to. Each of them has a row
// of its own, its turn, which it alone writes. A machine's turn is when every
// one before it has written that its own is done; the first that fails ends the
// upgrade, because then no turn comes after it. So there is no coordinator, and
// a machine that dies in its turn holds the upgrade where it is, on one machine.
// What is left to do for somebody else, the living machine with the lowest id
// does: it writes that an upgrade has ended, and ends one whose next machine has
// been down for too long.
//
// In its turn a machine stages the system, lets rollouts that concern it end,
// gives its replicas away if that was asked for, notes what is healthy and who
// lives, and orders the host process (package hostos) to go on. When it runs
// the new system it asks those who lived: at least half of them must say that
// its newest row has reached them, that it lives, and that its replicas take
// traffic again; and what they wrote must reach it. Then it orders to keep it.
// If that does not happen the host process returns, whatever has become of the
// agent.
package fleet

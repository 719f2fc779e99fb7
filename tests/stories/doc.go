// Package stories tests what the product promises, on real machines: see
// package lab. A test's name is a promise; its body is a story of what a
// person or the world does to a cluster, and of what must be seen then.
//
// Stories that harm nobody share one cluster of three machines and keep apart
// by project name. Those that cut, kill or add machines have one of their own.
// A story waits for a condition and says what it last saw when that does not
// come; only where a promise names a time is the time part of the test.
package stories

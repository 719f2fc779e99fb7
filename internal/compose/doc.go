// Package compose turns Compose files into specs. It owns the meaning of every
// key of the Compose specification for this product: each key is mapped to
// spec, accepted for a written reason, or refused by name with its file and
// line. It refuses to drop anything in silence, to talk to a cluster, and to
// build or push images.
//
// What each key means is one table (table.go). Three things are made from it:
// the walk that refuses, the reference docs/compose.md, and a test that fails
// when a new version of the parser knows a key that the table does not.
//
// A load has four steps:
//
//	files -> merged tree -> walk: every key must be in the table
//	                     -> typed project -> one spec a service, dependencies first
//
// The walk sees the tree before defaults of names and networks are filled in
// and before paths are made absolute, so it judges what the user wrote.
package compose

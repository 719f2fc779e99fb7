// Package spec is the product's vocabulary: machines, projects, services,
// revisions, replicas and what was observed of them, with their validation.
//
// It owns the words and the rules that need nothing but the words. It imports
// the standard library only, does no I/O and knows no engine, so that every
// other package may depend on it and it depends on none.
//
// Each replicated row is a plain struct. Its Table and Key methods say where
// it lives in the store; the `col` tag of a field names its column. A field of
// a composite type is one column that holds canonical JSON, so it merges whole.
package spec

// Package gossip tells which machines of the cluster live, and how far away
// they are. It owns Serf and is the only importer of it.
//
// It carries no data: no row, no address to serve, no configuration. What it
// says is this machine's own view, may differ from that of others during a
// partition, and is never written to disk. Where to look for members comes
// from outside (SetSeeds), since the replicated state knows every machine.
//
// A member is named by its machine id and tagged with its cluster id. A
// machine of another cluster is refused before it can exchange membership.
package gossip

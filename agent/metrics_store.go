package agent

import (
	"cmp"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"uncloud/agent/internal/crdt"
	"uncloud/agent/internal/store"
	statesync "uncloud/agent/internal/sync"
)

// metricsEach is how many machines or sites have metrics of their own. What
// is beyond them is told in one sum, or maximum: the scrape of a large cluster
// stays small.
const metricsEach = 64

// metricsRest is the label of what has none of its own. No machine can have
// this name.
const metricsRest = "(others)"

var (
	descStoreRows   = desc("store_rows", "Rows in the replicated store, living and deleted.", "kind")
	descStoreHead   = desc("store_head", "Newest version of a site that is known here; of others, the sum.", "site")
	descStoreGaps   = desc("store_missing_versions", "Versions of a site that are known to exist and are not here yet.", "site")
	descSites       = desc("store_sites", "Sites that have written anything known here.")
	descUnreadable  = desc("store_unreadable_rows", "Rows that this agent cannot read and leaves alone.")
	descQuarantined = desc("store_quarantined_rows", "Rows of other machines that do not fit their tables and are set aside.")
	descRepaired    = desc("store_repaired_total", "Rows that differed although both machines knew the same: should stay 0.")
	descSpoilt      = desc("sync_spoilt_batches_total", "Batches of changes that could not be read or cannot be: should stay 0.")
	descSyncQueue   = desc("sync_queued_bytes", "Bytes of changes that wait to be sent to a machine.", "machine")
	descSyncMissing = desc("sync_missing_versions", "Versions that a machine has and this one lacks.", "machine")
	descSyncLag     = desc("sync_lag_seconds", "For how long this machine has lacked changes of a connected one; of others, the longest.", "machine")
	descSyncPeers   = desc("sync_peers", "Other machines that replication is to be connected to.", "connected")
	descDropped     = desc("sync_outboxes_dropped_total", "Times that a machine was too slow to be sent changes as they come.")
	descSyncBytes   = desc("sync_bytes_total", "Bytes of replication with other machines.", "direction")
	descMergeErr    = desc("sync_merge_errors_total", "Batches of changes that the store did not take.")
)

// collectStore tells how the store is. A machine that was restored, or has
// left, wrote as other sites: so heads are by site, and not by machine.
func collectStore(gauge gaugeFunc, st store.Status, known crdt.Known) {
	gauge(descStoreRows, float64(st.Rows), "living")
	gauge(descStoreRows, float64(st.Deleted), "deleted")
	gauge(descUnreadable, float64(st.Unreadable))
	gauge(descQuarantined, float64(st.Quarantined))
	gauge(descSites, float64(len(known)))
	var headOfRest, gapsOfRest float64
	for i, site := range bySize(known, st.Site) {
		head, gaps := float64(known.Head(site)), float64(known[site].Gaps().Count())
		if i >= metricsEach {
			headOfRest, gapsOfRest = headOfRest+head, gapsOfRest+gaps
			continue
		}
		gauge(descStoreHead, head, site.String())
		gauge(descStoreGaps, gaps, site.String())
	}
	if len(known) > metricsEach {
		gauge(descStoreHead, headOfRest, metricsRest)
		gauge(descStoreGaps, gapsOfRest, metricsRest)
	}
}

// bySize are all sites: the own first, then those that lack something here,
// then those that wrote most.
func bySize(known crdt.Known, own crdt.SiteID) []crdt.SiteID {
	sites := known.Sites()
	rank := func(s crdt.SiteID) int {
		switch {
		case s == own:
			return 0
		case known[s].Gaps().Count() > 0:
			return 1
		}
		return 2
	}
	slices.SortFunc(sites, func(a, b crdt.SiteID) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(known.Head(b), known.Head(a)), a.Compare(b))
	})
	return sites
}

// collectSync tells how replication with the other machines is. A machine is
// named as people name it.
func collectSync(ch chan<- prometheus.Metric, st statesync.Status, names map[string]string, now time.Time) {
	gauge := gaugesOf(ch)
	var connected float64
	for _, p := range st.Peers {
		if p.Connected {
			connected++
		}
	}
	gauge(descSyncPeers, connected, "yes")
	gauge(descSyncPeers, float64(len(st.Peers))-connected, "no")
	queues := queuesOf(st.Peers, now)
	if len(queues) > metricsEach {
		rest := queue{}
		for _, q := range queues[metricsEach:] {
			rest.bytes, rest.missing, rest.lag = rest.bytes+q.bytes, rest.missing+q.missing, max(rest.lag, q.lag)
		}
		queues = append(queues[:metricsEach], rest)
	}
	for _, q := range queues {
		label := metricsRest
		if q.machine != "" {
			label = cmp.Or(names[q.machine], q.machine)
		}
		gauge(descSyncQueue, q.bytes, label)
		gauge(descSyncMissing, q.missing, label)
		gauge(descSyncLag, q.lag.Seconds(), label)
	}
	collectCounters(ch, st.Counters)
}

func collectCounters(ch chan<- prometheus.Metric, n statesync.Counters) {
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	counter(descSpoilt, n.Spoilt)
	counter(descDropped, n.OutboxesDropped)
	counter(descRepaired, n.Repaired)
	counter(descSyncBytes, n.BytesIn, "in")
	counter(descSyncBytes, n.BytesOut, "out")
	counter(descMergeErr, n.MergeErrors)
}

// queue is how replication with a machine stands.
type queue struct {
	machine        string // id; empty: several
	bytes, missing float64
	lag            time.Duration
}

// queuesOf are the connected machines, the latest first.
func queuesOf(peers []statesync.PeerStatus, now time.Time) (queues []queue) {
	for _, p := range peers {
		if !p.Connected {
			continue
		}
		q := queue{machine: p.Machine, bytes: float64(p.Queued), missing: float64(p.Missing)}
		if p.Missing > 0 && !p.Synced.IsZero() {
			q.lag = max(0, now.Sub(p.Synced))
		}
		queues = append(queues, q)
	}
	slices.SortFunc(queues, func(a, b queue) int {
		return cmp.Or(cmp.Compare(b.lag, a.lag), cmp.Compare(b.missing, a.missing), cmp.Compare(b.bytes, a.bytes), cmp.Compare(a.machine, b.machine))
	})
	return queues
}

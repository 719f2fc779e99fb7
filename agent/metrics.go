package agent

import (
	"cmp"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	statesync "uncloud/agent/internal/sync"
	"uncloud/internal/spec"
)

// metricsHandler serves what a monitoring system scrapes. Figures are read at
// the moment of the scrape; nothing is counted for nobody.
func (m *member) metricsHandler() http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		memberCollector{m},
	)
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	return mux
}

// memberCollector turns what a member knows into metrics. Its labels are few:
// what belongs to one service or machine is asked of the API.
type memberCollector struct{ m *member }

var (
	descBuild      = desc("build_info", "Version of the agent.", "version")
	descReady      = desc("ready", "Whether this machine has caught up with the others.")
	descMachines   = desc("machines", "Members of the cluster as this machine sees them.", "state")
	descServices   = desc("services", "Services that should run or be stopped.", "wanted")
	descReplicas   = desc("replicas", "Replicas placed on this machine, by the state of their container.", "state")
	descPeers      = desc("mesh_peers", "Other machines by the state of the tunnel to them.", "state")
	descStoreRows  = desc("store_rows", "Rows in the replicated store, living and deleted.", "kind")
	descStoreHead  = desc("store_head", "Newest version that this machine has written.")
	descStoreGaps  = desc("store_missing_versions", "Versions that are known to exist and are not here yet.")
	descUnreadable = desc("store_unreadable_rows", "Rows that this agent cannot read and leaves alone.")
	descRepaired   = desc("store_repaired_total", "Rows that differed although both machines knew the same: should stay 0.")
	descSpoilt     = desc("sync_spoilt_batches_total", "Batches of changes that could not be read or cannot be: should stay 0.")
	descSyncQueue  = desc("sync_queued_bytes", "Bytes of changes that wait to be sent to connected machines.")
	descSyncLag    = desc("sync_lag_seconds", "For how long this machine has lacked changes of a connected one: the longest.")
	descSyncPeers  = desc("sync_peers", "Other machines that replication is to be connected to.", "connected")
	descDropped    = desc("sync_outboxes_dropped_total", "Times that a machine was too slow to be sent changes as they come.")
	descSyncBytes  = desc("sync_bytes_total", "Bytes of replication with other machines.", "direction")
	descMergeErr   = desc("sync_merge_errors_total", "Batches of changes that the store did not take.")
	descTroubles   = desc("troubles", "What this machine suffers from, by code.", "code")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("uncloud_"+name, help, labels, nil)
}

func (c memberCollector) Describe(ch chan<- *prometheus.Desc) {
	prometheus.DescribeByCollect(c, ch)
}

func (c memberCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(descBuild, 1, Version())
	ready := 0.0
	if c.m.isReady() {
		ready = 1
	}
	gauge(descReady, ready)
	c.collectState(gauge)
	c.collectStore(gauge)
	c.collectSync(ch)
	for code, n := range c.m.troubles.count() {
		gauge(descTroubles, float64(n), code)
	}
}

type gaugeFunc func(d *prometheus.Desc, v float64, labels ...string)

func (c memberCollector) collectState(gauge gaugeFunc) {
	state, alive := c.m.store.State(), c.m.gossip.Alive()
	machines := map[string]float64{"up": 0, "down": 0}
	for id := range state.Machines {
		if alive[id] {
			machines["up"]++
		} else {
			machines["down"]++
		}
	}
	services := map[spec.Wanted]float64{spec.WantRunning: 0, spec.WantStopped: 0}
	for _, s := range state.Services {
		services[s.Wanted]++
	}
	replicas := map[spec.ContainerState]float64{}
	for _, r := range state.Replicas {
		if r.Machine == c.m.id.MachineID {
			replicas[cmp.Or(state.Containers[r.ID].State, spec.ContainerPending)]++
		}
	}
	peers := map[string]float64{"up": 0, "unknown": 0, "down": 0}
	if status, err := c.m.mesh.Status(); err == nil {
		for _, p := range status.Peers {
			if p.Machine != "" { // the others are doors of tickets
				peers[string(p.State)]++
			}
		}
	}
	emit(gauge, descMachines, machines)
	emit(gauge, descServices, services)
	emit(gauge, descReplicas, replicas)
	emit(gauge, descPeers, peers)
}

func emit[K ~string](gauge gaugeFunc, d *prometheus.Desc, values map[K]float64) {
	for k, v := range values {
		gauge(d, v, string(k))
	}
}

func (c memberCollector) collectStore(gauge gaugeFunc) {
	st := c.m.store.Status()
	gauge(descStoreRows, float64(st.Rows), "living")
	gauge(descStoreRows, float64(st.Deleted), "deleted")
	gauge(descStoreHead, float64(st.Head))
	gauge(descStoreGaps, float64(st.Missing))
	gauge(descUnreadable, float64(st.Unreadable)+float64(st.Quarantined))
}

func (c memberCollector) collectSync(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	st := c.m.sync.Status()
	n, q := st.Counters, queueOf(st.Peers, time.Now())
	for d, v := range map[*prometheus.Desc]float64{descSyncQueue: q.bytes, descSyncLag: q.lag.Seconds()} {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
	for connected, v := range map[string]float64{"yes": q.connected, "no": float64(len(st.Peers)) - q.connected} {
		ch <- prometheus.MustNewConstMetric(descSyncPeers, prometheus.GaugeValue, v, connected)
	}
	counter(descSpoilt, n.Spoilt)
	counter(descDropped, n.OutboxesDropped)
	counter(descRepaired, n.Repaired)
	counter(descSyncBytes, n.BytesIn, "in")
	counter(descSyncBytes, n.BytesOut, "out")
	counter(descMergeErr, n.MergeErrors)
}

// queue is how replication with all other machines stands.
type queue struct {
	bytes, connected float64
	lag              time.Duration
}

func queueOf(peers []statesync.PeerStatus, now time.Time) (q queue) {
	for _, p := range peers {
		q.bytes += float64(p.Queued)
		if p.Connected {
			q.connected++
		}
		if p.Missing > 0 && !p.Synced.IsZero() {
			q.lag = max(q.lag, now.Sub(p.Synced))
		}
	}
	return q
}

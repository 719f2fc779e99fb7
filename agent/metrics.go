package agent

import (
	"cmp"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"uncloud/internal/spec"
)

// metricsHandler serves what a monitoring system scrapes. Figures are read at
// the moment of the scrape; only questions to the DNS are counted as they come.
func (m *member) metricsHandler() http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		memberCollector{m},
		m.questions,
	)
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	return mux
}

// memberCollector turns what a member knows into metrics. Its labels are few:
// what belongs to one service is asked of the API, and of machines only so
// many have metrics of their own (metricsEach).
type memberCollector struct{ m *member }

var (
	descBuild    = desc("build_info", "Version of the agent.", "version")
	descReady    = desc("ready", "Whether this machine has caught up with the others.")
	descMachines = desc("machines", "Members of the cluster as this machine sees them.", "state")
	descServices = desc("services", "Services that should run or be stopped.", "wanted")
	descReplicas = desc("replicas", "Replicas placed on this machine, by the state of their container.", "state")
	descPeers    = desc("mesh_peers", "Other machines by the state of the tunnel to them.", "state")
	descTroubles = desc("troubles", "What this machine suffers from, by code.", "code")
)

// questions counts what the DNS of this machine is asked, by kind: of the
// cluster, of the rest of the world, or refused.
type questions struct{ *prometheus.CounterVec }

func newQuestions() questions {
	return questions{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "uncloud_dns_questions_total", Help: "Questions to the DNS of this machine, by kind and response code.",
	}, []string{"kind", "rcode"})}
}

func (q questions) count(kind, rcode string) { q.WithLabelValues(kind, rcode).Inc() }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("uncloud_"+name, help, labels, nil)
}

func (c memberCollector) Describe(ch chan<- *prometheus.Desc) {
	prometheus.DescribeByCollect(c, ch)
}

func (c memberCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := gaugesOf(ch)
	gauge(descBuild, 1, Version())
	ready := 0.0
	if c.m.isReady() {
		ready = 1
	}
	gauge(descReady, ready)
	c.collectState(gauge)
	collectStore(gauge, c.m.store.Status(), c.m.store.Known())
	collectSync(ch, c.m.sync.Status(), c.m.store.State().MachineNames(), time.Now())
	for code, n := range c.m.troubles.count() {
		gauge(descTroubles, float64(n), code)
	}
}

type gaugeFunc func(d *prometheus.Desc, v float64, labels ...string)

func gaugesOf(ch chan<- prometheus.Metric) gaugeFunc {
	return func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
}

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

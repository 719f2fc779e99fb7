package agent

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"uncloud/agent/internal/crdt"
	"uncloud/agent/internal/mesh"
	"uncloud/agent/internal/store"
	statesync "uncloud/agent/internal/sync"
)

// collected collects once.
type collected func(ch chan<- prometheus.Metric)

func (collected) Describe(chan<- *prometheus.Desc) {}

func (c collected) Collect(ch chan<- prometheus.Metric) { c(ch) }

var series = regexp.MustCompile(`(?m)^uncloud_(\w+)(?:\{\w+="([^"]*)"\})? (\S+)$`)

// exposed is what a scrape shows: "name{label}" and its value. A registry
// refuses to show a series twice.
func exposed(t *testing.T, collect func(ch chan<- prometheus.Metric)) map[string]float64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	must(t, reg.Register(collected(collect)))
	answer := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	if answer.Code != http.StatusOK {
		t.Fatalf("%d %s", answer.Code, answer.Body)
	}
	out := map[string]float64{}
	for _, m := range series.FindAllStringSubmatch(answer.Body.String(), -1) {
		name := m[1]
		if m[2] != "" {
			name += "{" + m[2] + "}"
		}
		value, err := strconv.ParseFloat(m[3], 64)
		must(t, err)
		out[name] = value
	}
	return out
}

func site(n byte) crdt.SiteID { return crdt.SiteID{15: n} }

func TestHeadsAndGapsAreToldOfEachSite(t *testing.T) {
	known := crdt.Known{site(1): crdt.Single(1, 7), site(2): crdt.Single(1, 3).Union(crdt.Single(6, 9))}
	got := exposed(t, func(ch chan<- prometheus.Metric) {
		collectStore(gaugesOf(ch), store.Status{Site: site(1), Rows: 4, Deleted: 3, Unreadable: 2, Quarantined: 1}, known)
	})
	one, two := site(1).String(), site(2).String()
	want := map[string]float64{
		"store_rows{living}": 4, "store_rows{deleted}": 3, "store_unreadable_rows": 2, "store_quarantined_rows": 1, "store_sites": 2,
		"store_head{" + one + "}": 7, "store_missing_versions{" + one + "}": 0,
		"store_head{" + two + "}": 9, "store_missing_versions{" + two + "}": 2,
	}
	if !maps.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

func TestManySitesAreToldInOneSum(t *testing.T) {
	own, late := site(0), site(1)
	known := crdt.Known{own: crdt.Single(1, 1), late: crdt.Single(2, 2)}
	for n := range 100 {
		known[site(byte(n+2))] = crdt.Single(1, uint64(n+10))
	}
	got := exposed(t, func(ch chan<- prometheus.Metric) { collectStore(gaugesOf(ch), store.Status{Site: own}, known) })
	heads, sum := 0, 0.0
	for name, v := range got {
		if strings.HasPrefix(name, "store_head{") {
			heads, sum = heads+1, sum+v
		}
	}
	if want := 3.0 + 100*10 + 99*100/2; heads != metricsEach+1 || sum != want {
		t.Errorf("%d heads with the sum %v, want %d and %v", heads, sum, metricsEach+1, want)
	}
	if got["store_head{"+own.String()+"}"] != 1 || got["store_missing_versions{"+late.String()+"}"] != 1 || got["store_sites"] != 102 {
		t.Errorf("the own site, or one with a gap, is not told by itself: %v", got)
	}
}

func TestReplicationIsToldOfEachMachine(t *testing.T) {
	now := time.Unix(1000, 0)
	status := statesync.Status{
		Peers: []statesync.PeerStatus{
			{Machine: "mch_a", Connected: true, Queued: 5, Synced: now.Add(-time.Hour)},
			{Machine: "mch_b", Connected: true, Queued: 6, Missing: 2, Synced: now.Add(-time.Minute)},
			{Machine: "mch_c", Missing: 9, Synced: now.Add(-time.Hour)}, // not connected: nothing is known of it
		},
		Counters: statesync.Counters{Spoilt: 1, OutboxesDropped: 2, Repaired: 3, BytesIn: 4, BytesOut: 5, MergeErrors: 6},
	}
	got := exposed(t, func(ch chan<- prometheus.Metric) { collectSync(ch, status, map[string]string{"mch_a": "home"}, now) })
	want := map[string]float64{
		"sync_peers{yes}": 2, "sync_peers{no}": 1,
		"sync_queued_bytes{home}": 5, "sync_missing_versions{home}": 0, "sync_lag_seconds{home}": 0,
		"sync_queued_bytes{mch_b}": 6, "sync_missing_versions{mch_b}": 2, "sync_lag_seconds{mch_b}": 60,
		"sync_spoilt_batches_total": 1, "sync_outboxes_dropped_total": 2, "store_repaired_total": 3,
		"sync_bytes_total{in}": 4, "sync_bytes_total{out}": 5, "sync_merge_errors_total": 6,
	}
	if !maps.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

func TestManyMachinesAreToldInOneSum(t *testing.T) {
	now := time.Unix(1000, 0)
	var status statesync.Status
	for n := range 100 {
		status.Peers = append(status.Peers, statesync.PeerStatus{
			Machine: fmt.Sprintf("mch_%d", n), Connected: true, Queued: 1, Missing: 1, Synced: now.Add(-time.Duration(n) * time.Second),
		})
	}
	names := map[string]string{"mch_99": "others"} // a name that somebody may give
	got := exposed(t, func(ch chan<- prometheus.Metric) { collectSync(ch, status, names, now) })
	lags := slices.DeleteFunc(slices.Collect(maps.Keys(got)), func(n string) bool { return !strings.HasPrefix(n, "sync_lag_seconds{") })
	if len(lags) != metricsEach+1 || got["sync_lag_seconds{others}"] != 99 {
		t.Errorf("%d lags: %v", len(lags), lags)
	}
	rest := "{" + metricsRest + "}"
	if n := 100.0 - metricsEach; got["sync_queued_bytes"+rest] != n || got["sync_missing_versions"+rest] != n || got["sync_lag_seconds"+rest] != n-1 {
		t.Errorf("the rest is not told: %v", got)
	}
}

// TestAScrapeOfAMember, which is wired and has not touched the network, shows
// what its DNS was asked.
func TestAScrapeOfAMember(t *testing.T) {
	cfg, id := stoppedMachine(t)
	cfg.Socket = filepath.Join(t.TempDir(), "uncloud.sock")
	key, err := mesh.NewPrivateKey(cryptoRandom)
	must(t, err)
	id.PrivateKey = key.String()
	m, err := newMember(t.Context(), cfg, id, quiet())
	must(t, err)
	defer m.store.Close()
	for _, kind := range []string{"forward", "cluster", "forward"} {
		m.questions.count(kind, "NOERROR")
	}
	answer := httptest.NewRecorder()
	m.metricsHandler().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	for _, line := range []string{
		`uncloud_dns_questions_total{kind="cluster",rcode="NOERROR"} 1`, `uncloud_dns_questions_total{kind="forward",rcode="NOERROR"} 2`, "uncloud_ready 0",
	} {
		if !strings.Contains(answer.Body.String(), "\n"+line+"\n") {
			t.Errorf("%d, and no %s in\n%s", answer.Code, line, answer.Body)
		}
	}
}

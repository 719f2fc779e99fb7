package ingress

import "encoding/json"

// The part of Caddy's configuration that is used here. Caddy refuses keys that
// it does not know, so a slip in a name shows when a test loads it.

type config struct {
	Admin   admin          `json:"admin"`
	Logging logging        `json:"logging"`
	Storage storageRef     `json:"storage"`
	Apps    map[string]any `json:"apps"`
}

// admin turns off the endpoint that would let any local program change the
// configuration, and the copy of each configuration on disk.
type admin struct {
	Disabled bool        `json:"disabled"`
	Config   adminConfig `json:"config"`
}

type adminConfig struct {
	Persist bool `json:"persist"`
}

type logging struct {
	Logs map[string]logConfig `json:"logs"`
}

type logConfig struct {
	Writer writerRef `json:"writer"`
	Level  string    `json:"level"`
}

type writerRef struct {
	Output string `json:"output"`
}

type storageRef struct {
	Module string `json:"module"`
}

type httpApp struct {
	HTTPPort      uint16             `json:"http_port"`
	HTTPSPort     uint16             `json:"https_port"`
	ShutdownDelay string             `json:"shutdown_delay"`
	Servers       map[string]*server `json:"servers"`
}

type server struct {
	Listen      []string          `json:"listen"`
	Protocols   []string          `json:"protocols,omitempty"`
	Routes      []json.RawMessage `json:"routes"`
	Errors      *errorRoutes      `json:"errors,omitempty"`
	TLSPolicies []json.RawMessage `json:"tls_connection_policies,omitempty"`
	AutoHTTPS   autoHTTPS         `json:"automatic_https"`
}

type errorRoutes struct {
	Routes []json.RawMessage `json:"routes"`
}

type autoHTTPS struct {
	Disabled     bool     `json:"disable,omitempty"`
	DisableRedir bool     `json:"disable_redirects,omitempty"`
	Skip         []string `json:"skip,omitempty"`
}

type route struct {
	Match    []match `json:"match,omitempty"`
	Handle   []any   `json:"handle"`
	Terminal bool    `json:"terminal"`
}

type match struct {
	Host []string            `json:"host,omitempty"`
	Vars map[string][]string `json:"vars,omitempty"`
}

type proxyHandler struct {
	Handler          string         `json:"handler"`
	DynamicUpstreams upstreamSource `json:"dynamic_upstreams"`
	LoadBalancing    loadBalancing  `json:"load_balancing"`
	Transport        transport      `json:"transport"`
	StreamCloseDelay string         `json:"stream_close_delay"`
}

type upstreamSource struct {
	Source string `json:"source"`
	Route  string `json:"route"`
}

type loadBalancing struct {
	Policy      policyRef `json:"selection_policy"`
	TryDuration string    `json:"try_duration"`
	TryInterval string    `json:"try_interval"`
}

type policyRef struct {
	Policy string `json:"policy"`
}

type transport struct {
	Protocol    string `json:"protocol"`
	DialTimeout string `json:"dial_timeout"`
}

type staticResponse struct {
	Handler    string              `json:"handler"`
	StatusCode int                 `json:"status_code"`
	Headers    map[string][]string `json:"headers,omitempty"`
	Body       string              `json:"body,omitempty"`
}

type tlsApp struct {
	Certificates        map[string]json.RawMessage `json:"certificates,omitempty"`
	Automation          automation                 `json:"automation"`
	DisableOCSPStapling bool                       `json:"disable_ocsp_stapling"`
	DisableStorageCheck bool                       `json:"disable_storage_check"`
	DisableStorageClean bool                       `json:"disable_storage_clean"`
}

type automation struct {
	Policies []json.RawMessage `json:"policies"`
}

type policy struct {
	Subjects []string `json:"subjects,omitempty"`
	Issuers  []issuer `json:"issuers"`
}

type issuer struct {
	Module   string   `json:"module"`
	Lifetime string   `json:"lifetime,omitempty"`
	CA       string   `json:"ca,omitempty"`
	Email    string   `json:"email,omitempty"`
	Roots    []string `json:"trusted_roots_pem_files,omitempty"`
}

type pkiApp struct {
	Authorities map[string]authority `json:"certificate_authorities"`
}

type authority struct {
	Name                 string `json:"name"`
	RootCommonName       string `json:"root_common_name"`
	IntermediateLifetime string `json:"intermediate_lifetime"`
	InstallTrust         bool   `json:"install_trust"`
}

// raw is v as JSON. Only values of this file are passed, and they all have it.
func raw(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic("ingress: configuration without JSON form: " + err.Error())
	}
	return b
}

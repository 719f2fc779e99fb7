package ingress

import (
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

// penalty is for how long a failed upstream is passed over. It is shorter than
// tryDuration, so even where all upstreams failed once, a request that waits
// outlasts it.
const penalty = 3 * time.Second

// watchedTransport is Caddy's way to an upstream, and notes what fails there.
//
// Caddy's own passive checks count every error against the upstream, for all
// requests: also that of a body which its client broke off, and of a request
// that the service itself answers by hanging up. Anyone could take a service
// away from everybody with one such request every few seconds. Here only a
// connection that could not be made counts for all, for no request has a part
// in that; any other failure is kept from the same request alone.
type watchedTransport struct{ reverseproxy.HTTPTransport }

func (watchedTransport) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.reverse_proxy.transport." + moduleName,
		New: func() caddy.Module { return new(watchedTransport) },
	}
}

// RoundTrip asks the upstream that Caddy chose.
func (t *watchedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.HTTPTransport.RoundTrip(r)
	if err != nil && r.Context().Err() == nil { // else its client is gone
		noteFailure(r, err)
	}
	return resp, err
}

func noteFailure(r *http.Request, err error) {
	to, ok := reverseproxy.GetDialInfo(r.Context())
	if !ok {
		return
	}
	list := brokenFor(r)
	var unreached reverseproxy.DialError
	if s := live.Load(); s != nil && errors.As(err, &unreached) {
		list = &s.unreached
	}
	list.add(to.Address, time.Now())
}

// brokenKey is where Caddy's variables of a request have the upstreams that
// failed it after they were connected to.
const brokenKey = moduleName + ".broken"

// brokenFor are these upstreams. It is first asked when the first upstream is
// looked for: later, a dial under way may be reading the variables.
func brokenFor(r *http.Request) *penalties {
	list, ok := caddyhttp.GetVar(r.Context(), brokenKey).(*penalties)
	if !ok {
		list = &penalties{}
		caddyhttp.SetVar(r.Context(), brokenKey, list)
	}
	return list
}

// penalties are upstreams to pass over for a while, by address. They are safe
// for concurrent use.
type penalties struct {
	mu    sync.Mutex
	until map[string]time.Time
}

func (p *penalties) add(address string, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.until == nil {
		p.until = map[string]time.Time{}
	}
	for old, until := range p.until {
		if !now.Before(until) {
			delete(p.until, old)
		}
	}
	p.until[address] = now.Add(penalty)
}

func (p *penalties) has(address string, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return now.Before(p.until[address])
}

package server

import (
	"context"
	"net"
	"net/http"
	"net/http/httputil"
	"sync"

	"uncloud/internal/faults"
	"uncloud/internal/spec"
	"uncloud/internal/wire"

	"connectrpc.com/connect"
)

// forward passes a request that names another machine on to it over the mesh,
// byte for byte, so that any machine answers for any other. Requests that name
// no machine, or this one, go to next.
func (s *Server) forward(next http.Handler) http.Handler {
	errw := connect.NewErrorWriter()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		want := r.Header.Get(wire.MachineHeader)
		if want == "" {
			next.ServeHTTP(w, r)
			return
		}
		member, target, err := s.findTarget(want)
		if err != nil {
			errw.Write(w, r, wire.Encode(err)) //nolint:errcheck,gosec // the client is gone
			return
		}
		if target.ID == member.Self {
			next.ServeHTTP(w, r)
			return
		}
		s.proxy(target, errw).ServeHTTP(w, r)
	})
}

func (s *Server) findTarget(want string) (*Member, spec.Machine, error) {
	member, err := s.host.Member()
	if err != nil {
		return nil, spec.Machine{}, err
	}
	target, err := findMachine(member.State(), want)
	if err != nil {
		return nil, spec.Machine{}, err
	}
	if !member.Alive()[target.ID] {
		return nil, spec.Machine{}, machineDown(target.Name)
	}
	return member, target, nil
}

func machineDown(name string) error {
	return faults.New(faults.MachineDown, "machine %s is down", name).WithHint("see what the others know of it: uc machine ls")
}

// roads keeps the connections to machines that requests were passed on to.
type roads struct {
	host Host
	mu   sync.Mutex
	to   map[string]http.RoundTripper // by machine id
}

func (r *roads) toMachine(id string) http.RoundTripper {
	r.mu.Lock()
	defer r.mu.Unlock()
	road, ok := r.to[id]
	if !ok {
		road = wire.NewClient(func(ctx context.Context) (net.Conn, error) {
			member, err := r.host.Member() // may be another one than at the first call
			if err != nil {
				return nil, err
			}
			return member.DialAPI(ctx, id)
		}).Transport
		r.to[id] = road
	}
	return road
}

func (s *Server) proxy(target spec.Machine, errw *connect.ErrorWriter) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "machine"
			r.Out.Header.Del(wire.MachineHeader)
		},
		Transport:     s.roads.toMachine(target.ID),
		FlushInterval: -1, // streams must not wait for a full buffer
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			s.log.Debug("pass on request", "machine", target.ID, "err", err)
			fault := faults.New(faults.Unreachable, "machine %s does not answer", target.Name).
				WithHint("see whether its tunnel is up: uc wg show").Because(err)
			errw.Write(w, r, wire.Encode(fault)) //nolint:errcheck,gosec // the client is gone
		},
	}
}

package server

import (
	"context"
	"net"
	"net/http"
	"net/http/httputil"

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
		s.proxy(member, target, errw).ServeHTTP(w, r)
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

func (s *Server) proxy(member *Member, target spec.Machine, errw *connect.ErrorWriter) http.Handler {
	client := wire.NewClient(func(ctx context.Context) (net.Conn, error) { return member.DialAPI(ctx, target.ID) })
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "machine"
			r.Out.Header.Del(wire.MachineHeader)
		},
		Transport:     client.Transport,
		FlushInterval: -1, // streams must not wait for a full buffer
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			s.log.Debug("pass on request", "machine", target.ID, "err", err)
			fault := faults.New(faults.Unreachable, "machine %s does not answer", target.Name).
				WithHint("see whether its tunnel is up: uc wg show").Because(err)
			errw.Write(w, r, wire.Encode(fault)) //nolint:errcheck,gosec // the client is gone
		},
	}
}

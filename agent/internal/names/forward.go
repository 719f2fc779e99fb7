package names

import (
	"bufio"
	"context"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	forwardTimeout = 3 * time.Second // for each resolver
	forwardLimit   = 1024            // questions under way; more are refused, so that a flood cannot eat the machine
	resolverLimit  = 3               // as many as the C library asks
)

// forward asks the machine's resolvers one after the other, by the protocol
// that the question came by, and passes the first good answer on as it is.
func (s *Server) forward(r *dns.Msg, udp bool) *dns.Msg {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		return failure(r, dns.RcodeServerFailure)
	}
	client := dns.Client{Net: "tcp", Timeout: forwardTimeout, UDPSize: dns.MaxMsgSize}
	if udp {
		client.Net = "udp"
	}
	reply := failure(r, dns.RcodeServerFailure)
	for _, resolver := range s.resolvers.list(s.Address()) {
		got, err := exchange(&client, r, resolver)
		if err != nil {
			s.log.Debug("resolver does not answer", "address", resolver, "err", err)
			continue
		}
		reply = got
		if got.Rcode != dns.RcodeServerFailure && got.Rcode != dns.RcodeRefused {
			break
		}
	}
	return reply
}

// exchange asks with an id of its own: the caller's is known to the caller,
// who could then forge the answer.
func exchange(client *dns.Client, r *dns.Msg, resolver string) (*dns.Msg, error) {
	ask := r.Copy()
	ask.Id = dns.Id()
	ctx, cancel := context.WithTimeout(context.Background(), forwardTimeout)
	defer cancel()
	got, _, err := client.ExchangeContext(ctx, ask, resolver)
	if err != nil {
		return nil, err
	}
	if len(got.Question) != 1 || !strings.EqualFold(got.Question[0].Name, r.Question[0].Name) || got.Question[0].Qtype != r.Question[0].Qtype {
		return nil, dns.ErrId
	}
	got.Id, got.Question = r.Id, r.Question // the caller's own letters, big or small
	return got, nil
}

// resolvers are the name servers of a resolv.conf, read again when the file
// has changed.
type resolvers struct {
	path string

	mu    sync.Mutex
	stamp os.FileInfo
	found []netip.Addr
	port  string // 53, but in tests
}

// list are the resolvers to ask, as host:port. own is left out, since a
// machine may well have itself as its first resolver.
func (r *resolvers) list(own netip.Addr) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now, err := os.Stat(r.path); err == nil && !same(r.stamp, now) {
		if found, err := readResolvers(r.path); err == nil {
			r.stamp, r.found = now, found
		}
	}
	var list []string
	for _, a := range r.found {
		if a != own {
			list = append(list, net.JoinHostPort(a.String(), r.port))
		}
	}
	return list[:min(len(list), resolverLimit)]
}

func same(a, b os.FileInfo) bool {
	return a != nil && os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

func readResolvers(path string) ([]netip.Addr, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var found []netip.Addr
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) < 2 || words[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(words[1]); err == nil && !slices.Contains(found, a) {
			found = append(found, a)
		}
	}
	return found, lines.Err()
}

package names

import (
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// Zone is the domain of all names, as it is written in a search list.
const Zone = "internal"

const (
	zone    = Zone + "."
	maxUDP  = 1232 // what fits every path without fragments
	ownHost = "names." + zone
)

// kinds of questions, for the counter.
const (
	kindCluster = "cluster"
	kindForward = "forward"
	kindRefused = "refused"
)

// ServeDNS answers one question. It never panics for a message that could be
// unpacked.
func (s *Server) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	from := source(w)
	udp := w.RemoteAddr().Network() == "udp"
	reply, kind := s.answer(r, from, udp)
	reply = fit(reply, r, udp)
	s.options.OnQuery(kind, dns.RcodeToString[reply.Rcode])
	if err := w.WriteMsg(reply); err != nil {
		s.log.Debug("dns answer was not sent", "address", from, "err", err)
	}
}

func source(w dns.ResponseWriter) netip.Addr {
	ap, err := netip.ParseAddrPort(w.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}

// answer says what to reply and what kind of question it was.
func (s *Server) answer(r *dns.Msg, from netip.Addr, udp bool) (*dns.Msg, string) {
	t := s.table()
	switch {
	case t == nil:
		return failure(r, dns.RcodeServerFailure), kindRefused
	case !t.serves(from):
		return failure(r, dns.RcodeRefused), kindRefused
	case r.Opcode != dns.OpcodeQuery:
		return failure(r, dns.RcodeNotImplemented), kindRefused
	case len(r.Question) != 1:
		return failure(r, dns.RcodeFormatError), kindRefused
	case r.Question[0].Qclass != dns.ClassINET:
		return failure(r, dns.RcodeRefused), kindRefused
	}
	q := r.Question[0]
	name := strings.ToLower(dns.Fqdn(q.Name))
	if name == zone || strings.HasSuffix(name, "."+zone) {
		return s.cluster(t, r, strings.TrimSuffix(strings.TrimSuffix(name, zone), "."), from), kindCluster
	}
	if addr, apex, ours := t.reverseOf(name); ours {
		return t.pointer(r, addr, apex), kindCluster
	}
	return s.forward(r, udp), kindForward
}

func failure(r *dns.Msg, rcode int) *dns.Msg { return new(dns.Msg).SetRcode(r, rcode) }

// cluster answers about a name under the zone.
func (s *Server) cluster(t *Table, r *dns.Msg, name string, from netip.Addr) *dns.Msg {
	m, q := authoritative(r), r.Question[0]
	a := t.lookup(name, from)
	var port uint16
	if !a.known {
		a, port = t.service(name, from)
	}
	switch {
	case name == "" && q.Qtype == dns.TypeSOA:
		m.Answer = append(m.Answer, soa(zone))
	case name == "" && q.Qtype == dns.TypeNS:
		m.Answer = append(m.Answer, &dns.NS{Hdr: header(zone, dns.TypeNS), Ns: ownHost})
	case !a.known:
		m.Rcode = dns.RcodeNameError
	case a.entry != nil && port != 0:
		s.srv(m, a, port)
	case a.entry != nil:
		s.addresses(m, t, a, from)
	}
	if len(m.Answer) == 0 {
		m.Ns = append(m.Ns, soa(zone))
	}
	return m
}

func (s *Server) addresses(m *dns.Msg, t *Table, a answer, from netip.Addr) {
	q := m.Question[0]
	switch q.Qtype {
	case dns.TypeA, dns.TypeANY: // RFC 8482: any may be answered by some
		for _, e := range s.ordered(a) {
			m.Answer = append(m.Answer, record(q.Name, e.Addr))
		}
	case dns.TypeAAAA:
		if a.entry.Management.IsValid() && t.machine(from) {
			m.Answer = append(m.Answer, record(q.Name, a.entry.Management))
		}
	}
}

// srv gives one record a replica, with its address, in the order that was
// asked for: the priority says it, since resolvers are free to sort.
func (s *Server) srv(m *dns.Msg, a answer, port uint16) {
	q := m.Question[0]
	if q.Qtype != dns.TypeSRV && q.Qtype != dns.TypeANY {
		return
	}
	for i, e := range s.ordered(a) {
		priority := uint16(0)
		if a.order == nearest {
			priority = uint16(i)
		}
		host := e.Host + "." + zone
		m.Answer = append(m.Answer, &dns.SRV{Hdr: header(q.Name, dns.TypeSRV), Priority: priority, Weight: 1, Port: port, Target: host})
		m.Extra = append(m.Extra, record(host, e.Addr))
	}
}

// ordered are the endpoints as they are to be given. The table's are nobody's
// to sort.
func (s *Server) ordered(a answer) []endpoint {
	if a.order == nearest || len(a.entry.Endpoints) < 2 {
		return a.entry.Endpoints
	}
	list := append([]endpoint(nil), a.entry.Endpoints...)
	s.options.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// pointer answers who has an address. An invalid one stands for a part of the
// reverse name, which exists and has no records.
func (t *Table) pointer(r *dns.Msg, addr netip.Addr, apex string) *dns.Msg {
	m, q := authoritative(r), r.Question[0]
	host, known := t.reverse[addr]
	switch {
	case known && (q.Qtype == dns.TypePTR || q.Qtype == dns.TypeANY):
		m.Answer = append(m.Answer, &dns.PTR{Hdr: header(q.Name, dns.TypePTR), Ptr: host + "." + zone})
		return m
	case !known && addr.IsValid():
		m.Rcode = dns.RcodeNameError
	}
	m.Ns = append(m.Ns, soa(apex))
	return m
}

func authoritative(r *dns.Msg) *dns.Msg {
	m := new(dns.Msg).SetReply(r)
	m.Authoritative = true
	m.RecursionAvailable = true
	return m
}

// header is of a record that must not be kept: the next answer may differ.
func header(name string, rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: 0}
}

func record(name string, addr netip.Addr) dns.RR {
	if addr.Is4() {
		return &dns.A{Hdr: header(name, dns.TypeA), A: addr.AsSlice()}
	}
	return &dns.AAAA{Hdr: header(name, dns.TypeAAAA), AAAA: addr.AsSlice()}
}

// soa goes with answers without records, so that resolvers do not remember
// for long, by their own ideas, that a name was not there.
func soa(apex string) dns.RR {
	return &dns.SOA{Hdr: header(apex, dns.TypeSOA), Ns: ownHost, Mbox: "hostmaster." + zone, Serial: 1, Refresh: 1, Retry: 1, Expire: 1, Minttl: 0}
}

// fit makes a reply as large as the asker can take, by what it said of itself.
func fit(reply, r *dns.Msg, udp bool) *dns.Msg {
	if reply.IsTsig() != nil { // signed for somebody else; it could not be cut without breaking it
		reply = failure(r, dns.RcodeServerFailure)
	}
	size := dns.MaxMsgSize
	if opt := r.IsEdns0(); opt != nil {
		if reply.IsEdns0() == nil {
			reply.SetEdns0(maxUDP, opt.Do())
		}
		if udp {
			size = min(max(dns.MinMsgSize, int(opt.UDPSize())), maxUDP)
		}
	} else if udp {
		size = dns.MinMsgSize
	}
	reply.Truncate(size)
	return reply
}

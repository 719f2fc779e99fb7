package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"uncloud/internal/spec"
)

// outputLimit is how much of a failure is kept for people, in bytes.
const outputLimit = 4096

// errNoAnswer marks a failure that says nothing of the container: the engine
// could not be asked.
var errNoAnswer = errors.New("the engine did not answer")

// probe runs one check and returns nil, or what was wrong in words for people.
func (p *Prober) probe(ctx context.Context, t Target) error {
	timeout := t.Check.Timeout.Or(spec.DefaultHealthTimeout)
	if len(t.Check.Exec) > 0 {
		select { // an exec is heavy: waiting for a slot is not the container's fault
		case p.slots <- struct{}{}:
			defer func() { <-p.slots }()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var err error
	switch {
	case len(t.Check.Exec) > 0:
		err = p.exec(ctx, t)
	case t.Check.HTTP != "":
		port, path, _ := strings.Cut(strings.TrimPrefix(t.Check.HTTP, ":"), "/")
		err = p.options.HTTP(ctx, "http://"+net.JoinHostPort(t.Address.String(), port)+"/"+path)
	case t.Check.TCP != "":
		err = p.options.TCP(ctx, net.JoinHostPort(t.Address.String(), strings.TrimPrefix(t.Check.TCP, ":")))
	default:
		return errors.New("the health check asks for nothing")
	}
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %s", timeout)
	}
	return err
}

func (p *Prober) exec(ctx context.Context, t Target) error {
	code, output, err := p.options.Exec(ctx, t.ContainerID, t.Check.Exec)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", errNoAnswer, err)
	case code == 0:
		return nil
	case strings.TrimSpace(output) == "":
		return fmt.Errorf("exit code %d", code)
	}
	return fmt.Errorf("exit code %d: %s", code, strings.TrimSpace(output))
}

// getHTTP asks once, on a connection of its own. A redirect is an answer: where
// it leads is not the container's health.
func getHTTP(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "uncloud-health")
	response, err := prober.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode >= 200 && response.StatusCode < 400 {
		return nil
	}
	body, _ := io.ReadAll(io.LimitReader(response.Body, outputLimit)) // what came is enough to show
	if text := strings.TrimSpace(string(body)); text != "" {
		return fmt.Errorf("GET %s: %s: %s", url, response.Status, text)
	}
	return fmt.Errorf("GET %s: %s", url, response.Status)
}

var prober = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10}, // no Proxy: the container is near
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func dialTCP(ctx context.Context, address string) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return c.Close()
}

// bounded is the end of a text, which is where programs say what went wrong.
func bounded(s string) string {
	if len(s) > outputLimit {
		s = "…" + s[len(s)-outputLimit+len("…"):]
	}
	return strings.ToValidUTF8(s, "")
}

// Target is a container to probe.
type Target struct {
	ContainerID string
	Address     netip.Addr
	Check       spec.HealthCheck
	StartedAt   time.Time   // of the container; the zero time means now
	Known       spec.Health // what was last recorded of this container, if anything
}

// same tells whether b asks for the same probes of the same container.
func (t Target) same(b Target) bool {
	return t.ContainerID == b.ContainerID && t.Address == b.Address &&
		string(spec.Canonical(t.Check)) == string(spec.Canonical(b.Check))
}

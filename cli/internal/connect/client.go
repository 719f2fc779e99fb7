package connect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/api/uncloud/v1/uncloudv1connect"
	"uncloud/internal/faults"
	"uncloud/internal/wire"
)

// answerTimeout bounds how long one connection is given to answer at all. It
// is longer than ssh's own connect timeout, whose message says more.
const answerTimeout = 10 * time.Second

// baseURL is only a name in requests: the dial function decides where they go.
const baseURL = "http://uncloud"

// Client is the API of the connected machine and, through it, of every other.
// Its errors are faults.
type Client struct {
	Cluster uncloudv1connect.ClusterServiceClient
	// Target is the connection that answered.
	Target Target

	http *http.Client
}

// Open connects to the first target that answers. When none does, its error
// says of each why.
func Open(ctx context.Context, targets []Target) (*Client, error) {
	var tried []error
	for _, target := range targets {
		c := newClient(target)
		err := c.answers(ctx)
		if err == nil {
			return c, nil
		}
		c.Close()
		if ctx.Err() != nil {
			return nil, err
		}
		tried = append(tried, err)
	}
	return nil, noneAnswered(targets, tried)
}

func noneAnswered(targets []Target, tried []error) error {
	if len(tried) == 1 {
		return tried[0]
	}
	var reasons []string
	for i, err := range tried {
		reasons = append(reasons, fmt.Sprintf("%s: %s", targets[i], err))
	}
	return faults.New(faults.Unreachable, "no connection answered: %s", strings.Join(reasons, "; ")).
		WithHint("%s", faults.Of(tried[0]).Hint).Because(errors.Join(tried...))
}

func newClient(target Target) *Client {
	c := &Client{Target: target, http: wire.NewClient(target.dial)}
	c.Cluster = uncloudv1connect.NewClusterServiceClient(c.http, baseURL, connect.WithInterceptors(caller{}))
	return c
}

func (t Target) dial(ctx context.Context) (net.Conn, error) {
	if t.Socket != "" {
		return dialUnix(ctx, t.Socket)
	}
	return dialSSH(t)
}

// answers asks for anything at all. A fault of the machine's own is an answer.
func (c *Client) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	_, err := c.Machine("").Info(ctx, connect.NewRequest(&uncloudv1.InfoRequest{}))
	if err != nil && faults.CodeOf(err) != faults.Unreachable && ctx.Err() == nil {
		return nil
	}
	return err
}

// Machine is the API of the machine with this name or id, which the connected
// machine passes requests on to; empty is the connected machine.
func (c *Client) Machine(machine string) uncloudv1connect.MachineServiceClient {
	return uncloudv1connect.NewMachineServiceClient(c.http, baseURL,
		connect.WithInterceptors(caller{machine: machine}),
		// Layers travel uncompressed, because their digests are then the ones
		// that any machine knows them by. The wire need not be as wasteful.
		connect.WithSendGzip(), connect.WithCompressMinBytes(16<<10))
}

// Upgrades is what the machine with this name or id does about generations;
// empty is the connected machine, which answers for the whole cluster.
func (c *Client) Upgrades(machine string) uncloudv1connect.UpgradeServiceClient {
	return uncloudv1connect.NewUpgradeServiceClient(c.http, baseURL, connect.WithInterceptors(caller{machine: machine}))
}

// Close ends the connection.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// caller addresses requests to a machine, and makes faults of their errors.
type caller struct{ machine string }

func (c caller) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
		c.address(request.Header())
		response, err := next(ctx, request)
		return response, decode(err)
	}
}

func (c caller) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := next(ctx, spec)
		c.address(conn.RequestHeader())
		return faultyConn{conn}
	}
}

func (c caller) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

func (c caller) address(header http.Header) {
	if c.machine != "" {
		header.Set(wire.MachineHeader, c.machine)
	}
}

// faultyConn is a stream whose errors are faults.
type faultyConn struct{ connect.StreamingClientConn }

func (c faultyConn) Send(message any) error {
	err := c.StreamingClientConn.Send(message)
	if errors.Is(err, io.EOF) {
		return err // Receive says why
	}
	return decode(err)
}

func (c faultyConn) CloseRequest() error { return decode(c.StreamingClientConn.CloseRequest()) }

func (c faultyConn) Receive(message any) error { return decode(c.StreamingClientConn.Receive(message)) }

// decode prefers the fault of a dial function, which a Connect error wraps, to
// the summary that the wire would make of it.
func decode(err error) error {
	if f, ok := errors.AsType[*faults.Fault](err); ok {
		return f
	}
	return wire.Decode(err)
}

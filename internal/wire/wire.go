// Package wire carries faults across the API: a Connect error with the fault
// as its detail, so that the CLI prints what the machine said, word for word.
//
// It owns the mapping of codes and the settings of HTTP/2 without TLS that
// both ends share (WireGuard, SSH or the socket's file mode protect the bytes).
package wire

import (
	"context"
	"errors"
	"net"
	"net/http"
	"syscall"
	"time"

	"connectrpc.com/connect"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/internal/faults"
)

// MachineHeader names the machine that a MachineService request is meant for.
// Without it the connected machine answers.
const MachineHeader = "Uncloud-Machine"

// codes are the Connect codes that generic clients see. The fault's own code
// is in the detail.
var codes = map[faults.Code]connect.Code{
	faults.Invalid: connect.CodeInvalidArgument, faults.NotFound: connect.CodeNotFound, faults.Conflict: connect.CodeAlreadyExists,
	faults.Busy: connect.CodeAborted, faults.NoPlace: connect.CodeFailedPrecondition, faults.MachineDown: connect.CodeUnavailable,
	faults.NoImage: connect.CodeFailedPrecondition, faults.Engine: connect.CodeUnavailable, faults.DiskFull: connect.CodeResourceExhausted,
	faults.TicketExpired: connect.CodePermissionDenied, faults.TicketUsed: connect.CodePermissionDenied,
	faults.TicketAltered: connect.CodePermissionDenied, faults.TicketForeign: connect.CodePermissionDenied,
	faults.NotMember: connect.CodeFailedPrecondition, faults.IsMember: connect.CodeFailedPrecondition,
	faults.NotReady: connect.CodeUnavailable, faults.Unhealthy: connect.CodeFailedPrecondition,
	faults.Unreachable: connect.CodeUnavailable, faults.Interrupted: connect.CodeCanceled, faults.Internal: connect.CodeInternal,
	faults.NotNixOS: connect.CodeFailedPrecondition,
}

// Encode is err as a Connect error with its fault. Nil stays nil, and so does
// an error that is a Connect error with a fault already.
func Encode(err error) error {
	if err == nil {
		return nil
	}
	if ce, ok := errors.AsType[*connect.Error](err); ok && len(ce.Details()) > 0 {
		return ce
	}
	f := faults.Of(err)
	if errors.Is(err, context.Canceled) && f.Code == faults.Internal {
		f = faults.New(faults.Interrupted, "interrupted")
	}
	out := connect.NewError(codes[f.Code], f)
	if d, err := connect.NewErrorDetail(FaultMessage(f)); err == nil {
		out.AddDetail(d)
	}
	return out
}

// FaultMessage is a fault as a message; nil for nil.
func FaultMessage(f *faults.Fault) *uncloudv1.Fault {
	if f == nil {
		return nil
	}
	return &uncloudv1.Fault{Code: string(f.Code), Sentence: f.Sentence, Hint: f.Hint}
}

// MessageFault is a message as a fault; a nil error for nil.
func MessageFault(m *uncloudv1.Fault) error {
	if m == nil {
		return nil
	}
	return &faults.Fault{Code: faults.Code(m.GetCode()), Sentence: m.GetSentence(), Hint: m.GetHint()}
}

// Decode is the fault in an error of a Connect client, or a fault that says
// what went wrong on the way.
func Decode(err error) error {
	if err == nil {
		return nil
	}
	if f, ok := errors.AsType[*faults.Fault](err); ok {
		return f // of this side: the connection could not be made
	}
	ce, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return err
	}
	for _, d := range ce.Details() {
		if v, err := d.Value(); err == nil {
			if m, ok := v.(*uncloudv1.Fault); ok {
				return MessageFault(m)
			}
		}
	}
	switch ce.Code() {
	case connect.CodeCanceled:
		return faults.New(faults.Interrupted, "interrupted").Because(err)
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded:
		return faults.New(faults.Unreachable, "no answer: %s", ce.Message()).
			WithHint("on the machine: systemctl status uncloud; then try again").Because(err)
	case connect.CodeUnimplemented:
		return faults.New(faults.Invalid, "the machine's agent is too old for this command").
			WithHint("compare the versions: uc machine ls").Because(err)
	}
	return faults.New(faults.Internal, "%s", ce.Message()).WithHint("on the machine: journalctl -u uncloud").Because(err)
}

// protocols is HTTP/1.1 for curl and browsers, and HTTP/2 without TLS for
// streams in both directions.
func protocols() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	return p
}

// NewServer is an HTTP server for handler with the settings that all of the
// API's listeners share. Streams may last for days, so only headers are timed.
func NewServer(handler http.Handler) *http.Server {
	return &http.Server{Handler: handler, Protocols: protocols(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 5 * time.Minute}
}

// NewClient is an HTTP client that speaks HTTP/2 without TLS over connections
// made by dial, whatever the URL's host says.
func NewClient(dial func(ctx context.Context) (net.Conn, error)) *http.Client {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: &http.Transport{
		Protocols:   p,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		HTTP2:       &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second},
		// A peer that vanished must not be waited for by the next call.
		IdleConnTimeout: 90 * time.Second,
	}}
}

// Refused tells whether nobody listens at the other end.
func Refused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

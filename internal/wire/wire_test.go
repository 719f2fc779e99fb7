package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"connectrpc.com/connect"

	"uncloud/internal/faults"
)

func TestFaultSurvivesTheWire(t *testing.T) {
	in := faults.New(faults.Conflict, "a machine named %s is a member already", "m1").WithHint("choose another").Because(io.EOF)
	out := faults.Of(Decode(Encode(fmt.Errorf("rename m2: %w", in))))
	if out.Code != faults.Conflict || out.Sentence != "rename m2: a machine named m1 is a member already" || out.Hint != "choose another" {
		t.Errorf("came back as %+v", out)
	}
	if twice := Encode(Encode(in)); faults.Of(Decode(twice)).Hint != "choose another" {
		t.Errorf("encoding twice lost the fault: %v", twice)
	}
}

func TestEveryCodeHasAConnectCode(t *testing.T) {
	for _, c := range []faults.Code{
		faults.Invalid, faults.NotFound, faults.Conflict, faults.Busy, faults.NoPlace, faults.MachineDown, faults.NoImage, faults.Engine,
		faults.DiskFull, faults.TicketExpired, faults.TicketUsed, faults.TicketAltered, faults.TicketForeign, faults.NotMember, faults.IsMember,
		faults.NotReady, faults.Unhealthy, faults.Unreachable, faults.Interrupted, faults.Internal,
	} {
		if codes[c] == 0 {
			t.Errorf("fault code %q has no Connect code", c)
		}
	}
}

func TestPlainErrors(t *testing.T) {
	if Encode(nil) != nil || Decode(nil) != nil {
		t.Error("nil became an error")
	}
	if got := faults.CodeOf(Decode(Encode(errors.New("odd")))); got != faults.Internal {
		t.Errorf("plain error has code %q", got)
	}
	if got := faults.CodeOf(Decode(Encode(context.Canceled))); got != faults.Interrupted {
		t.Errorf("cancelled call has code %q", got)
	}
	if got := faults.Of(Decode(connect.NewError(connect.CodeUnavailable, io.EOF))); got.Code != faults.Unreachable || got.Hint == "" {
		t.Errorf("lost connection is %+v", got)
	}
	if got := faults.Of(Decode(connect.NewError(connect.CodeInternal, io.EOF))); got.Code != faults.Internal || got.Hint == "" {
		t.Errorf("a bug is %+v", got)
	}
}

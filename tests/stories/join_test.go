package stories

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/tests/lab"
)

func TestAMachineThatJoinsLaterGetsTheGlobalServices(t *testing.T) {
	c := alone(t, 3)
	w := web{project: project(t), version: "one", host: "join.test"}
	c.deployed(c.M(1), w)
	c.healthyOn(c.M(2), w.name(), "m1", "m2", "m3")

	fourth, err := c.Add(t.Context())
	try(t, err)
	try(t, c.Image(t.Context(), lab.Repository()+"/tests/stories/app", image, fourth))
	// A ticket of any member is as good as one of the first.
	ticket, err := c.M(2).Ticket(t.Context())
	try(t, err)
	try(t, fourth.Join(t.Context(), ticket))
	try(t, lab.AwaitUp(t.Context(), c.all()...))

	c.healthyOn(fourth, w.name(), "m1", "m2", "m3", "m4")
	c.serves(fourth, w.host, "one")
	c.agree(c.all()...)
}

func TestAMachineJoinsByItselfWithATicketWhereItsConfigurationSays(t *testing.T) {
	c := alone(t, 1)
	second, err := c.Add(t.Context())
	try(t, err)
	ticket, err := c.M(1).Ticket(t.Context())
	try(t, err)
	try(t, second.WriteFile(t.Context(), "/boot/uncloud.ticket", ticket))
	try(t, second.WriteFile(t.Context(), "/etc/uncloud/config.json", `{"name": "shelf", "ticketFile": "/boot/uncloud.ticket", "labels": {"room": "attic"}}`))
	_, err = second.Output(t.Context(), "systemctl", "restart", "uncloud")
	try(t, err)
	eventually(t, long, "a ticket that others can read is refused", func(ctx context.Context) error {
		r, err := second.Exec(ctx, "uncloudd", "status")
		if err == nil && !strings.Contains(r.Stdout, "may be read by others than root") {
			err = fmt.Errorf("status: %s%s", r.Stdout, r.Stderr)
		}
		return err
	})
	_, err = second.Output(t.Context(), "chmod", "600", "/boot/uncloud.ticket")
	try(t, err)
	eventually(t, long, "m1 sees the machine by the name and label of its configuration", func(ctx context.Context) error {
		members, err := c.M(1).Members(ctx)
		if err != nil {
			return err
		}
		for _, m := range members {
			if m.GetName() == "shelf" && m.GetState() == "up" && m.GetLabels()["room"] == "attic" {
				return nil
			}
		}
		return fmt.Errorf("members: %v", members)
	})
}

func TestATicketThatIsNoGoodIsRefusedAndChangesNothing(t *testing.T) {
	c := alone(t, 2)
	ctx := t.Context()
	guest, err := c.Add(ctx)
	try(t, err)
	join := func(m *lab.Machine, ticket string) lab.Result {
		t.Helper()
		try(t, m.WriteFile(ctx, "/root/ticket", ticket))
		r, err := m.Exec(ctx, "uncloudd", "join", "/root/ticket")
		try(t, err)
		return r
	}

	var brief uncloudv1.CreateTicketResponse
	try(t, c.M(1).Query(ctx, &brief, "uc", "machine", "ticket", "--valid", "1s"))
	eventually(t, 10*time.Second, "the ticket is past its time", func(context.Context) error {
		if left := time.Until(brief.GetExpiresAt().AsTime()); left > -time.Second {
			return fmt.Errorf("%s left", left)
		}
		return nil
	})
	refused(t, join(guest, brief.GetTicket()), "expired")

	good, err := c.M(1).Ticket(ctx)
	try(t, err)
	at := len(good) / 2
	other := byte('A')
	if good[at] == other {
		other = 'B'
	}
	refused(t, join(guest, good[:at]+string(other)+good[at+1:]), "altered")
	refused(t, join(guest, "not a ticket at all\n"), "ticket")
	refused(t, join(guest, good[:at]), "ticket")

	// None of this has used the good one up.
	if r := join(guest, good); r.Code != 0 {
		t.Fatalf("the good ticket: %s%s", r.Stdout, r.Stderr)
	}
	late, err := c.Add(ctx)
	try(t, err)
	refused(t, join(late, good), "used")

	// A machine that has a cluster is not taken into another.
	try(t, late.Init(ctx))
	foreign, err := late.Ticket(ctx)
	try(t, err)
	refused(t, join(c.M(2), foreign), "cluster")

	members, err := c.M(1).Members(ctx)
	if err != nil || len(members) != 3 {
		t.Errorf("m1 counts %d members, want m1, m2 and the guest: %v", len(members), err)
	}
}

func TestANameThatIsTakenIsRefused(t *testing.T) {
	c := alone(t, 1)
	ctx := t.Context()
	second, err := c.Add(ctx)
	try(t, err)
	ticket, err := c.M(1).Ticket(ctx)
	try(t, err)
	try(t, second.WriteFile(ctx, "/root/ticket", ticket))
	r, err := second.Exec(ctx, "uncloudd", "join", "/root/ticket", "--name", "m1")
	try(t, err)
	refused(t, r, "m1")
	r, err = second.Exec(ctx, "uncloudd", "join", "/root/ticket")
	if err != nil || r.Code != 0 {
		t.Fatalf("the ticket is as good as before: %v %s", err, r.Stderr)
	}
	r, err = c.M(1).Exec(ctx, "uc", "machine", "rename", "m2", "m1")
	try(t, err)
	refused(t, r, "m1")
}

func TestARemovedMachineLeavesAndMayComeBack(t *testing.T) {
	c := alone(t, 3)
	ctx := t.Context()
	w := web{project: project(t), version: "one"}
	c.deployed(c.M(1), w)
	_, err := c.M(1).Output(ctx, "uc", "machine", "rm", "-y", "m3")
	try(t, err)
	c.healthyOn(c.M(2), w.name(), "m1", "m2")
	eventually(t, long, "no container stays on the machine that left", func(ctx context.Context) error {
		names, err := c.containers(ctx, c.M(3), image)
		if err == nil && len(names) > 0 {
			err = fmt.Errorf("%s", strings.Join(names, " "))
		}
		return err
	})
	ticket, err := c.M(1).Ticket(ctx)
	try(t, err)
	eventually(t, long, "it joins again", func(ctx context.Context) error { return c.M(3).Join(ctx, ticket) })
	c.healthyOn(c.M(1), w.name(), "m1", "m2", "m3")
}

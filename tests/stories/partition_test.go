package stories

import (
	"context"
	"fmt"
	"testing"

	"uncloud/tests/lab"
)

func TestBothSidesOfAPartitionDeployAndAdmitAndAgreeAfterHealing(t *testing.T) {
	c := alone(t, 3)
	ctx := t.Context()
	one := web{project: project(t), version: "one", host: "split.test"}
	c.deployed(c.M(1), one)
	c.healthyOn(c.M(3), one.name(), "m1", "m2", "m3")
	left, err := c.Add(ctx)
	try(t, err)
	right, err := c.Add(ctx)
	try(t, err)
	try(t, c.Image(ctx, lab.Repository()+"/tests/stories/app", image, left, right))

	// m1, m2 and the newcomer m4 | m3 and the newcomer m5.
	try(t, c.Cut(ctx, "m1", "m2", left.Name))
	for _, side := range [][2]*lab.Machine{{c.M(1), c.M(3)}, {c.M(3), c.M(1)}} {
		eventually(t, long, side[0].Name+" sees the other side down", func(ctx context.Context) error {
			members, err := side[0].Members(ctx)
			if err != nil {
				return err
			}
			for _, m := range members {
				if m.GetName() == side[1].Name && m.GetState() != "down" {
					return fmt.Errorf("%s is %s", m.GetName(), m.GetState())
				}
			}
			return nil
		})
	}
	c.joins(left, c.M(1))
	c.joins(right, c.M(3))
	c.deployed(c.M(1), one.with("left"))
	c.deployed(c.M(3), one.with("right"))
	for _, m := range []*lab.Machine{c.M(1), c.M(2), left} {
		c.serves(m, one.host, "left")
	}
	for _, m := range []*lab.Machine{c.M(3), right} {
		c.serves(m, one.host, "right")
	}

	try(t, c.Heal(ctx))
	try(t, lab.AwaitUp(ctx, c.all()...))
	// Each side wrote the row once, so the later one holds: the right.
	c.healthyOn(c.M(1), one.name(), "m1", "m2", "m3", "m4", "m5")
	for _, m := range c.all() {
		c.serves(m, one.host, "right")
	}
	c.settled(c.M(2), one.name())
	c.agree(c.all()...)
	c.noOrphans(one, 1)
	c.distinctSubnets()
}

func (c *cluster) joins(newcomer, member *lab.Machine) {
	c.t.Helper()
	ticket, err := member.Ticket(c.t.Context())
	try(c.t, err)
	try(c.t, newcomer.Join(c.t.Context(), ticket))
}

// distinctSubnets waits until no two machines have one subnet, as all tell.
func (c *cluster) distinctSubnets() {
	c.t.Helper()
	for _, asked := range c.all() {
		eventually(c.t, long, "distinct subnets, as "+asked.Name+" tells", func(ctx context.Context) error {
			members, err := asked.Members(ctx)
			if err != nil {
				return err
			}
			owner := map[string]string{}
			for _, m := range members {
				if other := owner[m.GetSubnet()]; other != "" {
					return fmt.Errorf("%s and %s have %s", other, m.GetName(), m.GetSubnet())
				}
				owner[m.GetSubnet()] = m.GetName()
			}
			return nil
		})
	}
}

func TestADeployOnOneSideAndAScaleOnTheOtherBothHold(t *testing.T) {
	c := alone(t, 3)
	ctx := t.Context()
	one := web{project: project(t), version: "one", replicas: 3, host: "both.test"}
	c.deployed(c.M(1), one)
	c.healthyOn(c.M(3), one.name(), "m1", "m2", "m3")

	try(t, c.Cut(ctx, "m3"))
	eventually(t, long, "m3 is alone", func(ctx context.Context) error { return seesOnlyItself(ctx, c.M(3)) })
	c.deployed(c.M(1), one.with("two"))
	if _, err := c.M(3).Output(ctx, "uc", "scale", "-y", one.name(), "4"); err != nil {
		t.Fatal(err)
	}
	try(t, c.Heal(ctx))
	try(t, lab.AwaitUp(ctx, c.all()...))
	c.healthy(c.M(2), one.name(), 4)
	for _, m := range c.all() {
		c.serves(m, one.host, "two")
	}
	c.settled(c.M(3), one.name())
	c.agree(c.all()...)
}

// seesOnlyItself is nil when a machine sees itself only.
func seesOnlyItself(ctx context.Context, asked *lab.Machine) error {
	members, err := asked.Members(ctx)
	if err != nil {
		return err
	}
	for _, m := range members {
		if m.GetName() != asked.Name && m.GetState() != "down" {
			return fmt.Errorf("%s is %s", m.GetName(), m.GetState())
		}
	}
	return nil
}

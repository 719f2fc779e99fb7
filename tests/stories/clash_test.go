package stories

import (
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/internal/spec"
	"uncloud/tests/lab"
)

// Two machines that join apart get one subnet where their keys point at one:
// once in 256 by chance, here always. Both run containers in it. After healing
// the one that joined later moves, alone, with its containers and their names.
func TestOfTwoMachinesThatTookOneSubnetApartTheLaterMoves(t *testing.T) {
	c := alone(t, 2)
	ctx := t.Context()
	w := web{project: project(t), version: "one", host: "clash.test"}
	c.deployed(c.M(1), w)
	left, err := c.Add(ctx)
	try(t, err)
	right, err := c.Add(ctx)
	try(t, err)
	try(t, c.Image(ctx, lab.Repository()+"/tests/stories/app", image, left, right))
	c.clashing(left, right)

	try(t, c.Cut(ctx, "m1", left.Name))
	for _, m := range []*lab.Machine{c.M(1), c.M(2)} {
		eventually(t, long, m.Name+" is alone", func(ctx context.Context) error { return seesOnlyItself(ctx, m) })
	}
	c.joins(left, c.M(1))
	c.joins(right, c.M(2))
	before := map[string]*uncloudv1.Replica{}
	for _, side := range [][2]*lab.Machine{{c.M(1), left}, {c.M(2), right}} {
		for _, m := range side {
			before[m.Name] = c.runsOn(side[0], w.name(), m.Name)
		}
	}
	was := c.subnets(left, right)
	if was[0] != was[1] {
		t.Fatalf("the keys of both point at one subnet, and they have %v", was)
	}

	try(t, c.Heal(ctx))
	try(t, lab.AwaitUp(ctx, c.all()...))
	c.distinctSubnets()
	now := c.subnets(left, right)
	if now[0] != was[0] || now[1] == was[1] {
		t.Errorf("%s and %s had %s and have %v: who joined first keeps it", left.Name, right.Name, was[0], now)
	}
	after := c.healthyOn(c.M(1), w.name(), "m1", "m2", left.Name, right.Name)
	for _, r := range after {
		old := before[r.GetMachine()]
		if moved := r.GetContainerId() != old.GetContainerId(); moved != (r.GetMachine() == right.Name) || moved == (r.GetAddress() == old.GetAddress()) {
			t.Errorf("the container of %s was %s at %s and is %s at %s", r.GetMachine(), old.GetContainerId(), old.GetAddress(), r.GetContainerId(), r.GetAddress())
		}
		if r.GetMachine() == right.Name && !strings.HasPrefix(r.GetAddress(), strings.TrimSuffix(now[1], "0/24")) {
			t.Errorf("%s has %s, and its replica %s", right.Name, now[1], r.GetAddress())
		}
	}
	c.allTalk(w, after)
	for _, m := range c.all() {
		c.serves(m, w.host, "one")
	}
	c.settled(c.M(2), w.name())
	c.agree(c.all()...)
	c.noOrphans(w, 1)
}

// clashing lays on two machines the keys that they will ask for admission with:
// such as the hash that picks a subnet takes for one, which no member has.
func (c *cluster) clashing(machines ...*lab.Machine) {
	c.t.Helper()
	ticket, err := c.M(1).Ticket(c.t.Context())
	try(c.t, err)
	var content struct{ Cluster string }
	_, body, _ := strings.Cut(ticket, "uncloud-ticket-v1.")
	payload, _, _ := strings.Cut(body, ".")
	text, err := base64.RawURLEncoding.DecodeString(payload)
	try(c.t, err)
	try(c.t, json.Unmarshal(text, &content))
	taken := c.subnets(c.M(1), c.M(2))
	var key *ecdh.PrivateKey
	var wanted byte
	for n := 0; n < len(machines); {
		key, err = ecdh.X25519().GenerateKey(rand.Reader)
		try(c.t, err)
		sum := sha256.Sum256(key.PublicKey().Bytes())
		block := sum[3] // the hash modulo the 256 blocks of the network
		if n == 0 && !slices.Contains(taken, fmt.Sprintf("10.210.%d.0/24", block)) {
			wanted = block
		} else if n == 0 || block != wanted {
			continue
		}
		id, err := spec.NewID(spec.MachinePrefix, rand.Reader)
		try(c.t, err)
		_, signing, err := ed25519.GenerateKey(rand.Reader)
		try(c.t, err)
		identity, err := json.Marshal(map[string]any{
			"machineId": id, "clusterId": content.Cluster, "signingKey": []byte(signing), "network": "", "self": map[string]any{"subnet": ""},
			"privateKey": base64.StdEncoding.EncodeToString(key.Bytes()),
		})
		try(c.t, err)
		try(c.t, machines[n].WriteFile(c.t.Context(), "/var/lib/uncloud/joining.json", string(identity)))
		n++
	}
}

// subnets are those of some machines, as the first of them that is a member tells.
func (c *cluster) subnets(machines ...*lab.Machine) []string {
	c.t.Helper()
	out := make([]string, len(machines))
	for i, m := range machines {
		var self uncloudv1.Machine
		try(c.t, m.Query(c.t.Context(), &self, "uc", "machine", "inspect", m.Name))
		out[i] = self.GetSubnet()
	}
	return out
}

// runsOn waits until a machine runs a healthy replica of a service, and gives it.
func (c *cluster) runsOn(asked *lab.Machine, name, machine string) *uncloudv1.Replica {
	c.t.Helper()
	var found *uncloudv1.Replica
	eventually(c.t, long, name+" healthy on "+machine, func(ctx context.Context) error {
		replicas, err := c.replicas(ctx, asked, name)
		if err != nil {
			return err
		}
		for _, r := range replicas {
			if r.GetMachine() == machine && r.GetState() == "running" && r.GetHealth() == "healthy" {
				found = r
				return nil
			}
		}
		return fmt.Errorf("replicas: %v", replicas)
	})
	return found
}

// allTalk waits until every replica of a service finds all of them, and nothing
// else, under its name, and reaches each of them.
func (c *cluster) allTalk(w web, replicas []*uncloudv1.Replica) {
	c.t.Helper()
	var addresses []string
	for _, r := range replicas {
		addresses = append(addresses, r.GetAddress())
	}
	slices.Sort(addresses)
	for _, r := range replicas {
		inside := func(ctx context.Context, argv ...string) (string, error) {
			return c.M(1).Output(ctx, append([]string{"uc", "exec", "-T", "--replica", r.GetName(), w.name(), "/app"}, argv...)...)
		}
		eventually(c.t, long, r.GetName()+" finds and reaches all", func(ctx context.Context) error {
			out, err := inside(ctx, "lookup", "web")
			if err != nil {
				return err
			}
			found := strings.Fields(out)
			slices.Sort(found)
			if !slices.Equal(found, addresses) {
				return fmt.Errorf("found %v, want %v", found, addresses)
			}
			for _, address := range addresses {
				if _, err := inside(ctx, "get", "http://"+address+":8080/"); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

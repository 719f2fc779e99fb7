package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	uncloudv1 "uncloud/api/uncloud/v1"
)

// ticketFile is where the lab lays tickets in machines.
const ticketFile = "/root/uncloud.ticket"

// clusterTimeout bounds the time until all machines agree that all are up.
const clusterTimeout = 90 * time.Second

// cluster makes the machines one cluster: m1 begins it, the others join with
// a ticket of m1, all at once.
func (l *Lab) cluster(ctx context.Context) error {
	for _, program := range []string{"uc", "uncloudd"} {
		if _, err := os.Stat(filepath.Join(l.bin, program)); err != nil {
			return fmt.Errorf("the program %s is not built: ./dev build, or use --bare: %w", program, err)
		}
	}
	machines, err := l.Machines()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := l.M(1).Init(ctx); err != nil {
		return err
	}
	if others := machines[1:]; len(others) > 0 {
		ticket, err := l.M(1).Ticket(ctx, "--uses", strconv.Itoa(len(others)))
		if err != nil {
			return err
		}
		var group errgroup.Group
		for _, m := range others {
			group.Go(func() error { return m.Join(ctx, ticket) })
		}
		if err := group.Wait(); err != nil {
			return err
		}
	}
	if err := AwaitUp(ctx, machines...); err != nil {
		return err
	}
	l.log.Info("the machines are one cluster", "machines", len(machines), "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// Init begins a cluster on the machine.
func (m *Machine) Init(ctx context.Context) error {
	_, err := m.Output(ctx, "uc", "machine", "init")
	return err
}

// Ticket makes a ticket on the machine; flags are those of uc machine ticket.
func (m *Machine) Ticket(ctx context.Context, flags ...string) (string, error) {
	return m.Output(ctx, append([]string{"uc", "machine", "ticket"}, flags...)...)
}

// Join lays the ticket in the machine and joins with it.
func (m *Machine) Join(ctx context.Context, ticket string) error {
	if err := m.WriteFile(ctx, ticketFile, ticket); err != nil {
		return err
	}
	_, err := m.Output(ctx, "uncloudd", "join", ticketFile)
	return err
}

// Query runs a command that writes an API message as JSON, and decodes it.
func (m *Machine) Query(ctx context.Context, answer proto.Message, argv ...string) error {
	out, err := m.Output(ctx, append(argv, "-o", "json")...)
	if err != nil {
		return err
	}
	if err := protojson.Unmarshal([]byte(out), answer); err != nil {
		return fmt.Errorf("on %s: decode %s: %w: %s", m.Name, strings.Join(argv, " "), err, out)
	}
	return nil
}

// Members is the cluster as this machine sees it.
func (m *Machine) Members(ctx context.Context) ([]*uncloudv1.Machine, error) {
	var answer uncloudv1.ListMachinesResponse
	err := m.Query(ctx, &answer, "uc", "machine", "ls")
	return answer.GetMachines(), err
}

// AwaitUp waits until each of these machines says that all of them are up.
func AwaitUp(ctx context.Context, machines ...*Machine) error {
	ctx, cancel := context.WithTimeout(ctx, clusterTimeout)
	defer cancel()
	var group errgroup.Group
	for _, m := range machines {
		group.Go(func() error { return m.awaitUp(ctx, machines) })
	}
	return group.Wait()
}

func (m *Machine) awaitUp(ctx context.Context, wanted []*Machine) error {
	for {
		missing, err := m.notUp(ctx, wanted)
		if err == nil && len(missing) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not see %s up: %w", m.Name, strings.Join(missing, ", "), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// notUp lists those of the wanted machines that m does not call up.
func (m *Machine) notUp(ctx context.Context, wanted []*Machine) ([]string, error) {
	members, err := m.Members(ctx)
	up := make(map[string]bool)
	for _, member := range members {
		up[member.GetName()] = member.GetState() == "up"
	}
	var missing []string
	for _, w := range wanted {
		if !up[w.Name] {
			missing = append(missing, w.Name)
		}
	}
	return missing, err
}

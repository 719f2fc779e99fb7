package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/containers/podman/v5/pkg/bindings"
	"github.com/containers/podman/v5/pkg/bindings/containers"
	"github.com/containers/podman/v5/pkg/specgen"
	nettypes "go.podman.io/common/libnetwork/types"
	"golang.org/x/sync/errgroup"

	"uncloud/tests/lab"
)

const (
	replicas = 12
	rounds   = 5
	// bound is the promise: a deploy costs at most half as much again as the
	// work of the engine that it cannot avoid.
	bound = 1.5

	benchImage  = "bench:1"
	network     = "uncloud" // the agent's own, so that both sides do the same work
	composeFile = "/root/bench/compose.yaml"
)

// compose asks for what the control does: create and start. monitor is zero
// and there is no health check, because the control waits for nothing either.
const compose = `name: bench
services:
  web:
    image: bench:1
    deploy:
      replicas: 12
      update_config: {parallelism: 12, monitor: 0s}
`

// benchDeploy alternates a deploy and its control, so that a change of the
// host's mood hits both, and compares medians.
func benchDeploy(ctx context.Context, l *lab.Lab) error {
	if err := l.Image(ctx, filepath.Join(lab.Repository(), "tests/stories/app"), benchImage); err != nil {
		return err
	}
	if err := l.M(1).WriteFile(ctx, composeFile, compose); err != nil {
		return err
	}
	var deploys, sequences, bursts []time.Duration
	for round := range rounds + 1 {
		deploy, err := timeDeploy(ctx, l)
		if err != nil {
			return err
		}
		sequence, err := timeControl(ctx, l, 1)
		if err != nil {
			return err
		}
		burst, err := timeControl(ctx, l, replicas)
		if err != nil {
			return err
		}
		if round == 0 {
			continue // warms caches of both
		}
		fmt.Printf("round %d: deploy %4d ms, Podman one by one %4d ms, Podman all at once %4d ms\n",
			round, deploy.Milliseconds(), sequence.Milliseconds(), burst.Milliseconds())
		deploys, sequences, bursts = append(deploys, deploy), append(sequences, sequence), append(bursts, burst)
	}
	d, s, b := median(deploys), median(sequences), median(bursts)
	ratio := d.Seconds() / min(s, b).Seconds()
	fmt.Printf("uc deploy of %d replicas on 3 machines: median %d ms of %d\n", replicas, d.Milliseconds(), rounds)
	fmt.Printf("the same creates and starts, on 3 machines at once, on each one by one: %d ms; ratio %.2f\n", s.Milliseconds(), d.Seconds()/s.Seconds())
	fmt.Printf("the same, all at once: %d ms; ratio %.2f\n", b.Milliseconds(), d.Seconds()/b.Seconds())
	fmt.Printf("beside the faster of the two: ratio %.2f, promised %.2f\n", ratio, bound)
	if ratio > bound {
		return fmt.Errorf("ratio %.2f is over %.2f", ratio, bound)
	}
	return nil
}

func median(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}

// timeDeploy times one deploy from nothing, and removes it again, untimed.
func timeDeploy(ctx context.Context, l *lab.Lab) (time.Duration, error) {
	began := time.Now()
	if _, err := l.M(1).Output(ctx, "uc", "deploy", "-y", "-f", composeFile); err != nil {
		return 0, err
	}
	took := time.Since(began)
	_, err := l.M(1).Output(ctx, "uc", "rm", "-y", "bench/web")
	return took, err
}

// timeControl times the same creates and starts through Podman's API, on three
// machines at once, with so many in flight on each.
func timeControl(ctx context.Context, l *lab.Lab, inFlight int) (time.Duration, error) {
	began := time.Now()
	var group errgroup.Group
	for n := 1; n <= 3; n++ {
		group.Go(func() error { return fill(ctx, l.M(n), inFlight) })
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	took := time.Since(began)
	for n := 1; n <= 3; n++ {
		if _, err := l.M(n).Shell(ctx, "podman rm -f -t 0 --filter label=bench >/dev/null"); err != nil {
			return 0, err
		}
	}
	return took, nil
}

// fill creates and starts a third of the replicas on one machine.
func fill(ctx context.Context, m *lab.Machine, inFlight int) error {
	socket, err := m.Path("/run/podman/podman.sock")
	if err != nil {
		return err
	}
	podman, err := bindings.NewConnection(ctx, "unix://"+socket)
	if err != nil {
		return fmt.Errorf("podman of %s: %w", m.Name, err)
	}
	var group errgroup.Group
	group.SetLimit(inFlight)
	for i := range replicas / 3 {
		group.Go(func() error {
			spec := specgen.NewSpecGenerator(benchImage, false)
			spec.Name = fmt.Sprintf("control-%d", i)
			spec.Labels = map[string]string{"bench": "control"}
			spec.RestartPolicy = "always"
			spec.NetNS = specgen.Namespace{NSMode: specgen.Bridge}
			spec.Networks = map[string]nettypes.PerNetworkOptions{network: {}}
			created, err := containers.CreateWithSpec(podman, spec, nil)
			if err == nil {
				err = containers.Start(podman, created.ID, nil)
			}
			return errors.Join(err)
		})
	}
	return group.Wait()
}

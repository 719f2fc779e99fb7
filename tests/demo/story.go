package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/tests/lab"
)

const (
	example = "examples/hello"
	site    = "hello.example.internal" // the host name that the example publishes
	web     = "hello/web"
	// folder is where the example lies on machines.
	folder = "/root/hello"
)

// update is a second Compose file over the example's: a new revision of web.
const update = `services:
  web:
    environment:
      VERSION: 2, from the larger side
`

// story is the cluster while its story is told.
type story struct {
	*lab.Lab
	out  io.Writer
	opts lab.Options
}

// chapters in the order in which they are told. Each ends when what it says
// has been seen.
func (s *story) tell(ctx context.Context) error {
	for _, chapter := range []func(context.Context) error{
		s.assemble, s.deploy, s.pages, s.split, s.changeBothSides, s.heal,
	} {
		if err := chapter(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) assemble(ctx context.Context) error {
	tell("three machines boot: systemd, Podman, one network card each; m1 makes a cluster, m2 and m3 join with a ticket")
	l, err := lab.Up(ctx, s.opts)
	if err != nil {
		return err
	}
	s.Lab = l
	tell("any machine takes any command; let us ask m2")
	return s.show(ctx, s.M(2), "uc", "machine", "ls")
}

func (s *story) deploy(ctx context.Context) error {
	source := filepath.Join(lab.Repository(), example)
	tell("two images from this repository's own programs, put on the machines without a registry")
	for program, image := range map[string]string{"web": "hello-web:1", "counter": "hello-counter:1"} {
		if err := s.Image(ctx, filepath.Join(source, program), image); err != nil {
			return err
		}
	}
	var copies errgroup.Group
	for n := 1; n <= 3; n++ {
		copies.Go(func() error { return s.Copy(ctx, filepath.Join(source, "compose.yaml"), s.M(n).Name+":"+folder+"/") })
		copies.Go(func() error { return s.M(n).WriteFile(ctx, folder+"/update.yaml", update) })
	}
	if err := copies.Wait(); err != nil {
		return err
	}
	tell("the application: web, three replicas with a health check, and a counter with a volume, reached by name")
	if err := s.show(ctx, s.M(1), "uc", "deploy", "-y", "-f", folder+"/compose.yaml"); err != nil {
		return err
	}
	return s.show(ctx, s.M(3), "uc", "ps")
}

func (s *story) pages(ctx context.Context) error {
	tell("the page through two different ingresses, asked from outside the cluster; each answer counts on the same volume")
	for _, m := range []*lab.Machine{s.M(1), s.M(2)} {
		var body string
		err := await(ctx, m.Name+" serves "+site, func(ctx context.Context) (err error) {
			body, err = s.page(ctx, m)
			return err
		})
		if err != nil {
			return err
		}
		fmt.Fprintf(s.out, "    outside$ curl --resolve %s:80:%s http://%s/\n", site, m.Address(), site)
		fmt.Fprint(&indenter{out: s.out}, body)
	}
	return nil
}

func (s *story) page(ctx context.Context, m *lab.Machine) (string, error) {
	return s.Outside().Get(ctx, m.Address().String()+":80", site, "/")
}

func (s *story) split(ctx context.Context) error {
	tell("the network splits: m1 and m2 on one side, m3 alone on the other")
	if err := s.Cut(ctx, "m3"); err != nil {
		return err
	}
	for asked, gone := range map[*lab.Machine]string{s.M(1): "m3", s.M(3): "m1"} {
		err := await(ctx, asked.Name+" sees that "+gone+" is gone", func(ctx context.Context) error {
			members, err := asked.Members(ctx)
			if err != nil {
				return err
			}
			for _, m := range members {
				if m.GetName() == gone && m.GetState() != "down" {
					return fmt.Errorf("%s is %s", gone, m.GetState())
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *story) changeBothSides(ctx context.Context) error {
	tell("the larger side deploys a new revision of web")
	if err := s.show(ctx, s.M(1), "uc", "deploy", "-y", "-f", folder+"/compose.yaml", "-f", folder+"/update.yaml"); err != nil {
		return err
	}
	tell("the smaller side, which knows nothing of that, scales web to 4")
	if err := s.show(ctx, s.M(3), "uc", "scale", "-y", web, "4"); err != nil {
		return err
	}
	tell("both sides serve, each what it knows")
	return s.show(ctx, s.M(3), "uc", "ps", web)
}

func (s *story) heal(ctx context.Context) error {
	tell("the network heals; nobody types a command")
	if err := s.Heal(ctx); err != nil {
		return err
	}
	machines, err := s.Machines()
	if err != nil {
		return err
	}
	if err := lab.AwaitUp(ctx, machines...); err != nil {
		return err
	}
	if err := await(ctx, "web has 4 healthy replicas of the new revision, and the stores of all machines are equal", s.agreed); err != nil {
		return err
	}
	for _, m := range machines {
		err := await(ctx, m.Name+" serves the new revision", func(ctx context.Context) error {
			body, err := s.page(ctx, m)
			if err == nil && !strings.Contains(body, "version 2, from the larger side") {
				err = fmt.Errorf("it serves %q", body)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	tell("what all agree on: revision and number of replicas are columns of one row and merge one by one,\n" +
		"    so the deploy of one side and the scale of the other both hold")
	if err := s.show(ctx, s.M(2), "uc", "store", "status", "--all"); err != nil {
		return err
	}
	return s.show(ctx, s.M(3), "uc", "ps")
}

// agreed is nil when all machines tell one and the same, final state.
func (s *story) agreed(ctx context.Context) error {
	digests := map[string]bool{}
	for n := 1; n <= 3; n++ {
		var status uncloudv1.StoreStatusResponse
		if err := s.M(n).Query(ctx, &status, "uc", "store", "status"); err != nil {
			return err
		}
		digests[status.GetDigest()] = true
		if err := s.webIsFinal(ctx, s.M(n)); err != nil {
			return err
		}
	}
	if len(digests) > 1 {
		return fmt.Errorf("%d different stores", len(digests))
	}
	return nil
}

func (s *story) webIsFinal(ctx context.Context, asked *lab.Machine) error {
	var service uncloudv1.Service
	if err := asked.Query(ctx, &service, "uc", "inspect", web); err != nil {
		return err
	}
	if service.GetReplicas() != 4 || len(service.GetReplicaList()) != 4 {
		return fmt.Errorf("%s tells of %d replicas, and of %d rows", asked.Name, service.GetReplicas(), len(service.GetReplicaList()))
	}
	for _, r := range service.GetReplicaList() {
		if r.GetRevision() != service.GetRevision() || r.GetHealth() != "healthy" {
			return fmt.Errorf("%s: %s is %s %s", asked.Name, r.GetName(), r.GetRevision(), r.GetHealth())
		}
	}
	return nil
}

package stories

import (
	"context"
	"fmt"
	"strings"
	"testing"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/tests/lab"
)

// must runs a command on a machine, which has to work.
func must(t *testing.T, m *lab.Machine, argv ...string) string {
	t.Helper()
	out, err := m.Output(t.Context(), argv...)
	try(t, err)
	return out
}

func (c *cluster) site(m *lab.Machine) string {
	c.t.Helper()
	var status uncloudv1.StoreStatusResponse
	try(c.t, m.Query(c.t.Context(), &status, "uc", "store", "status"))
	return status.GetSite()
}

// TestARestoredMachineIsToldWhatHappenedSince: its copy is an old one under a
// new site; what was removed since stays removed, and no container of it was
// started meanwhile.
func TestARestoredMachineIsToldWhatHappenedSince(t *testing.T) {
	c := alone(t, 3)
	stays, goes := web{project: "stays", version: "one"}, web{project: "goes", version: "one"}
	c.deployed(c.M(1), stays)
	c.deployed(c.M(1), goes)
	must(t, c.M(1), "uc", "store", "backup", "/root/before.db")
	must(t, c.M(1), "uc", "rm", "-y", goes.name())
	c.deployed(c.M(2), stays.with("two"))
	kept := c.started(c.M(1), stays)
	before := c.site(c.M(1))

	out := must(t, c.M(1), "uc", "store", "restore", "-y", "/root/before.db")
	if c.site(c.M(1)) == before || !strings.Contains(out, c.site(c.M(1))) {
		t.Errorf("site %s became %s, and it says\n%s", before, c.site(c.M(1)), out)
	}
	c.healthyOn(c.M(1), stays.name(), "m1", "m2", "m3")
	c.agree(c.all()...)
	must(t, c.M(1), "uc", "store", "check")
	for _, m := range c.all() {
		var services uncloudv1.ListServicesResponse
		try(t, m.Query(t.Context(), &services, "uc", "ls"))
		if len(services.GetServices()) != 1 {
			t.Errorf("%s tells of %v", m.Name, services.GetServices())
		}
	}
	if now := c.started(c.M(1), stays); now != kept {
		t.Errorf("containers were touched: %s became %s", kept, now)
	}
	log := must(t, c.M(1), "sh", "-c", "journalctl -u uncloud -o cat | sed -n '/store is replaced/,$p'")
	if i := strings.Index(log, "action=run"); i >= 0 {
		t.Errorf("something was started by the old copy:\n%s", log)
	}

	// What a person wants back is written anew, and is then everywhere.
	must(t, c.M(1), "uc", "store", "restore", "-y", "--adopt", "/root/before.db")
	c.healthyOn(c.M(2), goes.name(), "m1", "m2", "m3")
	c.agree(c.all()...)
}

// TestABackupStartsANewCluster: all machines are lost, and a new one takes the
// services of the backup in. The backup as such is refused, and so is what is
// none, without harm.
func TestABackupStartsANewCluster(t *testing.T) {
	c := alone(t, 1)
	w := web{project: "shop", version: "one"}
	c.deployed(c.M(1), w)
	must(t, c.M(1), "uc", "store", "backup", "/root/b.db")
	must(t, c.M(1), "uncloudd", "reset", "--yes")
	must(t, c.M(1), "uc", "machine", "init", "--name", "m1")
	r, err := c.M(1).Exec(t.Context(), "uc", "store", "restore", "-y", "/root/b.db")
	try(t, err)
	refused(t, r, "is of cluster")
	r, err = c.M(1).Exec(t.Context(), "uncloudd", "restore", "/root/b.db")
	try(t, err)
	if r.Code == 0 || !strings.Contains(r.Stderr, "is of cluster") {
		t.Errorf("uncloudd restore: %d %s", r.Code, r.Stderr)
	}
	must(t, c.M(1), "uc", "store", "restore", "-y", "--adopt", "/root/b.db")
	c.healthyOn(c.M(1), w.name(), "m1")

	// One machine alone does go back: the backup is all that there is.
	must(t, c.M(1), "uc", "store", "backup", "/root/now.db")
	must(t, c.M(1), "uc", "rm", "-y", w.name())
	r, err = c.M(1).Exec(t.Context(), "uncloudd", "restore", "/root/now.db")
	try(t, err)
	if r.Code == 0 || !strings.Contains(r.Stderr, "the agent of this machine runs") {
		t.Errorf("uncloudd restore while the agent runs: %d %s", r.Code, r.Stderr)
	}
	must(t, c.M(1), "sh", "-c", "systemctl stop uncloud && uncloudd restore /root/now.db && systemctl start uncloud")
	c.healthyOn(c.M(1), w.name(), "m1")
}

// TestAMachineTakesTheStoreOfAnother: also the one that made the cluster, and
// no container stops. Where nobody else lives it is refused.
func TestAMachineTakesTheStoreOfAnother(t *testing.T) {
	c := alone(t, 3)
	w := web{project: "kept", version: "one"}
	c.deployed(c.M(1), w)
	kept, before := c.started(c.M(1), w), c.site(c.M(1))
	out := must(t, c.M(1), "uc", "store", "reseed", "-y")
	if now := c.site(c.M(1)); now == before || !strings.Contains(out, "goes on as site "+now) {
		t.Errorf("site %s became %s, and it says\n%s", before, now, out)
	}
	c.healthyOn(c.M(1), w.name(), "m1", "m2", "m3")
	c.agree(c.all()...)
	must(t, c.M(1), "uc", "store", "check")
	if now := c.started(c.M(1), w); now != kept {
		t.Errorf("containers were touched: %s became %s", kept, now)
	}

	try(t, c.Cut(t.Context(), "m3"))
	eventually(t, long, "m3 is alone, and keeps its store", func(ctx context.Context) error {
		r, err := c.M(3).Exec(ctx, "uc", "store", "reseed", "-y")
		if err == nil && (r.Code != 1 || !strings.Contains(r.Stderr, "no other machine lives")) {
			err = fmt.Errorf("%+v", r)
		}
		return err
	})
	try(t, c.Heal(t.Context()))
	c.agree(c.all()...)
}

// TestAMachineThatBootsAloneGoesOn: it joined once and needs to ask nobody now.
func TestAMachineThatBootsAloneGoesOn(t *testing.T) {
	c := alone(t, 3)
	w := web{project: "alone", version: "one"}
	c.deployed(c.M(1), w)
	try(t, c.Cut(t.Context(), "m3"))
	try(t, c.M(3).Reboot(t.Context()))
	eventually(t, long, "m3 runs its replica and answers, though it reaches nobody", func(ctx context.Context) error {
		replicas, err := c.replicas(ctx, c.M(3), w.name())
		if err != nil {
			return err
		}
		if r := on(replicas, "m3"); r == nil || r.GetState() != "running" || r.GetHealth() != "healthy" {
			return fmt.Errorf("%v", r)
		}
		return nil
	})
	try(t, c.Heal(t.Context()))
	c.agree(c.all()...)
}

// TestAMachinesOwnProgramsResolveServices: by its plain resolv.conf, which is
// as before when the agent's names are not wanted.
func TestAMachinesOwnProgramsResolveServices(t *testing.T) {
	c := together(t)
	w := web{project: project(t), version: "one"}
	c.deployed(c.M(1), w)
	c.healthyOn(c.M(1), w.name(), "m1", "m2", "m3")
	eventually(t, long, "m2 asks a service by its name", func(ctx context.Context) error {
		body, err := c.M(2).Output(ctx, "curl", "-sS", "-m", "3", "http://web."+w.project+".internal:8080/")
		if err == nil && !strings.HasPrefix(body, "one ") {
			err = fmt.Errorf("%q", body)
		}
		return err
	})
	must(t, c.M(2), "systemctl", "stop", "uncloud-names")
	t.Cleanup(func() {
		_, err := c.M(2).Output(context.Background(), "systemctl", "start", "uncloud-names")
		try(t, err)
	})
	if conf := must(t, c.M(2), "cat", "/etc/resolv.conf"); strings.Contains(conf, "uncloud") || !strings.Contains(conf, "nameserver") {
		t.Errorf("left behind:\n%s", conf)
	}
}

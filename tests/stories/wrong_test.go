package stories

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	uncloudv1 "uncloud/api/uncloud/v1"
	"uncloud/tests/lab"
)

func TestWhatAPersonCanDoWrongIsOneSentenceAndAHint(t *testing.T) {
	c := together(t)
	name := project(t)
	there := web{project: name, version: "one", replicas: 1, host: "taken.test", lines: []string{`ports: ["18081:8080"]`}}
	c.deployed(c.M(1), there)
	before := c.services(name)

	compose := func(lines ...string) text {
		return text("name: " + name + "-x\nservices:\n  app:\n    image: " + image + "\n" + strings.Join(lines, "\n") + "\n")
	}
	deploys := map[string]struct {
		file  text
		words []string
	}{
		"a file that does not parse":            {text("name: x\nservices:\n  app:\n   - image: [\n"), []string{"compose.yaml", ":"}},
		"a key that is not supported":           {compose("    network_mode: host"), []string{"network_mode", "compose.yaml:5"}},
		"a key that does not exist":             {compose("    imagge: x"), []string{"imagge"}},
		"an image that no machine has":          {text("name: " + name + "-x\nservices:\n  app:\n    image: localhost/nowhere:9\n    pull_policy: never\n"), []string{"nowhere:9"}},
		"a published port that is taken":        {compose(`    ports: ["18081:8080"]`, "    deploy: {replicas: 3}"), []string{"18081"}},
		"a host name that is taken":             {compose(`    x-ports: ["taken.test:8080/http"]`), []string{"taken.test"}},
		"a placement that nobody fits":          {compose(`    deploy: {placement: {constraints: ["machine.labels.moon==yes"]}}`), []string{"machine"}},
		"a machine that does not exist":         {compose("    x-machines: m77"), []string{"m77"}},
		"a file that has no services":           {text("name: " + name + "-x\n"), []string{"service"}},
		"a volume that must exist and does not": {compose(`    volumes: ["gone:/data"]`, "volumes: {gone: {external: true}}"), []string{"gone"}},
	}
	for what, d := range deploys {
		t.Run(what, func(t *testing.T) {
			c := &cluster{Lab: c.Lab, t: t}
			r, err := c.M(1).Exec(t.Context(), "uc", "deploy", "-y", "-f", c.file(c.M(1), d.file))
			try(t, err)
			refused(t, r, d.words...)
		})
	}
	commands := map[string]struct {
		argv  string
		words []string
	}{
		"a service that does not exist":          {"uc inspect " + name + "/none", []string{"none"}},
		"scaling what does not exist":            {"uc scale -y " + name + "/none 2", []string{"none"}},
		"no number of replicas":                  {"uc scale -y " + name + "/web many", []string{"many"}},
		"a revision that does not exist":         {"uc rollback -y " + name + "/web rev_none", []string{"rev_none"}},
		"a rollback to nothing":                  {"uc rollback -y " + name + "/web", []string{"web"}},
		"removing what does not exist":           {"uc rm -y " + name + "/none", []string{"none"}},
		"logs of what does not exist":            {"uc logs " + name + "/none", []string{"none"}},
		"exec in what does not exist":            {"uc exec " + name + "/none /app", []string{"none"}},
		"a machine that does not exist":          {"uc machine inspect m77", []string{"m77"}},
		"renaming a machine that does not exist": {"uc machine rename m77 m78", []string{"m77"}},
		"a name that is taken":                   {"uc machine rename m1 m2", []string{"m2"}},
		"a second cluster":                       {"uc machine init", []string{"cluster"}},
		"a verb that does not exist":             {"uc frobnicate", []string{"frobnicate"}},
		"a flag that does not exist":             {"uc ls --frob", []string{"frob"}},
		"a file that does not exist":             {"uc deploy -y -f /root/none.yaml", []string{"none.yaml"}},
		"a format that does not exist":           {"uc ls -o yaml", []string{"yaml"}},
		"a socket that does not exist":           {"uc --connect unix:///run/none.sock ls", []string{"none.sock"}},
	}
	for what, d := range commands {
		t.Run(what, func(t *testing.T) {
			r, err := c.M(1).Exec(t.Context(), strings.Fields(d.argv)...)
			try(t, err)
			refused(t, r, d.words...)
		})
	}
	if after := c.services(name); after != before {
		t.Errorf("something was half done; before:\n%s\nafter:\n%s", before, after)
	}
	if left := c.services(name + "-x"); strings.Contains(left, "app") {
		t.Errorf("a refused deploy left a service:\n%s", left)
	}
}

// services is what uc tells of a project, without what passes by itself.
func (c *cluster) services(project string) string {
	c.t.Helper()
	out, err := c.M(1).Output(c.t.Context(), "uc", "ls", "--project", project)
	try(c.t, err)
	return out
}

func TestADeployWhilePodmanIsNotRunningSaysSo(t *testing.T) {
	c := together(t)
	ctx, m := t.Context(), c.M(3)
	_, err := m.Shell(ctx, "systemctl mask --now --runtime podman.socket podman.service")
	try(t, err)
	restore := sync.OnceFunc(func() {
		_, err := m.Shell(context.Background(), "systemctl unmask --runtime podman.socket podman.service; systemctl start podman.socket")
		try(t, err)
	})
	t.Cleanup(restore)
	w := web{project: project(t), version: "one", replicas: 1, lines: []string{"x-machines: m3"}}
	r := c.deploy(c.M(1), w)
	restore()
	refused(t, r, "podman")
	if r, err := c.M(1).Exec(ctx, "uc", "inspect", w.name()); err == nil && r.Code == 0 {
		c.settled(c.M(1), w.name())
	}
	c.deployed(c.M(1), w)
	c.healthyOn(c.M(1), w.name(), "m3")
}

func TestUcWorksFromOutsideOverSSH(t *testing.T) {
	c := together(t)
	ctx := t.Context()
	out, err := c.Outside().Output(ctx, "uc", "--connect", "ssh://root@192.0.2.2", "machine", "ls")
	if err != nil || !strings.Contains(out, "m3") {
		t.Errorf("uc over ssh: %v\n%s", err, out)
	}
	w := web{project: project(t), version: "one", replicas: 1}
	try(t, c.Outside().WriteFile(ctx, "/root/compose.yaml", w.String()))
	c.tidy(w.project)
	_, err = c.Outside().Output(ctx, "uc", "--connect", "ssh://root@192.0.2.2", "deploy", "-y", "-f", "/root/compose.yaml")
	try(t, err)
	c.healthy(c.M(1), w.name(), 1)
	r, err := c.Outside().Exec(ctx, "uc", "--connect", "ssh://nobody@192.0.2.2", "machine", "ls")
	try(t, err)
	refused(t, r)
}

func TestAFullDiskIsSaidAndPassesWhenThereIsRoom(t *testing.T) {
	c := alone(t, 1)
	ctx, m := t.Context(), c.M(1)
	_, err := m.Shell(ctx, `systemctl stop uncloud podman.socket podman.service
		umount -l /var/lib/containers
		mount -t tmpfs -o size=64M small /var/lib/containers
		systemctl start podman.socket uncloud`)
	try(t, err)
	try(t, c.Image(ctx, lab.Repository()+"/tests/stories/app", image))
	_, err = m.Shell(ctx, "! dd if=/dev/zero of=/var/lib/containers/fill bs=1M 2>/dev/null")
	try(t, err)

	w := web{project: project(t), version: "one", replicas: 1, host: "full.test"}
	refused(t, c.deploy(m, w), "space")
	_, err = m.Shell(ctx, "rm /var/lib/containers/fill")
	try(t, err)
	c.deployed(m, w)
	c.healthyOn(m, w.name(), "m1")
	c.serves(m, w.host, "one")
}

// On a machine with one disk, what fills it takes the room of the state too.
// What was acknowledged stays, all else is refused and said on the machine that
// is full and on the one that asked, nothing dies, and when somebody makes room
// all goes on, without a restart.
func TestADiskThatIsFullForTheStateTooIsSaidAndPasses(t *testing.T) {
	c := alone(t, 2)
	ctx, m := t.Context(), c.M(2)
	_, err := m.Shell(ctx, `systemctl stop uncloud podman.socket podman.service
		mkdir /small && mount -t tmpfs -o size=64M small /small
		cp -a /var/lib/uncloud /small/uncloud && mkdir /small/containers
		mount --bind /small/uncloud /var/lib/uncloud
		umount -l /var/lib/containers && mount --bind /small/containers /var/lib/containers
		systemctl start podman.socket uncloud`)
	try(t, err)
	try(t, lab.AwaitUp(ctx, c.all()...))
	try(t, c.Image(ctx, lab.Repository()+"/tests/stories/app", image, m))
	w := web{project: project(t), version: "one", replicas: 1, host: "one-disk.test", lines: []string{"x-machines: m2"}}
	c.deployed(m, w)
	c.serves(m, w.host, "one")
	process := must(t, m, "systemctl", "show", "-p", "MainPID", "--value", "uncloud")

	_, err = m.Shell(ctx, "! dd if=/dev/zero of=/small/fill bs=64k 2>/dev/null; ! dd if=/dev/zero of=/small/more bs=4k 2>/dev/null")
	try(t, err)
	acknowledged := 0 // the store has some room in its own files
	for {
		r, err := m.Exec(ctx, "uc", "machine", "label", "m2", fmt.Sprintf("n%d=%s", acknowledged, strings.Repeat("x", 60)))
		try(t, err)
		if r.Code != 0 {
			refused(t, r, "no space left")
			break
		}
		acknowledged++
	}
	refused(t, c.deploy(m, w.with("two")), "no space left")
	refused(t, c.deploy(c.M(1), w.with("three")), "m2", "no space left")
	eventually(t, long, "m2 says that its disk is full", func(ctx context.Context) error { return suffers(ctx, m, true) })
	// Podman cannot end a removal on a full disk, and the agent has to end it later.
	_, _ = m.Shell(ctx, "podman rm -f -t 0 $(podman ps -q)")
	if now := must(t, m, "systemctl", "show", "-p", "MainPID", "--value", "uncloud"); now != process {
		t.Errorf("the agent was process %s and is %s", process, now)
	}

	// It may be started again meanwhile, too.
	must(t, m, "systemctl", "restart", "uncloud")
	process = must(t, m, "systemctl", "show", "-p", "MainPID", "--value", "uncloud")
	var self uncloudv1.Machine
	eventually(t, long, "m2 answers", func(ctx context.Context) error { return m.Query(ctx, &self, "uc", "machine", "inspect", "m2") })
	for n := range acknowledged {
		if self.GetLabels()[fmt.Sprintf("n%d", n)] == "" {
			t.Errorf("label n%d was acknowledged and is lost; there are %v", n, self.GetLabels())
		}
	}

	_, err = m.Shell(ctx, "rm /small/fill /small/more")
	try(t, err)
	c.healthyOn(c.M(1), w.name(), "m2")
	c.deployed(c.M(1), w.with("four"))
	c.healthyOn(m, w.name(), "m2")
	c.serves(m, w.host, "four")
	eventually(t, long, "m2 says so no more", func(ctx context.Context) error { return suffers(ctx, m, false) })
	c.agree(c.all()...)
	if now := must(t, m, "systemctl", "show", "-p", "MainPID", "--value", "uncloud"); now != process {
		t.Errorf("the agent was process %s and is %s", process, now)
	}
}

// suffers is nil when a machine says that its disk is full, or when it does not.
func suffers(ctx context.Context, m *lab.Machine, full bool) error {
	var self uncloudv1.Machine
	if err := m.Query(ctx, &self, "uc", "machine", "inspect", m.Name); err != nil {
		return err
	}
	says := false
	for _, note := range self.GetHealth() {
		says = says || note.GetCode() == "store.full" && strings.Contains(note.GetText(), "no space left")
	}
	if says != full {
		return fmt.Errorf("it suffers from %v", self.GetHealth())
	}
	return nil
}
